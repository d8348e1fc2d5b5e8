"""What `train` does: one run in this process."""

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from autodo.config import DistortionConfig, LambdaStorage, RunConfig, SplitName
from autodo.errors import ConfigError, TrainingDiverged, UserError
from autodo.recipes import build_run
from autodo.validation import parse_model, parse_overrides
from orchestration import policies, show
from orchestration.job_folder import check_outlasts_job
from orchestration.keep import not_kept, parse_keep
from orchestration.overview import say
from orchestration.progress import RunBar
from orchestration.run_state import RunBusy
from orchestration.store import Store


def train(
    console: Console,
    *,
    dataset: str,
    method: str,
    imbalance_ratio: float,
    noise_ratio: float,
    seed: int,
    split: SplitName,
    store: Path | str,
    overrides: Sequence[str],
    data_dir: Path | str | None,
    download: bool,
    device: str,
    checkpoint_every: int,
    keep: Sequence[str],
    lambda_storage: LambdaStorage,
    loader_workers: int | None,
    checkpoint_steps: int | None,
) -> int:
    """Trains one run here and prints its errors; returns the exit code.

    Args:
        keep: what is kept besides the tables and the classifier.
    """
    kept = parse_keep(["models", *keep])
    distortion = parse_model(
        DistortionConfig, {"imbalance_ratio": imbalance_ratio, "noise_ratio": noise_ratio}, "--ir, --nr"
    )
    run = build_run(
        dataset, method, distortion=distortion, split=split, seed=seed, overrides=parse_overrides(overrides)
    )
    from autodo import data

    with data.listed_once():
        run, found = policies.pin_policy(run.model_copy(update={"dataset": data.pin_content(run.dataset)}))
        place = Store(store)
        check_outlasts_job(place)
        if place.is_done(run.run_id):
            lacking = " and ".join(not_kept(place, [run.run_id], kept))
            told = f". It has not kept its {lacking}: the same command with another --store does" if lacking else ""
            say(console, f"done before; nothing to do{told}")
            show.result(console, run, place)
            return 0
        from orchestration.execute import decoding_by, execute, load_dataset
        from orchestration.failures import record_failure

        with console.status("loading"), decoding_by(loader_workers):
            device = _device(device)
            load_dataset(run.dataset, data_dir, download)
    policies.keep(found, place.create())
    epoch = None
    try:
        if run.search_id is not None and run.search_id not in place.policies():
            _search(console, run, place, data_dir, device)
        with RunBar(run, console) as bar:
            for metrics in execute(
                run,
                place,
                data_dir=data_dir,
                download=download,
                device=device,
                checkpoint_every=checkpoint_every,
                keep=kept,
                lambda_storage=lambda_storage,
                loader_workers=loader_workers,
                checkpoint_steps=checkpoint_steps,
            ):
                epoch = metrics["epoch"]
                bar.epoch(epoch, metrics["val_error"])
    except KeyboardInterrupt:
        told = "before the first epoch ended" if epoch is None else f"after epoch {epoch + 1}/{run.training.epochs}"
        if run.search_id is not None and run.search_id not in place.policies():
            told = "while its policy was searched"
        say(console, f"interrupted {told}; the same command continues")
        return 130
    except RunBusy as error:
        raise ConfigError(str(error)) from None
    except Exception as error:
        failure = record_failure(place, run.run_id, error)
        if isinstance(error, UserError | TrainingDiverged):
            raise
        say(console, f"failed: {failure.last_line}; traceback in {place.log_file(run.run_id)}", "red")
        return 1
    show.result(console, run, place)
    return 0


def _search(console: Console, run: RunConfig, store: Store, data_dir: Path | str | None, device: str) -> None:
    from orchestration.search_board import SearchBoard
    from orchestration.searches import search_alone

    store.begin(run)  # so that a search that fails is a failure of a run that is known
    search_id = str(run.search_id)
    with SearchBoard({search_id: run}, console) as board:

        def tell(line: str) -> None:
            board.update(search_id, "at work", line)
            board.refresh()

        search_alone(run, store, data_dir=data_dir, device=device, tell=tell)
        board.update(search_id, "found", str(store.policy_file(search_id)))


def _device(name: str) -> str:
    import torch

    from autodo.fit import default_device

    known = "auto, cpu, cuda, cuda:<n>"
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name):
        # torch knows more, such as `meta` and `mps`, on which no run is known to work.
        raise ConfigError(f"--device {name!r}: is not one of {known}")
    if name == "auto":
        return default_device()
    try:
        torch.zeros(1, device=torch.device(name))
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name!r}: {str(error).splitlines()[0]}; known: {known}") from None
    return name
