"""Genomes, and one member of a population on digits."""

import numpy as np
import pytest

from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.search.genome import LARGEST_MOVE, SIZES, as_schedule, explore, operations, random_genome
from autodo.search.population_member import PopulationMember

SMALL = {
    "policy.search.images": 200,
    "policy.search.epochs": 6,
    "policy.search.population": 4,
    "policy.search.perturb_every": 2,
    "policy.search.model": "small-cnn",
}


@pytest.fixture(scope="module")
def digits():
    config = build_run("digits", "pba", overrides=SMALL)
    return config, prepare(load(config.dataset), config)


def genome(seed: int = 0) -> list[int]:
    return random_genome(np.random.default_rng(seed))


def test_a_genome_is_two_numbers_for_each_of_15_operations_twice():
    genomes = np.array([genome(seed) for seed in range(2000)])
    assert genomes.shape == (2000, len(SIZES)) == (2000, 60)
    assert set(genomes[:, ::2].ravel()) == set(range(11))
    assert set(genomes[:, 1::2].ravel()) == set(range(10))
    names = [name for name, _, _ in operations(genome())]
    assert len(names) == 30
    assert sorted(names[:15]) == sorted(names[15:])
    assert len(set(names)) == 15


def test_a_larger_number_is_more_likely_and_for_warps_stronger():
    weak, strong = operations([0, 0] * 30), operations([10, 9] * 30)
    assert {probability for _, probability, _ in weak} == {0.0}
    assert {probability for _, probability, _ in strong} == {1.0}
    assert {level for name, _, level in weak if name in ("Rotate", "ShearX", "TranslateY")} == {0.5}  # no warp
    assert {level for name, _, level in weak if name in ("Color", "Solarize", "Cutout")} == {0.0}
    assert {level for _, _, level in strong} == {1.0}


def test_exploring_draws_anew_or_moves_by_up_to_three():
    generator = np.random.default_rng(0)
    middle = [5] * len(SIZES)
    changed = np.array([explore(middle, 0.0, generator) for _ in range(500)])
    moves = changed - 5
    assert set(moves.ravel()) == set(range(-LARGEST_MOVE, LARGEST_MOVE + 1))
    assert np.mean(moves == 0) == pytest.approx(1 / 4, abs=0.02)  # 0 is one of four equally likely moves
    assert np.mean(moves == 3) == pytest.approx(1 / 8, abs=0.02)

    anew = np.array([explore([0] * len(SIZES), 1.0, generator) for _ in range(500)])
    assert np.mean(anew[:, ::2] == 10) == pytest.approx(1 / 11, abs=0.02)

    edges = np.array([explore([10, 9] * 30, 0.2, generator) for _ in range(500)])
    assert edges[:, ::2].max() == 10
    assert edges[:, 1::2].max() == 9
    assert edges.min() >= 0


def test_a_schedule_holds_what_the_best_member_used():
    first, second = genome(1), genome(2)
    policy = as_schedule([(0, first), (3, second), (6, second)], epochs=12)
    assert [stage.start for stage in policy.schedule] == [0.0, 0.25]
    assert policy.schedule[1].operations == operations(second)


def test_a_member_learns_and_its_heir_goes_on_where_it_stopped(digits):
    config, data = digits
    numbers = genome()
    member = PopulationMember(config, data)
    accuracies = [member.train_epoch(numbers) for _ in range(6)]
    assert accuracies[-1] > max(0.4, accuracies[0])
    assert member.history == [(0, numbers)]

    again, heir, other = PopulationMember(config, data), PopulationMember(config, data), genome(5)
    for _ in range(3):
        again.train_epoch(numbers)
    heir.load_state_dict(again.state_dict())
    assert (heir.epoch, heir.accuracy) == (3, again.accuracy)
    assert [heir.train_epoch(numbers) for _ in range(3)] == accuracies[3:]  # to the last bit

    changed = PopulationMember(config, data)
    changed.load_state_dict(again.state_dict())
    changed.train_epoch(other)
    assert changed.history == [(0, numbers), (3, other)]
