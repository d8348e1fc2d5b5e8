"""Solvers of the outer problem against equation (5) of the paper, solved exactly, on a linear classifier of digits.

    python -m benchmarks.solvers [--seeds 3]

The classifier is the whole task model, and theta is at the minimum of its inner problem, as equation (5) assumes.
600 train points, a tenth of their labels redrawn, 600 clean val points, weights of 1, cross-entropy,
weight decay 0.001. The table has, as means over the seeds, the cosine with the exact u and with the exact gradient of
lam^W, and the AUROC with which that gradient finds the wrong labels. `equation 7` has the u of `fisher`, and replaces
the mixed derivative too. Takes seconds.
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor

from autodo.bilevel.hypergradient import fisher_matvec, hessian_matvec, validation_gradient
from autodo.bilevel.inverse_hessian import CURVATURES, build_solver
from autodo.config.bilevel import OuterConfig
from autodo.losses import CrossEntropy, one_hot

POINTS, CLASSES, NOISE, DECAY = 600, 10, 0.1, 1e-3
SOLVERS = {
    "identity": OuterConfig(solver="identity"),
    "neumann, T = 5, step 0.01": OuterConfig(solver="neumann", iterations=5, step=0.01),
    "neumann, T = 100, step 1": OuterConfig(solver="neumann", iterations=100, step=1.0),
    "conjugate-gradient, 5 steps": OuterConfig(solver="conjugate-gradient", iterations=5),
    "conjugate-gradient, 20 steps": OuterConfig(solver="conjugate-gradient", iterations=20),
    "quasi-newton, 5 pairs": OuterConfig(solver="quasi-newton", iterations=5),
    "quasi-newton, 20 pairs": OuterConfig(solver="quasi-newton", iterations=20),
    "fisher, damping 0.1": OuterConfig(solver="fisher", damping=0.1),
    "fisher, damping 0.01": OuterConfig(solver="fisher", damping=0.01),
    "fisher, damping 0.001": OuterConfig(solver="fisher", damping=0.001),
}
EQUATION_7 = "fisher, damping 0.01"
"""The solver whose u equation (7) is shown with."""


def measure(seed: int) -> dict[str, tuple[float, float, float]]:
    """Cosine of u, cosine of the gradient of lam^W, and its AUROC of wrong labels, by solver."""
    features, labels, wrong, val_features, val_labels = _draw(seed)
    targets = one_hot(labels, CLASSES, torch.float64).log()

    def inner(weight: Tensor) -> Tensor:
        decay = DECAY * weight.square().sum() / 2
        return torch.nn.functional.cross_entropy(features @ weight.T, labels) + decay

    weight = _minimum(inner, torch.zeros(CLASSES, features.shape[1], dtype=torch.float64))
    logits = features @ weight.T
    b = validation_gradient(val_features @ weight.T, val_features, val_labels)
    ones = torch.ones(POINTS, dtype=torch.float64)
    given = CrossEntropy, logits, features, ones
    losses = CrossEntropy.value(logits.log_softmax(1), targets.clamp(min=-1e300))
    residual = CrossEntropy.residual(logits.log_softmax(1), targets)
    us: dict[str, Tensor] = {}
    for name, config in {"exact": OuterConfig(solver="exact"), **SOLVERS}.items():
        damping = DECAY + config.damping
        if CURVATURES.get(config.solver) == "fisher":
            matvec = fisher_matvec(*given, targets, damping=damping)
        else:
            matvec = hessian_matvec(*given, targets, damping=damping)
        us[name] = build_solver(config, size=b.numel())(matvec, b)
    # Up to a common factor: all weights are 1, and so have one derivative in lam^W.
    gradients = {name: -(residual * (features @ u.T)).sum(1) for name, u in us.items()}
    us["equation 7"], gradients["equation 7"] = us[EQUATION_7], losses * gradients[EQUATION_7]
    cosine = partial(torch.cosine_similarity, dim=0)
    return {
        name: (
            float(cosine(u.flatten(), us["exact"].flatten())),
            float(cosine(gradients[name], gradients["exact"])),
            float(roc_auc_score(wrong, gradients[name])),
        )
        for name, u in us.items()
    }


def _draw(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Train features, labels, and which of these are wrong; val features and labels."""
    digits = load_digits()
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(digits.target))[: 2 * POINTS]
    features, labels = torch.from_numpy(digits.data[chosen] / 16), torch.from_numpy(digits.target[chosen]).long()
    given = labels[:POINTS].clone()
    redrawn = generator.permutation(POINTS)[: int(NOISE * POINTS)]
    given[redrawn] = torch.from_numpy(generator.integers(CLASSES, size=len(redrawn)))
    return features[:POINTS], given, given != labels[:POINTS], features[POINTS:], labels[POINTS:]


def _minimum(inner: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Minimum of a convex loss, up to a gradient of 1e-7."""
    weight = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight],
        max_iter=2000,
        history_size=50,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = inner(weight)
        value.backward()
        return value

    optimizer.step(closure)
    assert weight.grad is not None
    assert weight.grad.abs().max() < 1e-7
    return weight.detach()


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = [measure(seed) for seed in range(given.seeds)]
    print("| solver | cosine of u | cosine of the gradient of lam^W | AUROC of wrong labels |\n|---|---:|---:|---:|")
    for name in found[0]:
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in np.mean([one[name] for one in found], 0)) + " |")


if __name__ == "__main__":
    main()
