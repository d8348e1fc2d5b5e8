"""Policies in a store: found by a search, or read from a file."""

import contextlib

from pydantic import ValidationError

from autodo.augment.policy_file import PolicyFile, fingerprint
from autodo.errors import StoreError
from autodo.io.storage import Location
from orchestration.store.paths import LEASE, LOG, StorePaths
from orchestration.store.patience import Retry


class StorePolicies:
    """Policies by name: the search_id of the search, or `file-<content>`."""

    def __init__(self, paths: StorePaths, retry: Retry) -> None:
        self._paths = paths
        self._retry = retry

    def names(self) -> set[str]:
        """Names of the policies that the store holds."""
        return {name.removesuffix(".json") for name in self._paths.policies.names() if name.endswith(".json")}

    def read(self, name: str) -> PolicyFile:
        """The policy of this name.

        Raises:
            StoreError: if it is missing, damaged, or another one than its name says.
        """
        file = self._paths.policy(name)
        try:
            policy = PolicyFile.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            raise StoreError(
                f"{file}: no such policy; `autodo launch`, `train` and `resume` search it, or read it from policy.path"
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            # A message of PolicyFile itself names the place.
            where = ".".join(map(str, first["loc"])) or ("" if first["type"] == "value_error" else "JSON")
            reason = " ".join(first["msg"].removeprefix("Value error, ").split())[:200]
            raise StoreError(
                f"{file}: damaged: {where}{': ' if where else ''}{reason}; delete it, and it is made again"
            ) from None
        own = policy.provenance.get("search_id")
        if name not in (own, f"file-{fingerprint(policy)}"):
            raise StoreError(f"{file}: is another policy ({own or fingerprint(policy)}); delete it")
        return policy

    def write(self, name: str, policy: PolicyFile) -> None:
        """Keep a policy; the progress of its search is then removed, and the search's log stays."""
        text = policy.model_dump_json(by_alias=True, indent=1, exclude_defaults=True)
        self._retry(lambda: self._paths.policy(name).write_text(text))
        with contextlib.suppress(StoreError):  # the policy is kept all the same
            _clear(self._paths.search(name))


def _clear(search: Location) -> None:
    for part, names in search.names_in(search.names() - {LOG, LEASE}).items():
        for name in names:
            (search / part / name).delete()
        local = (search / part).local
        if local is not None and local.is_dir():
            with contextlib.suppress(OSError):
                local.rmdir()
        elif local is not None or not names:
            (search / part).delete()
