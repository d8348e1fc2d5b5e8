"""Errors that a user can act on; the command line prints their text without a traceback."""


class UserError(ValueError):
    """An input of the user is wrong; the message names the value, its place and the remedy."""


class ConfigError(UserError):
    """A configuration file, an override or a name is wrong."""


class DataError(UserError):
    """A data file is missing, damaged or unsuitable."""


class ImageLost(DataError):
    """An image that was readable at the start of a run cannot be read any more."""


class StoreError(UserError):
    """A store cannot be read or written."""


class StoreRefused(StoreError):
    """A store is refused, or something in it; retrying does not help."""


class TrainingDiverged(RuntimeError):
    """The loss or lambda became NaN or infinite.

    Args:
        what: name of the value.
        epoch: epoch in which it happened, counted from 0.
        checkpoint_epoch: number of epochs in the last good checkpoint; 0 if there is none.
    """

    def __init__(self, what: str, epoch: int, checkpoint_epoch: int) -> None:
        super().__init__(what, epoch, checkpoint_epoch)
        self.what = what
        self.epoch = epoch
        self.checkpoint_epoch = checkpoint_epoch

    def __str__(self) -> str:
        kept = (
            f"the checkpoint has {self.checkpoint_epoch} good epochs"
            if self.checkpoint_epoch
            else "there is no checkpoint before it"
        )
        return f"the {self.what} is not finite in epoch {self.epoch}; {kept}; try a lower {self._remedy}"

    @property
    def _remedy(self) -> str:
        return "outer.lr" if "lambda" in self.what else "training.lr"
