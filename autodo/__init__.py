"""AutoDO: image classifiers from data with wrong labels and rare classes.

`fit` trains on images that are given in Python; `AutoDOClassifier` is its form for scikit-learn. Importing this package
imports neither torch nor another large library; the public names are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autodo.api.estimator import AutoDOClassifier
    from autodo.api.fit import fit
    from autodo.config.recipes import build_run
    from autodo.results.classifier import Classifier

__all__ = ["AutoDOClassifier", "Classifier", "build_run", "fit"]

_MODULES = {
    "AutoDOClassifier": "autodo.api.estimator",
    "Classifier": "autodo.results.classifier",
    "build_run": "autodo.config.recipes",
    "fit": "autodo.api.fit",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
