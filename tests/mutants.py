"""Mutation testing: how many small errors, put into the code one at a time, are found by the tests of that code.

    python -m tests.mutants                               # a sample of every file, then the table: make mutants
    python -m tests.mutants --files autodo/losses.py --sample 40
    python -m tests.mutants --tree ../before --out before.jsonl      # of another checkout, with its own tests
    python -m tests.mutants --report before.jsonl after.jsonl        # tables only, side by side

cosmic-ray makes the mutants; a sample of them is drawn by a hash of the seed and the changed line, so that two
checkouts get the same mutants wherever their lines are the same. Each mutant is written into a copy of the checkout,
and the file's tests run there until one fails. They run in a fork of a process that has imported torch, because the
import takes longer than most of the tests. Results are appended to --out, and a run that is stopped continues there.
"""

import argparse
import ast
import contextlib
import hashlib
import importlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.yaml")
PACKAGES = ("autodo", "orchestration", "reports", "configs", "benchmarks", "tests")

# File -> the tests that exercise it, quick ones first; a folder stands for all of its tests. Those of a path that a
# checkout does not have are left out.
_POINTS = (
    "tests/autodo/points",
    "tests/autodo/training/test_lambda_storage.py",
    "tests/autodo/bilevel/test_outer_pass.py",
)
_BILEVEL = ("tests/autodo/bilevel", "tests/autodo/training/test_no_waiting.py")
_STORE = (
    *("tests/orchestration/store/test_store.py", "tests/orchestration/planning/test_required_policies.py"),
    *("tests/orchestration/search/test_task_runner.py", "tests/orchestration/store/test_hostile_store.py"),
)
TESTS: dict[str, tuple[str, ...]] = {
    "autodo/bilevel/frozen.py": ("tests/autodo/bilevel/test_frozen.py", *_BILEVEL),
    "autodo/bilevel/hypergradient.py": ("tests/autodo/bilevel/test_hypergradient.py", *_BILEVEL),
    "autodo/bilevel/inverse_hessian.py": ("tests/autodo/bilevel/test_inverse_hessian.py", *_BILEVEL),
    "autodo/bilevel/last_layer.py": ("tests/autodo/bilevel/test_outer_pass.py", *_BILEVEL),
    "autodo/bilevel/outer_pass.py": ("tests/autodo/bilevel/test_outer_pass.py", *_BILEVEL),
    "autodo/points/model.py": _POINTS,
    "autodo/points/mixture.py": _POINTS,
    "autodo/points/table_storage.py": _POINTS,
    "autodo/points/reweight.py": ("tests/autodo/points", "tests/autodo/bilevel", "tests/autodo/test_losses.py"),
    "autodo/points/rounding.py": _POINTS,
    "autodo/points/row_store.py": _POINTS,
    "autodo/points/soft_labels.py": ("tests/autodo/points", "tests/autodo/bilevel"),
    "autodo/points/table.py": _POINTS,
    "autodo/losses.py": ("tests/autodo/test_losses.py", "tests/autodo/objectives/test_formulas.py"),
    "autodo/data/distort.py": ("tests/autodo/data/test_distort.py", "tests/autodo/data/test_prepare.py"),
    "autodo/data/images/split.py": ("tests/autodo/data/images/test_split.py", "tests/autodo/data/test_prepare.py"),
    "autodo/data/sharding.py": ("tests/autodo/data/test_sharding.py",),
    "autodo/augment/affine.py": ("tests/autodo/augment/test_affine.py", "tests/autodo/points/test_model.py"),
    "orchestration/planning/run_queue.py": ("tests/orchestration/planning/test_run_queue.py",),
    "orchestration/store/paths.py": _STORE,
    "orchestration/store/status.py": _STORE,
    "orchestration/store/store.py": _STORE,
    "orchestration/store/lease.py": (
        "tests/orchestration/store/test_lease.py",
        "tests/orchestration/store/test_store.py",
    ),
    "reports/analysis/stats.py": ("tests/reports/analysis/test_stats.py", "tests/reports/tables"),
    "reports/tables/cells.py": ("tests/reports/tables",),
}
# Imported once, before the forks.
HEAVY = (
    *("numpy", "torch", "torch.func", "torch.utils.data", "torchvision", "pandas", "pyarrow", "pyarrow.parquet"),
    *("scipy.stats", "sklearn.datasets", "sklearn.model_selection", "PIL.Image", "pydantic", "rich.console", "typer"),
    *("kornia", "jinja2", "pytest"),
)
MEMORY_BYTES = 16 << 30


# What these make of numbers is a TypeError, which any test finds that gets there.
BITWISE = ("BitOr", "BitAnd", "BitXor", "LShift", "RShift")


class Mutant(NamedTuple):
    """One change of a file: `number` among the changes that an operator of cosmic-ray can make there.

    `key` names it by the text of its line, whatever else the file holds.
    """

    file: str
    line: int
    column: int
    operator: str
    number: int
    key: str


