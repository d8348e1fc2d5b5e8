"""Policy search: from a run's distorted train points to an augmentation policy."""
