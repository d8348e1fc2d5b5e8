"""Rehearse the paper's grids on small files in the real formats, before the day of the GPUs.

    python -m orchestration.testing.rehearsal FOLDER                     # all grids
    python -m orchestration.testing.rehearsal FOLDER --grids paper-svhn  # some of them
    python -m orchestration.testing.rehearsal FOLDER --gpus-per-run 0.5  # on a machine with GPUs

It writes small datasets and policy files in the formats of the published ones into FOLDER, and runs the commands that a
person runs then: `autodo policy import`, `launch`, `resume`, `report`. Two launches are killed in the middle. The grids
are the shipped ones; one seed of each runs, with a small network and few epochs. Afterwards every run must be done
once, and each of the paper's figures must stand at its place in the reports, with a note that these runs do not follow
its protocol. The errors mean nothing.
"""

import argparse
import contextlib
import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from autodo.testing import dataset_files
from orchestration.grid.grid import load_grid, variant_names
from orchestration.planning.plan import launched_grids, select
from orchestration.store.run_state import State
from orchestration.store.store import Store

_SHORT: dict[str, object] = {"training.epochs": 2, "training.warmup_epochs": 1}
_SVHN: dict[str, object] = {"training.epochs": 11}  # the fewest of which the start E = 190 of 200 leaves one
_IMAGENET: dict[str, object] = {**_SHORT, "dataset.image_size": 32}
_KILL_SECONDS = 600  # until a launch must have reached the middle
_SITE = """from pathlib import Path
from autodo.testing.dataset_files import accept_on_import
accept_on_import(Path({data!r}))
"""
_SUB_POLICIES = """[
        [["Contrast", 0.8321, 0.4988], ["TranslateX", 0.4185, 0.394]],
        [["Color", 0.35, 0.4336], ["Cutout", 0.5121, 0.7508]],
        [["Rotate", 0.9448, 0.2972], ["Sharpness", 0.1565, 0.4717]],
    ]"""
_ARCHIVE = "import random\n\n\ndef autoaug_paper_cifar10():\n    return [[('Invert', 0.1, 7), ('Contrast', 0.2, 6)]]\n"
_FUNCTION = "\n\ndef {name}():\n    p = {policies}\n    return p\n"
_GENOTYPE = (
    "{name} = searched_{name}_25 = [[('TranslateX', 0.52, 0.58), ('Rotate', 0.57, 0.5)], [('Invert', 0.4, 0.5)]]\n"
)
POLICIES = {
    "fast-autoaugment": {
        "svhn": "fa_reduced_svhn",
        "cifar10": "fa_reduced_cifar10",
        "cifar100": "fa_reduced_cifar10",  # as in the authors' experiments
        "imagenet": "fa_resnet50_rimagenet",
    },
    "dada": {"svhn": "SVHN", "cifar10": "CIFAR10", "cifar100": "CIFAR100", "imagenet": "ImageNet"},
}
"""Names of the lists in the authors' archive.py and genotype.py, by method and dataset."""

# Method in `paper_error_rates.csv` -> ours in the grids.
_OURS = {"fast-autoaugment": "fast-autoaugment-published", "dada": "dada-published"}
_SPLITS = {"train_i": "paper", "train_all": "oversplit", "test_as_val": "test-as-val"}


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """One launch of a shipped grid.

    Args:
        only: part of the grid that runs.
        overrides: of settings, by dotted key; with the model, all that differs from the grid.
        options: further ones of the command line.
        killed: whether the launch is killed in the middle, and `autodo resume` does the rest.
        resume_options: options of the resumed launch.
    """

    grid: str
    only: str = "seed=0"
    overrides: Mapping[str, object] = dataclasses.field(default_factory=lambda: _SHORT)
    options: tuple[str, ...] = ()
    killed: bool = False
    resume_options: tuple[str, ...] = ()

    @property
    def store_path(self) -> str:
        """Path of its results below the folder of the rehearsal."""
        return load_grid(self.grid).store_path


@dataclasses.dataclass(frozen=True)
class ExpectedFigures:
    """Figures of the paper that the report of a store must show.

    Args:
        tables: of the paper, by number.
        distortions: only these; empty: all.
        methods: only these, by the name in `paper_error_rates.csv`; empty: all.
    """

    store: str
    tables: tuple[int, ...]
    distortions: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()


