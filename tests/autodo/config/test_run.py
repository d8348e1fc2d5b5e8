import re

import pytest
from pydantic import ValidationError

from autodo.config.bilevel import OuterConfig, PointsConfig
from autodo.config.dataset import DistortionConfig
from autodo.config.recipes import build_run
from autodo.errors import ConfigError


def test_any_change_changes_the_run_id():
    base = build_run("cifar10", "autodo-aws", seed=1)
    assert base.run_id == build_run("cifar10", "autodo-aws", seed=1).run_id
    changed = [
        build_run("cifar10", "autodo-aws", seed=2),
        build_run("cifar10", "autodo-aws", seed=1, split="union"),
        build_run("cifar10", "autodo-aws", seed=1, overrides={"outer.damping": 0.1}),
        build_run("cifar10", "autodo-aws", seed=1, overrides={"training.epochs": 100}),
        build_run("cifar10", "autodo-aws", seed=1, distortion=DistortionConfig(noise_ratio=0.1)),
    ]
    assert len({run.run_id for run in [base, *changed]}) == 6


def test_run_ids_are_stable():
    ids = {split: build_run("digits", "autodo-aws", split=split, protocol=1).run_id for split in ("paper", "union")}
    assert ids == {"paper": "digits_ir1_nr0_autodo-aws_s0_31c2174b", "union": "digits_ir1_nr0_autodo-aws_s0_12cac7dc"}
    first = {"outer.every": 1, "outer.damping": 0.01}  # the presets of the first version
    exact = build_run("digits", "autodo-exact-ws", overrides=first)
    assert exact.run_id == "digits_ir1_nr0_autodo-exact-ws_s0_4ad4587f"
    of_all = build_run("digits", "autodo-exact-aws", overrides={**first, "outer.hessian_points": None})
    assert of_all.run_id == "digits_ir1_nr0_autodo-exact-aws_s0_d6096e1c"
    assert (
        build_run("digits", "autodo-exact-aws", overrides={**first, "outer.hessian_points": 9}).run_id != of_all.run_id
    )


@pytest.mark.parametrize(("key", "same", "other"), [("precision", "fp32", "bf16"), ("compile", False, True)])
def test_precision_and_compile_change_the_id_unless_default(key, same, other):
    plain = build_run("digits", "autodo-aws")
    assert build_run("digits", "autodo-aws", overrides={f"training.{key}": same}).run_id == plain.run_id
    changed = build_run("digits", "autodo-aws", overrides={f"training.{key}": other})
    assert changed.run_id != plain.run_id
    assert changed.recipe_id != plain.recipe_id


def test_kornia_changes_ids_and_the_own_implementation_does_not():
    plain = build_run("digits", "autodo-aws")
    assert build_run("digits", "autodo-aws", overrides={"points.warp": "fused"}).run_id == plain.run_id
    assert build_run("digits", "autodo-aws", overrides={"points.warp": "kornia"}).run_id != plain.run_id
    before = {"dada-searched": "dada-2ce8ba7f", "faster-autoaugment": "faster-autoaugment-9537ca36"}
    for method, search_id in before.items():
        own = build_run("digits", method, overrides={"policy.search.implementation": "own"})
        assert own.search_id == search_id
        assert "implementation" not in own.model_dump_json(), "stored configurations lack it"
        assert type(own).model_validate_json(own.model_dump_json()) == own
        new = build_run("digits", method)
        assert new.policy.search.implementation == "kornia"
        assert new.search_id != search_id
        assert type(new).model_validate_json(new.model_dump_json()) == new


def test_covariance_and_mixture_change_the_run_id_unless_default():
    plain = build_run("digits", "autodo-aws")
    same, *others = (
        build_run("digits", "autodo-aws", overrides={f"points.{key}": value for key, value in settings.items()})
        for settings in (
            {"covariance": "diagonal", "mixture": None},
            *({"covariance": "full"}, {"mixture": 1}, {"mixture": 4}),
        )
    )
    assert same.run_id == plain.run_id
    assert len({plain.run_id, *(run.run_id for run in others)}) == 4
    assert {run.recipe_id for run in others} == {plain.recipe_id}


