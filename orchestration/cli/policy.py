"""`autodo policy import` and `autodo policy show`."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autodo.augment.policy_file import OperationStep, PolicyFile, fingerprint
from autodo.augment.read_policy import import_policy, read_policy
from autodo.config.validation import hint
from autodo.errors import ConfigError
from autodo.io.atomic import atomic_path
from autodo.io.storage import StrPath, reason
from autodo.text import printable
from orchestration.cli.console import say
from orchestration.display.text import duration
from orchestration.store.store import Store


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
    say(console, f"to use it: --method fast-autoaugment-published --set policy.path={target}")


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
    for number, steps in enumerate(policy.sub_policies):
        table.add_row(str(number), *(_step(step) for step in steps))
    for stage in policy.schedule:
        drawn = (f"{operation} {p:.2f} {level:.2f}" for operation, p, level in stage.operations if p)
        table.add_row(f"from {100 * stage.start:.0f}%", ", ".join(drawn) or "nothing")
    console.print(table)
    counts = Counter(step[0] for steps in policy.sub_policies for step in steps)
    if counts:
        say(console, f"used: {_list(f'{operation} {n}' for operation, n in counts.most_common())}")


def _step(step: OperationStep) -> Text:
    operation, probability, level = step
    return Text.assemble((f"{operation:12}", "bold"), f" {probability:.2f}  {level:.2f}")


def _size(policy: PolicyFile) -> str:
    if policy.schedule:
        return f"a schedule of {len(policy.schedule)} stages"
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
