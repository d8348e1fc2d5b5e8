"""Outer problem: the implicit gradient of the validation loss in lambda, its solvers, and the outer pass."""
