"""OHL-Auto-Aug: its candidates, its REINFORCE step against sums over all draws, and whole searches on digits."""

import itertools

import numpy as np
import pytest
import torch

from autodo.augment.magnitude_ranges import PUBLISHED, OperationSampler
from autodo.augment.operations import NAMES
from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.search.trajectories.candidates import CANDIDATES, PAIRS, VALUES
from autodo.search.trajectories.distribution import CandidateDistribution, expected_gain, log_probabilities
from autodo.search.trajectories.ohl import OhlDriver, as_stage, operation_shares
from autodo.search.trajectories.trajectory import CountedPairs, TrajectoryWorker
from autodo.training.trainer import Trainer
from tests.autodo.search.one_process import OneProcessSearch

SMALL = {
    "policy.search.images": 200,
    "policy.search.epochs": 5,
    "policy.search.update_every": 2,
    "policy.search.trajectories": 3,
    "policy.search.stages": 2,
    "policy.search.model": "small-cnn",
    "training.epochs": 2,
    "training.warmup_epochs": 1,
    "dataset.subsample": 300,
}
ROUNDS = 3  # of 2, 2 and 1 epochs


def random_logits(count: int) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()


def test_the_candidates_have_the_values_of_the_paper():
    assert (len(CANDIDATES), len(set(CANDIDATES)), len(PAIRS), len(set(PAIRS))) == (36, 36, 36**2, 36**2)
    for name, probability, level in CANDIDATES:
        assert probability == 1
        low, high, mirror = PUBLISHED[name]
        value = low + level * (high - low)
        assert min(abs(value - wanted) for wanted in VALUES[name]) < 1e-9, (name, value)
        assert mirror in (0, None)
    sampler = OperationSampler(PUBLISHED)
    rotate = torch.full((200,), NAMES.index("Rotate"))
    levels = torch.tensor([level for name, _, level in CANDIDATES if name == "Rotate"])
    drawn = sampler.draw_values(rotate, levels.repeat(67)[:200], torch.Generator().manual_seed(0))
    assert sorted(set(drawn.round().tolist())) == [-30, -20, -10, 10, 20, 30]


def test_probabilities_are_normalised_sigmoids():
    logits = random_logits(5)
    sigmoids = 1 / (1 + np.exp(-logits.detach().numpy()))
    assert log_probabilities(logits).exp().tolist() == pytest.approx((sigmoids / sigmoids.sum()).tolist(), rel=1e-12)
    assert CandidateDistribution(4, 0.05).probabilities().tolist() == pytest.approx([0.25] * 4, rel=1e-12)


def test_the_mean_estimate_is_the_gradient_of_the_expected_reward():
    """All 81 outcomes of 2 trajectories that draw 2 of 3 candidates each; the baseline takes 1/2 of the gradient."""
    logits, table = random_logits(3), np.random.default_rng(0).random((3, 3))
    trajectories = list(itertools.product(range(3), repeat=2))
    counts = {draws: torch.bincount(torch.tensor(draws), minlength=3).double() for draws in trajectories}

    p = log_probabilities(logits).exp()
    expected = sum(p[a] * p[b] * table[a, b] for a, b in trajectories)
    (exact,) = torch.autograd.grad(expected, logits)

    mean = torch.zeros(3, dtype=torch.float64)
    for one, other in itertools.product(trajectories, repeat=2):
        rewards = torch.tensor([table[one], table[other]])
        gain = expected_gain(logits, torch.stack([counts[one], counts[other]]), rewards)
        chance = torch.stack([p.detach()[number] for number in (*one, *other)]).prod()
        mean += chance * torch.autograd.grad(gain, logits)[0]
    torch.testing.assert_close(mean, exact / 2, rtol=1e-10, atol=1e-14)


def test_only_differences_of_rewards_matter():
    logits, counts = random_logits(4), torch.tensor([[3.0, 1, 0, 0], [0, 2, 1, 1], [1, 1, 1, 1]]).double()
    rewards = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    (one,) = torch.autograd.grad(expected_gain(logits, counts, rewards), logits)
    (other,) = torch.autograd.grad(expected_gain(logits, counts, rewards + 7), logits)
    torch.testing.assert_close(one, other)
    distribution = CandidateDistribution(4, 0.05)
    distribution.update(counts, torch.ones(3))
    assert distribution.logits.tolist() == [0] * 4, "equal rewards teach nothing"


