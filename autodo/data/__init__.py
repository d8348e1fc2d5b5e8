"""Datasets, the split, the distortion and the batches."""
