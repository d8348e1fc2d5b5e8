"""Per-point model g(lambda): the table, and the meaning of a row as augmentation, loss weight and soft label.

`model` is what the rest of the code uses. `table` takes the RMSprop steps, on rows that `row_store` reads and writes on
the device, in host memory or in a file (`table_storage`). `reweight`, `soft_labels` and `mixture` give the
meaning of a row.
"""
