"""Batched augmentation on tensors: the standard crop, flip and erase, and the learned per-point affine warp."""
