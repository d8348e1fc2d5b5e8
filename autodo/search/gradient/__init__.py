"""Searches that follow a gradient, each one training: `dada` and `faster_autoaugment`.

`gradient_search` runs and resumes them. `differentiable_operations` and `kornia_operations` have the operations with
their derivatives; `dada_policy`, `relaxation` and `unrolled_step` are parts of DADA.
"""