def test_hessian_points_need_the_full_val_gradient():
    with pytest.raises(ConfigError, match=r"hessian_points \(9\) needs val_gradient 'full'"):
        build_run("digits", "autodo-aws", overrides={"outer.hessian_points": 9})


@pytest.mark.parametrize("method", ["val-only", "train+val", "finetune-head-on-val", "class-balanced-finetune-on-val"])
def test_training_on_val_is_refused_if_val_is_the_test_set(method):
    with pytest.raises(
        ConfigError, match=rf"^digits x {re.escape(method)}: .* trains on val, which .* the test images$"
    ):
        build_run("digits", method, split="test-as-val")


def test_format_of_run_ids():
    run = build_run("cifar10", "autodo-aws", seed=3, distortion=DistortionConfig.parse("100-0.1"))
    assert run.run_id.startswith("cifar10_ir100_nr0.1_autodo-aws_s3_")
    assert len(run.run_id.rsplit("_", 1)[1]) == 8


def test_the_run_id_of_a_folder_is_a_safe_file_name():
    run = build_run("folder", "baseline", overrides={"dataset.path": "/data/../My photos (2)/"})
    assert run.run_id.startswith("folder-my-photos-2_ir1_nr0_baseline_s0_")


def test_the_content_of_a_folder_changes_ids():
    def run(**content):
        return build_run("folder", "baseline", overrides={"dataset.path": "photos", **content})

    first, second = run(**{"dataset.content": "01"}), run(**{"dataset.content": "02"})
    assert len({run().run_id, first.run_id, second.run_id}) == 3
    assert first.recipe_id != second.recipe_id
    assert type(first).model_validate_json(first.model_dump_json()) == first


def test_a_named_dataset_has_no_content():
    with pytest.raises(ConfigError, match="path and content are for the datasets 'folder' and 'features' only"):
        build_run("digits", "baseline", overrides={"dataset.content": "01"})


def test_settings_that_a_method_ignores_are_not_in_its_id():
    plain = build_run("cifar10", "baseline")
    assert plain.outer is None
    assert plain.points is None
    assert plain.run_id == build_run("cifar10", "baseline", overrides={"outer.lr": 0.5}).run_id


def test_recipe_and_variant_ids():
    a, b = build_run("cifar10", "autodo-aws"), build_run("cifar10", "baseline", seed=4, split="union")
    assert a.recipe_id == b.recipe_id, "methods, splits and seeds of one recipe are compared"
    assert a.recipe_id != build_run("cifar10", "autodo-aws", overrides={"training.epochs": 20}).recipe_id
    assert a.variant_id != build_run("cifar10", "autodo-aws", overrides={"outer.damping": 0.1}).variant_id


def test_recipes_of_the_paper():
    svhn, cifar = build_run("svhn", "autodo-aws"), build_run("cifar10", "autodo-aws")
    assert (svhn.dataset.val_share, cifar.dataset.val_share) == (0.32, 0.2)
    assert (svhn.training.lr, cifar.training.lr) == (0.005, 0.1)
    for run in (svhn, cifar):
        assert (run.model.name, run.training.epochs, run.training.batch_size, run.outer_start) == (
            "wrn-28-10",
            200,
            256,
            50,
        )
        assert run.outer is not None
        assert (run.outer.lr, run.outer.solver, run.outer.iterations) == (0.05, "neumann", 5)


def test_configs_are_frozen():
    with pytest.raises(ValidationError):
        build_run("digits", "baseline").seed = 3


def test_distortion_notation():
    assert DistortionConfig.parse("100-0.1") == DistortionConfig(imbalance_ratio=100, noise_ratio=0.1)
    assert str(DistortionConfig.parse("100-0.1")) == "100-0.1"
    assert str(DistortionConfig.parse("1-0")) == "1-0.0", "the notation of the paper"
    for wrong in ("100", "a-b", "0.5-0.1", "10-1.0", "10--1", "10-0.1-3", "step10-0.1", "10-pairs0.1", "exp-pair", ""):
        with pytest.raises(ConfigError, match=r"^distortion '[^\n]*$"):
            DistortionConfig.parse(wrong)
    with pytest.raises(
        ConfigError, match="before IR may stand exp, and before NR pair, confusion or instance, such as"
    ):
        DistortionConfig.parse("10-random0.1")


