import pytest
import torch

from autodo import seeds
from autodo.augment import affine
from autodo.config.bilevel import PointsConfig
from autodo.points import soft_labels
from autodo.points.model import Leaves, PointModel
from autodo.points.row_store import build_store
from autodo.points.table_storage import TableStorage

LABELS = torch.tensor([0, 3, 2, 2, 1])
CLASSES = 4
SHARED = PointsConfig(learn=("augment",), shared=True)
THREE_ROWS = PointsConfig(learn=("augment", "weight"), mixture=3)


def shared_generator(event: str, number: int) -> torch.Generator:
    return seeds.torch_generator(0, event, number)


def model_of(config: PointsConfig | None, **options) -> PointModel:
    return PointModel(config, LABELS, CLASSES, shared_generator=shared_generator, **options)


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


@pytest.mark.parametrize("mixture", [None, 1, 2, 3, 16])
@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_strengths_begin_equal_to_the_last_bit_in_every_model(covariance, mixture):
    expected = PointModel(PointsConfig(learn=("augment",)), LABELS, CLASSES).view(torch.arange(5)).augment
    config = PointsConfig(learn=("augment",), covariance=covariance, mixture=mixture)
    model = model_of(config)
    augment = model.view(torch.arange(5)).augment
    assert augment is not None
    assert expected is not None
    assert torch.equal(augment[:, : affine.COLUMNS], expected)
    assert not augment[:, affine.COLUMNS :].any()
    assert augment.shape[1] == {"diagonal": 14, "full": 35}[covariance]
    logits = {None: augment.shape[1], 1: 0}.get(mixture, mixture)
    assert model.table.values.shape == (5, logits)
    shared = None if model.shared_table is None else model.shared_table.values.shape
    assert shared == (None if mixture is None else (mixture, augment.shape[1]))


@pytest.mark.parametrize("config", [None, PointsConfig(learn=("weight",)), SHARED, THREE_ROWS])
def test_weights_are_read_in_chunks(config, monkeypatch):
    model = model_of(config)
    moved = torch.tensor([1])
    leaves = model.leaves(moved)
    ones = Leaves(*(leaf if leaf is None else torch.ones_like(leaf) for leaf in leaves))
    model.rmsprop_step(moved, ones, lr=0.5)
    points = torch.tensor([4, 1, 2, 0])
    expected = model.view(points).weights
    monkeypatch.setattr("autodo.points.model.ROW_CHUNK_SIZE", 3)
    assert torch.equal(model.weights(points), expected)
    assert model.weights(points[:0]).shape == (0,)


@pytest.mark.parametrize("config", [None, PointsConfig(learn=("weight",))])
def test_prefetch_of_no_batches(config):
    assert list(PointModel(config, LABELS, CLASSES).prefetch([], for_update=True)) == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, ["device"]),
        (SHARED, ["device", "device"]),
        (THREE_ROWS, ["device", "file"]),
        (PointsConfig(learn=("augment",)), ["file"]),
    ],
)
def test_shared_rows_and_rows_without_columns_stay_on_the_device(config, expected, monkeypatch):
    kinds = []

    def build(storage, *given):
        kinds.append(storage.kind)
        return build_store(storage, *given)

    monkeypatch.setattr("autodo.points.table.build_store", build)
    model_of(config, storage=TableStorage("file"))
    assert kinds == expected


def test_shared_augmentation_is_one_row():
    model = model_of(SHARED)
    points = torch.tensor([4, 0, 2])
    leaves = model.leaves(points)
    view = model.view(points, *leaves)
    assert view.augment is not None
    assert leaves.shared is not None
    view.augment.sum().backward()
    assert leaves.shared.grad is not None
    assert leaves.shared.grad.tolist() == [[3.0] * affine.COLUMNS], "every point adds to the gradient of the row"
    model.rmsprop_step(points, Leaves(leaves.rows, leaves.shared.grad), lr=0.1)
    moved = model.view(torch.arange(5)).augment
    assert moved is not None
    torch.testing.assert_close(moved, (leaves.shared.detach() - 1).expand(5, -1), rtol=0, atol=1e-6)
    assert model.table.values.shape == (5, 0)


def test_a_mixture_of_one_row_has_no_mean_of_squares_per_point():
    config = PointsConfig(learn=("augment", "weight"), mixture=1, square_average="part")
    model = model_of(config)
    points = torch.tensor([4, 0])
    ones = Leaves(*(leaf if leaf is None else torch.ones_like(leaf) for leaf in model.leaves(points)))
    model.rmsprop_step(points, ones, lr=0.5)
    assert model.table.square_average.shape == (5, 1)
    assert model.table.square_average.isfinite().all()


def test_a_mask_holds_rows_of_points_and_not_shared_rows():
    model = model_of(THREE_ROWS)
    points = torch.tensor([4, 0, 2])
    leaves = model.leaves(points)
    view = model.view(points, *leaves)
    assert view.augment is not None
    weights = torch.randn(view.augment.shape, generator=torch.Generator().manual_seed(1))
    loss = (view.augment * weights).sum() + view.weights.sum()
    gradient = Leaves(*torch.autograd.grad(loss, [leaf for leaf in leaves if leaf is not None]))
    model.rmsprop_step(points, gradient, 0.1, mask=torch.tensor([False, True, True]))
    moved = (model.table.values != 0).all(1)
    assert moved.tolist() == [True, False, True, False, False]
    assert model.shared_table is not None
    assert (model.shared_table.values != affine.initial_row(0.25)).all()
    total = model.table.values.sum() + model.shared_table.values.sum()
    torch.testing.assert_close(model.pop_update_sum(), total)
    assert model.pop_update_sum() == 0