def main() -> None:
    """Runs the mutants that have no result yet, then prints the table and the survivors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout whose code and tests are taken")
    parser.add_argument("--files", nargs="+", default=list(TESTS), choices=list(TESTS), metavar="FILE")
    parser.add_argument("--sample", type=int, default=12, help="mutants of each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/mutants.jsonl"))
    parser.add_argument("--report", type=Path, nargs="+", metavar="FILE", help="print the tables of these, run nothing")
    parser.add_argument("--slow", action="store_true", help="run the tests marked slow, too")
    given = parser.parse_args()
    if given.report is None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        run(given.tree.resolve(), given.files, given.sample, given.seed, given.out.resolve(), slow=given.slow)
    print(report(given.report or [given.out]))


def run(tree: Path, files: Sequence[str], count: int, seed: int, out: Path, *, slow: bool) -> None:
    """Appends a row of JSON to `out` for every sampled mutant that is not there."""
    done = {row["key"] for row in rows_of(out)}
    os.environ["OMP_NUM_THREADS"] = "1"  # as in the tests, and before torch is imported
    for name in HEAVY:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder, out.open("a") as results:
        copy = Path(folder) / "checkout"
        copy_checkout(tree, copy)
        marks = () if slow else ("-m", "not slow and not long")
        for file in files:
            paths = [path for path in TESTS[file] if (copy / path).exists()]
            if not paths or not (copy / file).exists():
                print(f"{file}: it, or all of its tests, are not in {tree}", flush=True)
                continue
            source = (tree / file).read_text()
            wanted = [mutant for mutant in sample(file, source, seed, count) if mutant.key not in done]
            if not wanted:
                continue
            tests = [*marks, *paths]
            whole = run_tests(copy, tests, cpu_seconds=3600, seconds=3600)
            if whole.outcome != "survived":
                print(f"{file}: its tests fail without any mutant: {whole.failed}", flush=True)
                continue
            for cached in (copy / file).parent.glob(f"__pycache__/{Path(file).stem}.*"):
                cached.unlink()  # it would count as fresh for a mutant of the same length that is as old
            for number, mutant in enumerate(wanted, 1):
                code = mutated(source, mutant)
                (copy / file).write_text(code)
                # Seconds of the clock are many, because other programs may take the processors meanwhile.
                found = run_tests(copy, tests, cpu_seconds=20 + 4 * whole.cpu_seconds, seconds=120 + 20 * whole.seconds)
                was, becomes = changed_lines(source, code)
                row = {**mutant._asdict(), "was": was, "becomes": becomes, **found._asdict()}
                results.write(json.dumps(row) + "\n")
                results.flush()
                print(f"{file} {number}/{len(wanted)}: line {mutant.line}, {found.outcome}", flush=True)
            (copy / file).write_text(source)


def sample(file: str, source: str, seed: int, count: int) -> list[Mutant]:
    """`count` mutants, at different places as far as there are as many."""
    by_place: dict[tuple[int, int], list[tuple[str, Mutant]]] = {}
    for mutant in mutants(file, source):
        by_place.setdefault((mutant.line, mutant.column), []).append((_digest(str(seed), mutant.key), mutant))
    # The first of each place come before the second ones.
    ranked = [(turn, *chosen) for at_place in by_place.values() for turn, chosen in enumerate(sorted(at_place))]
    return [mutant for _, _, mutant in sorted(ranked)[:count]]


def mutants(file: str, source: str) -> Iterator[Mutant]:
    """All mutants that cosmic-ray's operators without arguments make, but of annotations and into bitwise operators."""
    from cosmic_ray.ast import ast_nodes, get_ast

    annotated, lines, tree = annotations(source), source.splitlines(), get_ast(source)
    for name, operator in operators().items():
        same: Counter[str] = Counter()
        places = [start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node)]
        for number, place in enumerate(places):
            if not any(start <= place < end for start, end in annotated):
                text = lines[place[0] - 1].strip()
                same[text] += 1
                yield Mutant(file, *place, name, number, _digest(file, name, text, str(same[text])))


def operators() -> dict[str, Any]:
    """cosmic-ray's operators by name."""
    from cosmic_ray.operators.provider import OperatorProvider

    provider = OperatorProvider()
    found = {}
    for name in provider:
        old, _, new = name.removeprefix("ReplaceBinaryOperator_").partition("_")
        if not provider[name].arguments() and (new not in BITWISE or old in BITWISE):
            found[name] = provider[name]()
    return found


def mutated(source: str, mutant: Mutant) -> str:
    """The source with the mutant's change."""
    from cosmic_ray.mutating import mutate_code

    code = mutate_code(source, operators()[mutant.operator], mutant.number)
    assert code is not None, mutant
    return str(code)


def annotations(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """From where to where, as (line, column), type annotations go: what they say is for mypy, which runs no test."""
    found: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg | ast.AnnAssign):
            found.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node.returns)
    return [
        ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
        for node in found
        if node is not None
    ]


def changed_lines(before: str, after: str) -> tuple[str, str]:
    """The lines that differ, and what they become."""
    first, second = before.splitlines(), after.splitlines()
    start = next((place for place, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), 0)
    first, second = first[start:], second[start:]
    while first and second and first[-1] == second[-1]:
        del first[-1], second[-1]
    return "\n".join(first).strip(), "\n".join(second).strip()


