import json
import subprocess
import sys
from pathlib import Path

import pytest

from autodo.config.shipped import dataset_preset, grid_names, method_names
from autodo.config.validation import parse_overrides
from autodo.errors import ConfigError
from orchestration.cli.options import ResourceOptions, TrainerOptions, with_options
from orchestration.grid.grid import GridConfig, expand, load_grid, pin_networks, variant_names
from orchestration.grid.resources import ResourcesConfig

GRID = """
name: mine
datasets: [digits]
distortions: ["1-0.0", "10-0.1"]
methods: [baseline, autodo-aws]
seeds: 2
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def errors(path: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_grid(path)
    return [line.removeprefix(f"{path}: ") for line in str(caught.value).splitlines()]


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    runs = expand(load_grid(write(tmp_path, GRID)))
    seen = {(str(run.distortion), run.method.name, run.seed) for run in runs}
    assert seen == {(d, m, s) for d in ("1-0.0", "10-0.1") for m in ("baseline", "autodo-aws") for s in (0, 1)}
    assert len(runs) == 8


def test_every_split_of_a_grid_has_its_runs(tmp_path: Path) -> None:
    runs = expand(load_grid(write(tmp_path, GRID + "splits: [paper, union, test-as-val]\n")))
    assert len({run.run_id for run in runs}) == 24
    assert {run.split for run in runs} == {"paper", "union", "test-as-val"}
    assert {run.run_id for run in runs if run.split == "paper"} == {
        run.run_id for run in expand(load_grid(write(tmp_path, GRID)))
    }


def test_a_grid_cannot_train_on_the_test_images(tmp_path: Path) -> None:
    text = GRID.replace("methods: [baseline", "methods: [val-only") + "splits: [paper, test-as-val]\n"
    (error,) = errors(write(tmp_path, text))
    assert error.startswith("splits: digits x val-only: method.images 'val' trains on val, which with split 'test-as")
    grid = load_grid(write(tmp_path, GRID + "splits: [test-as-val]\n"))
    with pytest.raises(ConfigError, match=r"^--set: digits x baseline: method\.images 'val' trains on val"):
        grid.override({"method.images": "val"})


VARIANTS = """
variants:
  E10: {outer.start_share: 0.05}
  E50: {outer.start_share: 0.25}
