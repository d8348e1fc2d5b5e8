"""Implicit gradient dL_v/dlam = -(dL_v/dtheta) H^-1 d2L/(dtheta dlam), for theta = the weight W of the last layer.

With features z = encoder(g_A(x; lam)) and logits z W' + b, everything about theta is arithmetic on [B, D] and [B, C];
only the gradient from z to lam^A needs one backward pass through the network.
Means are over the batches of all processes, which exchange only sums of the shape of theta.

Shape:
    theta = W, and u: [C, D].
Reference: Gudovskiy et al. 2021, eq. (5); Lorraine et al., AISTATS 2020.
"""

from torch import Tensor

from autodo.bilevel.inverse_hessian import MatVec
from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from autodo.losses import Loss, one_hot, softmax_curvature

POINTS_AT_ONCE = 2**17
"""Points in a part of a product with the Hessian; its intermediate arrays [points, C] have 0.5 GB at 1,000 classes."""


def validation_gradient(
    logits: Tensor, features: Tensor, labels: Tensor, *, count: int | None = None, group: ProcessGroup = SINGLE_PROCESS
) -> Tensor:
    """Gradient of the mean cross-entropy with respect to W.

    Args:
        count: number of images on all processes; None: as given.
    Shape:
        logits [M, C], features [M, D], labels [M] int64 -> [C, D].
    """
    residual = logits.softmax(1) - one_hot(labels, logits.shape[1], logits.dtype)
    return group.all_reduce(residual.T @ features) / (count or len(labels))


def hessian_matvec(
    loss: type[Loss],
    logits: Tensor,
    features: Tensor,
    weights: Tensor,
    log_targets: Tensor | None,
    *,
    damping: float | Tensor,
    count: int | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> MatVec:
    """Function V -> H V, where H is the Hessian in W of the inner loss mean_i w_i loss_i + damping |W|^2 / 2.

    Args:
        damping: one for all weights, or one for each column of W. Shape: [D].
        log_targets: None for only the Gauss-Newton part of H, which does not depend on the targets and is positive
            semi-definite even where the loss is not convex in the logits.
        count: number of points on all processes; None: as given.
    Shape:
        logits, log_targets [B, C], features [B, D], weights [B]; V [C, D] -> [C, D].
    """
    # Without targets p is all that is needed, and log p, which is as large, is not kept.
    prediction = logits.log_softmax(1) if log_targets is not None else logits.log_softmax(1).exp()
    scale = (weights / (count or len(weights)))[:, None]
    parts = [slice(start, start + POINTS_AT_ONCE) for start in range(0, max(1, len(features)), POINTS_AT_ONCE)]

    def of_points(part: slice, direction: Tensor) -> Tensor:
        tangent = features[part] @ direction.T
        if log_targets is None:
            curved = softmax_curvature(prediction[part], tangent)
        else:
            curved = loss.hessian_product(prediction[part], log_targets[part], tangent)
        return (scale[part] * curved).T @ features[part]

    def matvec(direction: Tensor) -> Tensor:
        product = of_points(parts[0], direction)
        for part in parts[1:]:
            product += of_points(part, direction)
        return group.all_reduce(product) + damping * direction

    return matvec


def fisher_matvec(
    loss: type[Loss],
    logits: Tensor,
    features: Tensor,
    weights: Tensor,
    log_targets: Tensor,
    *,
    damping: float,
    count: int | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> MatVec:
    """Function V -> I V, where I = mean_i s_i s_i' + damping is the damped empirical Fisher information of W.

    The score of a point is s_i = -d(w_i loss_i)/dW = -w_i r_i z_i', so I has the square of the weights, where the
    Hessian has the weights. Costs as much as a product with the Hessian; no matrix is built.

    Args:
        count: number of points on all processes; None: as given.
    Shape:
        logits, log_targets [B, C], features [B, D], weights [B]; V [C, D] -> [C, D].
    Reference: Gudovskiy et al. 2021, section 3.3.
    """
    scores = weights[:, None] * loss.residual(logits.log_softmax(1), log_targets)
    size = count or len(weights)

    def matvec(direction: Tensor) -> Tensor:
        lengths = (scores * (features @ direction.T)).sum(1, keepdim=True)
        return group.all_reduce((scores * lengths).T @ features) / size + damping * direction

    return matvec


def implicit_objective(
    loss: type[Loss],
    logits: Tensor,
    features: Tensor,
    weights: Tensor,
    log_targets: Tensor,
    u: Tensor,
    *,
    count: int | None = None,
) -> Tensor:
    """-<dL/dW, u>, whose gradient in lam is the hypergradient if u = H^-1 dL_v/dW is held fixed; the part of a process.

    dL/dW has a closed form, so differentiating this scalar takes one backward pass: through the last layer to weights,
    targets and features, and from the features through the frozen encoder to lam^A.

    Args:
        count: number of points on all processes; None: as given.
    Shape:
        logits, log_targets [B, C], features [B, D], weights [B], u [C, D] -> scalar.
    """
    residual = loss.residual(logits.log_softmax(1), log_targets)
    return -(weights * (residual * (features @ u.T)).sum(1)).sum() / (count or len(weights))
