"""Runs the code of README and docs: Python and YAML as printed, on tiny data; shell lines as far as possible.

Names on the pages (STORE, PATH, DIR, …) are files and folders of the working directory; `stand_ins` replaces others.
The real command line parses every `autodo` line and then runs it. Exceptions: `launch` only expands its grid, without
Ray, and trainings on data that is not available are only configured.
"""

import dataclasses
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import typer
import yaml
from PIL import Image
from rich.console import Console

from autodo import plugins
from autodo.augment.read_policy import read_policy
from autodo.config import recipes
from autodo.config.recipes import build_run
from autodo.config.validation import parse_overrides
from orchestration.cli import app, launch, train
from orchestration.cli.options import GridOptions, LaunchOptions, TrainOptions, with_options
from orchestration.execution.execute import execute
from orchestration.execution.options import ExecutionOptions
from orchestration.grid.grid import expand, load_grid
from orchestration.planning.plan import select
from orchestration.store.store import Store
from tests.pages import write_files

ROOT = Path(__file__).parents[1]
LANGUAGES = ("sh", "python", "yaml", "json", "toml", "dockerfile", "text")
TINY_OVERRIDES = {
    **{"training.epochs": 1, "training.warmup_epochs": 0, "dataset.image_size": 8},
    **{"model.name": "small-cnn", "model.weights": "none"},
}
"""Overrides for `build_run` in addition to those of a page."""
ASSUMED_NAMES = {
    "docs/how-to/use-a-classifier.md": {"images": "torch.zeros(2, 1, 9, 9)"},
    "docs/how-to/python-api.md": {
        "images": "torch.rand(30, 8, 8)",
        "labels": "torch.arange(30) % 3",
        "val_images": "torch.rand(3, 8, 8)",
        "val_labels": "torch.arange(3)",
        "outcome": "autodo.fit(torch.rand(30, 8, 8), torch.arange(30) % 3)",
    },
}
"""Names that the Python code of a page assumes."""
UNFIT = {"digits": ("dataset.image_size",)}
"""Those that a dataset cannot have."""
PLUGINS = {"docs/how-to/plug-ins.md": ("plugins/focal.py", "plugins/shapes.py")}
"""Files of a page that its grids need."""
NOT_RUN = {
    "chmod": "changes the reader's files",
    "export": "sets the reader's environment",
    "kubectl": "needs Kubernetes",
    "make": "sets up an environment; the test checks that the target exists",
    "python": "trains for hours; the test checks that the module has these options",
    "ray": "needs a cluster; the test checks the `autodo` line of a job",
    "sbatch": "needs Slurm",
    "ssh": "needs another machine",
}
"""Commands of shell blocks, and why they are not run. Files that they name must exist."""
AVAILABLE = ("digits", "folder")
"""Datasets on which the test trains."""


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks() -> Iterator[Block]:
    for page in pages():
        text = page.read_text()
        for found in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(str(page.relative_to(ROOT)), line, found[1], found[2])


BLOCKS = list(blocks())


