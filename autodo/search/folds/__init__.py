"""Fast AutoAugment: the driver with TPE (`fast_autoaugment`), and the networks of its folds (`fold_worker`)."""
