"""Grids: from YAML to runs."""
