"""Algorithm 1: train the task model, and from the outer start on move lambda once after every epoch."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autodo import checkpoint as checkpoints
from autodo.augment.pipeline import Pipeline, channel_statistics
from autodo.bilevel.outer_pass import OuterPass
from autodo.classifier import Classifier
from autodo.config import RunConfig
from autodo.data import Prepared
from autodo.data.batches import epoch_batches
from autodo.errors import TrainingDiverged
from autodo.evaluate import Evaluation, evaluate, per_class_accuracy
from autodo.losses import LOSSES
from autodo.models import build
from autodo.outcome import Best, Outcome, build_outcome
from autodo.points.model import PointModel
from autodo.provenance import peak_memory_bytes
from autodo.schedule import learning_rate_factor
from autodo.seeds import derive, torch_generator

Row = dict[str, Any]


class Training:
    """One run. Iterating trains it, and yields each epoch's row of `records.SCHEMAS["epochs"]`.

    Every random stream derives from (seed, phase, epoch), so a run that continues from its checkpoint takes the same
    course as one that was never interrupted.

    Args:
        data: from `autodo.data.prepare` with the same config.
        checkpoint: file to continue from, if it exists, and to write to; None keeps nothing.
        checkpoint_every: epochs between checkpoints.
    Raises:
        checkpoint.Unusable: if the checkpoint is one of this run and holds something else than a training keeps.
    """

    def __init__(
        self,
        config: RunConfig,
        data: Prepared,
        *,
        device: str = "cpu",
        checkpoint: Path | None = None,
        checkpoint_every: int = 1,
    ) -> None:
        self.config = config
        self.data = data
        self.device = torch.device(device)
        self.classes = len(data.class_names)
        self._checkpoint = checkpoint
        self._checkpoint_every = checkpoint_every
        self._checkpoint_epoch = 0
        self._checkpoint_due = False

        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.train_size = len(data.train.labels)
        self.images, labels = self._train_points()
        self.val_images, self.val_labels = self._to_device(data.val.images), self._to_device(data.val.labels)
        self.test_images, self.test_labels = self._to_device(data.test.images), self._to_device(data.test.labels)
        mean, std = channel_statistics(self.images[: self.train_size])
        self.pipeline = Pipeline(config.augmentation, mean.to(self.device), std.to(self.device))

        self.loss = LOSSES[config.method.loss]
        self.encoder, self.head = self._build_model()
        self.optimizer = torch.optim.SGD(
            [*self.encoder.parameters(), *self.head.parameters()],
            lr=config.training.lr,
            momentum=config.training.momentum,
            weight_decay=config.training.weight_decay,
            nesterov=config.training.momentum > 0,
        )
        self.points = PointModel(config.points, labels, self.classes)
        self.outer = self._build_outer()

        self.epoch = 0
        self.history: list[Row] = []
        self.best: Best | None = None
        if checkpoint is not None:
            self._restore(checkpoint)

    def __iter__(self) -> Iterator[Row]:
        while self.epoch < self.config.training.epochs:
            row = self._run_epoch(self.epoch)
            self.history.append(row)
            self.epoch += 1
            last = self.epoch == self.config.training.epochs
            self._checkpoint_due |= self.epoch % self._checkpoint_every == 0 or last
            if self._checkpoint is not None and self._checkpoint_due:
                self._save(self._checkpoint)
            yield row

    def _run_epoch(self, epoch: int) -> Row:
        started = self._clock()
        train_loss, lr = self._inner_phase(epoch)
        inner_done = self._clock()
        val = self._evaluate(self.val_images, self.val_labels)
        test = self._evaluate(self.test_images, self.test_labels)
        val_loss = float(val.losses.mean())
        # The val loss sees the last step too, which the train loss was summed up before.
        self._stop_unless_finite("train loss", train_loss, epoch)
        self._stop_unless_finite("val loss", val_loss, epoch)
        self._keep_best(epoch, val.error, val_loss, test)
        eval_done = self._clock()

        outer_phase = self.outer is not None and epoch >= self.config.outer_start
        if outer_phase:
            self._outer_phase(epoch, val)
            self._stop_unless_finite("sum of lambda", float(self.points.table.values.sum()), epoch)
        outer_done = self._clock()

        inner_seconds = inner_done - started
        return {
            **self.config.identity,
            "epoch": epoch,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "val_error": val.error,
            "test_loss": float(test.losses.mean()),
            "test_error": test.error,
            "per_class_accuracy": per_class_accuracy(test.predictions, test.labels, self.classes),
            "outer_phase": outer_phase,
            "lr": lr,
            "inner_seconds": inner_seconds,
            "outer_seconds": outer_done - eval_done,
            "eval_seconds": eval_done - inner_done,
            "images_per_second": len(self.images) / inner_seconds,
            "peak_memory_bytes": peak_memory_bytes(self.device),
        }

    def _inner_phase(self, epoch: int) -> tuple[float, float]:
        """Alg. 1, lines 3 to 9: one pass over the train points. Returns the mean loss and the last learning rate."""
        training = self.config.training
        generator = torch_generator(self.config.seed, "inner", epoch, device=self.device)
        everything = torch.arange(len(self.images), device=self.device)
        batches = list(epoch_batches(everything, training.batch_size, generator))
        self.encoder.train()
        total = torch.zeros((), device=self.device)
        for step, batch in enumerate(batches, start=1):
            lr = training.lr * self._lr_factor(epoch + step / len(batches))
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            view = self.points.view(batch)
            pixels = self.pipeline.train_view(self.images[batch], generator, view.augment)
            log_p = self.head(self.encoder(pixels)).log_softmax(1)
            loss = (view.weights * self.loss.value(log_p, view.log_targets)).mean()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * len(batch)
        return float(total) / len(self.images), lr

    def _outer_phase(self, epoch: int, val: Evaluation) -> None:
        """Alg. 1, lines 10 to 19: lam of the distorted train points moves; trusted val points keep theirs."""
        assert self.outer is not None
        assert self.config.outer is not None
        generator = torch_generator(self.config.seed, "outer", epoch, device=self.device)
        lr = self.config.outer.lr * self._lr_factor(epoch)
        self.outer.run(val, lr, generator)

    def outcome(self) -> Outcome:
        """The tables of a finished run."""
        assert self.epoch == self.config.training.epochs, f"the run stands at epoch {self.epoch}"
        assert self.best is not None
        everything = torch.arange(self.train_size, device=self.device)
        observed = self._to_device(self.data.train.labels)
        train = self._evaluate(self.images[: self.train_size], observed)
        view = self.points.view(everything)
        return build_outcome(
            self.config, self.data, self.history, self.best, train, self.points, view, self.classifier()
        )

    def classifier(self) -> Classifier:
        """The task model of the epoch with the lowest val error, on the CPU."""
        assert self.best is not None
        encoder, head = self._build_model()
        encoder.load_state_dict(self.best.encoder)
        head.load_state_dict(self.best.head)
        return Classifier(
            self.config.model.name,
            encoder.cpu(),
            head.cpu(),
            self.pipeline.mean.cpu(),
            self.pipeline.std.cpu(),
            self.images.shape[-1],
            self.data.class_names,
        )

    # --- setting up, keeping and continuing ---

    def _train_points(self) -> tuple[Tensor, Tensor]:
        """Images and observed labels; with the union split the clean val points follow, and keep their initial lam."""
        images, labels = self._to_device(self.data.train.images), self._to_device(self.data.train.labels)
        if self.config.split == "union":
            images = torch.cat([images, self._to_device(self.data.val.images)])
            labels = torch.cat([labels, self._to_device(self.data.val.labels)])
        return images, labels

    def _build_model(self) -> tuple[nn.Module, nn.Linear]:
        # Layers draw their initial weights from torch's global generator; the fork leaves it as it was.
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(derive(self.config.seed, "network"))
            channels, size = self.images.shape[1], self.images.shape[-1]
            encoder, head = build(self.config.model.name, in_channels=channels, image_size=size, classes=self.classes)
        # Channels last suits convolutions on CPUs and GPUs alike; from the weights on everything follows.
        return encoder.to(self.device).to(memory_format=torch.channels_last), head.to(self.device)

    def _build_outer(self) -> OuterPass | None:
        if self.config.outer is None:
            return None
        return OuterPass(
            self.config.outer,
            self.loss,
            self.encoder,
            self.head,
            self.pipeline,
            self.points,
            self.images,
            learnable=self.train_size,
            weight_decay=self.config.training.weight_decay,
            batch_size=self.config.training.batch_size,
        )

    def _keep_best(self, epoch: int, val_error: float, val_loss: float, test: Evaluation) -> None:
        """Keeps the epoch with the lowest val error, its weights and predictions; ties go to the lower val loss."""
        if self.best is None or (val_error, val_loss) < (self.best.val_error, self.best.val_loss):
            self.best = Best(
                epoch,
                val_error,
                val_loss,
                test.predictions.cpu(),
                test.probabilities.cpu(),
                _copy_to_cpu(self.encoder),
                _copy_to_cpu(self.head),
            )

    def _stop_unless_finite(self, what: str, value: float, epoch: int) -> None:
        if not math.isfinite(value):
            raise TrainingDiverged(what, epoch, self._checkpoint_epoch)

    def _evaluate(self, images: Tensor, labels: Tensor) -> Evaluation:
        batch_size = self.config.training.batch_size
        return evaluate(self.encoder, self.head, self.pipeline, images, labels, batch_size=batch_size)

    def _save(self, path: Path) -> None:
        assert self.best is not None
        state = {
            "epoch": self.epoch,
            "encoder": self.encoder.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "points": self.points.table.state_dict(),
            "history": self.history,
            "best": self.best._asdict(),
        }
        if checkpoints.save(path, self.config.run_id, state):
            self._checkpoint_epoch, self._checkpoint_due = self.epoch, False

    def _restore(self, path: Path) -> None:
        state = checkpoints.load(path, self.config.run_id, "cpu")
        if state is None:
            return
        try:
            self.encoder.load_state_dict(state["encoder"])
            self.head.load_state_dict(state["head"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.points.table.load_state_dict(state["points"])
            self.history = state["history"]
            self.best = Best(**state["best"])
            self.epoch = self._checkpoint_epoch = state["epoch"]
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise checkpoints.Unusable(f"{type(error).__name__}: {error}") from None

    def _lr_factor(self, progress: float) -> float:
        training = self.config.training
        return learning_rate_factor(progress, training.epochs, training.warmup_epochs)

    def _to_device(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _copy_to_cpu(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}
