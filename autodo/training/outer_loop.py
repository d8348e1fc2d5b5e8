"""Lines 10 to 19 of Algorithm 1: after some epochs lambda moves once, while theta stands still."""

import functools

from autodo.bilevel.outer_pass import OuterPass
from autodo.evaluation import Evaluation
from autodo.objectives import Objective
from autodo.objectives.plain import PlainLoss
from autodo.points.model import PointModel
from autodo.progress import ProgressReporter
from autodo.training.context import Loaders, RunContext
from autodo.training.head_solver import SolvedHead
from autodo.training.schedule import outer_factor
from autodo.training.task_model import TaskModel


class OuterLoop:
    """Runs the outer passes of a run.

    Args:
        objective: that of the inner loop, whose loss the passes differentiate.
    Raises:
        ConfigError: if the solver cannot take a problem of this size.
    """

    def __init__(
        self,
        context: RunContext,
        loaders: Loaders,
        model: TaskModel,
        points: PointModel,
        objective: Objective,
        progress: ProgressReporter,
    ) -> None:
        config = context.config
        assert config.outer is not None
        assert isinstance(objective, PlainLoss)
        self.context = context
        self.progress = progress
        self.points = points
        self.outer_pass = OuterPass(
            config.outer,
            objective.inner_loss,
            model.encoder,
            model.head,
            model.pipeline,
            points,
            loaders.train.images,
            learnable=loaders.train_size,
            totals=(loaders.train.total, len(context.data.train)),
            weight_decay=config.training.weight_decay,
            batch_size=config.outer.batch_size or config.training.batch_size,
            drop_last=config.training.last_batch == "drop",
            group=context.group,
        )

    def run(self, epoch: int, val: Evaluation, solved: SolvedHead | None = None) -> float:
        """One outer pass. Trusted val points keep their lambda; that of the distorted train points moves.

        Args:
            solved: the head that the network has, if it was solved.
        Returns:
            the sum of all updates, which is not finite if any of them is not.
        """
        context, outer = self.context, self.context.config.outer
        assert outer is not None
        lr = outer.every * outer.lr * outer_factor(context.config, epoch)
        track = functools.partial(self.progress.track, phase="outer", epoch=epoch)
        weight_decay = None if solved is None or outer.inner == "training" else solved.weight_decay
        generator, crops = context.generator("outer", epoch), context.crops("outer", epoch)
        self.outer_pass.run(val, lr, generator, crops, track, weight_decay)
        return float(context.group.all_reduce(self.points.pop_update_sum()))
