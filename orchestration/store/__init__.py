"""The folder that holds the results of runs."""
