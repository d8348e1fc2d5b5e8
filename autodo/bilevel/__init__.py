"""The outer problem: the implicit gradient of the validation loss in lambda, and the solvers that it needs."""
