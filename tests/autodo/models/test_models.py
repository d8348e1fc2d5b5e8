import pytest
import torch
from torch import nn

from autodo.models import build, parse_model_name
from autodo.models.global_average import GlobalAverage


@pytest.mark.parametrize(
    ("name", "channels", "size", "features"),
    [
        ("small-cnn", 1, 8, 64),
        ("small-cnn", 3, 32, 64),
        ("wrn-10-1", 1, 28, 64),
        ("wrn-16-2", 3, 32, 128),
        ("resnet-18", 1, 28, 512),
        ("resnet-18", 3, 224, 512),
    ],
)
def test_shapes_of_encoder_and_head(name, channels, size, features):
    encoder, head = build(name, in_channels=channels, image_size=size, classes=5)
    encoder.eval()
    embedded = encoder(torch.zeros(2, channels, size, size))
    assert embedded.shape == (2, features)
    assert head(embedded).shape == (2, 5)


@pytest.mark.parametrize("name", ["small-cnn", "wrn-10-1", "resnet-18"])
def test_networks_are_smooth(name):
    encoder, _ = build(name, in_channels=1, image_size=8, classes=3)
    assert not [module for module in encoder.modules() if isinstance(module, nn.ReLU)]


def test_size_of_wide_resnet():
    encoder, head = build("wrn-28-10", in_channels=3, image_size=32, classes=10)
    count = sum(parameter.numel() for part in (encoder, head) for parameter in part.parameters())
    assert round(count / 1e6, 1) == 36.5, "36.5 million, Zagoruyko and Komodakis 2016, table 4"


def test_stem_of_resnet_depends_on_the_image_size():
    small, _ = build("resnet-18", in_channels=3, image_size=32, classes=2)
    large, _ = build("resnet-18", in_channels=3, image_size=224, classes=2)
    assert small.net.conv1.stride == (1, 1)
    assert large.net.conv1.stride == (2, 2)


@pytest.mark.parametrize("name", ["wrn-27-1", "wrn-4-1", "wrn-16-0", "resnet-19", "small", "wrn-16-2-1"])
def test_unknown_model_names(name):
    assert parse_model_name(name) is None


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_global_average_equals_torch_pool_bit_for_bit(layout):
    images = torch.randn(3, 8, 7, 5).contiguous(memory_format=layout).requires_grad_()
    average, pool = GlobalAverage()(images), nn.AdaptiveAvgPool2d(1)(images).flatten(1)
    assert torch.equal(average, pool)
    upstream = torch.randn(3, 8)
    (gradient,) = torch.autograd.grad(average, images, upstream)
    (expected,) = torch.autograd.grad(pool, images, upstream)
    assert torch.equal(gradient, expected)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
