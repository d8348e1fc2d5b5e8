"""Training of one run by several processes: their `process_group`, and batch norm over all of them.

The points of each process are chosen in `autodo.data.sharding`; Ray starts the processes (`orchestration.execution`).
"""
