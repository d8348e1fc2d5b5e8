import pytest
import torch

from autodo.augment import affine
from autodo.config.bilevel import PointsConfig
from autodo.points import soft_labels
from autodo.points.model import PointModel
from autodo.points.row_store import build_store
from autodo.points.table_storage import TableStorage

LABELS = torch.tensor([0, 3, 2, 2, 1])
CLASSES = 4


@pytest.mark.parametrize("smoothing", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_initial_soft_labels_are_smoothed_labels(smoothing, classes):
    labels = torch.tensor([0, 1, 1])
    lam = soft_labels.initial_logits(labels, classes, smoothing, torch.float64)
    onehot = torch.nn.functional.one_hot(labels, classes).double()
    expected = (1 - smoothing) * onehot + smoothing / classes
    torch.testing.assert_close(soft_labels.log_soft_label(lam).exp(), expected, rtol=1e-12, atol=0)


def test_initial_values():
    config = PointsConfig(learn=("augment", "weight", "soft-label"))
    view = PointModel(config, LABELS, CLASSES).view(torch.arange(5))
    assert torch.equal(view.weights, torch.ones(5)), "weights are exactly 1"
    assert view.augment is not None
    torch.testing.assert_close(affine.gate_probability(view.augment), torch.full((5, 7), 0.25))
    half_range = torch.tensor(list(affine.WARP_OPERATIONS.values())) / 2
    torch.testing.assert_close(affine.magnitude_deviation(view.augment), half_range.expand(5, 7))
    torch.testing.assert_close(view.log_targets.exp().sum(1), torch.ones(5))
    assert view.log_targets.argmax(1).tolist() == LABELS.tolist()


def test_parts_that_are_not_learned_are_neutral():
    view = PointModel(None, LABELS, CLASSES).view(torch.tensor([1, 4]))
    assert view.augment is None
    assert view.weights.tolist() == [1, 1]
    assert view.log_targets.exp().tolist() == [[0, 0, 0, 1], [0, 1, 0, 0]]


@pytest.mark.parametrize(
    "config", [None, PointsConfig(learn=("weight",)), PointsConfig(learn=("augment",), shared=True)]
)
def test_weights_are_read_in_chunks(config, monkeypatch):
    model = PointModel(config, LABELS, CLASSES)
    moved = model.row_index(torch.tensor([1]))
    model.table.rmsprop_step(moved, torch.ones_like(model.table.rows(moved)), lr=0.5)
    points = torch.tensor([4, 1, 2, 0])
    expected = model.view(points).weights
    monkeypatch.setattr("autodo.points.model.ROW_CHUNK_SIZE", 3)
    assert torch.equal(model.weights(points), expected)
    assert model.weights(points[:0]).shape == (0,)


@pytest.mark.parametrize("config", [None, PointsConfig(learn=("weight",))])
def test_prefetch_of_no_batches(config):
    assert list(PointModel(config, LABELS, CLASSES).prefetch([], for_update=True)) == []


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (None, "device"),
        (PointsConfig(learn=("augment",), shared=True), "device"),
        (PointsConfig(learn=("augment",)), "file"),
    ],
)
def test_shared_rows_and_rows_without_columns_stay_on_the_device(config, kind, monkeypatch):
    kinds = []

    def build(storage, *given):
        kinds.append(storage.kind)
        return build_store(storage, *given)

    monkeypatch.setattr("autodo.points.table.build_store", build)
    PointModel(config, LABELS, CLASSES, storage=TableStorage("file"))
    assert kinds == [kind]


def test_shared_augmentation_is_one_row():
    model = PointModel(PointsConfig(learn=("augment",), shared=True), LABELS, CLASSES)
    points = torch.tensor([4, 0, 2])
    rows = model.table.rows(model.row_index(points)).requires_grad_()
    view = model.view(points, rows)
    assert view.augment is not None
    view.augment.sum().backward()
    assert rows.grad is not None
    assert rows.grad.tolist() == [[3.0] * affine.COLUMNS], "every point adds to the gradient of the row"
    model.table.rmsprop_step(model.row_index(points), rows.grad, lr=0.1)
    assert len(model.table) == 1
