import hashlib
import itertools
import json
import subprocess
import sys

import pytest

from autodo.config.dataset import OWN_DATA, DistortionConfig
from autodo.config.pixels import needs_pixels
from autodo.config.recipes import build_run
from autodo.config.shipped import dataset_names, dataset_preset, method_names, method_preset, method_text
from autodo.config.validation import load_yaml, parse_overrides
from autodo.data import DATASETS
from autodo.errors import ConfigError


def test_every_dataset_has_a_reader_and_a_recipe():
    assert sorted(DATASETS) == dataset_names()


def test_every_dataset_combines_with_every_method_and_survives_json():
    wrong = []
    for dataset, method in itertools.product(dataset_names(), method_names()):
        if dataset == "features" and needs_pixels(method_preset(method)) is not None:
            continue
        overrides = {"dataset.path": "photos"} if dataset in OWN_DATA else {}
        # For methods with a policy from a file; the others ignore it.
        overrides["policy.content"] = "0" * 16
        try:
            run = build_run(dataset, method, overrides=overrides)
        except ConfigError as error:
            wrong.append(f"{dataset} {method}: {error}")
            continue
        read = type(run).model_validate_json(run.model_dump_json())
        if (run.method.name, read, read.run_id) != (method, run, run.run_id):
            wrong.append(f"{dataset} {method}: {run} becomes {read}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("method", ["fast-autoaugment-published", "dada-published"])
def test_a_published_policy_needs_its_file(method):
    with pytest.raises(ConfigError, match=r"path is required: .* such as --set policy.path=policy.json"):
        build_run("digits", method)
    run = build_run("digits", method, overrides={"policy.path": "a.json"})
    assert run.policy.path == "a.json"


def test_the_model_of_a_search_is_checked():
    with pytest.raises(ConfigError, match=r"policy\.search\.model: unknown model 'wrn-27-1'; known: small-cnn"):
        build_run("cifar10", "fast-autoaugment-searched", overrides={"policy.search.model": "wrn-27-1"})


def test_overrides_of_policies_apply_to_the_methods_that_read_them():
    """A key that only other policies have is ignored; a key that none has is an error."""
    overrides = {"policy.path": "a.json", "policy.search.trials": 7, "policy.search.images": 9}
    for method in ("baseline", "randaugment"):
        assert build_run("digits", method, overrides=overrides) == build_run("digits", method)
    searched = build_run("digits", "fast-autoaugment-searched", overrides=overrides).policy.search
    assert (searched.trials, searched.images, searched.model) == (7, 9, "small-cnn")
    assert build_run("digits", "dada-searched", overrides=overrides).policy.search.images == 9
    for method in ("baseline", "randaugment", "fast-autoaugment-searched"):
        with pytest.raises(ConfigError, match="frob"):
            build_run("digits", method, overrides={"policy.frob": 1})
    with pytest.raises(ConfigError, match="frob"):
        build_run("digits", "dada-searched", overrides={"policy.search.frob": 1})


def test_every_method_is_described():
    for method in method_names():
        text = method_text(method)
        assert 10 < len(text.summary) < 70, f"{method}: a line of `autodo methods`"
        assert text.reads in ("train", "val", "train, val"), method
        assert text.reference, method
        assert float(text.cost) > 0, method


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.epoch=3", r"training.epoch: unknown key; did you mean 'epochs'\?; known: epochs, batch_size"),
        ("training.epochs=many", "training.epochs: .*integer.*not 'many'"),
        ("training.epochs=1", r"warmup_epochs \(5\) must be below epochs \(1\)"),
        ("outer.lrr=3", "lrr: unknown key; did you mean 'lr'"),
        ("outer=3", "outer: must be a section"),
        ("model.name=wrn-27-1", "unknown model 'wrn-27-1'; known: small-cnn"),
        ("dataset.path=x", "'folder' and 'features' only, .* not for 'cifar10'"),
        ("dataset.name=digits", "cannot be overridden"),
        ("split=onion", "'paper', 'union', 'oversplit' or 'test-as-val', not 'onion'"),
        ("nothing.at.all=3", "nothing: unknown key"),
        ("seed=-1", "seed: .*not -1"),
        ("method.loss=kl", "needs 'soft-label' in points.learn"),
        ("method.undistorted_loss=kl", r"method.undistorted_loss 'kl' needs 'soft-label' in points.learn"),
        ("augmentation.order=first", "order: .*'erase-last' or 'warp-last', not 'first'"),
        ("augmentation.border=mirror", "border: .*'zeros' or 'edge', not 'mirror'"),
        ("augmentation.erase_area=0.01", r"erase_area: .*greater than 0\.02, not 0\.01"),
        ("training.schedule=step", "schedule: .*'to-zero' or 'published', not 'step'"),
        ("training.last_batch=keep", "last_batch: .*'even' or 'drop', not 'keep'"),
        ("training.ema=0", "training.ema: input should be greater than 0, not 0$"),
        ("training.ema=1", "training.ema: input should be less than 1, not 1$"),
        ("training.ema=1.5", r"training.ema: input should be less than 1, not 1\.5$"),
        ("training.ema=a", "training.ema: .*valid number.*, not 'a'$"),
        ("points.gate_temperature=0", "gate_temperature: .*greater than 0, not 0"),
        ("outer.batch_size=0", "batch_size: .*greater than or equal to 1, not 0"),
        ("dataset.resize=256", r"resize \(256\) needs streamed images, and 'cifar10' is not streamed"),
        ("policy.kind=wild", r"baseline: policy.kind: unknown kind 'wild'; known: randaugment, colour"),
        ("objective.kind=mixupp", r"objective.kind: unknown kind 'mixupp'; did you mean 'mixup'\?; known: .*ldam-drw"),
        ("policy.frob=1", r"policy.kind: is required with frob; known: randaugment"),
    ],
)
def test_errors_of_overrides_name_the_alternatives(assignment, message):
    with pytest.raises(ConfigError, match=message):
        build_run("cifar10", "baseline", overrides=parse_overrides([assignment]))


