"""Plug-ins from files and from packages: found, loaded, refused, and part of the ids of runs."""

import dataclasses
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from autodo import plugins
from autodo.config.recipes import build_run, check_plugin_names, used_plugins
from autodo.config.run import RunConfig
from autodo.config.shipped import dataset_names, method_names, method_text
from autodo.data import ArrayImages, Dataset, ImageSet, load
from autodo.errors import ConfigError, DataError
from autodo.models import build
from autodo.objectives import OBJECTIVES
from tests.pages import write_files

PAGE = Path(__file__).parents[2] / "docs/how-to/plug-ins.md"
Edit = Callable[..., str]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_registry", plugins._Registry())
    plugins._entry_points.cache_clear()
    yield
    plugins._entry_points.cache_clear()


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The example of the docs."""
    texts = write_files(PAGE, tmp_path)
    names = ("focal", "shapes", "quantize", "tiny")
    assert set(texts) == {"grids/study.yaml", *(f"plugins/{name}.py" for name in names)}
    for text in texts.values():
        assert len([line for line in text.splitlines() if line.strip()]) <= 30
    return tmp_path


@pytest.fixture
def loaded(study: Path) -> Path:
    plugins.load_file(study / "plugins/focal.py")
    plugins.load_file(study / "plugins/shapes.py")
    return study


@pytest.fixture
def installed(study: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same files as an installed package, with the entry points of the docs."""
    site = study / "site"
    (site / "shapes_study").mkdir(parents=True)
    (site / "shapes_study/__init__.py").write_text("")
    for name in ("focal", "shapes"):
        (site / f"shapes_study/{name}.py").write_text((study / f"plugins/{name}.py").read_text())
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    install(site, tomllib.loads(block)["project"])
    monkeypatch.syspath_prepend(str(site))
    yield site
    for name in [name for name in sys.modules if name.partition(".")[0] == "shapes_study"]:
        del sys.modules[name]


def install(site: Path, project: dict) -> None:
    folder = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")


def settings_of(run: RunConfig) -> tuple[object, ...]:
    return run.dataset.code, run.objective.code, run.run_id


def test_a_loss_of_a_file_is_built_with_its_settings_and_computes_what_it_says(loaded: Path) -> None:
    run = build_run("digits", "focal", overrides={"objective.gamma": 3})
    assert method_text("focal").summary == "nothing: hard points weigh more"
    build = plugins.get("objective", "focal", run.objective.code).plugin.build
    objective = build(run.objective, None)
    logits = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 1, 0])
    step = type("Step", (), {"pixels": None, "labels": labels})
    p = logits.softmax(1)[torch.arange(5), labels]
    assert torch.allclose(objective.losses(lambda _: logits, step), -((1 - p) ** 3) * p.log())


def test_a_dataset_of_a_file_is_read_and_subsampled(loaded: Path) -> None:
    run = build_run("shapes", "focal", overrides={"dataset.subsample": 50})
    dataset = load(run.dataset)
    assert (len(dataset.train), len(dataset.test), dataset.class_names) == (50, 200, ("square", "cross"))
    assert run.training.epochs == 6


def test_names_of_plugins_are_known_and_settings_of_other_methods_do_not_disturb(loaded: Path) -> None:
    assert dataset_names()[-1] == "shapes"
    assert method_names()[-1] == "focal"
    plain = build_run("shapes", "baseline")
    assert build_run("shapes", "baseline", overrides={"objective.gamma": 3}) == plain
    joined = build_run("shapes", "focal+finetune-head-on-val", overrides={"objective.gamma": 3})
    assert (joined.objective.gamma, joined.method.name) == (3, "finetune-head-on-val+focal")


def test_ids_have_the_code_of_the_plugins_that_are_used_and_of_no_others(loaded: Path, study: Path) -> None:
    ids = {
        names: build_run(*names).run_id for names in (("digits", "baseline"), ("digits", "focal"), ("shapes", "focal"))
    }
    file = study / "plugins/focal.py"
    file.write_text(file.read_text() + "# another comment\n")
    plugins.load_file(file)
    changed = {names for names, run_id in ids.items() if build_run(*names).run_id != run_id}
    assert changed == {("digits", "focal"), ("shapes", "focal")}
    # A version of its own replaces the hash.
    file.write_text(file.read_text().replace("build=FocalLoss)", 'build=FocalLoss, version="2")'))
    plugins.load_file(file)
    run = build_run("digits", "focal")
    assert run.objective.code == "2"
    file.write_text(file.read_text() + "# and one more\n")
    plugins.load_file(file)
    assert build_run("digits", "focal").run_id == run.run_id
    assert {one.source: one.version for one in used_plugins(run)} == {"focal.py": plugins.files()[0].content}


