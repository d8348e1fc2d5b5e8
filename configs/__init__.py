"""The shipped recipes (datasets/), presets (methods/) and grids (grids/): YAML files, found by autodo.recipes."""
