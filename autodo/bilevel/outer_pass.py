"""One outer pass: lam of every train point moves once along the implicit gradient, theta stands still."""

import torch
from torch import Tensor, nn

from autodo.augment.pipeline import Pipeline
from autodo.bilevel.hypergradient import hessian_matvec, implicit_objective, validation_gradient
from autodo.bilevel.inverse_hessian import NEEDS_POSITIVE_DEFINITE, MatVec, build_solver
from autodo.config import OuterConfig
from autodo.data.batches import epoch_batches
from autodo.evaluate import Evaluation
from autodo.losses import Loss
from autodo.points.model import PointModel, PointView


class OuterPass:
    """What the outer passes of a run have in common (Alg. 1, lines 10 to 19).

    Args:
        images: of all train points, on the training device. Shape: [N, C, H, W] uint8.
        weight_decay: of the inner problem; it is part of the Hessian.
    """

    def __init__(
        self,
        config: OuterConfig,
        loss: type[Loss],
        encoder: nn.Module,
        head: nn.Linear,
        pipeline: Pipeline,
        points: PointModel,
        images: Tensor,
        *,
        weight_decay: float,
        batch_size: int,
    ) -> None:
        self.config = config
        self.loss = loss
        self.encoder = encoder
        self.head = head
        self.pipeline = pipeline
        self.points = points
        self.images = images
        self.damping = config.damping + weight_decay
        self.batch_size = batch_size
        self.solver = build_solver(config)

    def run(self, val: Evaluation, learnable: Tensor, lr: float, generator: torch.Generator) -> None:
        """Updates the rows of the learnable points, each once.

        Args:
            val: of the clean val set under the present theta, in eval mode. As theta stands still, its features and
                logits serve the whole pass.
            learnable: the points whose lam may move. Shape: [N] int64.
        """
        parameters = [*self.encoder.parameters(), *self.head.parameters()]
        for parameter in parameters:
            parameter.requires_grad_(False)
        self.encoder.eval()
        try:
            if self.config.val_gradient == "full":
                self._full_pass(val, learnable, lr, generator)
            else:
                self._batch_pass(val, learnable, lr, generator)
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)

    def _batch_pass(self, val: Evaluation, learnable: Tensor, lr: float, generator: torch.Generator) -> None:
        """The paper's: at every step a val batch, its gradient, and a solve with the train batch's Hessian."""
        val_batches: list[Tensor] = []
        for batch in epoch_batches(learnable, self.batch_size, generator):
            if not val_batches:
                everything = torch.arange(len(val.labels), device=learnable.device)
                val_batches = list(epoch_batches(everything, self.batch_size, generator))
            chosen = val_batches.pop()
            gradient = validation_gradient(val.logits[chosen], val.features[chosen], val.labels[chosen])
            rows = self._leaf(batch)
            view = self.points.view(batch, rows)
            features = self._features(batch, view, generator)
            with torch.no_grad():
                u = self.solver(self._matvec(features, view), gradient)
            self._update(batch, rows, view, features, u, lr)

    def _full_pass(self, val: Evaluation, learnable: Tensor, lr: float, generator: torch.Generator) -> None:
        """u from all of val and one solve with the Hessian of all train points, then one step for each batch."""
        with torch.no_grad():
            gradient = validation_gradient(val.logits, val.features, val.labels)
            view = self.points.view(learnable)
            features = torch.cat(
                [
                    self._features(batch, self.points.view(batch), generator)
                    for batch in learnable.split(self.batch_size)
                ]
            )
            u = self.solver(self._matvec(features, view), gradient)
        if self.points.learns_augmentation:
            for batch in epoch_batches(learnable, self.batch_size, generator):
                rows = self._leaf(batch)
                view = self.points.view(batch, rows)
                self._update(batch, rows, view, self._features(batch, view, generator), u, lr)
        else:
            # Without lam^A the features do not depend on lam: the ones that the solve used serve again.
            for batch, batch_features in zip(
                learnable.split(self.batch_size), features.split(self.batch_size), strict=True
            ):
                rows = self._leaf(batch)
                self._update(batch, rows, self.points.view(batch, rows), batch_features, u, lr)

    def _leaf(self, batch: Tensor) -> Tensor:
        return self.points.table.rows(self.points.row_index(batch)).requires_grad_()

    def _features(self, batch: Tensor, view: PointView, generator: torch.Generator) -> Tensor:
        features: Tensor = self.encoder(self.pipeline.train_view(self.images[batch], generator, view.augment))
        return features

    def _matvec(self, features: Tensor, view: PointView) -> MatVec:
        return hessian_matvec(
            self.loss,
            self.head(features),
            features,
            view.weights,
            view.log_targets,
            damping=self.damping,
            gauss_newton=self.config.solver in NEEDS_POSITIVE_DEFINITE,
        )

    def _update(self, batch: Tensor, rows: Tensor, view: PointView, features: Tensor, u: Tensor, lr: float) -> None:
        objective = implicit_objective(self.loss, self.head(features), features, view.weights, view.log_targets, u)
        (gradient,) = torch.autograd.grad(objective, rows)
        self.points.table.rmsprop_step(self.points.row_index(batch), gradient, lr)
