"""The folder or object store that holds the results of runs.

store.py opens, reads and writes it; paths.py has all its paths, status.py the states of runs (which are done),
policies.py the policies. attempt.py and remote_attempt.py mark the process that executes a run, by a lock or a lease.
"""
