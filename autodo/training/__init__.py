"""Algorithm 1. Start with `trainer`, which runs `inner_loop`, `evaluator` and `outer_loop` in each epoch.

`context` and `task_model` are what all parts of a run use. `state` is the content of a checkpoint; `checkpointer`
decides when to save and restores it, also in the middle of an epoch; `checkpoint` reads and writes its files.
`finetune` trains the head in the last epochs, `results_builder` builds the tables of a finished run, and `step_timing`
estimates the duration of a run.
"""