def test_an_update_prefers_the_candidates_of_the_better_trajectory():
    distribution = CandidateDistribution(3, 0.05)
    distribution.update(torch.tensor([[5, 1, 0], [1, 5, 0]]), torch.tensor([0.9, 0.8]))
    first, second, third = distribution.probabilities().tolist()
    assert first > third > second
    assert distribution.logits.detach().abs().max() == pytest.approx(0.05, rel=1e-6)  # the first step of Adam


def test_trajectories_differ_only_in_their_pairs():
    """The other numbers of a draw, signs and places, come from the generator of the pipeline."""
    p = torch.zeros(len(PAIRS), dtype=torch.float64)
    p[[3, 40, 1000]] = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    policies = [CountedPairs(p, torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    first, second = (policy.draw(20_000, torch.Generator().manual_seed(0)) for policy in policies)
    assert torch.equal(first.centre, second.centre)
    assert not torch.equal(first.operation, second.operation)
    counts = policies[0].counts
    assert counts.sum() == 20_000
    assert counts.nonzero().flatten().tolist() == [3, 40, 1000]
    assert (counts[[3, 40, 1000]] / 20_000).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.02)
    assert policies[0].at(0.7) is policies[0]


def test_weights_are_relative_to_a_uniform_draw():
    p = torch.full((len(PAIRS),), 1 / len(PAIRS), dtype=torch.float64)
    assert set(as_stage(0.5, p).weights) == {1.0}
    shares = operation_shares(p)
    assert shares["Rotate"] == pytest.approx(3 / 36, abs=1e-4)
    assert shares["Invert"] == pytest.approx(1 / 36, abs=1e-4)


# ----- the search


@pytest.fixture(scope="module")
def digits():
    config = build_run("digits", "ohl", overrides=SMALL)
    return config, prepare(load(config.dataset), config)


def search_of(folder, digits):
    return OneProcessSearch(OhlDriver, TrajectoryWorker, folder, digits)


@pytest.fixture(scope="module")
def found(digits, tmp_path_factory):
    return search_of(tmp_path_factory.mktemp("whole"), digits).run()


def test_the_distributions_become_a_schedule_that_a_run_replays(found, digits, tmp_path):
    config, data = digits
    assert [stage.start for stage in found.schedule] == [0, 0.8]
    assert found.sub_policies == PAIRS
    first, last = (np.array(stage.weights) for stage in found.schedule)
    assert first.mean() == pytest.approx(1, abs=1e-3)
    assert len({*first}) > 1
    assert not np.array_equal(first, last)
    assert found.provenance["accuracy"] == max(found.provenance["accuracies"]) > 0.15
    assert len(found.provenance["accuracies"]) == 3
    assert sum(found.provenance["operations"].values()) == pytest.approx(1, abs=1e-3)
    backwards = search_of(tmp_path, digits).run(order=lambda tasks: tasks[::-1])
    assert backwards.schedule == found.schedule, "the order of tasks changes nothing"

    losses = [row["train_loss"] for row in Trainer(config, data, policy=found)]
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("tasks", [2, 4, 8])
def test_a_search_that_is_cut_continues_from_the_last_round(tasks, tmp_path, digits, found):
    assert search_of(tmp_path, digits).run(tasks) is None
    harness = search_of(tmp_path, digits)
    assert harness.driver.status_line().startswith(f"round {tasks // 3} of {ROUNDS}")
    assert harness.run().schedule == found.schedule
    assert search_of(tmp_path, digits).driver.policy.schedule == found.schedule, "the end is kept too"


@pytest.mark.parametrize("damaged", ["round-2.pt", "trajectory"])
def test_a_damaged_round_is_done_again(damaged, tmp_path, digits, found):
    harness = search_of(tmp_path, digits)
    harness.run(6)
    (file,) = tmp_path.glob(damaged if damaged.startswith("round") else "trajectory-*-round-2.pt")
    file.write_bytes(b"damaged")
    assert search_of(tmp_path, digits).driver.status_line().startswith("round 1 of 3")
    assert harness.run().schedule == found.schedule, "the driver at work notices it, or needs it no more"
    names = sorted(path.name.partition("round-")[2] for path in tmp_path.iterdir())
    assert names == ["2.pt", "2.pt", "3.pt", "3.pt"], "the last two rounds, and the best trajectory of each"
