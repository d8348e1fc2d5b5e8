"""Algorithm 1. Start with `trainer`; it builds `context` and `task_model`, and runs `inner_loop`, `evaluator` and
`outer_loop` in each epoch. `state` is what a checkpoint holds, `checkpointer` says when, `checkpoint` writes the files."""
