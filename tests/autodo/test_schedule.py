import math

from autodo.schedule import learning_rate_factor


def test_warms_up_linearly_then_falls_as_a_cosine():
    assert learning_rate_factor(0, 200, 5) == 0
    assert learning_rate_factor(2.5, 200, 5) == 0.5
    assert learning_rate_factor(5, 200, 5) == 1
    assert math.isclose(learning_rate_factor(102.5, 200, 5), 0.5)
    assert math.isclose(learning_rate_factor(200, 200, 5), 0, abs_tol=1e-15)


def test_no_warmup_starts_at_full_rate():
    assert learning_rate_factor(0, 10, 0) == 1
