"""The implicit gradient dL_v/dlam = -(dL_v/dtheta) H^-1 d2L/(dtheta dlam), for theta = the last layer's weight.

With features z = encoder(g_A(x; lam)) and logits z W' + b everything that concerns theta is arithmetic on [B, D] and
[B, C]; only the way from lam^A to z needs the network, and one backward pass through it.
Means are over the batches of all workers, and of what they compute only sums of the shape of theta are exchanged.

Shape:
    theta = W and everything of its shape, u included: [C, D].
Reference: Gudovskiy et al. 2021, eq. (5); Lorraine et al., AISTATS 2020.
"""

from torch import Tensor

from autodo.bilevel.inverse_hessian import MatVec
from autodo.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from autodo.losses import Loss, one_hot, softmax_curvature


def validation_gradient(
    logits: Tensor, features: Tensor, labels: Tensor, *, count: int | None = None, group: ProcessGroup = SINGLE_PROCESS
) -> Tensor:
    """d/dW of the mean cross-entropy.

    Args:
        count: images of all workers; those given if None.
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
    damping: float,
    count: int | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> MatVec:
    """V -> H V, with H the Hessian in W of the inner loss mean_i w_i loss_i + damping |W|^2 / 2.

    Args:
        log_targets: None for the Gauss-Newton part of H alone, which is positive semi-definite also where the loss is
            not convex in the logits, and does not depend on the targets.
        count: points of all workers, over which the mean is; those given if None.
    Shape:
        logits, log_targets [B, C], features [B, D], weights [B]; V [C, D] -> [C, D].
    """
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    scale = (weights / (count or len(weights)))[:, None]

    def matvec(direction: Tensor) -> Tensor:
        tangent = features @ direction.T
        if log_targets is None:
            curved = softmax_curvature(p, tangent)
        else:
            curved = loss.hessian_product(log_p, log_targets, tangent)
        return group.all_reduce((scale * curved).T @ features) + damping * direction

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
    """-<dL/dW, u>, whose gradient in lam is the hypergradient when u = H^-1 dL_v/dW is held fixed; a worker's part.

    dL/dW is written in closed form, so that differentiating this scalar takes one backward pass: through the last
    layer to the weights, the targets and the features, and from the features through the frozen encoder to lam^A.

    Args:
        count: points of all workers, over which the mean is; those given if None.
    Shape:
        logits, log_targets [B, C], features [B, D], weights [B], u [C, D] -> scalar.
    """
    residual = loss.residual(logits.log_softmax(1), log_targets)
    return -(weights * (residual * (features @ u.T)).sum(1)).sum() / (count or len(weights))
