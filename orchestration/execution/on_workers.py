"""One run by several processes: a Tune trial that holds next to nothing and runs Ray Train.

The workers have a placement group of their own, all of it or none, so that runs cannot wait for each other in a circle.
What the trial itself asked for would be missing to some run's workers; so it asks for a little memory and no CPU.

Nothing is tried again here: Ray Train restarts the workers in less time than a new trial needs, but then a run would
have two budgets of retries, and the store would not hear of the failures that Train forgave. A worker that fails or
dies ends the attempt; whether there is another is decided where it is for every run, and that one continues from the
checkpoint in the store. Ray Train's own checkpoints and reports are not used.

While there is no room for all of its workers Ray Train asks for it again and again. In between the trial hears of it
and decides whether to go on: at that moment nothing is set aside for the run, so that one that is given up leaves
nothing.
"""

import os
import tempfile
import traceback
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.train.v2._internal.execution.callback import ControllerCallback

from autodo.config.run import RunConfig
from autodo.errors import StoreError
from orchestration.execution.desk import Desk, WorkerError
from orchestration.execution.execute import assist, execute
from orchestration.execution.options import ExecutionOptions
from orchestration.execution.trial import Message, RunTrial
from orchestration.store.run_state import WorkerDied
from orchestration.store.scratch import scratch_directory, sweep
from orchestration.store.store import Store

if TYPE_CHECKING:
    from autodo.distributed.process_group import ProcessGroup

TRIAL_MEMORY = 800 * 10**6
"""Of the trial's process, as measured: Ray Train imports torch there too."""
ROOM_SECONDS = 3.0
"""How long Ray Train waits for room before the trial is asked whether it shall ask again."""
POLL_SECONDS = 0.2
"""Between two looks whether the workers still live; Ray Train's own pace is set to the same."""


def request(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What Tune sets aside for a trial, given the trial's config."""
    options = ExecutionOptions.model_validate(config["options"])
    return tune.PlacementGroupFactory([{"memory": TRIAL_MEMORY} if options.workers > 1 else options.per_worker])


class AnyRunTrial(RunTrial):
    """A trial of a run by one process or by several."""

    def _start(self, run: RunConfig, store: Store) -> Generator[Message, None, None]:
        options = ExecutionOptions.model_validate(self._given["options"])
        return execute_on_workers(run, store, options) if options.workers > 1 else super()._start(run, store)


def execute_on_workers(config: RunConfig, store: Store, options: ExecutionOptions) -> Generator[Message, None, None]:
    """`execute`, by `options.workers` processes on Ray; from within a process of Ray.

    Between two epochs the workers wait until the iterator is asked for the next one.

    Yields:
        "waiting" every few seconds as long as there is no room for the workers, "starting" when they begin, and one
        dict per finished epoch, as `execute` does. One that is closed before the end stops the workers.
    Raises:
        RunBusy: if another process is at work on this run. WorkerDied: if a worker's process or node is lost.
        Whatever a worker raised.
    """
    from ray.train import FailureConfig, ScalingConfig
    from ray.train import RunConfig as TrainRunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    if store.status.is_done(config.run_id):
        return
    # The controller of the run takes it over from here.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(POLL_SECONDS))
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(ROOM_SECONDS))
    temporary = Path(tempfile.gettempdir())
    sweep(temporary)
    desk: Any = ray.remote(num_cpus=0)(Desk).remote()
    with scratch_directory(temporary) as scratch, ThreadPoolExecutor(1) as thread:
        trainer = TorchTrainer(
            _train,
            train_loop_config={
                "desk": desk,
                "run": config.model_dump(mode="json"),
                "store": store.uri,
                "options": options.model_dump(mode="json"),
            },
            torch_config=TorchConfig(backend="nccl" if options.gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=options.workers,
                use_gpu=options.gpus > 0,
                resources_per_worker=options.per_worker,
            ),
            run_config=TrainRunConfig(
                name=config.run_id,
                storage_path=str(scratch),
                # mypy takes these for the classes of Ray Train's first version.
                callbacks=[_AsksAgain(desk)],  # type: ignore[list-item]
                failure_config=FailureConfig(max_failures=0, max_preemption_failures=0),  # type: ignore[call-arg]
            ),
        )
        training = thread.submit(trainer.fit)
        try:
            for message in _messages(desk, training):
                yield message
                ray.get(desk.answer.remote(True))
        except GeneratorExit:
            ray.get(desk.answer.remote(False))
            if message == "waiting":
                training.exception()  # it ends with _GivenUp
            else:
                training.result()
            raise
        finally:
            ray.kill(desk)


