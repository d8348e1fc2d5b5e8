"""Direction and length of the first outer steps with the Neumann series, beside RMSprop's epsilon.

    python -m benchmarks.neumann_scale [--classes 10 100 1000] [--epochs 5 20]

Real images of as many classes as are asked for: 20,000 of Fashion-MNIST, with each class cut into equal parts along its
first principal components. A small network is trained for some epochs, at 1-0.1. Then, as in the first outer pass of
autodo-aws, for every train batch and a val batch:

- cosines: of the val gradient v with the series' u, and of both with the dense solution of the same equation, whose
  matrix is positive definite (Gauss-Newton), where it is small enough;
- steps: of the soft labels' first RMSprop steps, the median of |step| over |step without epsilon|, by `neumann_scale`
  and `eps`. A gradient that is exactly 0 is left out.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from autodo.bilevel.hypergradient import hessian_matvec, implicit_objective, validation_gradient
from autodo.bilevel.inverse_hessian import exact, neumann
from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.data.batches import shuffled_batches
from autodo.data.images.image_set import Dataset, ImageSet, Integers, Pixels
from autodo.distributed.process_group import SINGLE_PROCESS
from autodo.training.trainer import Trainer

Scale = Literal["step", "sum"]
SCALES: tuple[Scale, ...] = get_args(Scale)
EPSILONS = (1e-8, 1e-12)
IMAGES = 20_000
BATCHES = 16
"""Of which the medians are; a batch holds 128 points."""
DENSE = 2000  # entries of a gradient for which the dense solution takes no more than a moment
ALPHA = 0.99  # of RMSprop


class Measured(NamedTuple):
    """Cosines and step lengths in one batch.

    Args:
        ratios: by scale and eps, |step| over |step without eps| of each soft label's element.
    """

    of_series: float
    """Cosine of u with v."""
    of_val_gradient: float | None
    """Cosine of v with the dense solution."""
    of_both: float | None
    """Cosine of u with the dense solution."""
    ratios: dict[tuple[str, float], Tensor]


def cut_classes(images: Pixels, labels: Integers, parts: int) -> Integers:
    """New labels: each class in `parts` equal parts, by its first principal component and then by its second.

    Shape:
        images [N, C, H, W] uint8, labels [N] -> [N], labels * parts and more.
    """
    if parts == 1:
        return labels
    first = 10
    assert parts in (first, first * first)
    cut = labels * parts
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        pixels = images[of_class].reshape(len(of_class), -1).astype(np.float32)
        pixels -= pixels.mean(0)
        _, vectors = np.linalg.eigh(pixels.T @ pixels)
        groups = [of_class]
        for column in range(1, 2 if parts == first else 3):
            along = dict(zip(of_class, pixels @ vectors[:, -column], strict=True))
            ordered = (sorted(group, key=along.__getitem__) for group in groups)
            groups = [part for group in ordered for part in np.array_split(np.array(group), first)]
        for number, group in enumerate(groups):
            cut[group] += number
    return cut


def with_classes(dataset: Dataset, classes: int) -> Dataset:
    """The dataset with each class cut into `classes / 10` parts; its test images serve for nothing here."""
    parts = classes // len(dataset.class_names)
    train = ImageSet(dataset.train.images, cut_classes(dataset.train.images.read(), dataset.train.labels, parts))
    test = ImageSet(dataset.test.images, dataset.test.labels * parts)
    return Dataset(train, test, tuple(str(name) for name in range(classes)))


def batches_of(training: Trainer) -> Iterator[Measured]:
    """The first batches of an outer pass; lam stays as it is."""
    assert training.outer is not None
    outer, points, head = training.outer.outer_pass, training.points, training.model.head
    config = outer.config
    generator = torch.Generator().manual_seed(0)
    val = training.evaluator.evaluate(training.loaders.val)
    size = training.config.training.batch_size
    val_points, train_points = torch.arange(len(val.labels)), torch.arange(len(training.loaders.train.images))
    val_batches = list(shuffled_batches(val_points, len(val_points), size, generator, SINGLE_PROCESS))
    train_batches = list(shuffled_batches(train_points, len(train_points), size, generator, SINGLE_PROCESS))
    training.model.encoder.eval()
    for (batch, count), (chosen, val_count) in list(zip(train_batches, val_batches * 9, strict=False))[:BATCHES]:
        v = validation_gradient(val.logits[chosen], val.features[chosen], val.labels[chosen], count=val_count)
        rows = points.table.rows(batch).requires_grad_()
        view = points.view(batch, rows)
        with torch.no_grad():
            pixels = training.model.pipeline.train_view(training.loaders.train.images[batch], generator, view.augment)
            features = training.model.encoder(pixels)
            logits = head(features)
            product = partial(hessian_matvec, outer.last_layer.loss.loss, logits, features, view.weights)
            full = product(view.log_targets, damping=outer.last_layer.damping, count=count)
            definite = product(None, damping=outer.last_layer.damping, count=count)
            u = {
                scale: neumann(full, v, iterations=config.iterations, step=config.step or 0.0, scale=scale)
                for scale in SCALES
            }
            solved = exact(definite, v) if v.numel() <= DENSE else None
        ratios: dict[tuple[str, float], Tensor] = {}
        for scale in SCALES:
            objective = implicit_objective(
                outer.last_layer.loss.loss, logits, features, view.weights, view.log_targets, u[scale], count=count
            )
            (gradient,) = torch.autograd.grad(objective, rows, retain_graph=True)
            soft = gradient[:, -len(training.context.data.class_names) :].double().abs()
            root = (1 - ALPHA) ** 0.5 * soft[soft > 0]
            ratios |= {(scale, eps): root / (root + eps) for eps in EPSILONS}
        of_val_gradient, of_both = (None if solved is None else cosine(one, solved) for one in (v, u["sum"]))
        yield Measured(cosine(v, u["sum"]), of_val_gradient, of_both, ratios)


def cosine(one: Tensor, other: Tensor) -> float:
    """Shape: any, the same twice."""
    return float(torch.cosine_similarity(one.flatten().double(), other.flatten().double(), dim=0))


def measure(dataset: Dataset, classes: int, epochs: int) -> list[Measured]:
    """Trains for some epochs without outer passes, and looks at the first one."""
    overrides = {"training.epochs": epochs, "training.batch_size": 128, "outer.start_share": 0.99}
    run = build_run("fashion-mnist", "autodo-aws", distortion=DistortionConfig(noise_ratio=0.1), overrides=overrides)
    data = prepare(with_classes(dataset, classes), run)
    training = Trainer(run, data)
    for epoch in range(epochs):
        training.inner.run(epoch)
    return list(batches_of(training))


def main() -> None:
    """Prints a table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="+", type=int, choices=(10, 100, 1000), default=[10, 100, 1000])
    parser.add_argument("--epochs", nargs="+", type=int, default=[5, 20])
    given = parser.parse_args()
    torch.set_num_threads(1)
    dataset = load(build_run("fashion-mnist", "autodo-aws", overrides={"dataset.subsample": IMAGES}).dataset)
    kinds = list(product(SCALES, EPSILONS))
    print("| classes | epochs | cos(v, u) | cos(v, exact) | cos(u, exact) |", end="")
    print("".join(f" {scale}, eps {eps:g} |" for scale, eps in kinds))
    print("|" + "---:|" * (5 + len(kinds)))
    for classes, epochs in product(given.classes, given.epochs):
        found = measure(dataset, classes, epochs)
        cosines = zip(*((one.of_series, one.of_val_gradient, one.of_both) for one in found), strict=True)
        shown = ["–" if None in values else f"{np.median(values):.3f}" for values in cosines]
        medians = [float(torch.cat([one.ratios[kind] for one in found]).median()) for kind in kinds]
        print(f"| {classes} | {epochs} | " + " | ".join([*shown, *(f"{m:.3g}" for m in medians)]) + " |", flush=True)


if __name__ == "__main__":
    main()