def test_kinds_of_distortion_stand_before_their_ratios():
    long_tail = DistortionConfig(imbalance_ratio=100, noise_ratio=0.2, imbalance="exponential", noise="pair")
    assert DistortionConfig.parse("exp100-pair0.2") == long_tail
    assert long_tail.minority == "class", "no step"
    assert build_run("digits", "baseline", distortion=long_tail).run_id.startswith(
        "digits_irexp100_nrpair0.2_baseline_"
    )
    # Without imbalance or noise there is nothing that the kind could change.
    for same, text in (("exp1-pair0", "1-0.0"), ("exp1-instance0.1", "1-instance0.1"), ("exp2-pair0.0", "exp2-0.0")):
        assert DistortionConfig.parse(same) == DistortionConfig.parse(text)
        assert str(DistortionConfig.parse(same)) == text
    kinds = ("10-0.1", "exp10-0.1", "10-pair0.1", "10-confusion0.1", "10-instance0.1")
    ids = {build_run("digits", "baseline", distortion=DistortionConfig.parse(text)).run_id for text in kinds}
    assert len(ids) == len(kinds)
    one = build_run("digits", "baseline", overrides={"distortion.noise_ratio": 0.1, "distortion.noise": "instance"})
    assert one == build_run("digits", "baseline", distortion=DistortionConfig.parse("1-instance0.1"))


def test_noise_that_depends_on_pixels_needs_them_in_memory():
    distortion = DistortionConfig.parse("10-instance0.1")
    with pytest.raises(
        ConfigError, match=r"'instance' reads the pixels.*'imagenet' is streamed; uniform, pair and conf"
    ):
        build_run("imagenet", "baseline", distortion=distortion)
    build_run("imagenet", "baseline", distortion=DistortionConfig.parse("exp10-confusion0.1"))


@pytest.mark.parametrize(
    "text",
    [
        "1000000-0.1",
        "10-0.00001",
        "33.3333333-0.1",
        "10000000000000000000000-0.0",
        "100.5-0.123456789",
        "exp1.5-instance0.25",
    ],
)
def test_distortions_are_printed_as_they_are_parsed(text):
    distortion = DistortionConfig.parse(text)
    assert str(distortion) == text
    assert DistortionConfig.parse(str(distortion)) == distortion
    run_id = build_run("digits", "baseline", distortion=distortion).run_id
    ir, _, nr = text.partition("-")
    assert run_id.startswith(f"digits_ir{ir}_nr{'0' if nr == '0.0' else nr}_baseline_s0_")


def test_parts_have_a_fixed_order():
    assert PointsConfig(learn=("weight", "augment")).learn == ("augment", "weight")


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        (PointsConfig, {"learn": ("weight", "weight")}, "twice"),
        (PointsConfig, {"learn": ("weight",), "shared": True}, "per point"),
        (PointsConfig, {"learn": ()}, "at least 1"),
        (PointsConfig, {"learn": ("augment",), "mixture": 0}, "greater than or equal to 1"),
        (PointsConfig, {"learn": ("augment",), "covariance": "band"}, "'diagonal' or 'full'"),
        (PointsConfig, {"learn": ("weight",), "mixture": 4}, r"mixture \(4\) needs 'augment' in learn"),
        (PointsConfig, {"learn": ("weight",), "covariance": "full"}, r"covariance \(full\) needs 'augment' in learn"),
        (PointsConfig, {"learn": ("augment",), "shared": True, "mixture": 4}, r"mixture \(4\) needs shared: false"),
        (OuterConfig, {"solver": "neumann"}, "needs a step"),
        (OuterConfig, {"solver": "exact", "step": 0.1}, "set outer.step=null"),
        (OuterConfig, {"solver": "fisher"}, "needs a damping above 0, such as outer.damping=0.01"),
        (OuterConfig, {"solver": "quasi-newton", "iterations": 0}, "'quasi-newton' needs at least 1"),
        (OuterConfig, {"solver": "neumann", "step": 0.1, "iterations": -1}, "greater than or equal to 0"),
    ],
)
def test_contradicting_settings(model, fields, message):
    with pytest.raises(ValidationError, match=message):
        model(**fields)
