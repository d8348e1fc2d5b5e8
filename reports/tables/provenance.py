"""Where the runs of a table come from, if not all from the same place: code, libraries, devices."""

import pandas as pd

from reports.provenance import counted


def run_notes(runs: pd.DataFrame) -> list[str]:
    """Reasons for care: results of different code, libraries or devices side by side, or of changed code.

    Args:
        runs: those of a table; runs without a result say nothing.
    """
    done = runs[runs["error_best_val"].notna()]
    remarks = []
    for column, what in (("git_sha", "code versions"), ("device", "devices")):
        if done[column].nunique(dropna=False) > 1:
            remarks.append(f"Results of different {what} stand side by side: {counted(done[column])}.")
    for package, versions in sorted(_versions(done).items()):
        if len(versions) > 1:
            remarks.append(f"Results of different versions of {package} stand side by side: {', '.join(versions)}.")
    changed = int(done["git_sha"].fillna("").astype(str).str.endswith("-dirty").sum())
    if changed:
        remarks.append(
            f"{_runs(changed)} of {len(done)} ran from a work tree with changes (-dirty): "
            "their code version does not say what they ran."
        )
    return remarks


def _runs(n: int) -> str:
    return f"{n} run{'' if n == 1 else 's'}"


def _versions(runs: pd.DataFrame) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    # Most runs have the same ones: each set is looked at once.
    for pairs in {tuple(sorted(map(tuple, versions))) for versions in runs["versions"].dropna()}:
        for package, version in pairs:
            found.setdefault(str(package), set()).add(str(version))
    return {package: sorted(versions) for package, versions in found.items()}
