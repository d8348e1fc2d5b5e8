"""Execution of runs: in this process, as Ray actors, or by several processes.

execute.py trains one run in this process; trial.py is an actor of Ray Tune that calls it, on_workers.py does the same
by several processes of Ray Train. supervisor.py decides what follows from the events of a launch, and tune_adapters.py
connects it to Tune. options.py is what travels from the command line to all of them.
"""
