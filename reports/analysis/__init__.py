"""Names, groups, statistics and findings of runs; no formatting. `paper_results` are those of the paper."""
