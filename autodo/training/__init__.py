"""Algorithm 1: the trainer and its parts, one file each."""
