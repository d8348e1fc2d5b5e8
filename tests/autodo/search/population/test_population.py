"""Population-based augmentation on digits: genomes, a member, and whole searches."""

import numpy as np
import pytest

from autodo.config.policy import PopulationSearch
from autodo.config.recipes import build_run
from autodo.data import load, prepare
from autodo.search.population.genome import LARGEST_MOVE, SIZES, as_schedule, explore, operations, random_genome
from autodo.search.population.population import PopulationDriver, Trained, perturb
from autodo.search.population.population_member import PopulationMember, PopulationWorker
from tests.autodo.search.one_process import OneProcessSearch

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


def test_exploring_resamples_or_moves_by_up_to_three():
    generator = np.random.default_rng(0)
    middle = [5] * len(SIZES)
    changed = np.array([explore(middle, 0.0, generator) for _ in range(500)])
    moves = changed - 5
    assert set(moves.ravel()) == set(range(-LARGEST_MOVE, LARGEST_MOVE + 1))
    assert np.mean(moves == 0) == pytest.approx(1 / 4, abs=0.02)  # 0 is one of four equally likely moves
    assert np.mean(moves == 3) == pytest.approx(1 / 8, abs=0.02)

    resampled = np.array([explore([0] * len(SIZES), 1.0, generator) for _ in range(500)])
    assert np.mean(resampled[:, ::2] == 10) == pytest.approx(1 / 11, abs=0.02)

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
    accuracies = [member.train_with(numbers) for _ in range(6)]
    assert accuracies[-1] > max(0.4, accuracies[0])
    assert member.history == [(0, numbers)]

    again, heir, other = PopulationMember(config, data), PopulationMember(config, data), genome(5)
    for _ in range(3):
        again.train_with(numbers)
    heir.load_state_dict(again.state_dict())
    assert (heir.epoch, heir.accuracy) == (3, again.accuracy)
    assert [heir.train_with(numbers) for _ in range(3)] == accuracies[3:]  # to the last bit

    changed = PopulationMember(config, data)
    changed.load_state_dict(again.state_dict())
    changed.train_with(other)
    assert changed.history == [(0, numbers), (3, other)]


# ----- the search


def search_of(folder, digits):
    return OneProcessSearch(PopulationDriver, PopulationWorker, folder, digits)


@pytest.fixture(scope="module")
def found(digits, tmp_path_factory):
    return search_of(tmp_path_factory.mktemp("whole"), digits).run()


def test_the_best_members_schedule_is_found(found, tmp_path, digits):
    assert found.schedule[0].start == 0
    assert all(stage.start * 6 % 2 == pytest.approx(0, abs=1e-9) for stage in found.schedule), "changed when perturbed"
    accuracies = found.provenance["accuracies"]
    assert len(accuracies) == 4
    assert found.provenance["accuracy"] == accuracies[0] == max(accuracies) > 0.3
    backwards = search_of(tmp_path, digits).run(order=lambda tasks: tasks[::-1])
    assert backwards.schedule == found.schedule, "the order of tasks changes nothing"


@pytest.mark.parametrize("tasks", [2, 5, 11])
def test_a_search_that_is_cut_continues_from_the_last_perturbation(tasks, tmp_path, digits, found):
    assert search_of(tmp_path, digits).run(tasks) is None
    harness = search_of(tmp_path, digits)
    assert harness.driver.status_line().startswith(f"epoch {2 * (tasks // 4)} of 6")
    assert harness.run().schedule == found.schedule


def test_a_damaged_member_is_trained_again(tmp_path, digits, found):
    harness = search_of(tmp_path, digits)
    harness.run(8)
    (tmp_path / "member-2-epoch-4.pt").write_bytes(b"damaged")
    assert search_of(tmp_path, digits).driver.status_line().startswith("epoch 2 of 6")
    assert harness.run().schedule == found.schedule
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"member-{number}-epoch-{epoch}.pt" for number in range(4) for epoch in (4, 6)}


def test_the_worst_continue_from_the_best_with_changed_genomes():
    search = PopulationSearch(population=8, quantile=0.25)
    members = [Trained(accuracy / 10, genome(accuracy), []) for accuracy in (5, 1, 7, 3, 2, 8, 6, 4)]
    starts = perturb(members, search, seed=0, generation=1)
    worst, best = (1, 4), (5, 2)
    for number, start in enumerate(starts):
        if number in worst:
            assert start.source in best
            assert start.genome != members[start.source].genome
            assert np.abs(np.subtract(start.genome, members[start.source].genome)).max() <= 10
        else:
            assert start == (number, members[number].genome)
    assert starts == perturb(members, search, seed=0, generation=1)
    assert starts != perturb(members, search, seed=0, generation=2)
    two = [Trained(0.5, genome(1), []), Trained(0.5, genome(2), [])]
    assert [start.source for start in perturb(two, PopulationSearch(quantile=0.5), seed=0, generation=1)] == [1, 1]