_ALONE = ("--workers-per-run", "1")
_IN_TWOS = ("--workers-per-run", "2", "--checkpoint-steps", "2")
REHEARSALS = (
    Rehearsal("paper-svhn", overrides=_SVHN, killed=True),
    Rehearsal("paper-svhn-published", overrides=_SVHN),
    Rehearsal("paper-figure7", overrides=_SVHN),
    Rehearsal("paper-figure6", overrides=_SVHN),
    Rehearsal("paper-figure6-published", overrides=_SVHN),
    Rehearsal("paper-cifar10"),
    Rehearsal("paper-cifar10-published"),
    Rehearsal("paper-cifar100"),
    Rehearsal("paper-cifar100-published"),
    Rehearsal("paper-imagenet", overrides=_IMAGENET, options=_IN_TWOS, killed=True, resume_options=_ALONE),
    Rehearsal("paper-imagenet-published", overrides=_IMAGENET, options=_ALONE),
    Rehearsal("paper-table5"),
    Rehearsal("paper-table6"),
    Rehearsal("paper-table6-published"),
)
EXPECTED = (
    ExpectedFigures("outputs/paper-svhn", (1,)),
    ExpectedFigures(
        "outputs/paper-figure6", (1,), distortions=("100-0.1",), methods=("baseline", "fast-autoaugment", "autodo-aws")
    ),
    ExpectedFigures("outputs/paper-cifar10", (2,)),
    ExpectedFigures("outputs/paper-cifar100", (3,)),
    ExpectedFigures("outputs/paper-imagenet", (4,)),
    ExpectedFigures("outputs/paper-splits", (5, 6)),
)


