"""A short real run on the real images, where Debian's package or AUTODO_DATA provides them."""

import pytest

from autodo.config import DistortionConfig
from autodo.fit import fit
from autodo.recipes import build_run


@pytest.mark.slow
@pytest.mark.usefixtures("fashion_mnist")
def test_autodo_beats_the_baseline_on_imbalanced_and_noisy_clothes():
    overrides = {"dataset.subsample": 3000, "training.epochs": 6, "outer.start_share": 0.3}
    distortion = DistortionConfig.parse("10-0.1")
    outcomes = {
        method: fit(build_run("fashion-mnist", method, distortion=distortion, overrides=overrides))
        for method in ("baseline", "autodo-exact-ws")
    }
    minority = {method: outcome.results["minority_error"][0].as_py() for method, outcome in outcomes.items()}
    assert minority["autodo-exact-ws"] < minority["baseline"]
    assert outcomes["autodo-exact-ws"].error < 0.5
