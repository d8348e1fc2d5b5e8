"""Saving and restoring a run: the times, the retries, and the resume point in error messages."""

import contextlib
import math
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from autodo.errors import ImageLost, TrainingDiverged
from autodo.points.table_storage import TableStorage
from autodo.training import checkpoint
from autodo.training.context import Loaders, RunContext
from autodo.training.state import MidEpochState, TrainState


class Checkpointer:
    """Saves the state of a run to a file that all processes see; without a path it saves nothing.

    Args:
        path: None keeps nothing.
        every: epochs between checkpoints.
        steps: steps between checkpoints within an inner loop, which then also ends with one; None for none.
        on_checkpoint: called after each checkpoint within an epoch.
    """

    def __init__(
        self,
        context: RunContext,
        state: TrainState,
        loaders: Loaders,
        storage: TableStorage,
        *,
        path: Path | None,
        every: int,
        steps: int | None,
        on_checkpoint: Callable[[], object],
    ) -> None:
        self.context = context
        self.state = state
        # Positions of this process's rows of lambda.
        self.positions = torch.from_numpy(loaders.shard.positions)
        self.storage = storage
        self.path, self.every, self.steps, self.on_checkpoint = path, every, steps, on_checkpoint
        self.saved_epoch = self.saved_step = 0
        self._due = False

    def restore(self) -> None:
        """Continues from the checkpoint, if there is one.

        Raises:
            DataError: if it is of other images. UnusableCheckpoint: if it does not hold the state of this run.
        """
        if self.path is None:
            return
        context, allocate = self.context, self.storage.allocate_on_host
        fingerprint = self.state.fingerprint
        state = checkpoint.load(
            self.path, context.config.run_id, self.positions, context.group, allocate, data=fingerprint
        )
        if state is None:
            return
        try:
            self.state.load_state_dict(state)
            problem = ""
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            problem = f"{type(error).__name__}: {error}"
        if not context.group.all_true(not problem):
            raise checkpoint.UnusableCheckpoint(problem or "another worker cannot use it")
        self.saved_epoch, self.saved_step = self.state.epoch, self.state.step

    def epoch_ended(self) -> None:
        """Saves every few epochs and after the last one; if that fails, the next epoch tries again."""
        epoch = self.state.epoch
        self._due |= epoch % self.every == 0 or epoch == self.context.config.training.epochs
        if self._due:
            self._due = not self._save()

    def step_ended(self, step: int, steps: int, started: float, generator: torch.Generator, loss_sum: Tensor) -> None:
        """Saves every few steps of an inner loop, and after its last one.

        Args:
            step: steps that are done, of `steps`.
            started: when the loop started, by the context's clock.
        """
        if self.path is None or not self.steps or (step % self.steps != 0 and step != steps):
            return
        group = self.context.group
        # The last step is in the weights, but not yet in the train loss.
        weights = torch.stack([parameter.detach().sum() for parameter in self.state.model.network.parameters()]).sum()
        self.require_finite("train loss", float(group.all_reduce(loss_sum) + weights))
        seconds = self.context.clock() - started
        self.state.mid_epoch = MidEpochState.gather(step, seconds, generator, loss_sum, group)
        if self._save():
            self.on_checkpoint()
        self.state.mid_epoch = None

    def require_finite(self, what: str, value: float) -> None:
        """Stops a run that diverges before it is saved.

        Raises:
            TrainingDiverged: with the last good checkpoint.
        """
        if not math.isfinite(value):
            raise TrainingDiverged(what, self.state.epoch, self.saved_epoch)

    @contextlib.contextmanager
    def resume_hint(self) -> Iterator[None]:
        """Adds the point from which the run resumes to an ImageLost error."""
        try:
            yield
        except ImageLost as error:
            epoch, step, epochs = self.saved_epoch, self.saved_step, self.context.config.training.epochs
            place = f"step {step} of epoch {epoch + 1}/{epochs}" if step else f"epoch {epoch}/{epochs}"
            resumes = (
                f"continues from its checkpoint after {place}"
                if epoch or step
                else "has no checkpoint and starts from the beginning"
            )
            node = f"node {socket.gethostname()}: " if self.context.group.size > 1 else ""  # each has its own files
            raise ImageLost(f"{node}{error}: the run {resumes}") from None

    def _save(self) -> bool:
        """Saves the present state; returns whether it could be."""
        if self.path is None:
            return False
        state = self.state.state_dict()
        rows = state.pop("points")
        run_id, group, apart = self.context.config.run_id, self.context.group, self.storage.off_device
        saved = checkpoint.save(self.path, run_id, state, rows, self.positions, group, apart=apart)
        if saved:
            self.saved_epoch, self.saved_step = self.state.epoch, self.state.step
        return saved
