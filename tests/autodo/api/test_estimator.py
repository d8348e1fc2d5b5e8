"""`AutoDOClassifier` as an estimator of scikit-learn."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_predict
from sklearn.utils import estimator_checks as checks

from autodo import AutoDOClassifier
from autodo.errors import ConfigError, DataError

SHORT = AutoDOClassifier("baseline", model="small-cnn", epochs=2, preset="cpu", device="cpu")
IMAGES, LABELS = load_digits(return_X_y=True)
ROWS, LABELS = IMAGES[:120] / 16, LABELS[:120]
SQUARES = ROWS.reshape(-1, 8, 8)


def test_it_passes_the_checks_of_scikit_learn_that_need_no_table():
    """The others fit rows of unbounded numbers."""
    for check in (
        checks.check_estimator_cloneable,
        checks.check_estimator_tags_renamed,
        checks.check_valid_tag_types,
        checks.check_estimator_repr,
        checks.check_no_attributes_set_in_init,
        checks.check_do_not_raise_errors_in_init_or_set_params,
        checks.check_mixin_order,
        checks.check_parameters_default_constructible,
        checks.check_get_params_invariance,
        checks.check_set_params,
    ):
        check("AutoDOClassifier", AutoDOClassifier(epochs=1))


def test_labels_of_any_kind_come_back():
    with pytest.raises(NotFittedError):
        clone(SHORT).predict(SQUARES)
    animals = np.array(["eel", "cat"])[LABELS % 2]
    two = LABELS % 2
    for labels in (animals, np.array([-1, 7])[two], list(map(bool, two)), two == 1, two * 2.0, animals.astype(object)):
        fitted = clone(SHORT)
        before = fitted.get_params()
        assert fitted.fit(SQUARES, labels) is fitted
        assert fitted.get_params() == before
        assert fitted.classes_.tolist() == sorted(set(np.asarray(labels).tolist()))
        assert fitted.classes_.dtype == np.asarray(labels).dtype
        probabilities = fitted.predict_proba(SQUARES[:3])
        assert probabilities.shape == (3, 2)
        predicted = fitted.predict(SQUARES)
        assert np.array_equal(predicted[:3], fitted.classes_[probabilities.argmax(1)])
        assert fitted.score(SQUARES, labels) == (predicted == np.asarray(labels)).mean()
        assert fitted.outcome_.error is None
    with pytest.raises(DataError, match=r"y: label 0 is 0\.5, not a whole number or a name"):
        clone(SHORT).fit(SQUARES, two + 0.5)
    copy = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(copy.predict_proba(SQUARES), fitted.predict_proba(SQUARES))


def test_rows_with_a_shape_go_through_the_tools_of_scikit_learn():
    flat = clone(SHORT).set_params(image_shape=(8, 8), epochs=12)
    predicted = cross_val_predict(flat, ROWS, LABELS, cv=2, method="predict_proba")
    assert predicted.shape == (120, 10)
    whole = clone(flat).set_params(image_shape=None).fit(SQUARES, LABELS)
    assert np.array_equal(flat.fit(ROWS, LABELS).predict_proba(ROWS), whole.predict_proba(SQUARES))
    with pytest.raises(ConfigError, match=r"image_shape: \(8, 8\) does not fit images of the shape \(120, 8, 8\)"):
        flat.predict(SQUARES)
    with pytest.raises(DataError, match=r"images: shape \(120, 64\) is not that of images"):
        clone(SHORT).fit(ROWS, LABELS)


def test_one_image_is_not_taken_for_several():
    colours = np.stack([SQUARES] * 3, -1)
    fitted = clone(SHORT).set_params(epochs=1).fit(colours, LABELS)
    first = fitted.predict(colours[:1])
    channels_first = torch.tensor(colours[0]).permute(2, 0, 1)
    for one in (colours[0], channels_first, Image.new("RGB", (8, 8)), Path("photo.png"), "a.png"):
        with pytest.raises(DataError, match=r"X: is one image, not several: give a list, or an array"):
            fitted.predict(one)
    assert np.array_equal(fitted.predict([colours[0]]), first)


def test_trusted_images_are_val():
    labels = LABELS - 5
    fitted = clone(SHORT).set_params(method="autodo")
    fitted.fit(SQUARES[20:], labels[20:], val=(SQUARES[:20], labels[:20]))
    assert fitted.outcome_.results["val_points"].to_pylist() == [20]
    assert np.isfinite(fitted.outcome_.weights).all()
    with pytest.raises(DataError, match=r"val: has the class 9, which y does not have; classes: \[0, 1"):
        clone(SHORT).fit(SQUARES, LABELS % 9, val=(SQUARES, LABELS))
