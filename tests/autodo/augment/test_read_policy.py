"""Policies from elsewhere, and files that only look like them."""

import json

import pytest

from autodo.augment.policy_file import PolicyFile, fingerprint
from autodo.augment.read_policy import LIMIT_BYTES, import_policy, read_policy
from autodo.errors import ConfigError

PAIR = [["Rotate", 0.9, 0.3], ["Invert", 0.2, 0.7]]
ARCHIVE = """
import os
from somewhere import float_parameter
os.system("touch {owned}")
open("{owned}", "w")

def arsaug_policy():
    exp0 = [[('Rotate', 0.1, 0.2), ('Color', 0.3, 0.4)]]
    exp1 = [[('Invert', 0.1, 0.2)]]
    return exp0 + exp1

@undefined
def fa_reduced(x=os.system("touch {owned}")):
    p = [[["Contrast", 0.83, 0.49], ["translate_x", 0.41, 0.39]], [["colour", 1, 0], ["Color", 0.5, 0.7]]]
    return p

def autoaug_paper():
    return [[('Invert', 0.1, 7), ('Contrast', 0.2, 6)]]

CIFAR10 = a_long_name = [[('TranslateX', 0.5, 0.5), ('Cutout', 0.5, 0.5)]]
DARTS = Genotype(normal=[[('Posterize', 0.5, 0.5)]], concat=range(2))
PIXELS = [[('TranslateXAbs', 0.5, 10)]]
CALLED = [[(os.system("touch {owned}"), 0.5, 0.5)]]
NUMBERS = [[1, 2], [3, 4]]
WARNED = "\\d" is 3
"""


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "archive.py"
    path.write_text(ARCHIVE.replace("{owned}", str(tmp_path / "owned")))
    yield path
    assert not (tmp_path / "owned").exists(), "it was executed"


@pytest.mark.parametrize(
    ("name", "sub_policies"),
    [
        (
            "fa_reduced",
            [[("Contrast", 0.83, 0.49), ("TranslateX", 0.41, 0.39)], [("Color", 1, 0), ("Color", 0.5, 0.7)]],
        ),
        ("arsaug_policy.exp0", [[("Rotate", 0.1, 0.2), ("Color", 0.3, 0.4)]]),
        ("arsaug_policy.exp1", [[("Invert", 0.1, 0.2)]]),
        ("CIFAR10", [[("TranslateX", 0.5, 0.5), ("Cutout", 0.5, 0.5)]]),
        ("a_long_name", [[("TranslateX", 0.5, 0.5), ("Cutout", 0.5, 0.5)]]),
        ("DARTS.normal", [[("Posterize", 0.5, 0.5)]]),
    ],
)
def test_the_lists_of_a_python_file_by_name(archive, name, sub_policies):
    policy = import_policy(archive, name)
    assert policy.sub_policies == tuple(tuple(steps) for steps in sub_policies)
    assert policy.source == f"archive.py: {name}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "several policies, say which with --name: CIFAR10, a_long_name, DARTS.normal, PIXELS, arsaug_policy"),
        ("fa_reducd", "--name 'fa_reducd': .*no such list; did you mean 'fa_reduced'.*known: CIFAR10"),
        ("CALLED", "no such list"),
        ("NUMBERS", "no such list"),
        ("autoaug_paper", r"sub_policies\[0\]\[0\]: the level of Invert is a number from 0 to 1, not 7"),
        ("PIXELS", r"unknown operation 'TranslateXAbs', which is not TranslateX; known: ShearX"),
    ],
)
def test_what_cannot_be_taken_is_one_line(archive, name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        import_policy(archive, name)
    assert "\n" not in str(caught.value)


def test_a_single_list_needs_no_name(tmp_path):
    (tmp_path / "a.py").write_text(f"CIFAR10 = short = {[PAIR]}")
    assert len(import_policy(tmp_path / "a.py").sub_policies) == 1


@pytest.mark.parametrize(
    "content",
    [
        "x = " + "[" * 100_000,
        "x = " + "[" * 150 + "]" * 150,
        "x = " + "-" * 200_000 + "1",
        "x = [[['Rotate', " + "1+" * 50_000 + "1, 1]]]",
        "x = " + "(" * 90 + "'a'" + ",)" * 90,
        "x = [[['Rotate', 1" + "0" * 5000 + ", 1]]]",
        "def f(:",
        "\0",
        "",
        "raise SystemExit",
        "while True: pass",
        "x = [[[]]]",
        "x: int",
        "import" * 10,
    ],
)
def test_a_hostile_python_file_is_one_line(tmp_path, content):
    (tmp_path / "evil.py").write_text(content)
    with pytest.raises(ConfigError, match=r"evil\.py: ") as caught:
        import_policy(tmp_path / "evil.py")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"sub_policies": [PAIR]},
        [PAIR],
        {"sub_policies": [PAIR], "dataset": "cifar10", "format": "as above"},
        {"sub_policies": [[["rotate", 0.9, 0.3], ["INVERT", 0.2, 0.7]]], "source": "me"},
    ],
)
def test_json_is_checked_and_normalised(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content))
    policy = read_policy(tmp_path / "a.json")
    assert policy == import_policy(tmp_path / "a.json")
    assert policy.sub_policies == ((("Rotate", 0.9, 0.3), ("Invert", 0.2, 0.7)),)
    if "dataset" in content:
        assert policy.provenance == {"dataset": "cifar10", "format": "as above"}


