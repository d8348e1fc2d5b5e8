"""`autodo.fit`: train on images that are given in Python."""

import functools
import logging
import numbers
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodo.api.outcome import FitOutcome
from autodo.api.pretrained import frozen_variants, settings_of_weights, size_settings
from autodo.api.run import default_device, fit_run
from autodo.augment.policy_file import PolicyFile
from autodo.config.dataset import MEMORY
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig, SplitName
from autodo.config.shipped import dataset_presets, preset_of_device
from autodo.data import Dataset, DataSplits, load, pin_content, shared_listing
from autodo.data.files.listing import FEATURE_SUFFIXES
from autodo.data.given.dataset import given_dataset
from autodo.data.given.images import Size
from autodo.errors import ConfigError, UserError
from autodo.io.storage import StrPath
from autodo.models.given import register
from autodo.progress import LONG_SECONDS, Durations, Progress
from autodo.text import count_of, first_line, rough_duration
from autodo.training.step_timing import faster_variant, time_steps

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger("autodo")

_UNKNOWN = "0" * 16
"""Fingerprint of images that are not read yet."""


def fit(
    images: Any,
    labels: Any = None,
    *,
    val: Any = None,
    test: Any = None,
    class_names: Sequence[str] | None = None,
    method: str = "autodo",
    model: "str | nn.Module | None" = None,
    weights: StrPath | None = None,
    epochs: int | None = None,
    image_size: int | None = None,
    val_share: float | None = None,
    split: SplitName = "union",
    seed: int = 0,
    preset: str | None = "auto",
    settings: Mapping[str, Any] | None = None,
    device: str | None = None,
    checkpoint: StrPath | None = None,
    verbose: bool = False,
    on_epoch: Callable[[dict[str, Any]], object] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> FitOutcome:
    """Trains a classifier on images whose labels may be wrong and whose classes may be rare.

    No image is held out as test set unless `test` says so, and without test images there is no test error: the result's
    `error` is None. Errors on val are no substitute, because val is trained on (`split`) and chosen by.

    Args:
        images: an array or tensor of all images, [N, H, W], [N, H, W, C] or [N, C, H, W], uint8 or floats from 0 to 1;
            a list, array or pandas Series of paths, PIL images, arrays or tensors, whose sizes may differ; a map-style
            `torch.utils.data.Dataset` of (image, label), or a `Subset` of one; a `datasets.Dataset` of Hugging Face
            with a column of images and one of labels; or the path of a folder or CSV file as the dataset `folder` reads
            it, with its own val and test set. They are neither augmented nor normalised: AutoDO does both. Also the
            path of a `.npy` or Parquet file of features, as the dataset `features` reads it.
        labels: class numbers from 0 on, or class names; None if `images` has them.
        val: the trusted set, whose labels somebody has checked: a pair (images, labels), or a dataset. None splits
            `val_share` of the given images off, within each class. Their labels are as wrong as the others, so wrong
            labels are recognised less well.
        test: the same, or a share of the given images to hold out, such as 0.2; their labels are as wrong as the
            others'. None for no test set. A folder without test images has a fifth of them held out, as always.
        class_names: names of the class numbers; None: the numbers, or the names that a dataset has.
        method: name of a method; `autodo methods` lists them.
        model: name of a network, such as `resnet-18`, `torchvision:resnet50` or `timm:convnext_tiny`; the import path
            of a function that returns one, `PACKAGE.MODULE:FUNCTION`; or an `nn.Module`, a copy of which is trained.
            None: the network of the preset.
        weights: pretrained weights of the network, such as `DEFAULT`, or a file. The encoder then has a tenth of the
            learning rate, unless `settings` say otherwise.
        epochs, image_size, val_share: None: those of the preset, with pretrained weights the image size of these.
            Images that are all smaller are not enlarged unless `image_size` is given.
        split: `union` trains on val too, `paper` does not.
        preset: `auto` chooses `cpu` or `gpu` by the device; None: the recipe of the dataset `folder`.
        settings: further settings by dotted key, such as `{"training.lr": 0.02}`.
        device: `cpu`, `cuda` or `cuda:<n>`; None: a GPU if there is one.
        checkpoint: file that is written after each epoch and from which the same call continues, with the same bits.
        verbose: print an estimate of the duration, a line for each epoch, and what the result means.
        on_epoch: called with each epoch's row, a dict with the columns of `FitOutcome.history`.
        on_progress: called every few seconds within an epoch.
    Raises:
        ConfigError: if a setting is wrong. DataError: if images or labels are. TrainingDiverged: if the loss is not
        finite.
    """
    device = _checked_device(device)
    if not isinstance(method, str):
        raise ConfigError(f"method: must be a name, not {method!r}; `autodo methods` lists them")
    if not isinstance(settings or {}, Mapping):
        raise ConfigError(f"settings: must be a dict of values by dotted key, not {settings!r}")
    epochs, image_size = _whole("epochs", epochs), _whole("image_size", image_size)
    seed = _whole("seed", seed) or 0
    if isinstance(test, numbers.Real) and not isinstance(test, bool):
        test = float(test)
    name = MEMORY
    if labels is None and isinstance(images, str | os.PathLike):
        name = "features" if Path(images).suffix.lower() in FEATURE_SUFFIXES else "folder"
    named = {"dataset.image_size": image_size, "dataset.val_share": val_share, "training.epochs": epochs}
    weights = os.fspath(weights) if isinstance(weights, os.PathLike) else weights
    overrides = _merged(settings or {}, {**_model(model), "model.weights": weights, **named})
    if preset not in (known := ("auto", None, *dataset_presets(name))):
        raise ConfigError(f"preset {preset!r}: is none of {', '.join(map(repr, known))}")
    preset = preset_of_device(name, device) if preset == "auto" else preset

    def build(more: Mapping[str, Any]) -> RunConfig:
        given = {**overrides, **more}
        return build_run(name, method, split=split, seed=seed, preset=preset, overrides=given, where="autodo.fit")

    if name != MEMORY:
        for parameter, value in {"val": val, "test": test, "class_names": class_names}.items():
            if value is not None:
                raise ConfigError(f"{parameter}: cannot be given with a folder or file, which has its own")
        place = {"dataset.path": os.fspath(Path(images).expanduser())}
        run = build(place)
        run = build({**place, **settings_of_weights(run, overrides)})
        with shared_listing():
            run = run.model_copy(update={"dataset": pin_content(run.dataset)})
            dataset = load(run.dataset)  # logs its warnings
        warnings = _val_note(run, dataset)
    else:
        read = functools.partial(given_dataset, images, labels, val=val, test=test, class_names=class_names)
        run, dataset = _given_run(build, overrides, read)
        warnings = [*dataset.warnings, *_val_note(run, dataset)]
    for warning in warnings:
        logger.warning("%s", warning)
    notes = (*warnings, *_head_note(run), *_test_notes(run, dataset, held_out=isinstance(test, float)))
    run = run.model_copy(update={"model": run.model.pinned()})
    report = _Reporter(run, verbose=verbose, on_epoch=on_epoch, device=device)
    outcome = fit_run(
        run,
        dataset=dataset,
        device=device,
        on_epoch=report.epoch,
        on_progress=on_progress,
        on_search=report.line,
        checkpoint=checkpoint,
        estimate=report.estimate if verbose else None,
    )
    held_out = len(dataset.test) if isinstance(test, float) else 0
    given = max(len(dataset.train) + held_out, int(dataset.train.index.max()) + 1)  # a folder may be subsampled
    result = FitOutcome(**vars(outcome), given=given, trains_on_val=run.trains_on_val, notes=notes)
    report.line(repr(result))
    return result


def _whole(name: str, value: Any) -> int | None:
    """A whole number of Python or numpy, or None."""
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise ConfigError(f"{name}: must be a whole number, not {value!r}") from None


def _model(model: "str | nn.Module | None") -> dict[str, Any]:
    """Settings of a network with a name, or of one that is given as an object."""
    if model is None or isinstance(model, str):
        return {"model.name": model}
    given = register(model)
    return {"model.name": given.name, "model.code": given.fingerprint}


def _merged(settings: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key, from `settings` and from parameters that are not None.

    Raises:
        ConfigError: if one is given both ways.
    """
    given = {key: value for key, value in named.items() if value is not None}
    twice = sorted({*given} & {*settings})
    if twice:
        raise ConfigError(f"settings: {twice[0]!r} is given twice, also as {twice[0].rpartition('.')[2]}")
    epochs = given.get("training.epochs")
    if epochs is not None and epochs < 9:
        given["training.warmup_epochs"] = epochs // 3  # that of the recipe is 3
    return given | dict(settings)


def _given_run(
    build: Callable[[Mapping[str, Any]], RunConfig],
    overrides: Mapping[str, Any],
    read: Callable[..., tuple[Dataset, str]],
) -> tuple[RunConfig, Dataset]:
    """The run and the dataset of images that are given in Python; settings are checked before the images are read.

    Args:
        build: composes the run from `overrides` and more settings.
        read: `given_dataset` without its image size.
    """
    if "dataset.subsample" in overrides:
        raise ConfigError("settings: 'dataset.subsample' is for datasets with a name; give fewer images")
    run = build({"dataset.content": _UNKNOWN})
    brought = settings_of_weights(run, overrides)
    side = brought.get("dataset.image_size", run.dataset.image_size)
    assert side is not None
    dataset, content = read(size=Size(side, exact="dataset.image_size" in overrides))
    if run.split == "test-as-val" and not len(dataset.test):
        raise ConfigError("split 'test-as-val' needs test images: test=(images, labels)")
    size = size_settings(dataset.train.images.shape[-1], overrides)
    return build({"dataset.content": content, **brought, **size}), dataset


class _Reporter:
    """Prints what happens, if it should.

    Args:
        on_epoch: called with each epoch's row in any case.
    """

    def __init__(
        self, run: RunConfig, *, verbose: bool, on_epoch: Callable[[dict[str, Any]], object] | None, device: str
    ) -> None:
        self._run, self._verbose, self._on_epoch, self._device = run, verbose, on_epoch, device

    def line(self, text: str) -> None:
        if self._verbose:
            print(text, flush=True)

    def epoch(self, row: dict[str, Any]) -> None:
        epochs, test = self._run.training.epochs, row["test_error"]
        tested = "" if test is None else f", test error {test:.2%}"
        val = "val error (trained on)" if self._run.trains_on_val else "val error"
        train = f"epoch {row['epoch'] + 1}/{epochs}: train loss {row['train_loss']:.4f}"
        self.line(f"{train}, {val} {row['val_error']:.2%}{tested}")
        if self._on_epoch is not None:
            self._on_epoch(row)

    def estimate(self, data: DataSplits, policy: PolicyFile | None) -> Durations | None:
        """Durations of the parts of an epoch, which are printed in sum; None if a few steps cannot be timed."""
        import torch

        try:
            durations = time_steps(self._run, data, device=self._device, policy=policy)
        except (UserError, RuntimeError) as error:
            logger.warning("the duration of the training is not estimated: %s", error)
            return None
        where = f" on {count_of(torch.get_num_threads(), 'CPU thread')}" if self._device == "cpu" else ""
        seconds = durations.total(self._run)
        text = f"training takes about {rough_duration(seconds)}{where}"
        if self._device == "cpu" and seconds > LONG_SECONDS:
            variants = {f"settings={settings}": variant for settings, variant in frozen_variants(self._run)}
            faster = faster_variant(variants, seconds, data, device=self._device, policy=policy)
            text += f"; {faster}" if faster else ""
        self.line(text)
        return durations


def _val_note(run: RunConfig, dataset: Dataset) -> list[str]:
    """A sentence about a val set that is split off; none if val was given."""
    if dataset.val is not None or run.split in ("oversplit", "test-as-val"):
        return []
    return [
        f"val: none was given, so {run.dataset.val_share:.0%} of the train images are used as trusted, and their "
        "labels are as wrong as the others'; give val=(images, labels) whose labels somebody has checked"
    ]


def _head_note(run: RunConfig) -> list[str]:
    """A sentence about the errors of the epochs, if the head of the classifier is another than theirs."""
    if run.head is None:
        return []
    return [
        "epochs: their errors are those of the head that was trained; the classifier and its test error have the head "
        "that was solved after the last epoch, which is usually better"
    ]


def _test_notes(run: RunConfig, dataset: Dataset, *, held_out: bool) -> list[str]:
    """Sentences about the test error and its worth."""
    if not len(dataset.test):
        return ["test: none was given, so the error on new images is unknown; give test=(images, labels) or test=0.2"]
    notes = ["test: held out of the given images, so its labels are as wrong as theirs"] if held_out else []
    if run.split == "test-as-val":
        notes.append("test: is also val, on which lambda and the epoch were chosen, so the test error is optimistic")
    return notes


def _checked_device(device: str | None) -> str:
    import torch

    if device is None:
        return default_device()
    try:
        kind = torch.device(device).type
        if kind not in ("cpu", "cuda"):
            raise RuntimeError(f"AutoDO trains on cpu and cuda, not on {kind}")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # AssertionError: torch without CUDA
        raise ConfigError(f"device {device!r}: cannot be used: {first_line(error)}") from None
    return str(torch.device(device))
