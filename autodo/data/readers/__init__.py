"""Readers of datasets, one family a file, and where their files are found."""
