"""The data doctor: which train labels are probably wrong. Start at `label_errors.rank_labels`."""
