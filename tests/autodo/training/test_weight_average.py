"""Runs with averaged weights: what averages them, what uses them, and that they resume."""

from pathlib import Path

import pytest
import torch

from autodo.config.run import RunConfig
from autodo.training.trainer import Trainer
from tests.autodo.training.test_mid_epoch import EVERY, STEPS, cut_before, short_run, start, tables

State = dict[str, torch.Tensor]


def run_of(method: str = "baseline", **overrides) -> RunConfig:
    return short_run(method, **{"training.ema": 0.9, **overrides})


def state_of(*modules: torch.nn.Module) -> State:
    return {f"{i} {name}": v.clone() for i, one in enumerate(modules) for name, v in one.state_dict().items()}


def watch(training: Trainer) -> list[State]:
    """A list that gets the weights after each update of the average."""
    update, seen = training.model.weights_moved, []

    def watched() -> None:
        seen.append(state_of(training.model.encoder, training.model.head))
        update()

    training.model.weights_moved = watched
    return seen


def averaged(first: State, later: list[State]) -> State:
    """The recurrence in float64."""
    mean = {name: value.double() for name, value in first.items()}
    for t, state in enumerate(later, start=1):
        d = min(0.9, (1 + t) / (10 + t))
        mean = {name: d * mean[name] + (1 - d) * state[name].double() for name in mean}
    return mean


def assert_close(found: State, expected: State) -> None:
    for name, value in expected.items():
        if found[name].is_floating_point():
            torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("changes", [{}, {"training.precision": "bf16"}], ids=["fp32", "bf16"])
@pytest.mark.parametrize("method", ["ldam-drw", "autodo-exact-ws"])
def test_evaluation_and_results_use_the_recurrence_of_the_weights(method, changes):
    """The weights themselves take the course of a run without an average."""
    training = start(run_of(method, **changes))
    first = state_of(training.model.encoder, training.model.head)
    seen = watch(training)
    list(training)
    assert len(seen) == training.config.training.epochs * STEPS
    found = state_of(*training.model.evaluated)
    assert_close(found, averaged(first, seen))
    assert all(value.dtype == torch.float32 for value in found.values() if value.is_floating_point())
    plain = start(run_of(method, **{**changes, "training.ema": None}))
    rows = list(plain)
    raw = state_of(plain.model.encoder, plain.model.head)
    assert all(torch.equal(value, raw[name]) for name, value in seen[-1].items())
    assert torch.equal(plain.points.table.values, training.points.table.values), "passes are at the trained weights"
    losses = [[row["train_loss"] for row in one] for one in (rows, training.state.history)]
    assert losses[0] == losses[1]
    assert [row["val_loss"] for row in rows] != [row["val_loss"] for row in training.state.history]

    best = training.state.best.epoch
    expected = averaged(first, seen[: (best + 1) * STEPS])
    outcome = training.outcome(keep_embeddings=True)
    classifier = outcome.classifier
    assert_close(state_of(classifier.encoder, classifier.head), expected)
    images = torch.from_numpy(training.context.data.test.images.read())
    if not changes:  # a saved classifier computes in float32
        assert torch.equal(classifier(images).argmax(1), torch.tensor(outcome.predictions["prediction"].to_pylist()))
        assert outcome.error == pytest.approx(training.state.history[best]["test_error"])
    with torch.no_grad():
        features = classifier.encoder((images / 255 - classifier.mean) / classifier.std)
    embeddings = torch.tensor(outcome.embeddings["embedding"].to_pylist())
    torch.testing.assert_close(embeddings, features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "step", "epoch", "kept"),
    [
        ("ldam-drw", 5, 0, 3),
        ("autodo-exact-aws", 2 * STEPS + 8, 2, 6),  # after an outer pass
        ("joint-optimization", 2 * STEPS + 5, 2, 3),  # after it returned to its initial weights
    ],
)
def test_a_run_interrupted_within_an_epoch_resumes_bit_for_bit(method, step, epoch, kept, tmp_path):
    config, path = run_of(method), tmp_path / "checkpoint.pt"
    cut_before(step, start(config, path, checkpoint_steps=EVERY))
    continued, whole = start(config, path, checkpoint_steps=EVERY), start(config)
    assert (continued.state.epoch, continued.state.mid_epoch.step) == (epoch, kept)
    assert tables(continued) == tables(whole)
    assert_same(continued, whole)


def assert_same(one: Trainer, other: Trainer) -> None:
    assert one.model.average.steps == other.model.average.steps
    states = [state_of(*training.model.evaluated) for training in (one, other)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_lost_average_would_change_the_run(tmp_path: Path):
    """The test above can fail."""
    config, path = run_of(), tmp_path / "checkpoint.pt"
    cut_before(5, start(config, path, checkpoint_steps=EVERY))
    continued = start(config, path, checkpoint_steps=EVERY)
    continued.model.average.steps = 0
    assert tables(continued) != tables(start(config))


def test_a_new_start_of_the_network_is_one_of_the_average():
    training = start(run_of("joint-optimization"))
    restart, began = training.model.restart, []

    def watched(context) -> None:
        restart(context)
        assert training.model.average.steps == 0
        began.append(state_of(training.model.encoder, training.model.head))
        averages = state_of(*training.model.evaluated)
        assert all(torch.equal(value, averages[name]) for name, value in began[0].items() if "num_" not in name)
        seen.clear()

    training.model.restart = watched
    seen = watch(training)
    list(training)
    assert len(began) == 1
    assert_close(state_of(*training.model.evaluated), averaged(began[0], seen))


def test_the_last_phase_starts_from_the_average_and_averages_the_head():
    training = start(run_of("finetune-head-on-val", **{"finetune.share": 0.5, "training.batch_size": 20}))
    first, seen = state_of(training.model.encoder, training.model.head), watch(training)
    rows = iter(training)
    next(rows)
    next(rows)
    before = state_of(*training.model.evaluated)
    assert_close(before, averaged(first, seen))
    seen.clear()
    list(rows)
    assert len(seen) == 2 * 3, "60 val images"
    after = state_of(*training.model.evaluated)
    assert_close(after, averaged(before, seen))
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {"1 weight", "1 bias"}
    assert torch.equal(seen[-1]["0 layers.0.weight"], before["0 layers.0.weight"])


@pytest.mark.slow
def test_a_compiled_network_is_averaged():
    training = start(run_of(**{"training.compile": True, "training.epochs": 2}))
    first, seen = state_of(training.model.encoder, training.model.head), watch(training)
    list(training)
    assert_close(state_of(*training.model.evaluated), averaged(first, seen))
