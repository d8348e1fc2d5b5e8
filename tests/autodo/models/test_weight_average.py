"""Averaged weights against the recurrence in plain Python."""

import copy

import pytest
import torch
from torch import nn

from autodo.models import build
from autodo.models.weight_average import WeightAverage


def networks(cosine_scale: float | None, dtype: torch.dtype) -> tuple[nn.Sequential, nn.Sequential]:
    torch.manual_seed(0)
    network = nn.Sequential(*build("small-cnn", in_channels=1, image_size=8, classes=3, cosine_scale=cosine_scale))
    network.to(dtype)
    return network, copy.deepcopy(network)


def step(network: nn.Module, generator: torch.Generator) -> None:
    """Moves the weights, the running statistics and the counters."""
    dtype = next(network.parameters()).dtype
    network(torch.randn(6, 1, 8, 8, generator=generator, dtype=dtype))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=dtype))


def numbers(module: nn.Module) -> dict[str, list[float]]:
    """All weights and buffers as Python's numbers, in float64."""
    return {name: value.flatten().tolist() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("cosine_scale", [None, 30.0])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_the_average_is_the_recurrence(cosine_scale, dtype, error):
    trained, averaged = networks(cosine_scale, dtype)
    average, expected = WeightAverage(0.5, [trained], [averaged]), numbers(trained)
    generator = torch.Generator().manual_seed(0)
    for t, decay in enumerate([2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5, 0.5, 0.5], start=1):
        step(trained, generator)
        average.update()
        assert average.steps == t
        for name, values in numbers(trained).items():
            pairs = zip(expected[name], values, strict=True)
            expected[name] = [decay * mean + (1 - decay) * value for mean, value in pairs]
    found = numbers(averaged)
    for name, values in expected.items():
        if name.endswith("num_batches_tracked"):
            assert found[name] == [10], name
        else:
            assert found[name] == pytest.approx(values, rel=error, abs=10 * error), name
    assert all(value.dtype == dtype for value in averaged.state_dict().values() if value.is_floating_point())
    assert not any(parameter.requires_grad for parameter in averaged.parameters())


def test_an_average_of_equal_weights_is_exact_and_a_new_one_begins_at_the_present_weights():
    trained, averaged = networks(None, torch.float32)
    average, generator = WeightAverage(0.999, [trained], [averaged]), torch.Generator().manual_seed(0)
    for _ in range(3):
        step(trained, generator)
        average.update()
    mean, present = numbers(averaged), numbers(trained)
    assert mean != present
    average.adopt()
    average.update()
    assert numbers(trained) == numbers(averaged) == mean, "bit for bit"
    assert average.steps == 1
    step(trained, generator)
    average.restart()
    assert numbers(averaged) == numbers(trained)
    assert average.steps == 0


def test_the_state_continues_the_average():
    trained, averaged = networks(None, torch.float32)
    whole, generator = WeightAverage(0.9, [trained], [averaged]), torch.Generator().manual_seed(0)
    for _ in range(3):
        step(trained, generator)
        whole.update()
    other, others_average = copy.deepcopy(trained), networks(None, torch.float32)[1]
    continued = WeightAverage(0.9, [other], [others_average])
    continued.load_state_dict(copy.deepcopy(whole.state_dict()))
    for average, network in ((whole, trained), (continued, other)):
        step(network, torch.Generator().manual_seed(1))
        average.update()
    assert numbers(averaged) == numbers(others_average)
    assert continued.steps == 4