def test_a_schedule_is_read_too(tmp_path):
    stages = [{"from": 0, "operations": PAIR}, {"from": 0.5, "operations": PAIR[:1]}]
    (tmp_path / "a.json").write_text(json.dumps({"schedule": stages}))
    assert [stage.start for stage in read_policy(tmp_path / "a.json").schedule] == [0, 0.5]


def test_weights_of_sub_policies_are_read_and_change_the_content(tmp_path):
    policies = []
    for weights in ([1, 0.5], [1, 0]):
        content = {"sub_policies": [PAIR, PAIR[:1]], "schedule": [{"from": 0, "weights": weights}]}
        (tmp_path / "a.json").write_text(json.dumps(content))
        policies.append(read_policy(tmp_path / "a.json"))
        assert policies[-1].schedule[0].weights == tuple(weights)
        assert PolicyFile.model_validate_json(policies[-1].model_dump_json(by_alias=True)) == policies[-1]
    assert len({fingerprint(policy) for policy in policies}) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("3", "holds int, but an object with sub_policies is needed"),
        ("{}", "either a list of sub_policies or a schedule"),
        ("[]", "either a list of sub_policies or a schedule"),
        ('{"sub_policies": 3}', "sub_policies: is a list, not 3"),
        ('{"sub_policies": [[]]}', r"sub_policies\[0\]: is a list of \[operation, probability, level\], not \[\]"),
        ('[[["Rotate", 1]]]', r"sub_policies\[0\]\[0\]: is \[operation, probability, level\], not \['Rotate', 1\]"),
        ('[[["Rotate", 0.1, 0.1]], [["Rotat", 0, 0]]]', r"sub_policies\[1\]\[0\]: unknown.*did you mean 'Rotate'"),
        (
            '[[["Rotate", 1.1, 0]]]',
            r"sub_policies\[0\]\[0\]: the probability of Rotate is a number from 0 to 1, not 1.1",
        ),
        ('[[["Rotate", 1, NaN]]]', "the level of Rotate is a number from 0 to 1, not nan"),
        ('[[["Rotate", 1, 1e999]]]', "not inf"),
        ('[[["Rotate", true, 1]]]', "not True"),
        ('{"schedule": [{"from": 0.5, "operations": [["Rotate", 1, 1]]}]}', "begins at 0"),
        ('{"schedule": [{"from": 0, "weights": [1]}]}', "needs a weight for each of the 0 sub_policies in every stage"),
        ('{"sub_policies": [[["Rotate", 1, 1]]], "schedule": [{"from": 0, "weights": [0]}]}', "finite, and not all 0"),
        ('{"sub_policies": [[["Rotate", 1, 1]]], "schedule": [{"from": 0, "weights": [-1]}]}', "greater than or equal"),
        ('{"schedule": [3]}', "schedule"),
        ('{"schedule": 3}', "schedule"),
        ('{"schedule": [{"from": 0}]}', r"schedule\[0\].operations: is a list"),
        ('{"sub_policies": [[["Rotate", 1, 1]]], "provenance": 3}', "provenance"),
        ('{"sub_policies": [[["Rotate", 1, 1]]], "source": {}}', "source"),
        (" " * (LIMIT_BYTES + 1), "is larger than 2 MiB"),
    ],
)
def test_wrong_json_is_one_line_that_names_the_place(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_policy(tmp_path / "a.json")
    assert "\n" not in str(caught.value)
    assert "a.json" in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_place_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_policy(tmp_path / "nothing.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_policy(tmp_path)
    with pytest.raises(ConfigError, match="unknown scheme"):
        read_policy("ftp://host/a.json")
    (tmp_path / "a.py").write_text("x = 1")
    with pytest.raises(ConfigError, match="`autodo policy import` reads Python files"):
        read_policy(tmp_path / "a.py")
    (tmp_path / "a.json").write_text(json.dumps([PAIR]))
    with pytest.raises(ConfigError, match="a single policy"):
        import_policy(tmp_path / "a.json", "CIFAR10")


def test_a_policy_in_an_object_store(bucket):
    from autodo.io.storage import locate

    (locate(f"{bucket}/policies") / "a.json").write_text(json.dumps([PAIR]))
    assert isinstance(read_policy(f"{bucket}/policies/a.json"), PolicyFile)
