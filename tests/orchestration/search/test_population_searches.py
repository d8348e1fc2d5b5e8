"""Population-based augmentation on Ray."""

import contextlib
import io
import os
import signal
from pathlib import Path

import pytest
from rich.console import Console

from autodo.augment.policy_file import PolicyFile
from autodo.config.recipes import build_run
from autodo.config.run import RunConfig
from autodo.io.storage import locate
from orchestration.grid.resources import ResourcesConfig

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_ray")]

RUN = build_run(
    "digits",
    "pba",
    overrides={
        "policy.search.images": 400,
        "policy.search.epochs": 10,
        "policy.search.population": 4,
        "policy.search.perturb_every": 2,
        "policy.search.model": "small-cnn",
    },
)


def search(folder, scratch, lines: list[str], run: RunConfig = RUN, stop=lambda: False) -> PolicyFile | None:
    from orchestration.search.population_tuning import tune_population

    return tune_population(
        run,
        folder,
        data_dir=None,
        resources=ResourcesConfig(),
        scratch=locate(scratch),
        report=lines.append,
        stop=stop,
    )


def members_of_this_process() -> list[int]:
    """Process ids of the members at work on the Ray that this process has started."""
    parents: dict[int, int] = {}
    members: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid = int(stat.parent.name)
            parents[pid] = int(stat.read_text().rpartition(")")[2].split()[1])
            if b"ray::MemberTrainable" in (stat.parent / "cmdline").read_bytes():
                members.append(pid)

    def ours(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return [pid for pid in members if ours(pid)]


def test_the_best_members_schedule_is_found_and_a_search_that_is_cut_continues(tmp_path):
    folder = locate(tmp_path / "search")
    folder.make_folder()
    lines: list[str] = []
    stopped = search(folder, tmp_path / "one", lines, stop=lambda: any("epoch 3" in line for line in lines))
    assert stopped is None, lines
    assert folder.names() >= {f"member-{number}-epoch-2.pt" for number in range(4)}
    if "member-2-epoch-4.pt" in folder.names():  # what cannot be read does not count
        (folder / "member-2-epoch-4.pt").write_bytes(b"damaged")
    lines.clear()
    policy = search(folder, tmp_path / "two", lines)
    assert lines[0] == "continues from epoch 2 of 10"
    epochs = [f"epoch {epoch} of 10" for epoch in range(3, 11)]
    assert [line.partition(",")[0] for line in lines[1:]] == epochs, "nobody skips one, whoever it is the heir of"
    assert policy is not None
    assert policy.schedule[0].start == 0
    assert all(stage.start * 10 % 1 == pytest.approx(0, abs=1e-9) for stage in policy.schedule)
    accuracies = policy.provenance["accuracies"]
    assert len(accuracies) == 4
    assert policy.provenance["accuracy"] == accuracies[0] == max(accuracies)
    assert accuracies[0] > 0.5


@pytest.mark.long
def test_a_member_whose_process_dies_goes_on_from_the_last_perturbation(store, tmp_path):
    """And when that happens too often, the search has failed."""
    from orchestration.search.find_policies import SearchResults, find_policies

    text = io.StringIO()

    class Killing(io.StringIO):
        """Kills a member whenever an epoch is printed that it has not seen."""

        def write(self, line: str) -> int:
            if "epoch 3 of" in line or "epoch 5 of" in line:
                for pid in members_of_this_process()[:1]:
                    os.kill(pid, signal.SIGKILL)
            return text.write(line)

    def find(retries: int) -> SearchResults:
        console = Console(file=Killing(), width=200)
        return find_policies(
            {str(RUN.search_id): RUN},
            store,
            console,
            resources=ResourcesConfig(),
            slots=2,
            scratch=locate(tmp_path / f"scratch{retries}"),
            retries=retries,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestration.display.search_display.INTERVAL_SECONDS", 0.0)
        failed = find(retries=0)
        assert [reason.kind for reason in failed.failed.values()] == ["ProcessDied"]
        assert "continues from its last perturbation" not in text.getvalue()
        ended = find(retries=20)
    assert ended.failed == {}
    assert "continues from its last perturbation" in text.getvalue()
    assert str(RUN.search_id) in store.policies.names()


@pytest.mark.long
def test_some_members_become_heirs_of_better_ones(tmp_path):
    import torch

    folder = locate(tmp_path / "search")
    folder.make_folder()
    search(folder, tmp_path / "one", [])
    states = [torch.load(tmp_path / "search" / f"member-{n}-epoch-10.pt", weights_only=True) for n in range(4)]
    histories = [state["member"]["history"] for state in states]
    # The worst quarter of four is one, at each of four perturbations.
    assert 1 <= sum(len(history) > 1 for history in histories) <= 4
    firsts = [tuple(history[0][1]) for history in histories]
    assert len(set(firsts)) < 4, "an heir begins with its donor's history"
