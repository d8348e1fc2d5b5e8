"""The toy of the paper's Figure 1: one augmentation policy for all points, or one per point, for a linear classifier.

    python -m benchmarks.figure_1 [--out docs/images/figure-1.png]

Two classes of points in a plane. Class 2 is much less diverse in the train set than in val and test, class 5 equally
diverse. A point is augmented by normal noise with its own strength along each axis: lam is its logarithm. As in
Algorithm 1, the classifier is trained, and lam follows the implicit gradient of the val loss, with the exact solver.
Takes seconds.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from torch import Tensor

from autodo.bilevel.hypergradient import hessian_matvec, implicit_objective, validation_gradient
from autodo.bilevel.inverse_hessian import exact
from autodo.losses import CrossEntropy, one_hot

CENTRES = ((-1.0, -0.6), (1.0, 0.6))
TRAIN = ((0.25, 0.25), (0.45, 0.45))
TEST = ((1.1, 0.45), (0.45, 0.45))
"""Standard deviations of both classes along both axes."""
NAMES = ("2", "5")
POINTS, COPIES, TEST_POINTS = 60, 16, 4000
"""Train (and val) points of a class, augmented copies of each, and test points of a class."""
DECAY, STEPS, LR = 1e-2, 300, 0.03
EPS = 1e-12


class Toy:
    """Train, val and test points, and the noise of the augmented copies, the same in every step."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.train, self.labels = self._draw(TRAIN, POINTS)
        self.val, self.val_labels = self._draw(TEST, POINTS)
        self.test, self.test_labels = self._draw(TEST, TEST_POINTS)
        noise = torch.randn(len(self.train), COPIES, 2, generator=self.generator, dtype=torch.float64)
        self.noise = (noise - noise.mean(1, keepdim=True)) / noise.std(1, keepdim=True)

    def _draw(self, spread: tuple[tuple[float, float], ...], count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(2).repeat_interleave(count)
        centres, spreads = (torch.tensor(values, dtype=torch.float64)[labels] for values in (CENTRES, spread))
        return centres + spreads * torch.randn(len(labels), 2, generator=self.generator, dtype=torch.float64), labels

    def augmented(self, lam: Tensor) -> Tensor:
        """Augmented copies of all train points. Shape: lam [N or 1, 2] -> [N * COPIES, 2]."""
        return (self.train[:, None] + lam.exp()[:, None] * self.noise).reshape(-1, 2)


def with_bias(points: Tensor) -> Tensor:
    """Points with a constant feature of 1. Shape: [N, 2] -> [N, 3]."""
    return torch.cat([points, torch.ones_like(points[:, :1])], 1)


def fit_classifier(points: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Minimum of the mean cross-entropy with weight decay, by Newton steps from `weight`, [2, 3]."""
    features, targets = with_bias(points), one_hot(labels, 2, torch.float64)
    for _ in range(20):
        logits = features @ weight.T
        gradient = (logits.softmax(1) - targets).T @ features / len(features) + DECAY * weight
        if gradient.abs().max() < EPS:
            break
        ones = torch.ones(len(features), dtype=torch.float64)
        weight = weight - exact(
            hessian_matvec(CrossEntropy, logits, features, ones, targets.log(), damping=DECAY), gradient
        )
    return weight


def learn(toy: Toy, rows: int) -> tuple[Tensor, Tensor]:
    """Strengths and classifier after all outer steps. Shape: -> [rows, 2], [2, 3]."""
    lam = torch.full((rows, 2), np.log(0.3), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.RMSprop([lam], lr=LR, alpha=0.9)
    labels = toy.labels.repeat_interleave(COPIES)
    targets, ones = one_hot(labels, 2, torch.float64).log(), torch.ones(len(labels), dtype=torch.float64)
    weight = torch.zeros(2, 3, dtype=torch.float64)
    val = with_bias(toy.val)
    for _ in range(STEPS):
        weight = fit_classifier(toy.augmented(lam.detach()), labels, weight)
        features = with_bias(toy.augmented(lam))
        logits = features @ weight.T
        with torch.no_grad():
            matvec = hessian_matvec(CrossEntropy, logits, features, ones, targets, damping=DECAY)
            u = exact(matvec, validation_gradient(val @ weight.T, val, toy.val_labels))
        optimizer.zero_grad()
        implicit_objective(CrossEntropy, logits, features, ones, targets, u).backward()
        optimizer.step()
    return lam.detach(), fit_classifier(toy.augmented(lam.detach()), labels, weight)


def test_error(toy: Toy, weight: Tensor) -> float:
    """Share of wrong predictions on test."""
    return float(((with_bias(toy.test) @ weight.T).argmax(1) != toy.test_labels).double().mean())


def panel(ax: Axes, toy: Toy, title: str, augmented: Tensor | None, weight: Tensor, best: Tensor) -> None:
    """Draw the classes as ellipses of two standard deviations, and the decision boundaries."""
    shown = [("test", toy.test, toy.test_labels, "#c0392b", "-"), ("train", toy.train, toy.labels, "#2c5f9e", "-")]
    if augmented is not None:
        shown.append(("augmented", augmented, toy.labels.repeat_interleave(COPIES), "#2c5f9e", "--"))
    ax.scatter(toy.train[:, 0], toy.train[:, 1], s=3, color="#2c5f9e", alpha=0.5, linewidths=0)
    for name, points, labels, colour, line in shown:
        for label in range(2):
            mine = points[labels == label]
            (x, y), (width, height) = mine.mean(0).tolist(), (4 * mine.std(0)).tolist()
            ax.add_patch(
                Ellipse(
                    (x, y), width, height, fill=False, edgecolor=colour, linestyle=line, linewidth=1.3,
                    label=name if label == 0 else None,
                )
            )  # fmt: skip
    for boundary, colour, name in ((best, "#c0392b", "boundary fitted to test"), (weight, "black", "learned boundary")):
        a, b, c = (boundary[1] - boundary[0]).tolist()
        line = "-" if boundary is weight else ":"
        ax.plot((-4, 4), ((4 * a - c) / b, (-4 * a - c) / b), color=colour, linewidth=1.2, label=name, linestyle=line)
    for digit, (x, y) in zip(NAMES, CENTRES, strict=True):
        ax.text(x, y, digit, fontsize=13, ha="center", va="center", weight="bold")
    ax.set(xlim=(-3.6, 2.6), ylim=(-2.2, 2.2), aspect="equal", xticks=[], yticks=[])
    ax.set_title(title, fontsize=9)


def main() -> None:
    """Print strengths and errors, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/images/figure-1.png"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    toy = Toy(given.seed)
    start = torch.zeros(2, 3, dtype=torch.float64)
    best = fit_classifier(toy.test, toy.test_labels, start)
    plain = fit_classifier(toy.train, toy.labels, start)
    panels: list[tuple[str, Tensor | None, Tensor]] = [("no augmentation", None, plain)]
    for name, rows in (("one policy for all points", 1), ("a policy per point", len(toy.train))):
        lam, weight = learn(toy, rows)
        panels.append((name, toy.augmented(lam), weight))
        strengths = lam.exp().expand(len(toy.train), 2)
        for label, digit in enumerate(NAMES):
            x, y = strengths[toy.labels == label].mean(0).tolist()
            print(f"{name}: mean strength of {digit}: {x:.2f} along x, {y:.2f} along y")
    figure = Figure(figsize=(9, 2.9), layout="constrained", dpi=150)
    axes = figure.subplots(1, len(panels))
    for ax, (name, augmented, weight) in zip(axes, panels, strict=True):
        error = 100 * test_error(toy, weight)
        print(f"{name}: test error {error:.1f}%")
        panel(ax, toy, f"{name}: test error {error:.1f}%", augmented, weight, best)
    print(f"classifier of the test points: {100 * test_error(toy, best):.1f}%")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    FigureCanvasAgg(figure).print_png(given.out)


if __name__ == "__main__":
    main()
