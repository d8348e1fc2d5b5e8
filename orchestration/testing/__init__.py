"""Synthetic stores with known answers, to try and test readers of stores, and the rehearsal of the paper's grids."""
