"""Imports point one way: orchestration -> autodo, reports -> a few modules of autodo, orchestration.cli -> reports."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
RAY = (
    "launch",
    "ray_cluster/cluster",
    "execution/on_workers",
    "execution/trial",
    "execution/tune_adapters",
    "search/actor_pool",
    "search/find_policies",
)
READ_BY_REPORTS = (
    "autodo.results.records",
    "autodo.errors",
    "autodo.text",
    "autodo.io.storage",
    "autodo.io.uri",
    "autodo.io.store_format",
    "autodo.config.validation",
    "autodo.config.defaults",
    "autodo.config.nested",
)
FILES = [path for package in ("autodo", "orchestration", "reports") for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever in the file; `a.b` for `from a import b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where a name comes from"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_there_are_files_to_check() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == {"autodo", "orchestration", "reports"}
    assert imported(Path(__file__)) >= {"ast", "pathlib.Path"}


def forbidden(path: Path, names: set[str]) -> list[str]:
    """Those of the names that a file must not import; Ray is imported where it is used and nowhere else."""
    package, _, module = str(path.relative_to(ROOT).with_suffix("")).partition("/")
    banned = {
        "autodo": {"ray", "pandas", "orchestration", "reports"},
        "reports": {"ray", "torch", "torchvision", "orchestration"},
        "orchestration": set() if module in RAY else {"ray"},
    }[package]
    found = [name for name in names if name.split(".")[0] in banned]
    if package == "reports":
        found += [name for name in names if name.split(".")[0] == "autodo" and not name.startswith(READ_BY_REPORTS)]
    return sorted(found)


def test_imports_point_one_way() -> None:
    found = {path: forbidden(path, imported(path)) for path in FILES}
    assert not any(found.values()), "\n".join(f"{path}: {', '.join(names)}" for path, names in found.items() if names)


def test_an_import_the_wrong_way_is_found() -> None:
    names = {
        "ray.tune",
        "pandas",
        "torch.nn",
        "reports.build",
        "autodo.losses",
        "autodo.errors",
        "orchestration.launch",
    }
    assert forbidden(ROOT / "autodo/x.py", names) == ["orchestration.launch", "pandas", "ray.tune", "reports.build"]
    assert forbidden(ROOT / "reports/x.py", names) == ["autodo.losses", "orchestration.launch", "ray.tune", "torch.nn"]
    assert forbidden(ROOT / "orchestration/x.py", names) == ["ray.tune"]
    assert forbidden(ROOT / "orchestration/launch.py", names) == []


def at_import(path: Path) -> set[str]:
    """What of `imported` is imported as soon as the file is: outside of functions, anywhere else."""
    tree = ast.parse(path.read_text())
    inside = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in inside:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import) and id(node) not in inside:
            names |= {alias.name for alias in node.names}
    return names


def test_kornia_is_imported_where_it_is_used_and_no_sooner() -> None:
    """It takes half a second, which a plan, a report or a baseline should not pay."""
    importing = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(name.split(".")[0] == "kornia" or name.endswith(".kornia_operations") for name in at_import(path))
    }
    assert importing == {"autodo/search/gradient/kornia_operations.py"}


MODULES = {str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__") for path in FILES}


def folders_imported() -> dict[str, set[str]]:
    """Imports between the folders directly below a package, and the modules directly in it; nested folders count
    as their parent."""
    found: dict[str, set[str]] = {}
    for path in FILES:
        of = ".".join(path.relative_to(ROOT).with_suffix("").parts[:2])
        for name in imported(path):
            parts = (name if name in MODULES else name.rpartition(".")[0]).split(".")
            if ".".join(parts) in MODULES and len(parts) > 1 and ".".join(parts[:2]) != of:
                found.setdefault(of, set()).add(".".join(parts[:2]))
    return found


def circles(graph: dict[str, set[str]]) -> set[str]:
    """The nodes that reach themselves."""
    reached = {node: set(targets) for node, targets in graph.items()}
    for _ in reached:
        for targets in reached.values():
            targets |= {further for target in targets for further in reached.get(target, ())}
    return {node for node, targets in reached.items() if node in targets}


def test_folders_do_not_import_each_other_in_a_circle() -> None:
    graph = folders_imported()
    found = circles(graph)
    assert not found, "\n".join(f"{node}: {', '.join(sorted(graph[node] & found))}" for node in sorted(found))
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == {"a", "b", "c"}
    assert graph["autodo.training"] > {"autodo.bilevel", "autodo.results", "autodo.io"}
