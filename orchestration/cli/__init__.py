"""The `autodo` command.

`app` declares the commands and `options` their options; each command has a module of its name (`lists` for `methods`,
`datasets` and `grids`). `launch`, `resume` and `retry` choose their runs in `launch` and run them in `run_jobs`;
`chosen` finds the run or the classifier that a person names.
"""
