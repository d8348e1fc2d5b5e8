"""A MkDocs hook that generates parts of the reference from the code.

A line `<!-- generated: NAME -->` in a page is replaced by the result of `GENERATED[NAME]`. A link to a file of the
repository outside of docs/ becomes the name of that file, because the site holds no copy of it.
"""

import ast
import io
import json
import os
import re
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import griffe
import typer.main
from pydantic import BaseModel
from typer.cli import get_docs_for_click

from autodo.config.run import RunConfig
from autodo.config.validation import load_yaml
from autodo.results import records
from orchestration.cli.app import app
from orchestration.grid.grid import GridConfig

ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by MkDocs with the Markdown of each page."""
    filled = re.sub(r"^<!-- generated: (\S+) -->$", lambda found: GENERATED[found[1]](), markdown, flags=re.MULTILINE)
    folder = (ROOT / "docs" / page.file.src_path).parent

    def link(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / found[2]))
        if target.is_relative_to(ROOT / "docs") or not target.exists():
            return found[0]
        name = str(target.relative_to(ROOT))
        return f"`{name}`" if found[1].strip("`") == name else f"{found[1]} (`{name}`)"

    return re.sub(r"(?<!!)\[([^\]]+)\]\((\.\.[^)#]*)\)", link, filled)


def command_line() -> str:
    """All commands and their options, as Typer documents them."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=click.Context(command), name="autodo")
    return text.split("\n", 1)[1]


def configuration(model: type[BaseModel]) -> str:
    """Tables of all settings of a model and of the models within it: key, type, default, meaning."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    described = _descriptions()
    tables = []
    for key, title, one in _models("", schema, definitions):
        lines = [f"{'####' if key else '###'} {f'`{key}`: {title}' if key else title}", ""]
        lines += [described.get((title, ""), ""), "", "| key | type | default | meaning |", "|---|---|---|---|"]
        for name, field in one.get("properties", {}).items():
            default = field.get("default", {})
            shown = (
                "required" if name in one.get("required", ()) else f"`{json.dumps(default)}`" if default != {} else ""
            )
            meaning = described.get((title, name), "")
            lines.append(_row(f"`{name}`", _type(field), "" if _references(field) and default else shown, meaning))
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _models(key: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    yield key, schema["title"], schema
    for name, field in schema.get("properties", {}).items():
        for found in _references(field):
            yield from _models(f"{key}.{name}".lstrip("."), definitions[found], definitions)


def _references(field: Any) -> list[str]:
    """Names of the models that a field may hold."""
    if isinstance(field, dict):
        own = [field["$ref"].rsplit("/", 1)[1]] if "$ref" in field else []
        return own + [
            name
            for key, value in field.items()
            if key not in ("discriminator", "default")
            for name in _references(value)
        ]
    return [name for value in field for name in _references(value)] if isinstance(field, list) else []


def _type(field: Mapping[str, Any]) -> str:
    """A field's type in words, with its range."""
    if "$ref" in field:
        return f"{field['$ref'].rsplit('/', 1)[1]}"
    for several in ("anyOf", "oneOf"):
        if several in field:
            return " or ".join(dict.fromkeys(_type(one) for one in field[several]))
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}" if "items" in field else "list"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {field[name]}" for name, sign in bounds.items() if name in field]
    return ", ".join([field.get("type", "any"), *limits])


def _row(*cells: Any) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in cells) + " |"


def _descriptions() -> dict[tuple[str, str], str]:
    """Docstrings by (class, attribute); those of classes under (class, "")."""
    found: dict[tuple[str, str], str] = {}
    for module in (
        "autodo.config.run",
        "autodo.config.model",
        "autodo.config.policy",
        "autodo.config.objective",
        "orchestration.grid.grid",
        "orchestration.grid.resources",
    ):
        for name, one in griffe.load(module).classes.items():
            found[name, ""] = one.docstring.value if one.docstring else ""
            found |= {(name, key): text.docstring.value for key, text in one.attributes.items() if text.docstring}
    return found


def columns() -> str:
    """Tables of the columns of each Parquet file; the meanings are the comments of `autodo/results/records.py`."""
    meanings = _comments((ROOT / "autodo/results/records.py").read_text())
    parts = []
    for kind, schema in records.SCHEMAS.items():
        lines = [f"### {kind}", "", "| column | type | meaning |", "|---|---|---|"]
        lines += [_row(f"`{field.name}`", field.type, meanings.get((kind, field.name), "")) for field in schema]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _comments(source: str) -> dict[tuple[str, str], str]:
    """Comment after each (name, type) of SCHEMAS, by table and column; shared columns are in each table."""
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found: dict[tuple[str, str], str] = {}

    def note(kind: str, tree: ast.AST) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Tuple) and node.elts and isinstance(node.elts[0], ast.Constant):
                found[kind, str(node.elts[0].value)] = comments.get(node.end_lineno or 0, "")

    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "_IDENTITY":
            for kind in records.SCHEMAS:
                note(kind, statement)
        elif (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.value, ast.Dict)
            and ast.unparse(statement.target) == "SCHEMAS"
        ):
            for name, schema in zip(statement.value.keys, statement.value.values, strict=True):
                note(ast.literal_eval(name), schema) if name is not None else None
    return found


def presets(kind: str, *keys: str) -> str:
    """A table of the YAML files in configs/`kind`, with these keys of each."""
    lines = [_row("name", *keys), "|---" * (len(keys) + 1) + "|"]
    for path in sorted((ROOT / "configs" / kind).glob("*.yaml")):
        content = load_yaml(path)
        lines.append(_row(f"`{path.stem}`", *(content.get(key, "") for key in keys)))
    return "\n".join(lines)


GENERATED = {
    "command-line": command_line,
    "run": lambda: configuration(RunConfig),
    "grid": lambda: configuration(GridConfig),
    "columns": columns,
    "methods": lambda: presets("methods", "summary", "reads", "reference"),
    "datasets": lambda: presets("datasets", "summary", "files"),
}
