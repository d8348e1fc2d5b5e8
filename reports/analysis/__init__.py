"""Names, groups, statistics and findings of runs; no formatting."""
