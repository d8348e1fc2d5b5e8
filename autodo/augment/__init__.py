"""Batched augmentation on tensors: crop, flip and erase, policies of operations, and the learned per-point warp."""
