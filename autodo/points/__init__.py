"""The per-point model g(lambda): its table, and what a row means as augmentation, loss weight and soft label."""