"""


def test_variants_are_runs_of_the_methods_that_read_their_settings(tmp_path: Path) -> None:
    grid = load_grid(write(tmp_path, GRID + VARIANTS))
    runs, names = {run.run_id: run for run in expand(grid)}, variant_names(grid)
    starts = {(run.method.name, names.get(run_id)): run.outer and run.outer.start_share for run_id, run in runs.items()}
    assert starts == {("baseline", None): None, ("autodo-aws", "E10"): 0.05, ("autodo-aws", "E50"): 0.25}
    assert len(runs) == 4 + 2 * 4
    # Ids are those of the settings: 0.25 is the default.
    assert {run.run_id for run in expand(load_grid(write(tmp_path, GRID)))} < runs.keys()


def test_a_run_of_several_variants_has_all_names(tmp_path: Path) -> None:
    text = GRID.replace("baseline", "autodo-exact-ws")  # it has 20 iterations anyway
    variants = "variants: {a: {}, b: {outer.iterations: 20}, c: {outer.lr: 0.1}}\n"
    grid = load_grid(write(tmp_path, text + variants))
    names = {(run.method.name, variant_names(grid)[run.run_id]) for run in expand(grid)}
    assert names == {*((f"autodo-{m}", "c") for m in ("exact-ws", "aws")), ("autodo-exact-ws", "a/b")} | {
        ("autodo-aws", "a"), ("autodo-aws", "b")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("[E10]", "variants: input should be a valid dictionary, not ['E10']"),
        ("{E10: 5}", "variants.E10: input should be a valid dictionary, not 5"),
        ("{a b: {}}", "variants: 'a b': a name has letters, digits, and after the first of these any of . _ = + -"),
        ("{a: {seed: 3}}", "variants: a: seed: is spanned by the grid; change its seeds instead"),
        ("{a: {policy.path: x}}", "variants: a: policy.path: must be the same for all variants; give it in set"),
        ("{a: {training.epoch: 3}}", "variants.a: digits x baseline: training.epoch: unknown key"),
        ("{a: {}, b: {outer.start_share: 0.25}}", "variants.b: has the same runs as a, for all methods of the grid"),
    ],
)
def test_errors_of_variants_are_one_line(tmp_path: Path, variants: str, message: str) -> None:
    (error,) = errors(write(tmp_path, f"{GRID}variants: {variants}\n"))
    assert error.startswith(message)


def test_an_override_of_all_runs_cannot_replace_that_of_a_variant(tmp_path: Path) -> None:
    grid = load_grid(write(tmp_path, GRID + VARIANTS))
    with pytest.raises(ConfigError, match=r"^--set outer\.start_share: is set by the variant E10 of the grid"):
        grid.override({"outer.start_share": 0.5})
    assert all(run.training.epochs == 6 for run in expand(grid.override({"training.epochs": 6})))


def test_oversplit_is_for_undistorted_data(tmp_path: Path) -> None:
    (error,) = errors(write(tmp_path, GRID + "splits: [paper, oversplit]\n"))
    assert error.startswith("split 'oversplit' takes val from the train images, which are clean only at distortion 1-0")
    assert "not at 10-0.1" in error
    clean = GRID.replace(', "10-0.1"', "")
    assert {run.split for run in expand(load_grid(write(tmp_path, clean + "splits: [oversplit]\n")))} == {"oversplit"}
    (error,) = errors(write(tmp_path, clean.replace("baseline", "train+val") + "splits: [oversplit]\n"))
    assert error.endswith("trains on val, which with split 'oversplit' is all train images")


def test_noise_that_depends_on_pixels_is_refused_for_streamed_images(tmp_path: Path) -> None:
    text = GRID.replace("10-0.1", "10-instance0.1")
    assert {str(run.distortion) for run in expand(load_grid(write(tmp_path, text)))} == {"1-0.0", "10-instance0.1"}
    grid = load_grid(write(tmp_path, text.replace("digits", "imagenet")))
    with pytest.raises(
        ConfigError, match=r"^imagenet x 10-instance0.1: distortion.noise 'instance' reads the pixels of"
    ):
        expand(grid)


def test_a_run_of_a_grid_is_the_run_that_train_builds(tmp_path: Path) -> None:
    from autodo.config.dataset import DistortionConfig
    from autodo.config.recipes import build_run

    run = expand(load_grid(write(tmp_path, GRID)))[-1]
    alone = build_run("digits", "autodo-aws", distortion=DistortionConfig.parse("10-0.1"), seed=1)
    assert run == alone
    assert run.run_id == alone.run_id


@pytest.mark.parametrize("text", ["33.3333333-0.1", "1000000-0.1", "10-0.00001", "exp100-pair0.2"])
def test_a_grid_neither_rounds_nor_refuses_a_distortion(tmp_path: Path, text: str) -> None:
    from autodo.config.dataset import DistortionConfig
    from autodo.config.recipes import build_run
    from orchestration.store.store import Store

    run = expand(load_grid(write(tmp_path, GRID.replace("10-0.1", text))))[-1]
    alone = build_run("digits", "autodo-aws", distortion=DistortionConfig.parse(text), seed=1)
    assert run.run_id == alone.run_id
    assert Path(Store(tmp_path).paths.table("results", run.run_id)).parent.name == "results"


def test_the_first_seed_of_every_cell_comes_before_the_second(tmp_path: Path) -> None:
    assert [run.seed for run in expand(load_grid(write(tmp_path, GRID)))] == [0] * 4 + [1] * 4


def test_a_larger_grid_keeps_the_run_ids_of_the_smaller(tmp_path: Path) -> None:
    small = [run.run_id for run in expand(load_grid(write(tmp_path, GRID)))]
    large = [run.run_id for run in expand(load_grid(write(tmp_path, GRID.replace("seeds: 2", "seeds: [0, 1, 7]"))))]
    assert set(small) < set(large)
    assert len(large) == 12


def test_the_same_run_twice_is_one_run(tmp_path: Path) -> None:
    text = GRID.replace('["1-0.0", "10-0.1"]', '["1-0.0", "1.0-0", "1-0.0"]').replace("seeds: 2", "seeds: [0, 0]")
    assert len(expand(load_grid(write(tmp_path, text)))) == 2


def test_overrides_reach_every_run_and_change_its_id(tmp_path: Path) -> None:
    grid = load_grid(write(tmp_path, GRID + "set: {training.epochs: 7}\n"))
    assert {run.training.epochs for run in expand(grid)} == {7}
    shorter = grid.override(parse_overrides(["training.epochs=3"]))
    assert {run.training.epochs for run in expand(shorter)} == {3}
    assert not {run.run_id for run in expand(grid)} & {run.run_id for run in expand(shorter)}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "autodo-aws",
            "autodo-awz",
            "methods[1]: unknown method 'autodo-awz'; did you mean 'autodo-aw' or 'autodo-aws'?; known: ",
        ),
        ("digits", "digitz", "datasets[0]: unknown dataset 'digitz'; did you mean 'digits'?; known: "),
        ("10-0.1", "ten", "distortions[1]: distortion 'ten' is not IR-NR"),
        ("10-0.1", "10-flip0.1", "distortions[1]: distortion '10-flip0.1' is not IR-NR"),
        ("10-0.1", "0-0.1", "distortions[1]: distortion '0-0.1': imbalance_ratio: "),
        ("seeds: 2", "seeds: 0", "seeds: is a count of at least 1 or a list of seeds, not 0"),
        ("seeds: 2", "seeds: []", "seeds: is empty"),
        ("seeds: 2", "seeds: [-1]", "seeds[0]: "),
        ("seeds: 2", "seedz: 2", "seedz: unknown key; did you mean 'seeds'?"),
        ("seeds: 2", "seeds: 2\nresources: {cpus: 0}", "resources.cpus: input should be greater than or equal to 1"),
        (
            "seeds: 2",
            "seeds: 2\nresources: {gpu: 1}",
            "resources.gpu: unknown key; did you mean 'gpus'?; known: cpus, ",
        ),
        ("seeds: 2", "seeds: 2\nset: {seed: 3}", "set: seed: is spanned by the grid; change its seeds instead"),
        ("seeds: 2", "seeds: 2\nset: {training.epoch: 3}", "set: digits x baseline: training.epoch: unknown key"),
        ("name: mine", "name: ../mine", "name: "),
    ],
)
def test_an_error_names_the_file_the_key_the_value_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert any(line.startswith(message) for line in errors(write(tmp_path, GRID.replace(old, new))))


def test_one_wrong_override_is_one_error_for_all_methods(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_grid(write(tmp_path, GRID)).override({"training.lr": "fast"})
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith("--set: digits x baseline: training.lr: ")


def test_an_unknown_grid_name_gets_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown grid 'quickstrat'; did you mean 'quickstart'"):
        load_grid("quickstrat")
    with pytest.raises(ConfigError, match=r"nowhere/grid\.yaml: no such file"):
        load_grid("nowhere/grid.yaml")


@pytest.mark.parametrize("name", grid_names())
def test_the_shipped_grids_load_and_say_how_to_launch_them(name: str) -> None:
    from autodo.config.shipped import shipped_file

    assert expand(load_grid(name))
    assert shipped_file("grids", name).read_text().startswith(f"# autodo launch {name}")


def test_ten_thousand_runs_are_planned_in_seconds() -> None:
    """A run costs so many calls of functions, however many there are."""

    def calls(seeds: int) -> int:
        grid = GridConfig.model_validate(
            {
                "name": "large",
                "datasets": ["digits", "mnist"],
                "distortions": ["1-0.0", "10-0.1"],
                "methods": method_names()[:5],
                "seeds": seeds,
            }
        )
        count = [0]
        sys.setprofile(lambda *_: count.__setitem__(0, count[0] + 1))
        try:
            runs = expand(grid)
        finally:
            sys.setprofile(None)
        assert len(runs) == 20 * seeds
        return count[0]

    few, many = calls(5), calls(55)
    assert many - few < 1000 * 500


def test_planning_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from orchestration.grid.grid import *; expand(load_grid('quickstart'));"
        "import orchestration.cli.app, orchestration.cli.report;"
        "assert not {'torch', 'ray', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_option_of_the_command_line_about_resources_overrides_a_key_of_the_grid():
    base = ResourcesConfig(lambda_storage="host", gpus=2, memory="2GiB")
    assert with_options(base, ResourceOptions(), TrainerOptions()) == base
    options = ResourceOptions(3, 1.0, "1GiB", 4), TrainerOptions("file", 0, 7, 10)
    assert with_options(base, *options).model_dump() == {
        "cpus": 3,
        "gpus": 1.0,
        "memory": 2**30,
        "workers": 4,
        "lambda_storage": "file",
        "loader_workers": 0,
        "test_every": 10,
        "checkpoint_steps": 7,
    }


@pytest.mark.parametrize(("cpus", "given", "decoders"), [(1, None, 0), (4, None, 4), (4, 0, 0), (1, 3, 3)])
def test_by_default_as_many_processes_decode_as_a_run_has_cpus(cpus, given, decoders):
    assert ResourcesConfig(cpus=cpus, loader_workers=given).decoders == decoders
    assert with_options(ResourcesConfig(cpus=cpus), TrainerOptions(loader_workers=given)).decoders == decoders


def test_the_way_in_which_classes_are_made_rare_is_set_for_all_runs_of_a_grid(tmp_path: Path) -> None:
    path = write(tmp_path, GRID)
    grid = load_grid(path)
    assert {run.distortion.minority for run in expand(grid)} == {"class", "total"}
    each = grid.override(parse_overrides(["distortion.minority=class"]))
    assert {run.distortion.minority for run in expand(each)} == {"class"}
    ids = [{run.run_id for run in expand(one) if run.distortion.imbalance_ratio > 1} for one in (grid, each)]
    assert not ids[0] & ids[1]
    with pytest.raises(ConfigError, match=r"--set: digits x baseline: distortion.minority: input should be 'total',"):
        grid.override({"distortion.minority": "classes"})
    with pytest.raises(ConfigError, match=r"distortion\.noise_ratio: is spanned by the grid; change its distortions"):
        grid.override({"distortion.noise_ratio": 0.2})


def test_a_preset_becomes_part_of_the_set_of_a_grid(tmp_path: Path) -> None:
    text = GRID.replace("datasets: [digits]", "datasets: [folder]") + "preset: cpu\n"
    grid = load_grid(write(tmp_path, text + "set: {dataset.path: photos, training.epochs: 7}\n"))
    assert grid.set == {**dataset_preset("folder", "cpu"), "dataset.path": "photos", "training.epochs": 7}
    written = load_grid(write(tmp_path, text.replace("preset: cpu\n", "") + f"set: {json.dumps(grid.set)}\n"))
    assert [run.run_id for run in expand(written)] == [run.run_id for run in expand(grid)]
    by_device = text.replace("preset: cpu", "preset: auto") + "set: {dataset.path: photos, training.epochs: 7}\n"
    assert load_grid(write(tmp_path, by_device)).set == grid.set
    on_gpus = load_grid(write(tmp_path, by_device + "resources: {gpus: 0.5}\n"))
    assert on_gpus.set == {"dataset.path": "photos", "training.epochs": 7}


@pytest.mark.parametrize(
    ("datasets", "preset", "message"),
    [
        ("[digits]", "cpu", "preset 'cpu': dataset 'digits' has no such preset; its recipe has none"),
        ("[digits, mnist]", "cpu", "preset: needs a grid of one dataset; this one has digits, mnist"),
        ("[folder]", "[cpu]", "preset ['cpu']: dataset 'folder' has no such preset; its recipe has cpu, gpu"),
    ],
)
def test_a_preset_that_the_dataset_lacks_is_named(tmp_path: Path, datasets: str, preset: str, message: str) -> None:
    text = GRID.replace("datasets: [digits]", f"datasets: {datasets}") + f"preset: {preset}\n"
    assert errors(write(tmp_path, text)) == [message]


def test_fingerprints_of_networks_are_those_of_each_variant(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        Path(f"{name}.safetensors").write_text(name)
        Path(f"own_{name}_of_a_test.py").write_text(name)
    (tmp_path / "grid.yaml").write_text(
        "name: own\ndatasets: [digits, mnist]\nmethods: [baseline]\ndistortions: ['1-0.0']\nseeds: 1\n"
        "set: {model.name: 'own_one_of_a_test:make', model.weights: one.safetensors}\n"
        "variants:\n  A: {}\n  B: {model.name: 'own_two_of_a_test:make'}\n"
        "  C: {model.name: wrn-10-1, model.weights: none}\n"
        "  D: {model.weights: two.safetensors, model.code: v2}\n"
    )
    grid = pin_networks(load_grid(str(tmp_path / "grid.yaml")))
    assert pin_networks(grid) == grid
    found = {name: run.model for run in expand(grid) for name in [variant_names(grid)[run.run_id]]}
    assert found["A"].code != found["B"].code
    assert found["A"].weights_content == found["B"].weights_content != found["D"].weights_content
    assert (found["C"].code, found["C"].weights_content, found["D"].code) == (None, None, "v2")
    assert all(model.code.startswith("source-") for model in (found["A"], found["B"]))
    assert found["D"].label == "own_one_of_a_test:make two.safetensors"
