"""The shipped recipes (datasets/), presets (methods/) and grids (grids/) in YAML; autodo.config.recipes finds them."""
