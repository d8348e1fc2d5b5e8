"""`autodo policy import` and `autodo policy show`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autodo.augment.policy_file import OperationStep, PolicyFile, ScheduleStage, SubPolicy, fingerprint
from autodo.augment.read_policy import import_policy, read_policy
from autodo.errors import ConfigError
from autodo.io.atomic import atomic_path
from autodo.io.storage import StrPath, reason
from autodo.text import hint, printable
from orchestration.cli.console import say
from orchestration.display.text import duration
from orchestration.store.store import Store

SHOWN_SUB_POLICIES = 3
"""Sub-policies shown of each stage of a schedule with weights."""


def import_to_json(console: Console, source: StrPath, target: StrPath, name: str | None) -> None:
    """Convert a published policy file to JSON."""
    target, policy = Path(target), import_policy(source, name)
    if target.suffix != ".json":
        raise ConfigError(f"{target}: is not named *.json")
    try:
        with atomic_path(target) as temporary:
            temporary.write_text(policy.model_dump_json(by_alias=True, indent=1, exclude_defaults=True))
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {reason(error)}") from None
    say(console, f"{target}: {_size(policy)}, content {fingerprint(policy)}")
    say(console, f"to use it: --method fast-autoaugment-published or dada-published, --set policy.path={target}")


def show_policy(console: Console, source: str, name: str | None) -> None:
    """Print a policy of a file or a store; without a name, list the policies of the store."""
    if name is None and (source.endswith(".json") or Path(source).is_file()):
        _print(console, source, read_policy(source))
        return
    store = Store(source).open()
    known = sorted(store.policies.names())
    if name is None and len(known) == 1:
        name = known[0]
    if name is None:
        say(console, f"{store}: {len(known)} policies" if known else f"{store}: no policy yet")
        for one in known:
            policy = store.policies.read(one)
            say(console, f"  {one}: {_size(policy)}, {printable(policy.source[:2000])}")
        return
    if name not in known:
        store.paths.policy(name)  # raises if it can be no name
        raise ConfigError(f"{name}: no policy of {store} has this name{hint(name, known)}; there are: {_list(known)}")
    _print(console, str(store.paths.policy(name)), store.policies.read(name))


def _print(console: Console, source: str, policy: PolicyFile) -> None:
    say(console, f"{source}: {_size(policy)}, content {fingerprint(policy)}")
    if policy.source:
        say(console, f"source: {printable(policy.source[:2000])}")
    for key, value in policy.provenance.items():
        say(console, f"{printable(key[:200])}: {printable(_value(key, value)[:2000])}")
    table = Table(title="operations: probability, level", title_justify="left", show_header=False)
    if not policy.schedule:
        for number, steps in enumerate(policy.sub_policies):
            table.add_row(str(number), *(_step(step) for step in steps))
    for stage in policy.schedule:
        table.add_row(f"from {100 * stage.start:.0f}%", _stage(stage, policy.sub_policies))
    console.print(table)
    if policy.schedule and policy.sub_policies:
        say(console, f"shown: the {SHOWN_SUB_POLICIES} most frequent of {len(policy.sub_policies)} sub-policies")
        return
    counts = Counter(step[0] for steps in policy.sub_policies for step in steps)
    if counts:
        say(console, f"used: {_list(f'{operation} {n}' for operation, n in counts.most_common())}")


def _stage(stage: ScheduleStage, sub_policies: Sequence[SubPolicy]) -> str:
    if not stage.weights:
        return ", ".join(_words(step) for step in stage.operations if step[1]) or "nothing"
    total = sum(stage.weights)
    order = sorted(range(len(sub_policies)), key=lambda number: -stage.weights[number])
    return "\n".join(
        f"{stage.weights[number] / total:7.3%}  " + ", ".join(_words(step) for step in sub_policies[number])
        for number in order[:SHOWN_SUB_POLICIES]
    )


def _words(step: OperationStep) -> str:
    operation, probability, level = step
    return f"{operation} {probability:.2f} {level:.2f}"


def _step(step: OperationStep) -> Text:
    operation, probability, level = step
    return Text.assemble((f"{operation:12}", "bold"), f" {probability:.2f}  {level:.2f}")


def _size(policy: PolicyFile) -> str:
    if policy.schedule:
        of = f" with {len(policy.sub_policies)} sub-policies" if policy.sub_policies else ""
        return f"a schedule of {len(policy.schedule)} stages{of}"
    return f"{len(policy.sub_policies)} sub-policies"


def _value(key: str, value: Any) -> str:
    """A value of the provenance on one line, shortened."""
    if key == "seconds" and isinstance(value, int | float):
        return f"{value:.0f} ({duration(value)})"
    if key == "rewards" and isinstance(value, list) and all(isinstance(fold, list) and fold for fold in value):
        return "; ".join(f"fold {n}: {len(fold)} trials, best {max(fold):.4f}" for n, fold in enumerate(value))
    if isinstance(value, dict):
        return _list(f"{name} {_value(name, one)}" for name, one in value.items())
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _list(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"
