"""Reads policies from JSON files, and from the published Python files of papers, which are never executed."""

import ast
import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from autodo import plugins
from autodo.augment.policy_file import OPERATION_NAMES, PolicyFile
from autodo.config.validation import parse_model
from autodo.errors import ConfigError, StoreError
from autodo.io.storage import StrPath, locate
from autodo.io.uri import is_uri, without_secrets
from autodo.text import hint

LIMIT_BYTES = 2 * 2**20
"""Ten times the largest published file; the parser takes a hundred times as much memory."""
_SPELLINGS = {"colour": "Color", **{name.lower(): name for name in OPERATION_NAMES}}
"""Operations by name without case, underscores and dashes; other operations, such as TranslateXAbs, are absent."""


def read_policy(place: StrPath) -> PolicyFile:
    """Reads the policy in a JSON file: written by `autodo policy import` or a store, or `{"sub_policies": [...]}`.

    Unknown keys become part of its provenance.

    Args:
        place: a path or a URI.
    Raises:
        ConfigError: one line; it names the sub-policy that is wrong and what is allowed.
    """
    where, content = _read(place)
    return _from_json(content, where)


def import_policy(place: StrPath, name: str | None = None) -> PolicyFile:
    """Reads the policy in a JSON file, or in a Python file that holds lists of `[operation, probability, level]`.

    A Python file is not executed: only literal lists in assignments and `return` statements are read.

    Args:
        place: a path or a URI.
        name: variable or function of the list in a Python file; may be omitted if there is only one list.
    Raises:
        ConfigError: one line.
    """
    where, content = _read(place)
    if where.endswith(".json") or content.lstrip()[:1] in (b"{", b"["):
        if name is not None:
            raise ConfigError(f"--name {name!r}: {where} is JSON, which holds a single policy")
        return _from_json(content, where)
    lists = _lists(content, where)
    if not lists:
        raise ConfigError(f"{where}: holds no list of sub-policies such as [[['Rotate', 0.9, 0.3]], …]")
    known = list(lists)
    if name is None and len(set(map(id, lists.values()))) > 1:
        raise ConfigError(f"{where}: holds several policies, say which with --name: {', '.join(known)}")
    name = known[0] if name is None else name
    if name not in lists:
        raise ConfigError(f"--name {name!r}: {where} has no such list{hint(name, known)}; known: {', '.join(known)}")
    return _checked({"source": f"{PurePosixPath(where).name}: {name}", "sub_policies": lists[name]}, f"{where}: {name}")


def _read(place: StrPath) -> tuple[str, bytes]:
    text = os.fspath(place)
    where = without_secrets(text) if is_uri(text) else text
    try:
        location = locate(place)
        path = location.local
        if path is not None and path.is_file() and path.stat().st_size > LIMIT_BYTES:
            raise ConfigError(f"{where}: is larger than {LIMIT_BYTES // 2**20} MiB: no policy")
        content = location.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{where}: no such file") from None
    except StoreError as error:
        raise ConfigError(str(error)) from None
    if len(content) > LIMIT_BYTES:
        raise ConfigError(f"{where}: is larger than {LIMIT_BYTES // 2**20} MiB: no policy")
    return where, content


def _from_json(content: bytes, where: str) -> PolicyFile:
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError) as error:
        remedy = "; `autodo policy import` reads Python files" if where.endswith(".py") else ""
        raise ConfigError(f"{where}: is not JSON: {_one_line(error)}{remedy}") from None
    if isinstance(tree, list):
        tree = {"sub_policies": tree}
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: holds {type(tree).__name__}, but an object with sub_policies is needed")
    others = {key: tree.pop(key) for key in set(tree) - set(PolicyFile.model_fields)}
    if others:
        kept = tree.get("provenance", {})
        tree["provenance"] = {**others, **(kept if isinstance(kept, dict) else {})}
    return _checked(tree, where)