@pytest.mark.parametrize("assignment", ["epochs", "=3", "training epochs=3", "training.epochs=[", "Training.epochs=3"])
def test_malformed_assignments(assignment):
    with pytest.raises(ConfigError, match="--set"):
        parse_overrides([assignment])


def test_overrides_are_read_as_yaml():
    assert parse_overrides(["a=3", "b.c=true", "d=[1, 2]", "e=x", "f=null"]) == {
        "a": 3,
        "b.c": True,
        "d": [1, 2],
        "e": "x",
        "f": None,
    }
    assert build_run("digits", "baseline", overrides=parse_overrides(["training.lr=1e-2"])).training.lr == 0.01


def test_errors_of_unknown_names_suggest_the_nearest():
    with pytest.raises(ConfigError, match="unknown method 'autodo-awz'; did you mean 'autodo-aw' or 'autodo-aws'"):
        build_run("cifar10", "autodo-awz")
    with pytest.raises(ConfigError, match="unknown dataset 'cifar-10'; did you mean 'cifar10' or 'cifar100'"):
        build_run("cifar-10", "baseline")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "not YAML"),
        (b"- a", "is a list, not a mapping"),
        (b"\xff\xfe\x00", "cannot be read|not YAML"),
        (b"", "is a NoneType, not a mapping"),
    ],
)
def test_invalid_yaml(content, message, tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_yaml(path)
    assert str(path) in str(caught.value)


def test_yaml_cannot_run_code(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(f"a: !!python/object/apply:pathlib.Path.touch [{tmp_path}/owned]")
    with pytest.raises(ConfigError):
        load_yaml(path)
    assert not (tmp_path / "owned").exists()


def test_configuration_loads_without_torch():
    code = "import sys; from autodo.config.recipes import build_run; build_run('svhn', 'autodo-a');"
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_methods_join_by_plus():
    run = build_run("cifar10", "randaugment+label-smoothing")
    assert (run.policy, run.objective) == (
        build_run("cifar10", "randaugment").policy,
        build_run("cifar10", "label-smoothing").objective,
    )
    assert run.method.name == "label-smoothing+randaugment"
    assert "_label-smoothing+randaugment_s0_" in run.run_id
    # The order does not matter.
    assert build_run("digits", "train+val+mixup") == build_run("digits", "mixup+train+val")
    assert build_run("digits", "trivialaugment+autodo-exact-ws").method.name == "autodo-exact-ws+trivialaugment"
    joint = build_run("digits", "logit-adjustment+autodo-exact-ws")
    assert (joint.objective, joint.points, joint.outer) == (
        build_run("digits", "logit-adjustment").objective,
        build_run("digits", "autodo-exact-ws").points,
        build_run("digits", "autodo-exact-ws").outer,
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("randaugment+trivialaugment", "'randaugment' and 'trivialaugment' both set policy"),
        ("autodo-aws+randaugment", "'autodo-aws' and 'randaugment' both set policy"),
        ("randaugment+mixupp", "unknown method 'mixupp'"),
        ("randaugment+randaugment", "'randaugment' adds nothing"),
        ("baseline+mixup", "'baseline' adds nothing"),
        ("randaugment+", "unknown method ''"),
        ("+", "unknown method ''"),
        (
            "autodo-exact-ws+label-smoothing",
            "^cifar10 x autodo-exact-ws.label-smoothing: objective 'label-smoothing' cannot be combined with "
            "points.learn: outer passes have no closed form of its Hessian; points.learn combines with: "
            "class-balanced, logit-adjustment$",
        ),
        (
            "autodo-aws+ldam-drw",
            "^cifar10 x autodo-aws.ldam-drw: objective 'ldam-drw' cannot be combined with points.learn: outer passes "
            "have no Hessian of its cosine head and margins; points.learn combines with: class-balanced, "
            "logit-adjustment; without points.learn, head.labels=posterior estimates clean labels$",
        ),
        ("autodo+autodo-exact-ws", "objective 'label-posterior' cannot be combined with points.learn: .* cosine head"),
        ("autodo-exact-ws+finetune-head-on-val", "finetune cannot be combined with points.learn"),
        ("autodo-aws+class-balanced+logit-adjustment", "'class-balanced' and 'logit-adjustment' both set objective"),
    ],
)
def test_methods_that_cannot_be_joined(name, message):
    with pytest.raises(ConfigError, match=message):
        build_run("cifar10", name)


def test_the_recipe_sets_the_strength_of_policies():
    strength = {name: build_run(name, "randaugment").policy for name in ("cifar10", "svhn")}
    assert [(policy.draws, policy.magnitude) for policy in strength.values()] == [(3, 15), (3, 7)]
    colour = {name: build_run(name, "autodo-aws").policy for name in ("cifar10", "svhn")}
    assert [(policy.kind, policy.draws, policy.magnitude) for policy in colour.values()] == [
        ("colour", 1, 15),
        ("colour", 3, 7),
    ]
    # No colour policy for gray images, unless the user gives a strength.
    assert build_run("digits", "autodo-aws").policy is None
    assert build_run("digits", "autodo-aws", overrides={"policy.draws": 1, "policy.magnitude": 9}).policy.draws == 1
    assert build_run("svhn", "autoaugment").policy.table == "svhn"
    assert build_run("svhn", "randaugment", overrides={"policy.draws": 1}).policy.draws == 1
    # The strength of one policy does not apply to another, and the baseline has none.
    assert build_run("cifar10", "baseline", overrides={"policy.kind": "trivialaugment"}).policy.kind == "trivialaugment"
    assert build_run("cifar10", "baseline").policy is None
    with pytest.raises(ConfigError, match=r"policy.*kind"):
        build_run("cifar10", "baseline", overrides={"policy.kind": "wild"})


def test_overrides_for_other_methods_change_nothing():
    overrides = {"objective.oracle": True, "finetune.share": 0.5, "policy.draws": 1}
    assert build_run("digits", "baseline", overrides=overrides) == build_run("digits", "baseline")
    assert build_run("digits", "mixup", overrides=overrides) == build_run("digits", "mixup")
    assert build_run("digits", "ldam-drw", overrides=overrides).objective.oracle
    assert build_run("digits", "finetune-head-on-val", overrides=overrides).finetune.share == 0.5
    for key in ("objective.frob", "finetune.frob"):
        for method in ("baseline", "mixup", "finetune-head-on-val"):
            with pytest.raises(ConfigError, match="frob"):
                build_run("digits", method, overrides={key: 1})


def test_settings_added_later_do_not_change_ids():
    run = build_run("digits", "baseline")
    content = json.loads(run.model_dump_json())
    for section in ("policy", "objective", "finetune", "head"):
        assert content.pop(section) is None
    for setting in ("head", "code", "weights", "weights_content", "input_size", "normalisation", "cached_views"):
        assert content["model"].pop(setting) is None
    assert content["model"].pop("freeze") == "none"
    assert content["method"].pop("images") == "train"
    assert content["dataset"].pop("stream") is False
    assert content["dataset"].pop("damaged_limit") == 0.001
    assert content["dataset"].pop("resize") is None
    assert content["dataset"].pop("code") is None
    assert content["method"].pop("undistorted_loss") is None
    assert content["augmentation"].pop("resized_crop") is None
    assert content["augmentation"].pop("order") == "erase-last"
    assert content["augmentation"].pop("border") == "zeros"
    assert content["augmentation"].pop("erase_area") == 0.4
    assert content["training"].pop("schedule") == "to-zero"
    assert content["training"].pop("last_batch") == "even"
    assert content["training"].pop("selection") == "best-val"
    assert content["training"].pop("precision") == "fp32"
    assert content["training"].pop("compile") is False
    assert content["training"].pop("ema") is None
    assert content["training"].pop("optimizer") == "sgd"
    assert content["training"].pop("encoder_lr_factor") == 1
    assert content["distortion"].pop("minority") == "class"
    assert content["distortion"].pop("imbalance") == "step"
    assert content["distortion"].pop("noise") == "uniform"
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert run.run_id.endswith(hashlib.sha256(canonical.encode()).hexdigest()[:8])


def test_errors_in_unions_name_the_key():
    for method, override, message in (
        ("randaugment", {"policy.draw": 3}, r": policy.draw: unknown key; did you mean 'draws'\?"),
        ("label-smoothing", {"objective.smoothing": 2}, r": objective.smoothing: input should be less than 1"),
        ("dada-searched", {"policy.search.epoch": 2}, r": policy.search.epoch: unknown key; did you mean 'epochs'\?"),
        ("dada-searched", {"policy.search.algorithm": "dado"}, r"unknown algorithm 'dado'; did you mean 'dada'\?"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_run("cifar10", method, overrides=override)


def test_runs_with_equal_search_settings_share_a_search():
    run = build_run("digits", "pba")
    assert run.search_id.startswith("pba-")
    assert build_run("digits", "pba+label-smoothing", overrides={"training.epochs": 3}).search_id == run.search_id
    for change in ({"policy.search.population": 8}, {"dataset.subsample": 500}, {"augmentation.flip": True}):
        assert build_run("digits", "pba", overrides=change).search_id != run.search_id
    assert build_run("digits", "pba", seed=1).search_id != run.search_id
    assert build_run("digits", "pba", distortion=DistortionConfig(noise_ratio=0.1)).search_id != run.search_id
    assert build_run("digits", "baseline").search_id is None


def test_a_dataset_preset_combines_with_every_method():
    cpu = dataset_preset("folder", "cpu")
    for method in method_names():
        given = {"dataset.path": "photos", "policy.content": "0" * 16, "training.epochs": 9}
        run = build_run("folder", method, preset="cpu", overrides=given)
        assert run.run_id == build_run("folder", method, overrides={**cpu, **given}).run_id
        assert (run.model.name, run.training.epochs) == (cpu["model.name"], 9)
        if run.search_id is not None:
            assert run.policy.search.model == cpu["policy.search.model"]
    assert build_run("folder", "baseline", overrides={"dataset.path": "photos"}).model.name == "resnet-18"
    with pytest.raises(ConfigError, match="preset 'tpu': dataset 'folder' has no such preset; its recipe has cpu, gpu"):
        build_run("folder", "baseline", preset="tpu", overrides={"dataset.path": "photos"})


@pytest.mark.parametrize(
    ("distortion", "loss"), [("1-0.0", "kl"), ("10-0.0", "symmetric-kl"), ("1-0.1", "symmetric-kl")]
)
def test_the_published_loss_depends_on_the_distortion(distortion, loss):
    assert build_run("digits", "autodo-published-aws", distortion=DistortionConfig.parse(distortion)).loss == loss
    assert build_run("digits", "autodo-aws", distortion=DistortionConfig.parse(distortion)).loss == "symmetric-kl"


@pytest.mark.parametrize("part", ["shared", "a", "aw", "aws"])
def test_published_methods_are_compared_with_the_others(part):
    published, papers = (build_run("svhn", f"autodo-{kind}{part}") for kind in ("published-", ""))
    assert published.recipe_id == papers.recipe_id
    assert published.variant_id != papers.variant_id
    same = {"learn", "shared"}
    assert published.points.model_dump(include=same) == papers.points.model_dump(include=same)
    assert published.outer == papers.outer
    assert published.points.model_dump(include={"label_smoothing", "gate_probability", "gate_temperature"}) == {
        "label_smoothing": 0.05, "gate_probability": 0.2, "gate_temperature": 1.0
    }  # fmt: skip


def test_settings_outside_the_sections_of_a_method_make_a_variant_of_it():
    plain = build_run("svhn", "baseline")
    for key, value in {"augmentation.border": "edge", "training.last_batch": "drop", "training.ema": 0.99}.items():
        changed = build_run("svhn", "baseline", overrides={key: value})
        assert (changed.recipe_id, changed.variant_id == plain.variant_id) == (plain.recipe_id, False)


def test_the_published_preset_of_imagenet():
    run = build_run("imagenet", "autodo-published-a", preset="published")
    assert (run.dataset.resize, run.dataset.image_size, run.outer.batch_size) == (256, 224, 128)
    assert run.augmentation.erase_probability == 0
    with pytest.raises(ConfigError, match=r"resize \(200\) must not be below image_size \(224\)"):
        build_run("imagenet", "baseline", overrides={"dataset.resize": 200})
