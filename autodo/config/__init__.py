"""Everything that changes the result of a run: RunConfig, dataset recipes, method presets, validation."""
