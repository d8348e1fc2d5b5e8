"""Finding what a person names on the command line: a run of a store, a saved classifier."""

import difflib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from autodo.errors import ConfigError, StoreError
from autodo.io.storage import Location, locate
from orchestration.store.run_state import State
from orchestration.store.store import Store

if TYPE_CHECKING:
    from autodo.results.classifier import Classifier


class Chosen(NamedTuple):
    """File of a classifier, its name (that of its run or file), and the words of the command line that are left."""

    file: Location
    name: str
    rest: list[str]


def find_classifier(model: str, words: Sequence[str]) -> Chosen:
    """Find the file of a classifier.

    Args:
        model: a file or its URI, or a store, whose run is the first of the words.
    Raises:
        UserError: if there is none.
    """
    place = locate(model)
    local = place.local
    if local is None and place.name.endswith(".pt"):
        return Chosen(place, place.stem, list(words))
    if local is not None and not local.is_dir():
        if not local.exists():
            raise ConfigError(f"{model}: no such file or folder; give a saved classifier, or a store and a run of it")
        return Chosen(place, place.stem, list(words))
    store = Store(model).open()
    if not words:
        raise ConfigError(
            f"{model}: is a store; name a run of it too: `autodo inspect {model}` lists those that are done"
        )
    run_id = find_run(store, words[0])
    file = store.paths.model(run_id)
    if not file.exists():
        raise StoreError(
            f"{run_id}: has not kept its classifier; `autodo train` keeps it, and `autodo launch --keep models` with "
            "another --store"
        )
    return Chosen(file, run_id, list(words[1:]))


def load_classifier(file: Location) -> "Classifier":
    """The classifier of a file, which may be in an object store.

    Raises:
        UserError: if the file is missing, damaged or of another format.
    """
    from autodo.results.classifier import Classifier

    if file.local is not None:
        return Classifier.load(file.local)
    with tempfile.TemporaryDirectory() as folder:
        try:
            file.fetch(copy := Path(folder) / file.name)
        except FileNotFoundError:
            raise StoreError(f"{file}: no such file") from None
        return Classifier.load(copy)


def find_run(store: Store, text: str) -> str:
    """Id of the run that `text` stands for, which must be done.

    Args:
        text: the whole id, its beginning, or the hash at its end, if only one run has it.
    Raises:
        UserError: if there is no such run, there are several, or it is not done.
    """
    known = sorted(store.status.run_ids())
    fitting = [text] if text in known else [one for one in known if _matches(text, one)]
    if len(fitting) > 1:
        raise ConfigError(f"{text}: {len(fitting)} runs of {store} begin so: {_listed(fitting)}")
    if not fitting:
        near = difflib.get_close_matches(text, known, n=3)
        hint = f"the nearest: {_listed(near)}" if near else f"`autodo inspect {store}` lists those that are done"
        raise ConfigError(f"{text!r}: no run of {store} has this id; {hint}")
    (run_id,) = fitting
    state = store.status.states([run_id])[run_id]
    if state is State.FAILED:
        failure = store.status.failure(run_id)
        why = "" if failure is None else f" ({failure.last_line})"
        raise StoreError(f"{run_id}: failed{why}; `autodo retry {store} {run_id}` tries it again")
    if state is not State.DONE:
        interrupted = store.status.interrupted([run_id])
        now = f"was interrupted; `autodo resume {store}` continues it" if interrupted else "is at work now"
        raise StoreError(f"{run_id}: is not done: it {now}")
    return run_id


def _matches(text: str, run_id: str) -> bool:
    return bool(text) and (run_id.startswith(text) or run_id.endswith(f"_{text}"))


def _listed(run_ids: Sequence[str]) -> str:
    more = f", and {len(run_ids) - 3} more" if len(run_ids) > 3 else ""
    return ", ".join(run_ids[:3]) + more
