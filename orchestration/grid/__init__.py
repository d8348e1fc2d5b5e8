"""Grids: from YAML to runs (`grid`), with the `resources` of each and the files that it should `keep`."""
