"""Reading and checking YAML; errors name the bad value, its place and what is allowed."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autodo.errors import ConfigError
from autodo.io.storage import StrPath
from autodo.text import hint

M = TypeVar("M", bound=BaseModel)


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Frozen(BaseModel):
    """Base of user settings: immutable, no unknown keys, no infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MoreMembers(NamedTuple):
    """Annotation of a tagged union that has further members, from plug-ins."""

    members: Callable[[], list[type[BaseModel]]]


def load_yaml(path: StrPath) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: if the file cannot be read, is not YAML or is not a mapping.
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
    """Parse YAML in UTF-8 that holds a mapping. Only plain values are made; a tag cannot run code.

    Raises:
        ConfigError: if the text is not YAML or not a mapping.
    """
    try:
        content = yaml.safe_load(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: cannot be read: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: is a {type(content).__name__}, not a mapping of keys to values")
    return content


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse `["training.epochs=20"]` into `{"training.epochs": 20}`; values are YAML.

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
    """Raise ConfigError, with the nearest known name, unless `name` is known."""
    if name not in known:
        raise ConfigError(f"unknown {kind} {name!r}{hint(name, known)}; known: {', '.join(known)}")


def parse_selection(option: str, text: str, known: Mapping[str, Callable[[], Iterable[str]]]) -> dict[str, set[str]]:
    """Parse `method=a,method=b,seed=0` into sets of values by key.

    Args:
        option: name of the option, such as `--only`, with which errors begin.
        known: function that returns the known values, by key.
    Raises:
        ConfigError: if a key or value is unknown; it names the known ones.
    """
    keys = ", ".join(known)
    selection: dict[str, set[str]] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise ConfigError(f"{option} {part!r}: is not KEY=VALUE, such as method=baseline; keys: {keys}")
        if key not in known:
            raise ConfigError(f"{option} {part!r}: unknown key {key!r}; keys: {keys}")
        names = sorted(known[key]())
        if key == "method":  # methods are joined in any order
            parts = sorted(value.split("+"))
            value = next((name for name in names if sorted(name.split("+")) == parts), value)
        try:
            check_name(value, names, key)
        except ConfigError as error:
            raise ConfigError(f"{option} {part!r}: {error}") from None
        selection.setdefault(key, set()).add(value)
    return selection


def parse_model(model: type[M], tree: Mapping[str, Any], where: str) -> M:
    """Validate `tree` as a `model`.

    Raises:
        ConfigError: with a line `where: key: message` for each wrong value.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [f"{where}: {_explain(model, e)}" for e in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _explain(model: type[BaseModel], error: Any) -> str:
    """One error of pydantic as `key: message`, with the allowed keys or kinds."""
    keys, models = _walk(model, error["loc"])
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in keys).removeprefix(".")
    if error["type"] == "extra_forbidden":
        _, (parent, *_) = _walk(model, error["loc"][:-1])
        known = list(parent.model_fields)
        return f"{key}: unknown key{hint(str(keys[-1]), known)}; known: {', '.join(known)}"
    if error["type"] == "missing":
        return f"{key}: is required"
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        tag = error["ctx"]["discriminator"].strip("'")
        known = [_tag(member) for member in models]
        section = error["input"] if isinstance(error["input"], Mapping) else {}
        name = section.get(tag)
        problem = f"unknown {tag} {name!r}{hint(str(name), known)}"
        if name is None:
            problem = f"is required with {', '.join(section)}"
        return f"{key}.{tag}: {problem}; known: {', '.join(known)}"
    if error["type"] == "tuple_type" and isinstance(error["input"], str | int | float):
        return f"{key}: must be a list: [{error['input']}]"
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if error["type"] != "value_error":
        message += f", not {error['input']!r}"
    return f"{key}: {message}" if key else message


def _walk(model: type[BaseModel], location: Sequence[str | int]) -> tuple[list[str | int], list[type[BaseModel]]]:
    """Keys on the way to a location, without pydantic's tags of union members, and the models allowed there."""
    keys: list[str | int] = []
    models = [model]
    for part in location:
        chosen = [member for member in models if len(models) > 1 and part == _tag(member)]
        if not chosen:
            keys.append(part)
        if isinstance(part, str):
            field = models[0].model_fields.get(part) if len(models) == 1 else None
            models = chosen or (_models_in(field.annotation) if field else [])
    return keys, models


def _tag(member: type[BaseModel]) -> str:
    """Tag of a union member: its field with a single allowed value."""
    allowed = (get_args(field.annotation) for field in member.model_fields.values())
    return next(values[0] for values in allowed if len(values) == 1 and isinstance(values[0], str))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    models = [model for inner in getattr(annotation, "__args__", ()) for model in _models_in(inner)]
    more = [one for one in getattr(annotation, "__metadata__", ()) if isinstance(one, MoreMembers)]
    return models + [member for one in more for member in one.members()]
