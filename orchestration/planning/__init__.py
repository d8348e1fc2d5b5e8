"""Decisions before and between runs.

`plan` finds the missing runs of a grid; `run_queue` has their order and decides whether a failed run starts again;
`estimate` and `launch_times` say how long all takes; `required_policies` are policies from searches and files.
"""
