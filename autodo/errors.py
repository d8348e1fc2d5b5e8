"""Errors that a person can act on; the command line prints their text and no traceback."""


class UserError(ValueError):
    """Something that the user gave is wrong; the message names it, where it stands and the remedy."""


class ConfigError(UserError):
    """A configuration file, an override or a name is wrong."""


class DataError(UserError):
    """A data file is missing, damaged or unsuitable."""


class ImageLost(DataError):
    """An image that could be read when a run began cannot be read any more."""


class StoreError(UserError):
    """A store cannot be read or written."""


class StoreRefused(StoreError):
    """Something in a store is not followed; waiting does not help."""


class TrainingDiverged(RuntimeError):
    """The loss or lambda became NaN or infinite.

    Args:
        what: the value that did.
        epoch: the epoch in which it happened, counted from 0.
        checkpoint_epoch: how many epochs the last good checkpoint holds; 0 if there is none.
    """

    def __init__(self, what: str, epoch: int, checkpoint_epoch: int) -> None:
        super().__init__(what, epoch, checkpoint_epoch)
        self.what = what
        self.epoch = epoch
        self.checkpoint_epoch = checkpoint_epoch

    def __str__(self) -> str:
        kept = (
            f"the checkpoint holds the {self.checkpoint_epoch} good epochs before"
            if self.checkpoint_epoch
            else "there is no checkpoint before it"
        )
        return f"the {self.what} is not finite in epoch {self.epoch}; {kept}; try a lower {self._remedy}"

    @property
    def _remedy(self) -> str:
        return "outer.lr" if "lambda" in self.what else "training.lr"