def _messages(desk: Any, training: "Future[Any]") -> Iterator[Message]:
    """The messages to the trial, until the run is done.

    Raises:
        the error that ended the training.
    """
    heard = desk.hear.remote()
    while not training.done():
        ready, _ = ray.wait([heard], timeout=POLL_SECONDS)
        if ready:
            yield ray.get(heard)
            heard = desk.hear.remote()
    error = training.exception()
    if error is not None:
        raise _reason(error, ray.get(desk.errors.remote())) from error


def _reason(error: BaseException, errors: list[WorkerError]) -> Exception:
    """Why the training ended, from what Ray Train raised and the errors that the workers reported."""
    for own in errors:
        if not own.misses_another:
            return own.error
    # A dead worker reports nothing: the others miss it in the midst of a sum, or Ray Train notices first.
    lost = "The node was lost: " if type(error).__name__ == "PreemptionError" else ""
    return WorkerDied(f"{lost}{error}")


# ----- in the process of Ray Train's controller


class _GivenUp(Exception):
    """The run is not to wait for room any more."""


class _AsksAgain(ControllerCallback):
    """Lets Ray Train ask for room again only if the trial wants it to; by itself it would do so for ever."""

    def __init__(self, desk: Any) -> None:
        self._desk = desk
        self._has_asked = False

    def before_controller_execute_resize_decision(self, resize_decision: object) -> None:
        """Before each attempt to start the workers, when that before it has given back what it had."""
        # Any error that is not one of Ray Train's own makes it shut down in good order.
        if self._has_asked and not ray.get(self._desk.tell.remote("waiting")):
            raise _GivenUp
        self._has_asked = True


# ----- in the processes of the workers


def _train(given: dict[str, Any]) -> None:
    """What each worker does."""
    from autodo.distributed.process_group import current_process_group

    group = current_process_group()

    def go_on(message: Message) -> bool:
        return group.all_true(ray.get(given["desk"].tell.remote(message)) if group.is_first else True)

    try:
        if go_on("starting"):
            for metrics in _epochs(given, group):
                if not go_on(metrics):
                    break
    except Exception as error:
        # The traceback itself does not survive the way to the trial.
        error.add_note(f"in worker {group.rank} of {group.size}:\n{traceback.format_exc()}")
        ray.get(given["desk"].failed.remote(WorkerError(error, misses_another=_is_lost_connection(error))))
        raise


def _epochs(given: dict[str, Any], group: "ProcessGroup") -> Generator[dict[str, Any], None, None]:
    import torch
    from ray.train.torch import get_device

    store = Store(given["store"])
    if not store.exists:
        raise StoreError(f"{store}: not there on this node; a cluster needs a store that all nodes share")
    options = ExecutionOptions.model_validate(given["options"])
    torch.set_num_threads(options.cpus)
    device = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    begin = execute if group.is_first else assist
    return begin(RunConfig.model_validate(given["run"]), store, options, device=str(device), group=group)


def _is_lost_connection(error: Exception) -> bool:
    import torch.distributed as dist

    # gloo raises a plain RuntimeError with the place in its source.
    return isinstance(error, dist.DistError) or "gloo/" in str(error)