def test_a_run_is_the_same_after_storing_and_needs_its_plugins(loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = build_run("shapes", "focal", overrides={"objective.gamma": 3})
    text = run.model_dump_json()
    assert RunConfig.from_stored(text) == run
    assert RunConfig.model_validate(run.model_dump(mode="json")).run_id == run.run_id
    other = text.replace(run.dataset.code, "0" * 16)
    with pytest.raises(ConfigError, match=r"dataset 'shapes': shapes.py is not as it was .*its code was 0{16}, here"):
        load(RunConfig.from_stored(other).dataset)
    monkeypatch.setattr(plugins, "_registry", plugins._Registry())
    with pytest.raises(ConfigError, match="objective 'focal': is of a plug-in that is not loaded; give its file with"):
        RunConfig.from_stored(text)


def test_another_process_gets_the_same_plugins_without_the_file(
    loaded: Path, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, files = build_run("shapes", "focal"), plugins.files()
    for file in files:
        Path(file.path).unlink()
    monkeypatch.setattr(plugins, "_registry", plugins._Registry())
    plugins.load(files)
    assert RunConfig.model_validate(run.model_dump(mode="json")).run_id == run.run_id
    plugins.load(files)
    assert plugins.files() == files


def test_entry_points_of_an_installed_package(installed: Path) -> None:
    assert "shapes_study" not in sys.modules
    assert (dataset_names()[-1], method_names()[-1]) == ("shapes", "focal")
    assert build_run("digits", "gce").objective.q == 0.7
    assert "shapes_study" not in sys.modules, "nothing is imported for runs that do not need it"
    run = build_run("shapes", "focal")
    assert len(load(run.dataset).train) == 400
    assert {one.source: one.version for one in used_plugins(run)} == {"shapes-study": "1.0"}
    # An edit anywhere in the package changes its code.
    (installed / "shapes_study/__init__.py").write_text("# changed\n")
    plugins._registry.of_packages.clear()
    assert build_run("shapes", "focal").dataset.code != run.dataset.code


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import numpy\nimport no_such_module\n", "cannot be imported: line 2: ModuleNotFoundError: No module named"),
        ("x = (\n", "cannot be imported: line 1: SyntaxError: '\\(' was never closed"),
        ("raise SystemExit(3)\n", "cannot be imported: line 1: SystemExit: 3"),
        ("x = 1\n", "has no plug-in at its top level; .*: DatasetPlugin, ObjectivePlugin"),
        (
            "from autodo.plugins import MethodPlugin\na = MethodPlugin(name='Focal Loss', preset={})\n",
            r"line 2: ValueError: method 'Focal Loss': the name must match \[a-z",
        ),
        (
            "from autodo.plugins import DatasetPlugin\na = DatasetPlugin(name='a', read=print, recipe={})\n",
            "line 2: ValueError: dataset 'a': its recipe has no model.name; it needs at least",
        ),
        (
            "from autodo.plugins import ObjectivePlugin\na = ObjectivePlugin(name='a', settings=dict, build=print)\n",
            "line 2: ValueError: objective 'a': settings must be a subclass of .* kind: Literal\\['a'\\] = 'a'",
        ),
        (
            "from autodo.plugins import MethodPlugin\na, b = (MethodPlugin(name='m', preset={}) for _ in 'ab')\n",
            "the file has another 'method m'; rename one of them",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"^--plugin {file}: .*{message}") as caught:
        plugins.load_file(file)
    assert len(str(caught.value).splitlines()) == 1
    assert plugins.files() == ()


def test_a_place_that_is_no_file_is_refused(tmp_path: Path) -> None:
    for name, message in (("x.py", "No such file"), ("x.yaml", "not a Python file"), (".", "not a Python file")):
        with pytest.raises(ConfigError, match=f"--plugin {tmp_path / name}: .*{message}"):
            plugins.load_file(tmp_path / name)


def test_two_plugins_of_one_name_are_refused(loaded: Path, study: Path) -> None:
    (study / "other.py").write_text(
        "from autodo.plugins import MethodPlugin\nm = MethodPlugin(name='focal', preset={})\n"
    )
    with pytest.raises(ConfigError, match=r"other.py: focal.py has another 'method focal'; rename one of them"):
        plugins.load_file(study / "other.py")
    (study / "focal.py").write_text("")
    with pytest.raises(ConfigError, match=r"focal.py: .*/plugins/focal.py has the same file name; rename one of them"):
        plugins.load_file(study / "focal.py")


def test_a_file_and_a_package_of_one_name_are_refused(installed: Path, loaded: Path) -> None:
    with pytest.raises(ConfigError, match=r"method 'focal': is in focal.py and in shapes-study 1.0; only one may"):
        build_run("digits", "focal")


def test_a_network_of_a_file_is_built_and_its_code_is_part_of_the_run(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"model.name: unknown model 'tiny'.*--plugin adds those of a file"):
        build_run("digits", "baseline", overrides={"model.name": "tiny"})
    plain = build_run("digits", "baseline")
    plugins.load_file(study / "plugins/tiny.py")
    assert build_run("digits", "baseline").run_id == plain.run_id
    run = build_run("digits", "baseline", overrides={"model.name": "tiny"})
    assert {one.source: one.code for one in used_plugins(run)} == {"tiny.py": run.model.code}
    encoder, head = build(**run.model.network, in_channels=1, image_size=8, classes=10)
    assert head(encoder(torch.zeros(2, 1, 8, 8))).shape == (2, 10)
    assert sum(one.numel() for part in (encoder, head) for one in part.parameters()) == 16 * (9 + 1 + 144 + 1) + 170
    with pytest.raises(ConfigError, match=r"model 'tiny': tiny.py is not as it was when the run was planned"):
        build(**{**run.model.network, "code": "0" * 16}, in_channels=1, image_size=8, classes=10)
    monkeypatch.setattr(plugins, "_registry", plugins._Registry())
    assert RunConfig.from_stored(run.model_dump_json()) == run, "a report needs no plug-in"
    with pytest.raises(ConfigError, match="unknown model 'tiny'"):
        build(**run.model.network, in_channels=1, image_size=8, classes=10)


def test_a_name_of_autodo_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    for text, message in (
        (
            "import autodo.plugins as a\nm = a.MethodPlugin(name='gce', preset={})",
            "mine.py: method 'gce': AutoDO itself",
        ),
        (
            "import autodo.plugins as a\nd = a.DatasetPlugin(name='digits', read=print, "
            "recipe={'model': {'name': 'small-cnn'}, 'training': {'epochs': 3}})",
            "mine.py: dataset 'digits': AutoDO itself",
        ),
        (
            "import autodo.plugins as a\nd = a.ModelPlugin(name='wrn-16-2', make=print)",
            "model 'wrn-16-2': AutoDO",
        ),
    ):
        file.write_text(text)
        plugins.load_file(file)
        with pytest.raises(ConfigError, match=message):
            check_plugin_names()


def test_a_package_that_cannot_be_used_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_study.py").write_text("import no_such_module\n")
    points = {"autodo.methods": {"one": "broken_study:one", "two": "json:dumps"}}
    install(tmp_path, {"name": "broken-study", "version": "0.1", "entry-points": points})
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, message in (
        ("one", "package broken-study 0.1: method 'one' .*: cannot be imported: ModuleNotFoundError: No module"),
        ("two", "package broken-study 0.1: method 'two' .*: is a function, not a MethodPlugin"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_run("digits", name)
    assert build_run("digits", "baseline").run_id, "the rest works"


def test_wrong_settings_of_a_plugin_name_the_key(loaded: Path) -> None:
    for key, value, message in (
        ("gamma", -1, "digits x focal: objective: focal: gamma: input should be greater than 0, not -1"),
        ("gama", 1, "objective: focal: gama: unknown key; did you mean 'gamma'"),
        ("kind", "focl", "objective.kind: unknown kind 'focl'; did you mean 'focal'.*, l2rw, focal"),
        ("code", "x", "objective 'focal': focal.py is not as it was when the run was planned"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            build_run("digits", "focal", overrides={f"objective.{key}": value})
        assert len(str(caught.value).splitlines()) == 1


def of(images: np.ndarray, labels: np.ndarray, classes: int = 2) -> Dataset:
    images_and_labels = ImageSet(ArrayImages(images), labels)
    return Dataset(images_and_labels, images_and_labels, tuple("abc"[:classes]))


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda *_: 1 / 0, r"its reader failed: ZeroDivisionError: division by zero \(.*test_plugins.py:\d+\)"),
        (lambda *_: [1], "its reader returned a list, not an autodo.data.Dataset"),
        (lambda *_: of(np.zeros((4, 1, 8, 8)), np.zeros(4, np.int64)), "train: images are float64, not uint8"),
        (lambda *_: of(np.zeros((4, 8, 8), np.uint8), np.zeros(4, np.int64)), r"shape \(4, 8, 8\), not \[N, C, H, W\]"),
        (
            lambda *_: of(np.zeros((4, 1, 8, 8), np.uint8), np.zeros(3, np.int64)),
            r"labels are int64 of the shape \(3,\)",
        ),
        (lambda *_: of(np.zeros((0, 1, 8, 8), np.uint8), np.zeros(0, np.int64)), "train: has no images"),
        (
            lambda *_: of(np.zeros((4, 1, 8, 8), np.uint8), np.full(4, 2)),
            "labels are in 2..2, but there are 2 class_names",
        ),
    ],
)
def test_what_a_reader_returns_is_checked(loaded: Path, read: Callable, message: str) -> None:
    key = "dataset", "shapes"
    own = plugins._registry.of_files[key]
    plugins._registry.of_files[key] = own._replace(plugin=dataclasses.replace(own.plugin, read=read))
    with pytest.raises(DataError, match=f"^dataset 'shapes' of shapes.py: .*{message}"):
        load(build_run("shapes", "baseline").dataset)


def test_no_shipped_objective_is_a_plugin() -> None:
    assert plugins.all_of("objective") == []
    assert "focal" not in OBJECTIVES
