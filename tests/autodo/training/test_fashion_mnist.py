"""A short real run on the real images, where Debian's package or AUTODO_DATA provides them."""

import numpy as np
import pytest

from autodo.api.run import fit_run
from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run


@pytest.mark.usefixtures("fashion_mnist")
def test_autodo_learns_on_imbalanced_and_noisy_clothes():
    """Runs this short do not show whether it beats the baseline; benchmarks do."""
    overrides = {"dataset.subsample": 1000, "training.epochs": 4, "training.batch_size": 25, "outer.start_share": 0.3}
    run = build_run(
        "fashion-mnist", "autodo-exact-ws", distortion=DistortionConfig.parse("10-0.1"), overrides=overrides
    )
    outcome = fit_run(run)
    (result,) = outcome.results.to_pylist()
    assert (result["val_points"], result["test_points"]) == (200, 10_000)
    points = outcome.points.to_pandas()
    assert 0 < (points.label != points.clean_label).mean() <= 0.1
    assert points.weight.nunique() > len(points) / 2
    assert np.stack(points.soft_label).shape == (len(points), 10)
    assert outcome.error < 0.75, "guessing is wrong nine times of ten"
