"""Before and between runs: the state of a grid (`plan`), expected times (`estimate`, `launch_times`), the order of runs
(`run_queue`), and policies from searches and files (`required_policies`).
"""
