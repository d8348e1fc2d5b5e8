"""Errors, help and start-up of the command line."""

import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.store.store import Store
from tests.orchestration.cli.conftest import TRAIN, fill

COMMANDS = ("launch", "resume", "retry", "plan", "train", "status", "report", "methods", "datasets", "grids")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["plan", "quickstart", "--frob"], "No such option: --frob"),
        (["plan", "quickstrat"], "unknown grid 'quickstrat'; did you mean 'quickstart'?; known: "),
        (["plan", "quickstart", "--set", "training.epochs"], "--set 'training.epochs' is not KEY=VALUE"),
        (["plan", "quickstart", "--set", "training.epoch=2"], "training.epoch: unknown key; did you mean 'epochs'?"),
        (["launch", "quickstart", "--set", "seed=2"], "--set seed: is spanned by the grid; change its seeds instead"),
        (["train", "--dataset", "digits", "--method", "autodo-awz"], "unknown method 'autodo-awz'; did you mean"),
        (["train", "--dataset", "digit", "--method", "baseline"], "unknown dataset 'digit'; did you mean 'digits'"),
        (["train", "--dataset", "digits"], "Missing option '--method'"),
        ([*TRAIN, "--ir", "0.5"], "--ir, --nr: imbalance_ratio: input should be greater than or equal to 1, not 0.5"),
        ([*TRAIN, "--nr", "1"], "--ir, --nr: noise_ratio: input should be less than 1, not 1.0"),
        (
            [*TRAIN, "--distortion", "10-pair"],
            "distortion '10-pair' is not IR-NR, such as '100-0.1' or '1-0.0'; before",
        ),
        (
            [*TRAIN, "--distortion", "10-pair0.1", "--ir", "2"],
            "--distortion '10-pair0.1': holds both ratios; leave out",
        ),
        ([*TRAIN, "--device", "tpu"], "--device 'tpu': is not one of auto, cpu, cuda, cuda:<n>"),
        ([*TRAIN, "--device", "meta"], "--device 'meta': is not one of auto, cpu, cuda, cuda:<n>"),
        ([*TRAIN, "--device", "cpu:0"], "--device 'cpu:0': is not one of auto, cpu, cuda, cuda:<n>"),
        (["plan", "qickstart.yaml"], "qickstart.yaml: no such file; did you mean 'quickstart'?; known: "),
        (["plan", "nowhere/mine"], "nowhere/mine: no such file; known: "),
        (["plan", ""], "unknown grid ''; known: "),
        (
            ["plan", "quickstart", "--store", sys.executable],
            "is a file; a store is a directory, or a URI such as s3://",
        ),
        (["methods", "autodo-awz"], "unknown method 'autodo-awz'; did you mean"),
        (["status", "nowhere"], "nowhere: no such store"),
        (["resume", "nowhere"], "nowhere: no such store"),
        (["retry", "nowhere", "--failed"], "nowhere: no such store"),
        (["launch", "quickstart", "--time-budget", "2 hours"], "--time-budget '2 hours': is not a time such as 2h"),
        (["launch", "quickstart", "--time-budget", "0h"], "--time-budget '0h': is not a time such as 2h"),
        (
            ["launch", "quickstart", "--keep", "embedings"],
            "--keep: unknown name 'embedings'; did you mean 'embeddings'?",
        ),
        (["launch", "quickstart", "--keep", "models,"], "--keep: unknown name ''; known: models, embeddings"),
        (
            [*TRAIN, "--keep", "model"],
            "--keep: unknown name 'model'; did you mean 'models'?; known: models, embeddings",
        ),
        ([*TRAIN, "--set", "method.images=val", "--split", "test-as-val"], "method.images 'val' trains on val, which"),
        (["launch", "quickstart", "--only", "method=autodo-awz"], "unknown method 'autodo-awz'; did you mean"),
        (["launch", "quickstart", "--memory-per-run", "8"], "resources: memory: 8 bytes are less than a MiB; give a"),
        (["launch", "quickstart", "--memory-per-run", "much"], "resources: memory: could not parse"),
        (
            ["launch", "quickstart", "--gpus-per-run", "0.5", "--workers-per-run", "2"],
            "resources: gpus must be a whole number when workers > 1 (got gpus=0.5, workers=2)",
        ),
        (
            ["launch", "quickstart", "--gpus-per-run", "1.5"],
            "resources: gpus must be a whole number, or a share below 1",
        ),
        (["report", "."], ".: is not a store"),
        (["status", "s4://bucket/S"], "s4://bucket/S: unknown scheme 's4'"),
        (["launch", "quickstart", "--store", "s3://AKIA:c2Vj@bucket/S"], "s3://***@bucket/S: contains credentials"),
        ([*TRAIN, "--store", "s3://AKIA:c2Vj@bucket/S"], "s3://***@bucket/S: contains credentials"),
        ([*TRAIN, "--preset", "cpu"], "preset 'cpu': dataset 'digits' has no such preset; its recipe has none"),
    ],
)
def test_an_error_of_the_user_is_one_line_and_exit_code_2(autodo, arguments: list[str], message: str) -> None:
    answer = autodo(*arguments)
    assert answer.code == 2
    assert "Traceback" not in answer.err
    (line,) = answer.err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_help_and_version(autodo) -> None:
    assert autodo("--version").out.startswith("autodo ")
    for arguments, code in ((["--help"], 0), ([], 2)):
        answer = autodo(*arguments)
        assert answer.code == code
        assert answer.err == ""
        assert all(command in answer.out for command in COMMANDS)


def test_a_store_of_a_later_format_is_refused_by_every_command(autodo, grid: str, tmp_path: Path) -> None:
    fill(Store("S"), grid, n=1)
    (done,) = Store("S").status.done()
    (tmp_path / "S/store.json").write_text('{"format": 3, "more": 1}')
    before = sorted((tmp_path / "S").rglob("*"))
    commands = [
        ["launch", grid, "--store", "S"],
        ["plan", grid, "--store", "S"],
        ["resume", "S"],
        ["retry", "S", "--failed"],
        ["status", "S"],
        ["report", "S"],
        ["inspect", "S", done],
        ["policy", "show", "S"],
        [*TRAIN, "--store", "S"],
    ]
    for command in commands:
        answer = autodo(*command)
        assert answer.code == 2, command
        assert answer.err == (
            "error: S: a store of format 3, written by a later version of autodo; this version reads formats up to 2: "
            "update it, or use another store\n"
        ), command
    assert sorted((tmp_path / "S").rglob("*")) == before


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "quickstart"], ["methods"], ["grids"]])
def test_quick_commands_are_quick(arguments: list[str], tmp_path: Path) -> None:
    code = f"import sys; sys.argv = ['autodo', *{arguments!r}]; from orchestration.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], check=True, capture_output=True, text=True)
    # What takes the time is what is imported.
    imports = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"torch", "ray", "pandas"} & imports
