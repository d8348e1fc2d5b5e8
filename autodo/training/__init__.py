"""Algorithm 1. Start with `trainer`: it builds `context` and `task_model`, and in each epoch runs `inner_loop`,
`evaluator` and `outer_loop`. `state` is the content of a checkpoint, `checkpointer` saves it to `checkpoint` files."""
