"""Population-based augmentation: the driver (`population`), a member (`population_member`), its policy (`genome`)."""
