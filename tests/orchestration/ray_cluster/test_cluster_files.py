"""The cluster examples: each file by the best check that needs no cluster, and every `autodo` command line in them."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from orchestration.cli.app import app

ROOT = Path(__file__).parents[3]
DOC = ROOT / "docs" / "how-to" / "cluster.md"
CLUSTERS = ROOT / "configs" / "clusters"
TEXTS = [DOC, *sorted(CLUSTERS.iterdir())]


def written(path: Path) -> str:
    """A file's text with one command a line: comments of Markdown, folded YAML and broken lines are put together."""
    text = path.read_text()
    if path.suffix == ".yaml":
        strings: list[str] = []

        def walk(value: Any) -> None:
            if isinstance(value, dict):
                for inner in value.values():
                    walk(inner)
            elif isinstance(value, list):
                for inner in value:
                    walk(inner)
            elif isinstance(value, str):
                strings.append(value)

        for document in yaml.safe_load_all(text):
            walk(document)
        return "\n".join(strings)
    if path.suffix == ".sh":
        text = "\n".join(line for line in text.replace("\\\n", " ").splitlines() if not line.startswith("#"))
    # In Markdown, code between backticks.
    return re.sub(r"`([^`\n]+)`", r"\n\1\n", text)


def commands() -> Iterator[tuple[str, list[str]]]:
    """(where, words after `autodo`) of every command line."""
    for path in TEXTS:
        for line in written(path).splitlines():
            found = re.search(r"(?:^\s*|-- |; )(?:autodo|python -m orchestration\.cli) ([a-z].*)$", line)
            if found:
                words = shlex.split(re.sub(r"\s(&|…|;).*$", "", found[1]), comments=True)
                yield f"{path.name}: {line.strip()[:100]}", words


COMMANDS = list(commands())


def test_the_command_lines_are_found() -> None:
    where = {place.split(":")[0] for place, _ in COMMANDS}
    assert where == {"cluster.md", "slurm.sh", "kuberay.yaml"}
    assert len(COMMANDS) >= 15
    assert {words[0] for _, words in COMMANDS} >= {"launch", "plan", "status", "resume", "retry"}


@pytest.mark.parametrize("words", [words for _, words in COMMANDS], ids=[place for place, _ in COMMANDS])
def test_every_command_line_is_one_of_ours(words: list[str]) -> None:
    name, *rest = words
    known = typer.main.get_group(app).commands
    assert name in known, f"no such command: {name}"
    options = {option for parameter in known[name].params for option in parameter.opts}
    unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - options
    assert unknown == set()
    known[name].make_context(name, rest)  # parses as the shell's words would, and runs nothing


def pinned(package: str) -> str:
    (version,) = re.findall(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return str(version)


def test_rays_version_is_the_pinned_one_everywhere() -> None:
    for path in TEXTS:
        found = re.findall(r"rayproject/ray:([0-9.]+)-py311|rayVersion: \"([0-9.]+)\"", path.read_text())
        assert {version for pair in found for version in pair if version} <= {pinned("ray")}


def test_dashboards_listen_on_localhost() -> None:
    starts = [line for path in TEXTS for line in written(path).splitlines() if "ray start --head" in line]
    assert len(starts) == 3
    for line in starts:
        assert re.search(r"--dashboard-host[ =]127\.0\.0\.1", line), line
    # The one exception, which its own file gives the reason for.
    assert [path.name for path in TEXTS if "0.0.0.0" in path.read_text()] == ["kuberay.yaml"]


def test_rays_own_schema_takes_the_aws_file() -> None:
    # Before Ray: it sets the environment that Ray reads at its import.
    import orchestration.launch  # noqa: F401

    from ray.autoscaler._private.util import prepare_config, validate_config  # isort: skip

    config = yaml.safe_load((CLUSTERS / "aws.yaml").read_text())
    validate_config(prepare_config(config))
    head, worker = (config["available_node_types"][name] for name in ("head", "worker"))
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    starts = [c for kind in ("head", "worker") for c in config[f"{kind}_start_ray_commands"] if "ray start" in c]
    assert all("RAY_AUTH_MODE=token ray" in c.replace("RAY_USAGE_STATS_ENABLED=0 ", "") for c in starts)
    with pytest.raises(Exception, match="max_wokers"):
        validate_config(prepare_config({**config, "max_wokers": 3}))


# The fields that the examples use, of KubeRay's API v1. Its schema, a megabyte, is in no package: this finds what is
# misspelled or in the wrong place, not what an operator would find wrong.
JOB_FIELDS = {"entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"}
CLUSTER_FIELDS = {"rayVersion", "authOptions", "enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"}
GROUP_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def test_the_kubernetes_manifest_holds_together() -> None:
    claim, policy, job = yaml.safe_load_all((CLUSTERS / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job["spec"]) == JOB_FIELDS | {"rayClusterSpec"}
    cluster = job["spec"]["rayClusterSpec"]
    assert set(cluster) == CLUSTER_FIELDS
    assert cluster["authOptions"] == {"mode": "token"}
    assert set(cluster["headGroupSpec"]) == {"rayStartParams", "template"}
    head, *workers = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    # The submitter as a sidecar needs a head that is not restarted in place.
    assert head["template"]["spec"]["restartPolicy"] == "Never"
    assert head["rayStartParams"]["num-cpus"] == "0"
    for group in workers:
        assert set(group) == GROUP_FIELDS
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (head, *workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]
        assert pod["metadata"]["labels"] == policy["spec"]["podSelector"]["matchLabels"]
        claims = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"]}
        assert set(claims.values()) == {claim["metadata"]["name"]}
        (container,) = pod["spec"]["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts.keys() == claims.keys()
        assert container["resources"]["requests"] == container["resources"]["limits"]
        entrypoint = shlex.split(job["spec"]["entrypoint"])
        for option in ("--store", "--data-dir"):
            assert entrypoint[entrypoint.index(option) + 1].startswith(f"{mounts['store']}/")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_slurm_script_is_good_bash() -> None:
    script = CLUSTERS / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    if checker := shutil.which("shellcheck"):
        subprocess.run([checker, script], check=True)
    usage = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert usage.returncode != 0
    assert "usage: sbatch slurm.sh GRID" in usage.stderr


def test_the_pages_links_lead_somewhere() -> None:
    text = DOC.read_text()
    headings = {re.sub(r"[^a-z0-9]+", "-", line.lstrip("# ").lower()) for line in text.splitlines() if line[:1] == "#"}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("#"):
            assert link[1:] in headings
        else:
            assert (DOC.parent / link).exists(), link
