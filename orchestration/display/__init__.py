"""Progress on the terminal: of a launch, its policy searches, and a single run.

`grid_progress` holds the state of a launch and estimates the remaining time, without a terminal; the displays draw it.
"""