def blocks_in(*languages: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in languages], ids=str)


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that pages name; its store has two small real runs and a policy."""
    folder = tmp_path_factory.mktemp("docs")
    generator = np.random.default_rng(0)
    for place in ("PATH", "photos"):
        for name in ("cat", "dog", "eel"):
            (folder / place / name).mkdir(parents=True)
            for i in range(8):
                pixels = generator.integers(0, 256, (12, 12), np.uint8)
                Image.fromarray(pixels).save(folder / place / name / f"{i:04}.jpg")
    policies = {"fa_reduced_cifar10": "archive", "CIFAR10": "genotype"}
    for name, file in policies.items():
        (folder / f"{file}.py").write_text(f"{name} = [[['Rotate', 0.9, 0.3], ['Invert', 0.2, 0.7]]]\n")
    (folder / "policy.json").write_text('{"source": "a test", "sub_policies": [[["Rotate", 0.9, 0.3]]]}')
    (folder / "policies").mkdir()
    for method in ("fast-autoaugment-published", "dada-published"):
        for dataset in ("cifar10", "svhn"):
            shutil.copy(folder / "policy.json", folder / f"policies/{method}-{dataset}.json")

    (folder / "tiny.yaml").write_text(
        "{name: tiny, datasets: [digits], distortions: [100-0.1], methods: [autodo-aws, baseline], seeds: 1,"
        " keep: [models], set: {training.epochs: 2, dataset.subsample: 200}}"
    )
    grid = load_grid(str(folder / "tiny.yaml"))
    store = Store(folder / "STORE").create()
    store.save_grid(grid)
    for run in expand(grid):
        for _ in execute(run, store, ExecutionOptions(keep=("models",))):
            pass
    policy = read_policy(folder / "policy.json")
    store.policies.write(policy_id(folder), policy)
    for block in BLOCKS:
        if block.language == "yaml":
            (folder / f"{yaml.safe_load(block.text)['name']}.yaml").write_text(block.text)
    for page in PLUGINS:
        write_files(ROOT / page, folder)
    for name in ("S", "outputs/quickstart"):
        shutil.copytree(folder / "STORE", folder / name)
    shutil.copy(store.paths.model(a_run_id(folder)).uri, folder / "model.pt")
    return folder


def policy_id(folder: Path) -> str:
    from autodo.augment.policy_file import fingerprint

    return f"file-{fingerprint(read_policy(folder / 'policy.json'))}"


def a_run_id(folder: Path) -> str:
    return min(Store(folder / "STORE").status.done())


@pytest.fixture
def place(_made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(_made)
    monkeypatch.setenv("HOME", str(_made))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(plugins, "_registry", plugins._Registry())
    return _made


def stand_ins(place: Path) -> dict[str, str]:
    """Patterns of words that cannot be file names, and their replacements."""
    return {
        r"GRID": "quickstart",
        r"RUN": a_run_id(place),
        r"ID": policy_id(place),
        r"N": "10",
        r"DATA": "data",
        r"dataset\.path=(s3://bucket|~)/photos": "dataset.path=PATH",
        r"(/mnt/shared|s3://bucket/team)/quickstart|/shared/fashion-mnist": "STORE",
    }


def test_every_block_has_a_language() -> None:
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []
    assert sum(page.read_text().count("\n```") for page in pages()) == 2 * len(BLOCKS)


@blocks_in("python")
def test_python_runs(block: Block, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _skip_without_extra(block)
    real = recipes.build_run

    def tiny(dataset: str, method: str, overrides: dict[str, Any], **more: Any) -> Any:
        # Features have neither another model nor a size.
        fitting = {key: value for key, value in TINY_OVERRIDES.items() if dataset != "features" or "training" in key}
        return real(dataset, method, overrides=overrides | fitting, **more)

    monkeypatch.setattr(recipes, "build_run", tiny)
    import torch

    import autodo
    import autodo.api.fit

    monkeypatch.setattr(sys.modules["autodo.api.fit"], "build_run", tiny)
    given = {
        name: eval(code, {"torch": torch, "autodo": autodo}) for name, code in ASSUMED_NAMES.get(block.page, {}).items()
    }
    code = compile("\n" * block.line + block.text.replace("RUN_ID", a_run_id(place)), block.page, "exec")
    exec(code, given)


@blocks_in("yaml")
def test_a_grid_can_be_planned(block: Block, place: Path, autodo: Callable[[Sequence[str]], None]) -> None:
    options = [word for file in PLUGINS.get(block.page, ()) for word in ("--plugin", file)]
    autodo(["plan", f"{yaml.safe_load(block.text)['name']}.yaml", *options])


@blocks_in("json")
def test_a_policy_can_be_read(block: Block, place: Path) -> None:
    if block.page in PLUGINS:
        plugins.load_file(place / "plugins/quantize.py")
    (place / "block.json").write_text(block.text)
    assert read_policy(place / "block.json").sub_policies
    assert json.loads(block.text)["source"]


@blocks_in("dockerfile")
def test_files_copied_into_an_image_exist(block: Block) -> None:
    named = re.findall(r"/home/ray/autodo/(\S+)", block.text)
    assert named == ["constraints.txt"]
    assert all((ROOT / file).exists() for file in named)


@pytest.fixture
def autodo(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Sequence[str]], None]:
    """Runs `autodo WORDS` and asserts that it succeeds."""

    def launch_grid(_: Console, grid: GridOptions, options: LaunchOptions) -> int:
        config = load_grid(grid.grid).override(parse_overrides(grid.overrides))
        with_options(config.resources, options.resources, options.trainer)
        assert select(expand(config), ",".join(options.only) or f"seed={config.seeds[0]}")
        return 0

    real = train.train_run

    def train_run(console: Console, options: TrainOptions) -> int:
        if options.dataset in AVAILABLE and "searched" not in options.method:
            fitting = {key: value for key, value in TINY_OVERRIDES.items() if key not in UNFIT.get(options.dataset, ())}
            tiny = [*options.overrides, *(f"{key}={value}" for key, value in fitting.items())]
            return real(console, dataclasses.replace(options, overrides=tiny))
        overrides = parse_overrides(options.overrides)
        preset = None if options.preset == "auto" else options.preset
        build_run(options.dataset, options.method, preset=preset, overrides=overrides)
        return 0

    monkeypatch.setattr(launch, "launch_grid", launch_grid)
    monkeypatch.setattr(train, "train_run", train_run)
    monkeypatch.setattr(app, "console", Console(width=120))

    def call(words: Sequence[str]) -> None:
        monkeypatch.setattr(sys, "argv", ["autodo", *words])
        with pytest.raises(SystemExit) as ended:
            app.main()
        said = capsys.readouterr()
        assert not ended.value.code, f"autodo {shlex.join(words)}: {said.err}"

    return call


def shell_lines(block: Block) -> list[list[str]]:
    """The words of each line, without comments; a backslash at its end joins a line to the next."""
    lines = (shlex.split(line, comments=True) for line in block.text.replace("\\\n", " ").splitlines())
    return [words for words in lines if words]


@blocks_in("sh")
def test_shell_lines_run_or_are_valid(block: Block, place: Path, autodo) -> None:
    _skip_without_extra(block)
    replaced = stand_ins(place)
    for words in shell_lines(block):
        if words[0] != "autodo":
            assert words[0] in NOT_RUN, f"{block}: {words[0]} is neither run nor in NOT_RUN"
            _check_names(block, words)
        if "autodo" in words:
            called = words[words.index("autodo") + 1 :]
            for pattern, stand_in in replaced.items():
                called = [stand_in if re.fullmatch(pattern, word) else word for word in called]
            if called[0] == "report" and "--format" not in called:
                called += ["--format", "csv"]  # fast; docs/how-to/read-a-report.md writes the page
            autodo(called)


def _skip_without_extra(block: Block) -> None:
    if "onnx" in block.text:
        pytest.importorskip("onnxruntime")


def _check_names(block: Block, words: list[str]) -> None:
    for word in words:
        if word.startswith(("configs/", "docs/")):
            assert (ROOT / word).exists(), f"{block}: {word}"
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), f"{block}: make {words[1]}"
    if words[0] == "python":
        source = (ROOT / f"{words[2].replace('.', '/')}.py").read_text()
        for option in (word for word in words if word.startswith("--")):
            assert f'"{option}"' in source, f"{block}: {option}"


def test_commands_within_sentences_are_valid() -> None:
    group: Any = typer.main.get_command(app.app)
    found = [(page, text) for page in pages() for text in re.findall(r"`autodo ([a-z][^`]*)`", page.read_text())]
    assert len(found) > 30
    for page, text in found:
        name, *words = text.split()
        assert name in group.commands, f"{page.name}: autodo {text}"
        command = group.commands[name]
        if words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words[0]]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, f"{page.name}: autodo {text}"


def test_paths_in_pages_exist() -> None:
    """Code spans with a path from the root, also with `::test` behind it, and links."""
    roots = "autodo|orchestration|reports|benchmarks|configs|tests|docs"
    missing = []
    for page in pages():
        text = page.read_text()
        named = re.findall(rf"`((?:{roots})/[\w./-]+)(?:::[^`]*)?`", text)
        linked = [page.parent / target for target in re.findall(r"\]\((?!https?:)([^)#]+)", text)]
        missing += [f"{page.name}: {path}" for path in [*(ROOT / name for name in named), *linked] if not path.exists()]
    assert missing == []


def test_tests_named_in_pages_exist() -> None:
    tests = {path.name for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("test_*.py")}
    named = {(page.name, file) for page in pages() for file in re.findall(r"\btest_\w+\.py", page.read_text())}
    assert {(page, file) for page, file in named if file not in tests} == set()
