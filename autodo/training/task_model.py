"""The task model of a run, and the classifier that is built from its best epoch."""

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn

from autodo.augment.pipeline import Pipeline, channel_statistics
from autodo.augment.policies import Policy
from autodo.config.dataset import FEATURES
from autodo.errors import ConfigError
from autodo.models import build
from autodo.models.encoder import Encoder
from autodo.models.linear import Identity
from autodo.models.weight_average import WeightAverage
from autodo.objectives import TrainableNetwork
from autodo.results.classifier import Classifier
from autodo.results.outcome import BestEpoch
from autodo.results.provenance import device_name
from autodo.seeds import derive, initial_weights
from autodo.text import first_line
from autodo.training.context import RunContext
from autodo.training.optimizers import build_optimizer

logger = logging.getLogger("autodo")

TASK_MODEL = "network"
"""Name of the random stream of the initial weights."""


class TaskModel:
    """The network with its input pipeline and its optimizer: images -> pipeline -> encoder -> head -> logits.

    `network` is encoder and head as they are trained: compiled, or with gradients averaged over processes. `evaluated`
    is encoder and head that evaluation and results use: with `training.ema` those of averaged weights.

    Args:
        policy: augmentation policy of the pipeline at the start.
    Raises:
        ConfigError: if the network should be compiled and cannot be on this machine.
    """

    def __init__(self, context: RunContext, policy: Policy | None = None) -> None:
        config, device = context.config, context.device
        self.encoder, self.head, network, self.optimizer = new_network(context)
        mean, std = normalisation(context, self.encoder)
        warp = () if config.points is None else (config.points.warp, config.points.gate_temperature)
        self.pipeline = Pipeline(config.augmentation, mean.to(device), std.to(device), policy, *warp)
        if self.encoder.bf16 and not computes_in_bf16(device):
            logger.warning(
                "training.precision: bf16 takes many times as long as fp32 here: %s lacks it", device_name(device)
            )
        self.network = compiled(network, device) if config.training.compile else network
        self.evaluated = self.encoder, self.head
        self.average: WeightAverage | None = None
        if config.training.ema is not None:
            self.evaluated = initial_model(context, device)
            self.evaluated[0].bf16 = self.encoder.bf16
            self.average = WeightAverage(config.training.ema, (self.encoder, self.head), self.evaluated)

    def weights_moved(self) -> None:
        """Update the average, if there is one, after a step of the weights."""
        if self.average is not None:
            self.average.update()

    def replace_head(self, head: nn.Linear) -> None:
        """Give the network the weights of another plain head, without momentum; the average follows with the steps."""
        self.head.load_state_dict(head.state_dict())
        self.optimizer.reset(self.head.parameters())

    def restart(self, context: RunContext) -> None:
        """Return to the initial weights, with an optimizer that has no momentum yet and a new average."""
        for module, initial in zip((self.encoder, self.head), initial_model(context, context.device), strict=True):
            module.load_state_dict(initial.state_dict())
        self.optimizer.reset()
        if self.average is not None:
            self.average.restart()


def normalisation(context: RunContext, encoder: Encoder) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of the inputs; features of a frozen encoder stay as they are.

    Shape:
        -> [C], [C].
    """
    if context.frozen is not None:
        return torch.zeros(encoder.features), torch.ones(encoder.features)
    return encoder.normalisation or channel_statistics(context.data.train.images.statistics_sample())


def new_network(context: RunContext, stream: str = TASK_MODEL) -> TrainableNetwork:
    """A network of the run, on its device and in its precision, not compiled.

    Args:
        stream: name of the random stream of the initial weights.
    """
    training = context.config.training
    encoder, head = initial_model(context, context.device, stream)
    encoder.bf16 = training.precision == "bf16"
    network = context.group.wrap_ddp(encoder, head)
    optimizer = build_optimizer(training, head.parameters(), encoder.parameters())
    return TrainableNetwork(encoder, head, network, optimizer)


def initial_model(context: RunContext, device: torch.device, stream: str = TASK_MODEL) -> tuple[Encoder, nn.Linear]:
    """Encoder and head with initial weights that derive from the run's seed and the name of the stream."""
    config, frozen, images = context.config, context.frozen, context.train_images
    if frozen is not None and stream == TASK_MODEL:
        return Identity(frozen.encoder.features), copy.deepcopy(frozen.head).to(device)
    with initial_weights(derive(config.seed, stream)):
        encoder, head = build(
            **config.model.network,
            in_channels=images.shape[1],
            image_size=images.shape[-1],
            classes=len(context.data.class_names),
            cosine_scale=config.cosine_scale,
        )
    if frozen is not None:
        encoder = Identity(encoder.features)
    return encoder.to(device), head.to(device)


def best_model(best: BestEpoch, context: RunContext, device: torch.device) -> tuple[Encoder, nn.Linear]:
    """Encoder and head of the epoch with the lowest val error."""
    encoder, head = initial_model(context, device)
    if context.config.head is not None:  # a solved one is plain, whatever the head is that was trained
        head = nn.utils.skip_init(nn.Linear, encoder.features, len(context.data.class_names), device=device)
    encoder.load_state_dict(best.encoder)
    head.load_state_dict(best.head)
    return encoder, head


def best_classifier(best: BestEpoch, context: RunContext, pipeline: Pipeline) -> Classifier:
    """Classifier of the epoch with the lowest val error, on the CPU."""
    encoder, head = best_model(best, context, torch.device("cpu"))
    mean, std = pipeline.mean.cpu(), pipeline.std.cpu()
    if context.frozen is not None:
        encoder, mean, std = copy.deepcopy(context.frozen.encoder).cpu(), context.frozen.mean, context.frozen.std
    size = None if context.config.dataset.name == FEATURES else context.train_images.shape[-1]
    classifier = Classifier(context.config.model.label, encoder, head, mean, std, size, context.data.class_names)
    classifier.resize = context.config.dataset.resize
    return classifier


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; a CPU without them is many times slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def set_fp32_precision() -> None:
    """Lets convolutions in fp32 on a GPU use TF32, and no matrix product: torch's defaults, set so that they stay."""
    backends: Any = torch.backends
    backends.cudnn.conv.fp32_precision = "tf32"
    backends.cuda.matmul.fp32_precision = "ieee"


def compiled(network: nn.Module, device: torch.device) -> nn.Module:
    """The network under torch.compile; its parameters are the same.

    Raises:
        ConfigError: if torch cannot compile on this machine, where a CPU needs a C++ compiler.
    """
    # Torch limits how often a process compiles; earlier runs must not count.
    torch.compiler.reset()
    try:
        torch.compile(torch.neg)(torch.zeros(2, device=device))
    except RuntimeError as error:
        raise ConfigError(
            f"training.compile: torch cannot compile here: {first_line(error)}; install what is missing (for a CPU a "
            "C++ compiler such as g++, which CXX may name), or set training.compile=false"
        ) from None
    result = torch.compile(network)
    assert isinstance(result, nn.Module)
    return result
