"""Settings of a run: `run` (start here) and its sections, `recipes` that compose them, shipped files, validation."""
