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
        images: of all points of the inner problem, on the training device. Shape: [N, C, H, W] uint8.
        learnable: the first so many points' rows may move; the others (trusted val points of the union split) take part
            in the inner problem, and so in its Hessian, with the rows that they have.
        weight_decay: of the inner problem; it is part of the Hessian.
    Raises:
        ConfigError: if the solver cannot take a problem of this size.
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
        learnable: int,
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
        self.learnable = learnable
        self.damping = config.damping + weight_decay
        self.batch_size = batch_size
        self.solver = build_solver(config, size=head.weight.numel())

    def run(self, val: Evaluation, lr: float, generator: torch.Generator) -> None:
        """Updates the rows of the learnable points, each once.

        Args:
            val: of the clean val set under the present theta, in eval mode. As theta stands still, its features and
                logits serve the whole pass.
        """
        parameters = [*self.encoder.parameters(), *self.head.parameters()]
        for parameter in parameters:
            parameter.requires_grad_(False)
        self.encoder.eval()
        try:
            if self.config.val_gradient == "full":
                self._full_pass(val, lr, generator)
            else:
                self._batch_pass(val, lr, generator)
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)

    def _batch_pass(self, val: Evaluation, lr: float, generator: torch.Generator) -> None:
        """The paper's: at every step a val batch, its gradient, and a solve with the train batch's Hessian."""
        val_points = torch.arange(len(val.labels), device=self.images.device)
        val_batches: list[Tensor] = []
        for batch in epoch_batches(self._points(), self.batch_size, generator):
            if not val_batches:
                val_batches = list(epoch_batches(val_points, self.batch_size, generator))
            chosen = val_batches.pop()
            gradient = validation_gradient(val.logits[chosen], val.features[chosen], val.labels[chosen])
            rows = self._leaf(batch)
            view = self.points.view(batch, rows)
            features = self._features(batch, view, generator)
            with torch.no_grad():
                u = self.solver(self._matvec(features, view), gradient)
            self._update(batch, rows, view, features, u, lr)

    def _full_pass(self, val: Evaluation, lr: float, generator: torch.Generator) -> None:
        """u from all of val and one solve with the Hessian of all inner points, then one step for each batch."""
        points = self._points()
        with torch.no_grad():
            gradient = validation_gradient(val.logits, val.features, val.labels)
            batches = points.split(self.batch_size)
            features = torch.cat([self._features(batch, self.points.view(batch), generator) for batch in batches])
            u = self.solver(self._matvec(features, self.points.view(points)), gradient)
        # The row that all points share learns from all of them.
        learnable = points if self.points.shared else points[: self.learnable]
        if self.points.learns_augmentation:
            for batch in epoch_batches(learnable, self.batch_size, generator):
                rows = self._leaf(batch)
                view = self.points.view(batch, rows)
                self._update(batch, rows, view, self._features(batch, view, generator), u, lr)
        else:
            # Without lam^A the features do not depend on lam: the ones that the solve used serve again.
            known = features[: self.learnable].split(self.batch_size)
            for batch, batch_features in zip(learnable.split(self.batch_size), known, strict=True):
                rows = self._leaf(batch)
                self._update(batch, rows, self.points.view(batch, rows), batch_features, u, lr)

    def _points(self) -> Tensor:
        return torch.arange(len(self.images), device=self.images.device)

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
        index = self.points.row_index(batch)
        if self.learnable < len(self.images) and not self.points.shared:
            moves = batch < self.learnable
            index, gradient = index[moves], gradient[moves]
        self.points.table.rmsprop_step(index, gradient, lr)
