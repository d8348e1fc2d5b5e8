"""Training in one call from Python. `run` trains a configuration to its end, in this process."""
