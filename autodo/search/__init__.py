"""Policy search: from a run's distorted train points to an augmentation policy.

`tasks` has the interface of a search, a driver and a worker, and `algorithms` the table of all searches. Fast
AutoAugment (TPE) is in `fast_autoaugment` and `fold_worker`; DADA in `dada` and `dada_policy`; Faster AutoAugment in
`faster_autoaugment`; population-based augmentation in `population`, `population_member` and `genome`. The others
(`gradient_search`, `relaxation`, `unrolled_step`, `*_operations`) serve the two that follow a gradient, and
`search_data` and `proxy_task` choose images and train on them.
"""
