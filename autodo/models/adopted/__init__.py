"""Networks that were not written for this project: of torchvision and timm, a person's own, and pretrained weights.

`libraries` and `own_code` make a network, `find_head` splits it into encoder and head, `adapted` converts images to
what it expects, and `weights` reads files.
"""
