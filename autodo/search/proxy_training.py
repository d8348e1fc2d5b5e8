"""A training inside a search whose policy may change after every epoch, and that another training can continue."""

from collections.abc import Mapping
from typing import Any

from autodo.augment.policies import Policy
from autodo.augment.policy_file import PolicyFile
from autodo.config.run import RunConfig
from autodo.data.prepare import DataSplits
from autodo.results.provenance import device_name
from autodo.search.proxy_task import proxy_data, proxy_run, split_held_out
from autodo.search.search_data import search_subset
from autodo.search.tasks import search_config
from autodo.seeds import numpy_generator
from autodo.training.trainer import Trainer

# A policy that does nothing; `train_epoch` replaces it.
NOTHING = PolicyFile(sub_policies=((("Invert", 0.0, 0.0),),))


class ProxyTraining:
    """A network that is trained on a part of the distorted train points, and scored on another part of them.

    All of a search begin with the same weights and see the same batches; they differ in their policies.

    Args:
        data: from `autodo.data.prepare` with the same config.
        name: gives the initial weights, see `proxy_run`.
    Raises:
        DataError: if fewer than two classes have two images.
    """

    def __init__(self, config: RunConfig, data: DataSplits, name: str, device: str = "cpu") -> None:
        search = search_config(config)
        images, labels = search_subset(data, search.images, config.seed)
        parts = split_held_out(labels, search.held_share, numpy_generator(config.seed, "search", "split"))
        run = proxy_run(config, name, policy=config.policy)
        splits = proxy_data(images, labels, *parts, data.class_names)
        self._trainer = Trainer(run, splits, device=device, policy=NOTHING)
        self._epochs = iter(self._trainer)

    @property
    def epoch(self) -> int:
        """Epochs of training, including those of the trainings that it continues."""
        return self._trainer.state.epoch

    @property
    def device_name(self) -> str:
        """Name of the device that it is trained on."""
        return device_name(self._trainer.context.device)

    @property
    def accuracy(self) -> float:
        """Share of the held-out images that are recognised after the last epoch."""
        return 1 - float(self._trainer.state.history[-1]["val_error"])

    def train_epoch(self, policy: Policy) -> float:
        """Trains one epoch with this policy. Returns the accuracy after it."""
        self._trainer.policy = policy
        next(self._epochs)
        return self.accuracy

    def state_dict(self) -> dict[str, Any]:
        """The state that another training can continue from, as tensors and plain values."""
        return self._trainer.state.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from the state of another training."""
        self._trainer.state.load_state_dict(dict(state))
