"""Launches grids of runs on Ray, keeps their store, and is the only place that imports ray."""
