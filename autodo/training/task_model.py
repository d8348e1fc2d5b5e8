"""The task model of a run: as it begins, and as it is given away."""

import torch
from torch import nn

from autodo.augment.pipeline import Pipeline
from autodo.config.run import RunConfig
from autodo.data import DataSplits
from autodo.errors import ConfigError
from autodo.models import build
from autodo.models.encoder import Encoder
from autodo.results.classifier import Classifier
from autodo.results.outcome import Best
from autodo.seeds import derive, initial_weights


def initial_model(config: RunConfig, data: DataSplits, device: torch.device) -> tuple[Encoder, nn.Linear]:
    """Encoder and head with the first weights of the run's seed."""
    channels, size = data.train.images.shape[1], data.train.images.shape[-1]
    with initial_weights(derive(config.seed, "network")):
        encoder, head = build(
            config.model.name,
            in_channels=channels,
            image_size=size,
            classes=len(data.class_names),
            cosine_scale=config.cosine_scale,
        )
    return encoder.to(device), head.to(device)


def best_model(best: Best, config: RunConfig, data: DataSplits, device: torch.device) -> tuple[Encoder, nn.Linear]:
    """Encoder and head of the epoch with the lowest val error."""
    encoder, head = initial_model(config, data, device)
    encoder.load_state_dict(best.encoder)
    head.load_state_dict(best.head)
    return encoder, head


def classifier_of(best: Best, config: RunConfig, data: DataSplits, pipeline: Pipeline) -> Classifier:
    """The task model of the epoch with the lowest val error, on the CPU."""
    encoder, head = best_model(best, config, data, torch.device("cpu"))
    mean, std = pipeline.mean.cpu(), pipeline.std.cpu()
    return Classifier(config.model.name, encoder, head, mean, std, data.train.images.shape[-1], data.class_names)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; a CPU without takes many times as long as in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def compiled(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with the same parameters, made by torch.compile for the batches that it is given.

    Raises:
        ConfigError: if torch cannot compile on this machine, where a CPU needs a C++ compiler.
    """
    # What earlier runs of this process compiled would count towards the number of times that torch does it.
    torch.compiler.reset()
    try:
        torch.compile(torch.neg)(torch.zeros(2, device=device))
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"training.compile: torch cannot compile here: {reason}; install what is missing (for a CPU a C++ compiler "
            "such as g++, which CXX may name), or set training.compile=false"
        ) from None
    result = torch.compile(network)
    assert isinstance(result, nn.Module)
    return result
