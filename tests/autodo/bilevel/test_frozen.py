import pytest
import torch
from torch import nn

from autodo.bilevel.frozen import ChannelAffine, FusedConvolution, frozen_copy
from autodo.models import build


def trained_a_little(name: str, channels: int) -> nn.Module:
    """In float64 and train mode, with random statistics, weights and biases of batch norms."""
    torch.manual_seed(0)
    encoder, _ = build(name, in_channels=channels, image_size=12, classes=3)
    encoder.double()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)  # positive and negative
            nn.init.normal_(module.bias)
    with torch.no_grad():
        for _ in range(3):
            encoder(torch.randn(8, channels, 12, 12, dtype=torch.float64))
    return encoder


@pytest.mark.parametrize("name", ["small-cnn", "wrn-10-1", "resnet-18"])
def test_value_and_image_gradient_equal_eval_mode(name):
    encoder = trained_a_little(name, 2)
    images = torch.randn(5, 2, 12, 12, dtype=torch.float64, requires_grad=True)
    fast = frozen_copy(encoder)(images)
    direction = torch.randn_like(fast)
    (fast_gradient,) = torch.autograd.grad((fast * direction).sum(), images)

    slow = encoder.eval()(images)
    (slow_gradient,) = torch.autograd.grad((slow * direction).sum(), images)
    assert (fast - slow).norm() <= 1e-12 * slow.norm()
    assert (fast_gradient - slow_gradient).norm() <= 1e-12 * slow_gradient.norm()


@pytest.mark.parametrize(("name", "folded"), [("small-cnn", 1), ("wrn-10-1", 3), ("resnet-18", 20)])
def test_norms_after_convolutions_are_fused(name, folded):
    encoder = trained_a_little(name, 2)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    kinds = [type(module) for module in frozen_copy(encoder).modules()]
    assert kinds.count(FusedConvolution) == folded
    assert kinds.count(ChannelAffine) == norms - folded


def test_the_module_is_unchanged_and_shares_its_weights():
    encoder = trained_a_little("resnet-18", 1)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    copy = frozen_copy(encoder)
    copy(torch.randn(4, 1, 12, 12, dtype=torch.float64))
    assert encoder.training
    assert all(module.training for module in encoder.modules())
    constant = (ChannelAffine, FusedConvolution, nn.Identity)
    assert not any(module.training for module in copy.modules() if not isinstance(module, constant))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copy.modules())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    own = {id(parameter) for parameter in encoder.parameters()}
    assert all(id(parameter) in own for parameter in copy.parameters())


def test_gradient_of_the_affine_map():
    norm = nn.BatchNorm2d(3).double()
    nn.init.normal_(norm.weight)
    norm(torch.randn(4, 3, 5, 5, dtype=torch.float64))
    images = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ChannelAffine(norm), (images,))
