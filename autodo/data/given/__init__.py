"""Images and labels that are given in Python: arrays, tensors, paths, PIL images and datasets of other libraries.

`pixels` converts one image, `images` all images of a set, `labels` their labels; `dataset` builds an AutoDO `Dataset`.
"""