def main() -> None:
    """Rehearse what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="must not exist")
    parser.add_argument("--grids", metavar="GRID,…", help="those of the shipped paper-* grids to rehearse")
    parser.add_argument("--gpus-per-run", type=float, default=0.0)
    given = parser.parse_args()
    if given.folder.exists():
        sys.exit(f"error: {given.folder}: exists; delete it, or name another folder")
    grids = given.grids.split(",") if given.grids else None
    known = dict.fromkeys(rehearsal.grid for rehearsal in REHEARSALS)
    for name in grids or ():
        if name not in known:
            sys.exit(f"error: --grids: {name!r} is not among {', '.join(known)}")
    chosen = [rehearsal for rehearsal in REHEARSALS if grids is None or rehearsal.grid in grids]
    # The figures of a store whose grids are all there.
    left_out = {rehearsal.store_path for rehearsal in REHEARSALS if rehearsal not in chosen}
    expected = [figures for figures in EXPECTED if figures.store not in left_out]
    sys.exit(1 if rehearse(given.folder, chosen, expected, gpus=given.gpus_per_run) else 0)


def rehearse(
    folder: Path,
    rehearsals: Sequence[Rehearsal] = REHEARSALS,
    expected: Sequence[ExpectedFigures] = EXPECTED,
    *,
    gpus: float = 0.0,
    model: str = "small-cnn",
    imagenet_classes: int = 1000,
) -> list[str]:
    """Write the data, run the launches one after another, and print what was checked; return the problems.

    Args:
        folder: is created; holds data, policies, logs and stores afterwards.
        expected: figures of the paper that the reports must show.
        imagenet_classes: 1,000 in the real files.
    """
    started = time.monotonic()
    stage = _Stage(folder.resolve(), gpus, model)
    datasets = {name for rehearsal in rehearsals for name in load_grid(rehearsal.grid).datasets}
    stage.write_files(datasets, imagenet_classes)
    stage.say(f"files of {', '.join(sorted(datasets))} in {stage.data}", started)
    if any(_reads_policies(rehearsal) for rehearsal in rehearsals):
        stage.import_policies(datasets)
    for rehearsal in rehearsals:
        stage.run(rehearsal)
    for store in dict.fromkeys(rehearsal.store_path for rehearsal in rehearsals):
        stage.check_runs(store, [rehearsal for rehearsal in rehearsals if rehearsal.store_path == store])
        stage.check_report(store, rehearsals, [figures for figures in expected if figures.store == store])
    stage.say(f"{len(stage.problems)} problems" if stage.problems else "the rehearsal has succeeded", started)
    return stage.problems


def _reads_policies(rehearsal: Rehearsal) -> bool:
    return "policy.path" in load_grid(rehearsal.grid).set


class _Stage:
    """The folder of a rehearsal, and what went wrong in it."""

    def __init__(self, folder: Path, gpus: float, model: str) -> None:
        self.folder, self.data, self.site = folder, folder / "data", folder / "site"
        self.model = model
        self.resources = ("--cpus-per-run", "1", "--gpus-per-run", f"{gpus:g}")
        self.problems: list[str] = []

    def say(self, text: str, since: float) -> None:
        """Print what was done, and how long it took."""
        print(f"{time.monotonic() - since:6.1f} s  {text}", flush=True)

    def problem(self, text: str) -> None:
        """Print a problem and remember it."""
        self.problems.append(text)
        print(f"PROBLEM   {text}", flush=True)

    # ----- the files of the day

    def write_files(self, datasets: Iterable[str], imagenet_classes: int) -> None:
        """Small files of datasets, and a `sitecustomize` with which every process takes them for the published ones."""
        self.site.mkdir(parents=True)
        (self.site / "sitecustomize.py").write_text(_SITE.format(data=str(self.data)))
        generator = np.random.default_rng(0)
        if "svhn" in datasets:
            labels = dataset_files.svhn_labels(600)
            dataset_files.write_svhn(self.data, generator.permutation(labels), np.arange(100) % 10, generator)
        for classes, per_class in ((10, 8), (100, 5)):
            if f"cifar{classes}" in datasets:
                dataset_files.write_cifar(self.data, classes, generator, per_class=per_class, test_per_class=2)
        if "imagenet" in datasets:
            dataset_files.write_imagenet(self.data / "imagenet", imagenet_classes, generator, per_class=3)

    def import_policies(self, datasets: Iterable[str]) -> None:
        """The authors' files, with three sub-policies each, and `autodo policy import` of each that a grid names."""
        lists = dict.fromkeys(POLICIES["fast-autoaugment"].values())
        archive = _ARCHIVE + "".join(_FUNCTION.format(name=name, policies=_SUB_POLICIES) for name in lists)
        (self.folder / "archive.py").write_text(archive)
        genotypes = "".join(_GENOTYPE.format(name=name) for name in POLICIES["dada"].values())
        (self.folder / "genotype.py").write_text(genotypes)
        for method, file in (("fast-autoaugment", "archive.py"), ("dada", "genotype.py")):
            for dataset in sorted(datasets):
                target = f"policies/{method}-published-{dataset}.json"
                self.autodo("policy", "import", file, target, "--name", POLICIES[method][dataset])

    # ----- commands

    def autodo(self, *arguments: str) -> bool:
        """Run a command of `autodo` as a person does; whether it succeeded. Its output is added to log.txt."""
        with self._started(arguments) as process:
            code = process.wait()
        if code:
            self.problem(f"exit code {code}: autodo {' '.join(arguments)}; see {self.folder / 'log.txt'}")
        return code == 0

    @contextlib.contextmanager
    def _started(self, arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
        root = Path(__file__).parents[2]
        path = [str(self.site), str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        with (self.folder / "log.txt").open("ab") as log:
            log.write(f"\n$ autodo {' '.join(arguments)}\n".encode())
            log.flush()
            command = [sys.executable, "-m", "orchestration.cli", *arguments]
            with subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log) as process:
                yield process

    def run(self, rehearsal: Rehearsal) -> None:
        """Launch a grid; with `killed`, kill the launch in the middle and resume the store."""
        started = time.monotonic()
        settings = {"model.name": self.model, **rehearsal.overrides}
        common = ("--data-dir", "data", "--only", rehearsal.only, *self.resources)
        overrides = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
        command = ("launch", rehearsal.grid, *common, *overrides, *rehearsal.options)
        if not rehearsal.killed:
            self.autodo(*command)
            self.say(f"{rehearsal.grid}: launched", started)
            return
        before = self._kill_in_the_middle(command, rehearsal)
        self.say(f"{rehearsal.grid}: killed when {len(before)} runs were done", started)
        started = time.monotonic()
        self.autodo("resume", rehearsal.store_path, *common, *rehearsal.resume_options)
        if before != {path: path.read_bytes() for path in before}:
            self.problem(f"{rehearsal.grid}: runs that were done before the kill have run again")
        self.say(f"{rehearsal.grid}: resumed", started)

    def _kill_in_the_middle(self, command: Sequence[str], rehearsal: Rehearsal) -> dict[Path, bytes]:
        """Kill a launch when a run is done and another has a checkpoint; return the results at that time."""
        store = self.folder / rehearsal.store_path
        deadline = time.monotonic() + _KILL_SECONDS
        with self._started(command) as process:
            while not (list(store.glob("results/*.parquet")) and list(store.glob("runs/*/checkpoint*"))):
                if process.poll() is not None or time.monotonic() > deadline:
                    self.problem(f"{rehearsal.grid}: the launch ended, or took too long, before it could be killed")
                    break
                time.sleep(0.05)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        return {path: path.read_bytes() for path in store.glob("results/*.parquet")}

    # ----- checks

    def check_runs(self, root: str, rehearsals: Sequence[Rehearsal]) -> None:
        """Every run that was asked for is done once, and no other."""
        store = Store(self.folder / root).open()
        grids, errors = launched_grids(store)
        for error in errors:
            self.problem(str(error))
        wanted: set[str] = set()
        for rehearsal in rehearsals:
            if rehearsal.grid in grids:
                grid, runs = grids[rehearsal.grid]
                wanted |= {run.run_id for run in select(runs, rehearsal.only, variant_names(grid))}
            else:
                self.problem(f"{root}: has no grid {rehearsal.grid}")
        states = store.status.states(wanted | store.status.run_ids())
        for run_id, state in states.items():
            if run_id not in wanted:
                self.problem(f"{root}: {run_id} was not asked for")
            elif state is not State.DONE:
                self.problem(f"{root}: {run_id} is {state}")
            elif (times := _times_done(store.paths.log(run_id).read_text())) != 1:
                self.problem(f"{root}: {run_id} was done {times} times")
        print(f"{'':9} {root}: {len(wanted)} runs", flush=True)

    def check_report(self, root: str, rehearsals: Sequence[Rehearsal], expected: Sequence[ExpectedFigures]) -> None:
        """Tables without the paper's figures by default, and with each of them where differences are accepted."""
        started = time.monotonic()
        settings = {key for rehearsal in rehearsals for key in rehearsal.overrides} | {"model.name"}
        if not self.autodo("report", root):
            return
        if [line for line in _csv(self.folder / root / "report" / "tables.csv") if line["paper_mean"]]:
            self.problem(f"{root}: the report shows the paper's figures beside runs that do not follow its protocol")
        beside = f"{root}/beside-the-paper"
        if not self.autodo("report", root, "--out", beside, "--paper-despite", ",".join(sorted(settings))):
            return
        lines = _csv(self.folder / beside / "tables.csv")
        count = 0
        for row in (row for figures in expected for row in stated(figures)):
            count += 1
            if not any(_is_beside(line, row) for line in lines):
                self.problem(f"{root}: the report lacks the paper's figure of {', '.join(row.values())}")
        self.say(f"{root}: report with {count} figures of the paper", started)


def _times_done(log: str) -> int:
    return sum(line.endswith(" done") for line in log.splitlines())


def stated(figures: ExpectedFigures) -> list[dict[str, str]]:
    """Rows of `paper_error_rates.csv` that a report must show."""
    file = resources.files("reports") / "reference" / "paper_error_rates.csv"
    return [
        row
        for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines())
        if int(row["table"]) in figures.tables
        and (not figures.distortions or _distortion(row) in figures.distortions)
        and (not figures.methods or row["method"] in figures.methods)
    ]


def _distortion(row: Mapping[str, str]) -> str:
    return f"{row['imbalance_ratio']}-{row['noise_ratio']}"


def _is_beside(line: Mapping[str, str], row: Mapping[str, str]) -> bool:
    """Whether a line of tables.csv has a figure of ours with this figure of the paper beside it."""
    splits = int(row["table"]) in (5, 6)
    place = ("splits", _SPLITS[row["split"]]) if splits else ("errors", _distortion(row))
    ours = _OURS.get(row["method"], row["method"])
    return (
        (line["section"], line["column"]) == place
        and line["group"].startswith(f"{row['dataset']} (")
        and line["row"] in (ours, f"{ours} E50")  # as the variants of figure 7 are called
        and line["mean"] != ""
        and line["paper_mean"] != ""
        and float(line["paper_mean"]) == float(row["error_mean_percent"])
    )


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
