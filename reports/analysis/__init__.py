"""Names, groups, statistics and findings of runs; no formatting. `paper` has the figures that the paper printed."""
