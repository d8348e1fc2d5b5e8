"""Slow oracles, synthetic images and process groups, for tests and benchmarks of this code and of your own."""
