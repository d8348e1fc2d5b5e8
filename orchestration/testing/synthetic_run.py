"""The Parquet tables of a synthetic run, drawn from distributions with known parameters instead of trained.

The hits of each class are binomial, and the rest follows from them: the errors of each epoch, the epoch of lowest val
error, the predictions there. Log weights of right and wrong labels are normal, `separation` standard deviations apart,
so that their AUROC is Phi(separation / sqrt(2)). A share `repaired` of the wrong labels has a soft label that is
highest at the right class. The values are plausible, but they are not results.
"""

import dataclasses
import datetime
import functools
import io
import zlib
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from autodo.config.dataset import DistortionConfig
from autodo.config.run import RunConfig
from autodo.results import records

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class SyntheticDataset:
    """Sizes of a dataset, and the baseline's test error on clean, balanced labels."""

    classes: int
    train: int
    test: int
    error: float


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """How a method changes the baseline's error and time.

    Args:
        clean: factor of the error on clean, balanced labels.
        imbalance, noise: factors of the error that imbalance and noise add.
        separation, repaired: as in the module's docstring; 0 where nothing is learned.
        slowdown: seconds of a run over the baseline's.
    """

    clean: float
    imbalance: float
    noise: float
    separation: float = 0.0
    repaired: float = 0.0
    slowdown: float = 1.0