class Found(NamedTuple):
    """What the tests made of a mutant: `killed` by the test `failed`, `timeout`, or `survived`."""

    outcome: str
    failed: str
    cpu_seconds: float
    seconds: float


class _Told:
    """A plugin of pytest that writes the name of the first test that fails, or of the module that is not imported."""

    def __init__(self, file: int) -> None:
        self._file = file

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._tell(report)

    def pytest_collectreport(self, report: Any) -> None:
        self._tell(report)

    def _tell(self, report: Any) -> None:
        if report.failed:
            os.write(self._file, f"{report.nodeid}\n".encode())


def run_tests(tree: Path, arguments: Sequence[str], *, cpu_seconds: float, seconds: float) -> Found:
    """Tests of a checkout until the first that fails, in a fork of this process that may take so long.

    Raises:
        RuntimeError: if there is no test.
    """
    begun = time.monotonic()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _become_pytest(tree, arguments, cpu_seconds, writer)
    os.close(writer)
    watched = os.pidfd_open(child)
    ended, _, _ = select.select([watched], [], [], seconds)
    os.close(watched)
    if not ended:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    with contextlib.suppress(ProcessLookupError):  # what the tests started and left
        os.killpg(child, signal.SIGKILL)
    with os.fdopen(reader) as told:
        failed = told.readline().strip()
    code = os.waitstatus_to_exitcode(status)
    if code == 5:
        raise RuntimeError(f"no test in {' '.join(arguments)}")
    out_of_time = not ended or code == -signal.SIGXCPU
    outcome = "timeout" if out_of_time else "survived" if code == 0 else "killed"
    cpu = usage.ru_utime + usage.ru_stime
    return Found(outcome, failed, round(cpu, 2), round(time.monotonic() - begun, 2))


def _become_pytest(tree: Path, arguments: Sequence[str], cpu_seconds: float, writer: int) -> None:
    """Never returns: runs pytest in this process, which was forked for it, on the code of `tree` and no other."""
    code = 70
    try:
        os.setpgid(0, 0)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        whole = int(cpu_seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (whole, whole + 5))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        os.chdir(tree)
        for name in list(sys.modules):
            if name.split(".")[0] in PACKAGES:
                del sys.modules[name]
        sys.modules["__main__"] = ModuleType("__main__")  # else processes that a test spawns would import this file
        sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        import pytest

        import autodo

        assert Path(autodo.__file__).is_relative_to(tree), autodo.__file__
        options = ("-x", "-q", "-p", "no:cacheprovider")
        code = int(pytest.main([*options, *arguments], plugins=[_Told(writer)]))
    except BaseException as error:
        os.write(writer, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def copy_checkout(tree: Path, to: Path) -> None:
    """Copies all files of a checkout but those that git ignores."""
    command = ["git", "-C", str(tree), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")):
        if (tree / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, to / name)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The results of a file, none if it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def report(paths: Sequence[Path]) -> str:
    """A Markdown table of the share of mutants that were killed in each file, and the list of those that were not."""
    equivalent = {
        (entry["file"], entry["was"], entry["becomes"]): entry["why"]
        for entry in yaml.safe_load(EQUIVALENT.read_text()) or []
    }
    counts: dict[str, list[str]] = {}
    total = [[0, 0, 0] for _ in paths]
    survivors: list[str] = []
    for place, path in enumerate(paths):
        by_file: dict[str, list[int]] = {}
        for row in rows_of(path):
            killed, survived, same = by_file.setdefault(row["file"], [0, 0, 0])
            why = equivalent.get((row["file"], row["was"], row["becomes"]))
            if row["outcome"] != "survived":
                killed += 1
            elif why is not None:
                same += 1
            else:
                survived += 1
            by_file[row["file"]] = [killed, survived, same]
            if row["outcome"] == "survived":
                told = f"{path.name}: {row['file']}:{row['line']} {row['operator']}"
                changed = [f"    - {line}" for line in row["was"].splitlines()]
                changed += [f"    + {line}" for line in row["becomes"].splitlines()]
                survivors.append("\n".join([told + (f" (equivalent: {why})" if why else ""), *changed]))
        for file, numbers in by_file.items():
            counts.setdefault(file, ["-"] * len(paths))[place] = _share(*numbers)
            total[place] = [a + b for a, b in zip(total[place], numbers, strict=True)]
    head = ["file", *(f"{path.stem}: killed of all, equivalent ones left out" for path in paths)]
    body = [[file, *counts[file]] for file in [file for file in TESTS if file in counts]]
    body.append(["all", *(_share(*numbers) for numbers in total)])
    lines = [head, ["---"] + ["---:"] * len(paths), *body]
    return "\n".join([*("| " + " | ".join(line) + " |" for line in lines), "", "Survivors:", "", *survivors])


def _share(killed: int, survived: int, equivalent: int) -> str:
    tried = killed + survived
    rate = f"{100 * killed / tried:.0f}%" if tried else "-"
    return f"{killed} of {tried}, {rate}" + (f" ({equivalent} equivalent)" if equivalent else "")


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
