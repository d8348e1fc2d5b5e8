"""What is installed from a wheel has every file that the packages need, and says what else it needs."""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("autodo", "orchestration", "reports", "configs")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {
    "PIL": "pillow", "openTSNE": "openTSNE", "scikit_posthocs": "scikit-posthocs", "sklearn": "scikit-learn",
    "yaml": "pyyaml", "mlflow": "mlflow-skinny",
}  # fmt: skip
"""Where a module's name is not that of the distribution that brings it."""
BROUGHT_ALONG = {"markupsafe": "jinja2", "pydantic_core": "pydantic", "tensorboardX": "ray"}
"""Modules that a dependency needs itself, and which."""


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel built from what is in the checkout, with nothing fetched for it."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, folder / file)
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=folder, check=True, capture_output=True, text=True)
    with zipfile.ZipFile(folder / "dist" / done.stdout.splitlines()[-1]) as archive:
        return set(archive.namelist())


def test_a_wheel_has_every_file_of_the_packages(wheel: set[str]) -> None:
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    needed = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    assert needed > {
        "configs/grids/quickstart.yaml",
        "reports/html/vendor/uPlot.iife.min.js",
        "autodo/training/trainer.py",
    }
    assert needed - wheel == set()
    assert {name.split("/")[0] for name in wheel if ".dist-info/" not in name} == set(PACKAGES)


MAY_IMPORT_EXTRAS = ("orchestration/tracking/trackers.py", "autodo/models/adopted/", "autodo/results/export.py")
"""Files and folders with imports of packages that only an extra installs."""


def imports() -> Iterator[tuple[str, str]]:
    """(file, top-level module) of every import outside of the project and the standard library."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
                for name in {name.split(".")[0] for name in names} - {*PACKAGES} - sys.stdlib_module_names:
                    yield str(path.relative_to(ROOT)), name


def test_what_is_imported_is_a_dependency() -> None:
    required = {name_of(requirement) for requirement in PROJECT["dependencies"]}
    extras = PROJECT["optional-dependencies"]
    optional = {name_of(requirement) for extra in extras if extra != "dev" for requirement in extras[extra]}
    found = list(imports())
    assert {"torch", "PIL", "ray", "mlflow"} <= {name for _, name in found}
    undeclared = []
    for file, name in found:
        distribution = DISTRIBUTIONS.get(name, name).lower()
        allowed = required | (optional if file.startswith(MAY_IMPORT_EXTRAS) else set())
        if distribution not in allowed and BROUGHT_ALONG.get(name) not in required:
            undeclared.append((file, name))
    assert undeclared == []


def test_what_is_brought_along_is_needed_by_who_brings_it() -> None:
    for name, distribution in BROUGHT_ALONG.items():
        (given,) = (text for text in PROJECT["dependencies"] if name_of(text) == distribution)
        extras = ["", *re.sub(r"^[^\[]*\[?|\].*", "", given).split(",")]
        needed = {
            name_of(requirement)
            for requirement in importlib.metadata.requires(distribution) or []
            if (re.findall(r"extra == ['\"]([^'\"]+)", requirement) or [""])[0] in extras
        }
        assert name.lower().replace("_", "-") in needed, f"{given} does not need {name}"


def test_every_dependency_is_imported() -> None:
    used = {DISTRIBUTIONS.get(name, name).lower() for _, name in imports()}
    used.add("scikit-learn")  # whose file of digits is read
    assert {name_of(requirement) for requirement in PROJECT["dependencies"]} - used == set()


def test_paths_in_programs_of_the_checkout_exist() -> None:
    """A file that moves must not fall out of what CI or the mutation tests run."""
    for program in (".ci/run", ".ci/portable", "Makefile", "tests/mutants.py"):
        named = re.findall(r"(?:tests|autodo|orchestration|reports)/[\w/]+(?:\.py)?", (ROOT / program).read_text())
        assert [path for path in named if not (ROOT / path).exists()] == [], program
