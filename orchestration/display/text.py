"""Words for runs, durations and progress, on the terminal and in logs."""

import re

from autodo.config.run import RunConfig
from autodo.progress import Phase, Progress


def label(run: RunConfig, variant: str = "") -> str:
    """Readable name of a run: `digits 10-0.1 autodo-aws seed 0`, or with its variant `... autodo-aws E10 seed 0`."""
    split = "" if run.split == "paper" else f" ({run.split})"
    variant = f" {variant}" if variant else ""
    return f"{run.dataset.label} {run.distortion} {run.method.name}{split}{variant} seed {run.seed}"


def search_label(run: RunConfig) -> str:
    """Readable name of the policy search of a run: `fast-autoaugment on digits 10-0.1 seed 0`."""
    assert run.search_id is not None
    return f"{run.search_id.rpartition('-')[0]} on {run.dataset.label} {run.distortion} seed {run.seed}"


def duration(seconds: float) -> str:
    """`8 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def time_left(seconds: float) -> str:
    """`about 2 h 05 min left`."""
    return f"about {duration(seconds)} left"


def within_epoch(progress: Progress) -> str:
    """`epoch 3/100, step 4/11, train loss 1.2345`, for displays, which count epochs from 1."""
    return f"epoch {progress.epoch + 1}/{progress.epochs}, {_phase(progress)}step {progress.step}/{progress.steps}" + (
        "" if progress.train_loss is None else f", train loss {progress.train_loss:.4f}"
    )


def log_line(progress: Progress) -> str:
    """`in epoch 2 of 100: step 4 of 11, train loss 1.2345, about 2 h 05 min left`, for logs, which count epochs from 0.

    `parse_log_line` reads the line.
    """
    loss = "" if progress.train_loss is None else f", train loss {progress.train_loss:.4f}"
    left = "" if progress.seconds_left is None else f", {time_left(progress.seconds_left)}"
    steps = f"{_phase(progress)}step {progress.step} of {progress.steps}"
    return f"in epoch {progress.epoch} of {progress.epochs}: {steps}{loss}{left}"


def _phase(progress: Progress) -> str:
    phase = _PHASES[progress.phase]
    return f"{phase}, " if phase else ""


_PHASES: dict[Phase, str] = {
    "features": "features of the frozen encoder",
    "inner": "",
    "outer": "outer pass",
    "finetune": "head alone",
}
_LOG_LINE = re.compile(
    r"in epoch (?P<epoch>\d+) of (?P<epochs>\d+): (?:(?P<phase>[a-z ]+), )?"
    r"step (?P<step>\d+) of (?P<steps>\d+)(?:, train loss (?P<loss>[^ ,]+))?"
    r"(?:, about (?:(?P<h>\d+) h ?)?(?:(?P<min>\d+) min ?)?(?:(?P<s>\d+) s ?)?left)?$"
)


def parse_log_line(line: str) -> Progress | None:
    """Read the progress of a run from a line of its log; None if the line is not from `log_line`."""
    found = _LOG_LINE.search(line)
    if found is None:
        return None
    phases = {words: phase for phase, words in _PHASES.items()}
    parts = [found[unit] for unit in ("h", "min", "s")]
    seconds = sum(int(part or 0) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True))
    return Progress(
        epoch=int(found["epoch"]),
        epochs=int(found["epochs"]),
        phase=phases[found["phase"] or ""],
        step=int(found["step"]),
        steps=int(found["steps"]),
        train_loss=None if found["loss"] is None else float(found["loss"]),
        seconds_left=None if parts == [None] * 3 else float(seconds),
    )
