"""One process runs many runs: nothing of one reaches the next."""

import itertools
import logging
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from orchestration.store.store import Store
from tests.orchestration.conftest import SMALL
from tests.orchestration.undisturbed import metrics

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]
GROWTH_MIB = 30.0


def watched() -> type[Any]:
    """The class that Tune makes its actors of, with a look into its process."""
    from orchestration.execution.trial import RunTrial

    class Watched(RunTrial):  # type: ignore[misc]
        def resident_mib(self) -> float:
            import psutil

            return psutil.Process().memory_info().rss / 2**20

        def global_state(self) -> dict[str, Any]:
            """All that a run could leave changed in its process."""
            import torch

            return {
                "torch generator": torch.get_rng_state().numpy().tobytes(),
                "numpy generator": str(np.random.get_state()),  # noqa: NPY002
                "python generator": hash(random.getstate()),
                "threads": torch.get_num_threads(),
                "dtype": torch.get_default_dtype(),
                "deterministic": torch.are_deterministic_algorithms_enabled(),
                "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
                "float32 precision": torch.get_float32_matmul_precision(),
                "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
                "anomalies": torch.is_anomaly_enabled(),
                "warnings": list(map(str, warnings.filters)),
                "log": (logging.getLogger("autodo").level, len(logging.getLogger("autodo").handlers)),
                "folder": str(Path.cwd()),
            }

    return Watched


class Here:
    """An actor that is an object of this process."""

    def __init__(self, run: RunConfig, store: Store) -> None:
        self._actor = watched()(config=given(run, store))

    def ask(self, method: str, *arguments: object) -> Any:
        return getattr(self._actor, method)(*arguments)

    def end(self) -> None:
        self._actor.stop()


class OnRay:
    """An actor that is a process of Ray's."""

    def __init__(self, run: RunConfig, store: Store) -> None:
        import ray

        self._actor = ray.remote(num_cpus=1)(watched()).remote(given(run, store))

    def ask(self, method: str, *arguments: object) -> Any:
        import ray

        return ray.get(getattr(self._actor, method).remote(*arguments))

    def end(self) -> None:
        import ray

        ray.kill(self._actor)


def given(run: RunConfig, store: Store) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "run": run.model_dump(mode="json"),
        "options": {"launch": ["a-launch", 1]},
        "store": store.uri,
    }


def finish(actor: Here | OnRay, epochs: int | None = None) -> str:
    """Trains to the end, or so many epochs; returns the last state."""
    for epoch in itertools.count(1):
        result = actor.ask("train")
        if result["done"] or epoch == epochs:
            return str(result["state"])
    raise AssertionError


def small(method: str, seed: int = 0, **overrides: object) -> RunConfig:
    return build_run("digits", method, seed=seed, overrides={**SMALL, **overrides})


def one_after_another(
    where: type[Here | OnRay], store: Store, runs: list[tuple[RunConfig, str]]
) -> list[dict[str, Any]]:
    """Each run to the state that is given, all in one process; returns the global state after each."""
    actor, states = where(runs[0][0], store), []
    for run, state in runs:
        assert actor.ask("reset", given(run, store))
        assert finish(actor, epochs=1 if state == "running" else None) == state
        states.append(actor.ask("global_state"))
    actor.end()
    return states


@pytest.mark.parametrize(
    ("where", "model"),
    [
        pytest.param(Here, "small-cnn", id="objects"),
        pytest.param(OnRay, "resnet-18", id="processes", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_a_run_in_a_used_process_is_the_run_in_a_fresh_one(
    where: type[Here | OnRay], model: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if where is OnRay:
        request.getfixturevalue("shared_ray")
    first, second = small("autodo-exact-aws"), small("baseline")
    third = build_run("digits", "autodo-aws", split="union", seed=3, overrides={**SMALL, "model.name": model})
    diverging, impossible = small("baseline", **{"training.lr": 1e20}), small("baseline", **{"dataset.subsample": 7})
    fresh = Store(tmp_path / "fresh").create()
    for run in (first, second, third):
        one_after_another(where, fresh, [(run, "done")])

    orders = [
        [(first, "done"), (second, "done"), (third, "done")],
        [(third, "done"), (second, "done"), (first, "done")],
        # After runs that failed, and with one that is put aside after an epoch and continued.
        [
            (diverging, "failed"),
            (first, "running"),
            (impossible, "failed"),
            (third, "done"),
            (first, "done"),
            (second, "done"),
        ],
    ]
    for number, order in enumerate(orders):
        store = Store(tmp_path / f"used-{number}").create()
        states = one_after_another(where, store, order)
        for run in (first, second, third):
            assert metrics(store, run.run_id) == metrics(fresh, run.run_id)
        # A run that was put aside is still there, with its handler of log lines, until the next comes.
        assert all(after == states[-1] for after, (_, state) in zip(states, order, strict=True) if state != "running")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("shared_ray")
def test_memory_stays_flat_over_many_runs(tmp_path: Path) -> None:
    store = Store(tmp_path / "S").create()
    overrides = {"training.epochs": 1, "training.warmup_epochs": 0, "dataset.subsample": 200}
    # Several datasets and networks in turn, as in a grid: what is kept of them must be bounded.
    kinds = [("baseline", 200, "small-cnn"), ("autodo-exact-aws", 200, "small-cnn"), ("autodo-aws", 201, "small-cnn")]
    runs = [
        build_run("digits", method, seed=seed, overrides={**overrides, "dataset.subsample": n, "model.name": model})
        for seed in range(67)
        for method, n, model in kinds
    ][:200]
    actor, resident = OnRay(runs[0], store), []
    for run in runs:
        assert actor.ask("reset", given(run, store))
        assert finish(actor) == "done"
        resident.append(actor.ask("resident_mib"))
    actor.end()
    assert len(store.status.done()) == len(runs)
    slope = float(np.polyfit(range(50, 200), resident[50:], 1)[0])
    print(f"resident MiB after 1, 50, 100, 150, 200 runs: {[round(resident[i]) for i in (0, 49, 99, 149, 199)]}; ")
    print(f"{slope:.3f} MiB a run")
    assert resident[-1] - resident[49] < GROWTH_MIB
