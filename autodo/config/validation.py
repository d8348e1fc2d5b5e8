"""Reading YAML and checking it, with errors that name the bad value, where it stands and what is allowed."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from autodo.errors import ConfigError
from autodo.io.storage import StrPath

M = TypeVar("M", bound=BaseModel)


class Frozen(BaseModel):
    """Base of what a person sets: immutable, no unknown keys, no infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def load_yaml(path: StrPath) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        ConfigError: if the file is missing, is not YAML or is not a mapping.
    """
    path = Path(path)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: bytes, where: str) -> dict[str, Any]:
    """The mapping that a YAML text in UTF-8 holds; no tag in it makes anything but plain values.

    Raises:
        ConfigError: if it is not YAML or not a mapping.
    """
    try:
        content = yaml.safe_load(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: cannot be read: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: holds {type(content).__name__}, but a mapping of keys to values is needed")
    return content


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """`["training.epochs=20"]` as `{"training.epochs": 20}`; values are read as YAML.

    Raises:
        ConfigError: if an assignment is not KEY=VALUE.
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", key.strip()):
            raise ConfigError(f"--set {assignment!r} is not KEY=VALUE, such as training.epochs=20")
        try:
            overrides[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"--set {assignment!r}: the value is not YAML") from None
    return overrides


def check_name(name: str, known: Sequence[str], kind: str) -> None:
    """Raises ConfigError with the nearest known name unless `name` is known."""
    if name not in known:
        raise ConfigError(f"unknown {kind} {name!r}{hint(name, known)}; known: {', '.join(known)}")


def parse_selection(option: str, text: str, known: Mapping[str, Callable[[], Iterable[str]]]) -> dict[str, set[str]]:
    """What `method=a,method=b,seed=0` asks for: any of the values of a key, and every key.

    Args:
        option: that the text was given to, such as `--only`; errors begin with it.
        known: by key, the values that there are.
    Raises:
        ConfigError: if a key is unknown or there is no such value; it names those that there are.
    """
    keys = ", ".join(known)
    wanted: dict[str, set[str]] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise ConfigError(f"{option} {part!r}: is not KEY=VALUE, such as method=baseline; keys: {keys}")
        if key not in known:
            raise ConfigError(f"{option} {part!r}: unknown key {key!r}; keys: {keys}")
        try:
            check_name(value, sorted(known[key]()), key)
        except ConfigError as error:
            raise ConfigError(f"{option} {part!r}: {error}") from None
        wanted.setdefault(key, set()).add(value)
    return wanted


def hint(name: str, known: Sequence[str]) -> str:
    """`; did you mean 'x' or 'y'?` if known names are near, else nothing."""
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.7)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def parse_model(model: type[M], tree: Mapping[str, Any], where: str) -> M:
    """`tree` as a validated `model`; every error is told as `where: key: what is wrong`.

    Raises:
        ConfigError: one line per wrong value.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [f"{where}: {_explain(model, e)}" for e in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _explain(model: type[BaseModel], error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in _without_tags(model, error["loc"]))
    key = key.removeprefix(".")
    if error["type"] == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        return f"{key}: unknown key{hint(location[-1], known)}; known: {', '.join(known)}"
    if error["type"] == "missing":
        return f"{key}: is needed and missing"
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        tag = error["ctx"]["discriminator"].strip("'")
        known = _tags(model, location)
        section = error["input"] if isinstance(error["input"], Mapping) else {}
        given = section.get(tag)
        missing = f"is needed beside {', '.join(section)}"
        told = missing if given is None else f"unknown {tag} {given!r}{hint(str(given), known)}"
        return f"{key}.{tag}: {told}; known: {', '.join(known)}"
    if error["type"] == "tuple_type" and isinstance(error["input"], str | int | float):
        return f"{key}: must be a list: [{error['input']}]"
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if error["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: {message}, not {error['input']!r}" if key else f"{message}, not {error['input']!r}"


def _without_tags(model: type[BaseModel], location: Sequence[str | int]) -> list[str | int]:
    """A location without what pydantic puts between its keys: the tag of a union's member that was chosen."""
    kept: list[str | int] = []
    for depth, part in enumerate(location):
        is_tag = isinstance(part, str) and depth and part in _tags(model, [str(one) for one in location[:depth]])
        if not is_tag:
            kept.append(part)
    return kept


def _tags(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    """The tags of the members, if there is a union of models at a location."""
    members = _models_at(model, location)
    return [_tag(one) for one in members] if len(members) > 1 else []


def _tag(member: type[BaseModel]) -> str:
    """What the member of a union is chosen by: its field with a single allowed value."""
    allowed = (get_args(field.annotation) for field in member.model_fields.values())
    return next(values[0] for values in allowed if len(values) == 1 and isinstance(values[0], str))


def _fields_at(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    models = _models_at(model, location)
    return list(models[0].model_fields) if models else []


def _models_at(model: type[BaseModel], location: Sequence[str]) -> list[type[BaseModel]]:
    models = [model]
    for part in location:
        if len(models) == 1 and part in models[0].model_fields:
            models = _models_in(models[0].model_fields[part].annotation)
        else:
            # Of the members of a union, pydantic names the one that was chosen by its tag.
            models = [member for member in models if len(models) > 1 and part == _tag(member)]
    return models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models_in(inner)]
