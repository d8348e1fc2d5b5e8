import math

import pytest

from autodo.config.recipes import build_run
from autodo.training.schedule import (
    inner_factor,
    learning_rate_factor,
    published_factor,
    restarted_factor,
    staged_factor,
)


def test_linear_warm_up_then_cosine():
    assert learning_rate_factor(0, 200, 5) == 0
    assert learning_rate_factor(2.5, 200, 5) == 0.5
    assert learning_rate_factor(5, 200, 5) == 1
    assert math.isclose(learning_rate_factor(102.5, 200, 5), 0.5)
    assert math.isclose(learning_rate_factor(200, 200, 5), 0, abs_tol=1e-15)


def test_without_warm_up_the_first_factor_is_one():
    assert learning_rate_factor(0, 10, 0) == 1


@pytest.mark.parametrize(
    # Sums of the factors of all passes: of the shared schedule they are 93, 55, 2.7 and 0.02.
    ("start", "total"),
    [(10, 95.0), (50, 75.0), (150, 25.0), (190, 5.0)],
)
def test_a_restarted_schedule_depends_on_the_epochs_that_are_left(start, total):
    factors = [restarted_factor(epoch, start=start, epochs=200, warmup_epochs=5) for epoch in range(start, 200)]
    assert sum(factors) == pytest.approx(total)
    assert min(factors) > 0
    assert max(factors) > 0.97
    warmup = [factor for epoch, factor in enumerate(factors) if epoch + 0.5 < min(5, (200 - start) / 5)]
    assert warmup == pytest.approx([(epoch + 0.5) / min(5, (200 - start) / 5) for epoch in range(len(warmup))])
    falling = factors[len(warmup) :]
    assert falling == sorted(falling, reverse=True)


def test_a_pass_for_several_epochs_has_the_factor_in_their_middle():
    options = {"start": 5, "epochs": 20, "warmup_epochs": 1}
    passes = [restarted_factor(epoch, every=2, **options) for epoch in range(5, 19, 2)]
    assert passes == [learning_rate_factor(middle, 15, 1) for middle in (1, 3, 5, 7, 9, 11, 13)]
    # The last pass stands for the two epochs that are left, not for four.
    assert restarted_factor(18, every=4, **options) == learning_rate_factor(14, 15, 1) > 0


def test_a_staged_schedule_is_that_of_the_papers():
    """Tanaka et al. and Yi and Wu: constant for 200 epochs, then another rate, divided by 10 after 40 and 80 of 120."""
    stages = {"start": 200, "epochs": 320, "early": 0.4}
    ends = {0.5: 0.4, 200: 0.4, 200.01: 1, 240: 1, 240.01: 0.1, 280: 0.1, 280.01: 0.01, 320: 0.01}
    assert [staged_factor(end, warmup_epochs=0, **stages) for end in ends] == pytest.approx([*ends.values()])
    assert staged_factor(1, warmup_epochs=4, **stages) == pytest.approx(0.1)
    config = build_run("digits", "joint-optimization", overrides={"training.epochs": 32, "training.warmup_epochs": 1})
    assert [inner_factor(config, end) for end in (0.5, 20, 20.5, 32)] == pytest.approx([0.2, 0.4, 1, 0.01])


def test_two_trainings_have_the_whole_schedule_each():
    """GLC: 5 of 20 epochs, then 15; a quarter and three quarters of the time of the run's schedule."""
    overrides = {"training.epochs": 20, "training.warmup_epochs": 2, "objective.first_share": 0.25}
    config = build_run("digits", "glc", overrides=overrides)
    whole = [learning_rate_factor(20 * share, 20, 2) for share in (0.05, 0.1, 0.55, 1)]
    assert [inner_factor(config, 5 * share) for share in (0.05, 0.1, 0.55, 1)] == pytest.approx(whole)
    assert [inner_factor(config, 5 + 15 * share) for share in (0.05, 0.1, 0.55, 1)] == pytest.approx(whole)
    assert whole == pytest.approx([0.5, 1, 0.5, 0])
    known = build_run("digits", "glc", overrides={**overrides, "objective.oracle": True})
    assert inner_factor(known, 7.5) == learning_rate_factor(7.5, 20, 2)


def test_the_published_schedule_is_a_cosine_with_another_beginning():
    assert published_factor(0, 200, 5) == 0.1
    assert published_factor(2.5, 200, 5) == pytest.approx(0.55)
    assert published_factor(0, 200, 0) == 1
    for progress in (5, 60, 120, 199.5):
        cosine = math.cos(math.pi * progress / 400) ** 2
        assert published_factor(progress, 200, 5) == pytest.approx(0.001 + 0.999 * cosine)
    assert published_factor(200, 200, 5) == pytest.approx(0.001)


@pytest.mark.parametrize(
    # Sums of the factors of all passes of the published code.
    ("start", "total"),
    [(10, 93), (50, 73), (100, 48), (150, 23), (190, 3.7)],
)
def test_the_published_outer_schedule_restarts(start, total):
    options = {"start": start, "epochs": 200, "warmup_epochs": 5, "schedule": "published"}
    assert sum(restarted_factor(epoch, **options) for epoch in range(start, 200)) == pytest.approx(total, rel=0.02)
