"""Per-point model g(lambda): the table, and the meaning of a row as augmentation, loss weight and soft label."""
