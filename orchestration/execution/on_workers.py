"""Execution of one run by several processes: a Tune trial reserves next to nothing and runs Ray Train.

The workers have a placement group of their own, all of it or none, so that runs cannot wait for each other in a circle.
Resources held by the trial itself would be missing for the workers of some run; so it asks for a little memory and no
CPU (see `trial.placement`).

Nothing is retried here. Ray Train restarts workers in less time than a new trial needs, but then a run would have two
budgets of retries, and the store would not record the failures after which Ray Train restarts a worker. A worker that
fails or dies ends the attempt; the launch decides whether there is another one, as for every run, and that one
continues from the checkpoint in the store. Ray Train's own checkpoints and reports are not used.

While there is no room for all workers, Ray Train asks for it again and again. Between two requests it asks the trial
whether to go on: at that moment nothing is reserved for the run, so that a run that is given up leaves nothing behind.
"""

import os
import tempfile
import traceback
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
from ray.train.v2._internal.execution.callback import ControllerCallback

from autodo.config.run import RunConfig
from orchestration.execution.execute import execute
from orchestration.execution.mailbox import Mailbox, Message, WorkerError
from orchestration.execution.options import ExecutionOptions
from orchestration.execution.process import load_plugins, prepare_process
from orchestration.store.run_state import WorkerDied
from orchestration.store.scratch import scratch_directory, sweep
from orchestration.store.store import Store

ROOM_SECONDS = 3.0
"""Time for which Ray Train waits for room before it asks the trial whether to go on."""
POLL_SECONDS = 0.2
"""Interval between two checks whether the workers live; Ray Train's own interval is set to the same."""


def execute_on_workers(config: RunConfig, store: Store, options: ExecutionOptions) -> Generator[Message, None, None]:
    """`execute`, by `options.workers` processes on Ray; to be called within a process of Ray.

    Between two epochs the workers wait until the iterator is asked for the next one.

    Yields:
        "waiting" every few seconds as long as there is no room for the workers, "starting" when they begin, and one
        dict per finished epoch, as `execute` does. Closing the iterator before the end stops the workers.
    Raises:
        RunBusy: if another process executes this run. WorkerDied: if a worker's process or node is lost.
        Any exception of a worker.
    """
    from ray.train import FailureConfig, ScalingConfig
    from ray.train import RunConfig as TrainRunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    if store.status.is_done(config.run_id):
        return
    # The controller of the run inherits these.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(POLL_SECONDS))
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(ROOM_SECONDS))
    temporary = Path(tempfile.gettempdir())
    sweep(temporary)
    mailbox: Any = ray.remote(num_cpus=0)(Mailbox).remote()
    with scratch_directory(temporary) as scratch, ThreadPoolExecutor(1) as thread:
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "mailbox": mailbox,
                "run": config.model_dump(mode="json"),
                "options": options.model_dump(mode="json"),
                "store": store.uri,
            },
            torch_config=TorchConfig(backend=backend(options.gpus)),
            scaling_config=ScalingConfig(
                num_workers=options.workers, use_gpu=options.gpus > 0, resources_per_worker=options.per_worker
            ),
            run_config=TrainRunConfig(
                name=config.run_id,
                storage_path=str(scratch),
                # mypy takes these for the classes of Ray Train's first version.
                callbacks=[_AskTrial(mailbox)],  # type: ignore[list-item]
                failure_config=FailureConfig(max_failures=0, max_preemption_failures=0),  # type: ignore[call-arg]
            ),
        )
        training = thread.submit(trainer.fit)
        try:
            for message in _messages(mailbox, training):
                yield message
                ray.get(mailbox.reply.remote(True))
        except GeneratorExit:
            ray.get(mailbox.reply.remote(False))
            if message == "waiting":
                training.exception()  # _GivenUp
            else:
                training.result()
            raise
        finally:
            ray.kill(mailbox)


def backend(gpus: float) -> str:
    """Backend of torch.distributed: tensors on GPUs go through NCCL, and pickled objects stay in host memory."""
    return "cpu:gloo,cuda:nccl" if gpus else "gloo"


def _messages(mailbox: Any, training: "Future[Any]") -> Iterator[Message]:
    """Yield the messages to the trial until the run is done.

    Raises:
        the error that ended the training.
    """
    next_message = mailbox.receive.remote()
    while not training.done():
        ready, _ = ray.wait([next_message], timeout=POLL_SECONDS)
        if ready:
            yield ray.get(next_message)
            next_message = mailbox.receive.remote()
    error = training.exception()
    if error is not None:
        raise _reason(error, ray.get(mailbox.errors.remote())) from error


def _reason(error: BaseException, worker_errors: list[WorkerError]) -> Exception:
    """The error that ended the training, given Ray Train's error and those that the workers reported."""
    for worker_error in worker_errors:
        if not worker_error.lost_connection:
            return worker_error.error
    # A dead worker reports nothing: the others miss it in a collective operation, or Ray Train notices first.
    lost = "The node was lost: " if type(error).__name__ == "PreemptionError" else ""
    return WorkerDied(f"{lost}{error}")


# ----- in the process of Ray Train's controller


class _GivenUp(Exception):
    """The run does not wait for room any more."""


class _AskTrial(ControllerCallback):
    """Lets Ray Train ask for room again only if the trial agrees; on its own it would ask for ever."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._first_attempt = True

    def before_controller_execute_resize_decision(self, resize_decision: object) -> None:
        """Called before each attempt to start the workers; the resources of the last attempt are released by then."""
        # An error that is not one of Ray Train's own makes it shut down cleanly.
        if not self._first_attempt and not ray.get(self._mailbox.send.remote("waiting")):
            raise _GivenUp
        self._first_attempt = False


# ----- in the processes of the workers


def _work(config: dict[str, Any]) -> None:
    """Train the run in one worker; the first worker sends the messages, and all stop together."""
    import torch
    from ray.train.torch import get_device

    from autodo.distributed.process_group import current_process_group

    group, mailbox = current_process_group(), config["mailbox"]

    def go_on(message: Message) -> bool:
        return group.all_true(ray.get(mailbox.send.remote(message)) if group.is_first else True)

    try:
        if not go_on("starting"):
            return
        store, options = Store(config["store"]), ExecutionOptions.model_validate(config["options"])
        prepare_process(store, options)
        load_plugins(options.plugins)
        device = get_device()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        run = RunConfig.model_validate(config["run"])
        for metrics in execute(run, store, options, device=str(device), group=group):
            if not go_on(metrics):
                break
    except Exception as error:
        # The traceback itself does not survive the way to the trial.
        error.add_note(f"in worker {group.rank} of {group.size}:\n{traceback.format_exc()}")
        ray.get(mailbox.report_error.remote(WorkerError(error, _is_lost_connection(error))))
        raise


def _is_lost_connection(error: Exception) -> bool:
    import torch.distributed as dist

    # gloo raises a plain RuntimeError that names a file of its source.
    return isinstance(error, dist.DistError) or "gloo/" in str(error)
