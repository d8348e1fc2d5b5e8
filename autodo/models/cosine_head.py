"""A head whose logits are scaled cosines."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CosineHead(nn.Linear):
    """scale * cos(features, class weights), without bias. Initial rows of the weight have norm 1.

    Shape:
        features [B, D] -> [B, C].
    """

    def __init__(self, features: int, classes: int, scale: float) -> None:
        super().__init__(features, classes, bias=False)
        self.scale = scale
        with torch.no_grad():
            self.weight.copy_(F.normalize(self.weight, dim=1))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))
