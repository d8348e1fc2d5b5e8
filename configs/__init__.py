"""Shipped recipes (datasets/), presets (methods/) and grids (grids/) in YAML, loaded by autodo.config.shipped."""