def _checked(tree: dict[str, Any], where: str) -> PolicyFile:
    """Checks the policy, and gives operations their own names. The error names only the first problem."""
    sub_policies = tree.get("sub_policies", [])
    if not isinstance(sub_policies, list | tuple):
        raise ConfigError(f"{where}: sub_policies: is a list, not {_shown(sub_policies)}")
    checked = [_sub_policy(steps, f"{where}: sub_policies[{n}]") for n, steps in enumerate(sub_policies)]
    tree = {**tree, "sub_policies": checked}
    stages = tree.get("schedule")
    lists = [*checked]
    if isinstance(stages, list):
        tree["schedule"] = stages = list(stages)
        for n, stage in enumerate(stages):
            if isinstance(stage, dict) and "weights" not in stage:
                lists.append(_sub_policy(stage.get("operations"), f"{where}: schedule[{n}].operations"))
                stages[n] = {**stage, "operations": lists[-1]}
    used = sorted({name for steps in lists for name, _, _ in steps} - set(OPERATION_NAMES))
    if used:
        codes = {name: plugins.get("operation", name).code for name in used}
        given = tree.get("operations", {})
        tree["operations"] = {**codes, **given} if isinstance(given, dict) else given
    try:
        return parse_model(PolicyFile, tree, where)
    except ConfigError as error:
        raise ConfigError(str(error).splitlines()[0]) from None


def _sub_policy(steps: Any, where: str) -> list[tuple[str, float, float]]:
    if not isinstance(steps, list | tuple) or not steps:
        raise ConfigError(f"{where}: is a list of [operation, probability, level], not {_shown(steps)}")
    return [_step(step, f"{where}[{n}]") for n, step in enumerate(steps)]


def _step(step: Any, where: str) -> tuple[str, float, float]:
    if not isinstance(step, list | tuple) or len(step) != 3 or not isinstance(step[0], str):
        raise ConfigError(f"{where}: is [operation, probability, level], not {_shown(step)}")
    spelling = re.sub(r"[_\s-]", "", step[0]).lower()
    of_plugins = plugins.names("operation", OPERATION_NAMES)
    known = [*OPERATION_NAMES, *of_plugins]
    name = step[0] if step[0] in of_plugins else _SPELLINGS.get(spelling)
    if name is None:
        # TranslateXAbs, in pixels, or Posterize2, of other bits: no spelling, but another operation.
        meant = next((other for other in OPERATION_NAMES if spelling.startswith(other.lower())), None)
        near = f", which is not {meant}" if meant else hint(step[0][:40], known)
        raise ConfigError(f"{where}: unknown operation {_shown(step[0])}{near}; known: {', '.join(known)}")
    for what, value in (("probability", step[1]), ("level", step[2])):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ConfigError(f"{where}: the {what} of {name} is a number from 0 to 1, not {_shown(value)}")
    return name, float(step[1]), float(step[2])


# ----- Python files


def _lists(content: bytes, where: str) -> dict[str, Any]:
    """The literal lists of sub-policies by name; a list of several names is there under each."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about their code
            tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{where}: is neither JSON nor Python: {_one_line(error)}") from None
    found: dict[str, Any] = {}
    for scope, body in _scopes(tree):
        lists = list(_literals(body))
        for names, value in lists:
            for name in names:
                # A function that holds one list goes by its own name.
                found.setdefault(scope if scope and len(lists) == 1 else ".".join(filter(None, (scope, name))), value)
    return found


def _scopes(tree: ast.Module) -> Iterator[tuple[str, list[ast.stmt]]]:
    yield "", tree.body
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef):
            yield statement.name, statement.body


def _literals(body: Sequence[ast.stmt]) -> Iterator[tuple[list[str], Any]]:
    for statement in body:
        if isinstance(statement, ast.Assign):
            names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names = [statement.target.id]
        elif isinstance(statement, ast.Return):
            names = ["return"]
        else:
            continue
        for suffix, node in _arguments(statement.value):
            value = _literal(node)
            if names and _is_policy(value):
                yield [f"{name}{suffix}" for name in names], value


def _arguments(node: ast.expr | None) -> Iterator[tuple[str, ast.expr]]:
    """The expression; or the arguments of a call such as Genotype(normal=[...])."""
    if isinstance(node, ast.Call):
        yield from (("", argument) for argument in node.args)
        yield from ((f".{keyword.arg}", keyword.value) for keyword in node.keywords)
    elif node is not None:
        yield "", node


def _literal(node: ast.expr) -> Any:
    if not isinstance(node, ast.List | ast.Tuple):
        return None
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _is_policy(value: Any) -> bool:
    """Whether a value looks like a list of sub-policies; it is checked in full when it is used."""
    try:
        return isinstance(value[0][0], list | tuple) and isinstance(value[0][0][0], str)
    except (LookupError, TypeError):
        return False


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:60]}…"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
