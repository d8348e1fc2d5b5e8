"""Linear classifier: the encoder is the identity, so that the head is all that is trained."""

from torch import Tensor

from autodo.models.encoder import Encoder


class Identity(Encoder):
    """Features, or the pixels of images, as they are.

    Shape:
        images [B, C, H, W] -> [B, C H W].
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def encode(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def build_encoder(in_channels: int, image_size: int) -> Identity:
    """Build the encoder; see `MODELS`."""
    return Identity(in_channels * image_size**2)