IMAGES = {
    "svhn": SyntheticDataset(10, 73257, 26032, 0.04),
    "cifar10": SyntheticDataset(10, 50000, 10000, 0.06),
    "cifar100": SyntheticDataset(100, 50000, 10000, 0.25),
    "fashion-mnist": SyntheticDataset(10, 60000, 10000, 0.06),
    "digits": SyntheticDataset(10, 1437, 360, 0.02),
}
BEHAVIOURS = {
    "baseline": Behaviour(1.0, 1.0, 1.0),
    "randaugment": Behaviour(0.8, 0.8, 0.6, slowdown=1.1),
    "fast-autoaugment-published": Behaviour(0.8, 0.85, 0.7, slowdown=1.1),
    "dada-published": Behaviour(0.82, 0.9, 0.75, slowdown=1.1),
    "autodo-shared": Behaviour(0.8, 0.9, 0.5, slowdown=1.7),
    "autodo-a": Behaviour(0.78, 0.75, 0.45, slowdown=1.7),
    "autodo-aw": Behaviour(0.78, 0.4, 0.3, separation=1.0, slowdown=1.8),
    "autodo-aws": Behaviour(0.75, 0.35, 0.2, separation=1.5, repaired=0.6, slowdown=1.8),
}
_IMBALANCE, _NOISE = 0.09, 0.5  # error added by each factor of ten of IR, and by each unit of NR
_OPERATIONS = 7  # operations of the affine warp
_TOP = 10  # most probable classes stored with each point
_SHOWN = 64  # points with a thumbnail for each signal
_WIDTH = 64  # width of an embedding
_STARTED = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def class_errors(run: RunConfig) -> Floats:
    """Expected test error of each class after the last epoch, which a report should come close to.

    Shape:
        -> [C].
    """
    images, method = IMAGES[run.dataset.name], BEHAVIOURS[run.method.name]
    distortion = run.distortion
    errors = np.full(images.classes, images.error * method.clean + _NOISE * distortion.noise_ratio * 0.2 * method.noise)
    errors *= np.linspace(0.8, 1.2, images.classes)  # some classes are harder
    errors[images.classes // 2 :] += 2 * _IMBALANCE * np.log10(distortion.imbalance_ratio) * method.imbalance
    return np.minimum(errors, 0.95)


class SyntheticRun:
    """The tables of one synthetic run; the same configuration gives the same values in every process.

    Shape:
        class_hits [E, C], test_counts [C], val_errors, test_errors [E].
    """

    def __init__(self, run: RunConfig) -> None:
        self.run = run
        self.images, self.behaviour = IMAGES[run.dataset.name], BEHAVIOURS[run.method.name]
        self.generator = np.random.default_rng(zlib.crc32(run.run_id.encode()))
        epochs = run.training.epochs
        self.test_counts = np.bincount(_test_labels(self.images), minlength=self.images.classes)
        # Seeds differ by 3%. Errors fall exponentially, and once more while the learning rate goes to 0.
        final = np.clip(class_errors(run) * self.generator.normal(1, 0.03), 1e-3, 0.98)
        progress = (np.arange(epochs) + 1) / epochs
        course = np.exp(-8 * progress) + 0.25 * np.cos(np.pi * progress / 2)
        chances = np.clip(final + (1 - 1 / self.images.classes - final) * course[:, None], 0, 1)
        self.class_hits = self.generator.binomial(self.test_counts, 1 - chances)
        self.test_errors = 1 - self.class_hits.sum(1) / self.images.test
        self.val_points = round(self.images.train * run.dataset.val_share)
        self.val_errors = self.generator.binomial(self.val_points, chances.mean(1)) / self.val_points
        self.losses = {
            name: errors * 3.2 * self.generator.normal(1, 0.02, epochs) + 0.05
            for name, errors in (("val_loss", self.val_errors), ("test_loss", self.test_errors))
        }
        self.losses["train_loss"] = 2.5 * course + self.generator.uniform(0.02, 0.03, epochs)
        self.best = int(np.lexsort((self.losses["val_loss"], self.val_errors))[0])

    @property
    def labels(self) -> tuple[Integers, Integers, Integers]:
        """Train points: position in the train set, given label, label before the distortion."""
        return _train_labels(self.images, self.val_points, self.run.distortion, self.run.seed)

    def results(self) -> pa.Table:
        """One row of results."""
        half, hits = self.images.classes // 2, self.class_hits[self.best]
        wrong = self.test_counts - hits
        imbalanced = self.run.distortion.imbalance_ratio > 1
        times = self._times()
        total = {name: float(times[name].sum()) for name in ("inner_seconds", "outer_seconds", "eval_seconds")}
        _, given, clean = self.labels
        row = {
            **self.run.identity,
            "error_best_val": float(self.test_errors[self.best]),
            "error_last": float(self.test_errors[-1]),
            "error_best_test": float(self.test_errors.min()),
            "best_val_epoch": self.best,
            "minority_classes": list(range(half, self.images.classes)) if imbalanced else [],
            "minority_error": float(wrong[half:].sum() / self.test_counts[half:].sum()) if imbalanced else None,
            "majority_error": float(wrong[:half].sum() / self.test_counts[:half].sum()) if imbalanced else None,
            "per_class_accuracy": (hits / self.test_counts).tolist(),
            "class_names": [f"class {i}" for i in range(self.images.classes)],
            "train_points": len(given),
            "val_points": self.val_points,
            "test_points": self.images.test,
            "wrong_labels": int((given != clean).sum()),
            "epochs": len(self.test_errors),
            "seconds": sum(total.values()),
            "inner_seconds": total["inner_seconds"],
            "outer_seconds": total["outer_seconds"],
            "images_per_second": float(times["images_per_second"].mean()),
            "peak_memory_bytes": int(times["peak_memory_bytes"].max()),
            "device": "synthetic",
            "launch_id": "synthetic",
            "host": "synthetic",
            "host_cpus": 8,
            "slots": 4,
            "load_average": 3.5,
            "resumed": False,
            "git_sha": "synthetic",
            "versions": [("autodo", "synthetic"), ("python", "synthetic")],
            "finished_at": _STARTED + datetime.timedelta(minutes=self.run.seed),
            "config": self.run.model_dump_json(),
        }
        return records.table("results", [row])

    def epochs(self) -> pa.Table:
        """One row for each epoch."""
        count = len(self.test_errors)
        warm = np.minimum((np.arange(count) + 1) / max(1, self.run.training.warmup_epochs), 1)
        return _table(
            "epochs",
            count,
            {
                **self.run.identity,
                **self.losses,
                **self._times(),
                "epoch": np.arange(count),
                "val_error": self.val_errors,
                "test_error": self.test_errors,
                "per_class_accuracy": self.class_hits / self.test_counts,
                "outer_phase": np.arange(count) >= self.run.outer_start,
                "lr": self.run.training.lr * warm * (1 + np.cos(np.pi * np.arange(count) / count)) / 2,
            },
        )

    def _predicted(self) -> Integers:
        """Predicted classes, with the hits of the best epoch; the wrong ones are a class nearby."""
        # Its own generator, so that predictions and embeddings agree even if only one of them is written.
        generator = np.random.default_rng([zlib.crc32(self.run.run_id.encode()), self.images.test])
        labels, classes = _test_labels(self.images), self.images.classes
        order = np.argsort(labels, kind="stable")
        first = np.cumsum(self.test_counts) - self.test_counts
        right = np.zeros(len(labels), dtype=bool)
        right[order] = np.arange(len(labels)) - first[labels[order]] < self.class_hits[self.best][labels[order]]
        away = np.minimum(generator.geometric(0.5, len(labels)), classes - 1)
        return np.where(right, labels, (labels + away) % classes)

    def predictions(self) -> pa.Table:
        """One row for each test image."""
        labels, prediction = _test_labels(self.images), self._predicted()
        return _table(
            "predictions",
            len(labels),
            {
                "run_id": self.run.run_id,
                "index": np.arange(len(labels)),
                "label": labels,
                "prediction": prediction,
                "probability": self.generator.beta(np.where(prediction == labels, 9, 3), 2),
            },
        )

    def embeddings(self) -> pa.Table:
        """One row for each test image: a cluster for each class, wrong images between their class and the predicted."""
        labels, prediction = _test_labels(self.images), self._predicted()
        generator = np.random.default_rng([self.run.seed, self.images.classes])
        centres = generator.normal(0, 1, (self.images.classes, _WIDTH))
        vectors = (centres[labels] + centres[prediction]) / 2 + generator.normal(0, 0.6, (len(labels), _WIDTH))
        return _table(
            "embeddings",
            len(labels),
            {
                "run_id": self.run.run_id,
                "index": np.arange(len(labels)),
                "label": labels,
                "prediction": prediction,
                "embedding": vectors,
            },
        )

    def points(self) -> pa.Table:
        """One row for each train point."""
        index, given, clean = self.labels
        count, classes, learned = len(index), self.images.classes, self.run.points.learn if self.run.points else ()
        wrong = given != clean
        prediction = np.where(self.generator.random(count) < 0.9, clean, (clean + 1) % classes)
        loss = self.generator.exponential(np.where(given == prediction, 0.1, 3))
        values: dict[str, Any] = {
            "run_id": self.run.run_id,
            "index": index,
            "label": given,
            "clean_label": clean,
            "prediction": prediction,
            "loss": loss,
            "top_classes": (prediction[:, None] + np.arange(min(_TOP, classes))) % classes,
            "top_probabilities": np.tile(0.9 * 0.1 ** np.arange(min(_TOP, classes)), (count, 1)),
        }
        suspicion = [loss]
        if "weight" in learned:
            values["weight"] = np.exp(self.generator.normal(-self.behaviour.separation * wrong, 1))
            suspicion.append(-values["weight"])
        if "soft-label" in learned:
            points_to = np.where(wrong & (self.generator.random(count) < self.behaviour.repaired), clean, given)
            values["soft_label"] = np.full((count, classes), 0.1 / classes, dtype=np.float32)
            values["soft_label"][np.arange(count), points_to] += 0.9
            suspicion.append(-values["soft_label"][np.arange(count), given])
        if "augment" in learned:
            values["gate_probability"] = self.generator.beta(2, 6, (count, _OPERATIONS))
            values["magnitude"] = self.generator.uniform(0, 0.3, (count, _OPERATIONS))
        shown = {int(i) for signal in suspicion for i in np.argsort(-signal, kind="stable")[:_SHOWN]}
        values["thumbnail"] = [_thumbnail(int(clean[i])) if i in shown else None for i in range(count)]
        return _table("points", count, values)

    def _times(self) -> dict[str, Any]:
        """Times, speed and memory of each epoch."""
        count = len(self.test_errors)
        speed = np.random.default_rng(self.run.seed).normal(1500, 20, count)
        outer = np.arange(count) >= self.run.outer_start
        inner_seconds = self.images.train / speed
        return {
            "inner_seconds": inner_seconds,
            "outer_seconds": np.where(outer, inner_seconds * (self.behaviour.slowdown - 1), 0.0),
            "eval_seconds": np.full(count, self.images.test / 6000),
            "images_per_second": speed,
            "peak_memory_bytes": np.full(count, 8 * 2**30),
        }


def _table(kind: records.Kind, count: int, values: dict[str, Any]) -> pa.Table:
    """A table of `count` rows; each value is one for all rows, an array [rows], or an array [rows, width] for lists."""

    def column(field: pa.Field) -> pa.Array:
        value = values.get(field.name)
        if value is None:
            return pa.nulls(count, field.type)
        if isinstance(value, np.ndarray) and value.ndim == 2:
            flat = pa.array(value.ravel().astype(field.type.value_type.to_pandas_dtype()))
            return pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32) * value.shape[1], flat).cast(
                field.type
            )
        if isinstance(value, np.ndarray):
            return pa.array(value.astype(field.type.to_pandas_dtype()), field.type)
        return pa.array(value if isinstance(value, list) else [value] * count, field.type)

    schema = records.SCHEMAS[kind]
    return pa.table([column(field) for field in schema], schema)


@functools.cache
def _test_labels(images: SyntheticDataset) -> Integers:
    """Labels of the test set, which all runs of a dataset share."""
    generator = np.random.default_rng(images.test)
    return generator.permutation(np.arange(images.test) % images.classes)


@functools.lru_cache(maxsize=8)
def _train_labels(
    images: SyntheticDataset, val_points: int, distortion: DistortionConfig, seed: int
) -> tuple[Integers, Integers, Integers]:
    """The `labels` of a run, which all methods of a seed share; wrong ones are uniform, because there are no images."""
    from autodo.data.distort import flip_labels, kept_images

    generator = np.random.default_rng([seed, images.classes, images.train])
    index = np.sort(generator.permutation(images.train)[val_points:])
    clean = generator.integers(images.classes, size=len(index))
    kept = kept_images(clean, images.classes, distortion, generator)
    index, clean = index[kept], clean[kept]
    return index, flip_labels(clean, images.classes, distortion.noise_ratio, generator), clean


@functools.cache
def _thumbnail(label: int) -> bytes:
    """A PNG of 32 x 32 pixels: noise in the colour of the class."""
    generator = np.random.default_rng(label)
    pixels = generator.integers(64, size=(32, 32, 3)) + generator.integers(192, size=3)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
