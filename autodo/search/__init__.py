"""Policy search: from a run's distorted train points to an augmentation policy.

`tasks` has the interface of a search, a driver and a worker, and `algorithms` the table of all searches. Each family
has a folder: `folds` (Fast AutoAugment), `gradient` (DADA, Faster AutoAugment), `population` (population-based
augmentation) and `trajectories` (OHL-Auto-Aug). `search_data` and `proxy_task` choose images, and `proxy_training`
trains on them; `torch_files` keeps states.
"""
