"""Operations of plug-ins in policy files."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from autodo import plugins
from autodo.augment import operations, plugin_operations
from autodo.augment.apply_draws import apply_draws
from autodo.augment.policies import build_policy
from autodo.augment.policy_file import PolicyFile, fingerprint
from autodo.augment.read_policy import read_policy
from autodo.config.policy import FilePolicy
from autodo.errors import ConfigError

DARKEN = """
from autodo.plugins import OperationPlugin

def darken(images, value, centre):
    return images - images.clamp(max=10) * (value > 0).byte()[:, None, None, None]

darken = OperationPlugin(name="Darken", apply=darken, low=0, high=4, signed=True)
"""


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A policy file with an operation of a plug-in, which is loaded."""
    monkeypatch.setattr(plugins, "_registry", plugins._Registry())
    (tmp_path / "darken.py").write_text(DARKEN)
    plugins.load_file(tmp_path / "darken.py")
    (tmp_path / "policy.json").write_text(json.dumps([[["Invert", 1, 0], ["Darken", 1, 0.5]]]))
    tables = dict(operations.OPERATIONS), list(operations.NAMES)
    yield tmp_path / "policy.json"
    operations.OPERATIONS.clear()
    operations.OPERATIONS.update(tables[0])
    operations.NAMES[:] = tables[1]


def test_an_operation_of_a_plugin_is_applied_after_others(policy: Path) -> None:
    found = read_policy(policy)
    drawn = build_policy(FilePolicy(content=fingerprint(found)), found).draw(64, torch.Generator().manual_seed(0))
    assert drawn.value[:, 1].unique().tolist() == [-2, 2]
    images = torch.randint(0, 256, (64, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    inverted = 255 - images
    darker = torch.where((drawn.value[:, 1] > 0)[:, None, None, None], inverted - inverted.clamp(max=10), inverted)
    assert torch.equal(apply_draws(images, drawn), darker)


def test_the_fingerprint_of_a_policy_has_the_code_of_its_plugins(policy: Path) -> None:
    plain = PolicyFile(sub_policies=((("Invert", 1, 0),),))
    assert fingerprint(plain) == "5d5267b1f63e5212"
    found = read_policy(policy)
    text = found.model_dump_json(by_alias=True)
    assert found.operations == {"Darken": plugins.files()[0].content}
    assert PolicyFile.model_validate_json(text) == found
    (policy.parent / "darken.py").write_text(DARKEN.replace("max=10", "max=20"))
    plugins.load_file(policy.parent / "darken.py")
    assert fingerprint(read_policy(policy)) != fingerprint(found)
    with pytest.raises(ConfigError, match=r"operation 'Darken': darken.py is not as it was when the run was planned"):
        build_policy(FilePolicy(content=fingerprint(found)), found)


def test_a_policy_without_its_plugin_can_be_read_but_not_used(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_policy(policy)
    monkeypatch.setattr(plugins, "_registry", plugins._Registry())
    assert PolicyFile.model_validate_json(found.model_dump_json(by_alias=True)) == found
    with pytest.raises(ConfigError, match="operation 'Darken': is of a plug-in that is not loaded"):
        plugin_operations.ranges_of(found)
    with pytest.raises(ConfigError, match="unknown operation 'Darken'; known: ShearX"):
        read_policy(policy)


def test_what_an_operation_returns_is_checked(policy: Path) -> None:
    (policy.parent / "darken.py").write_text(DARKEN.replace("return images -", "return images.float() -"))
    plugins.load_file(policy.parent / "darken.py")
    found = read_policy(policy)
    drawn = build_policy(FilePolicy(content="0" * 16), found).draw(2, torch.Generator())
    with pytest.raises(
        ConfigError, match=r"operation 'Darken': returned torch.float32 \(2, 1, 4, 4\) for images uint8"
    ):
        apply_draws(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), drawn)


def test_an_operation_of_autodo_is_refused(policy: Path) -> None:
    (policy.parent / "darken.py").write_text(DARKEN.replace('"Darken"', '"Rotate"'))
    plugins.load_file(policy.parent / "darken.py")
    with pytest.raises(ConfigError, match=r"darken.py: operation 'Rotate': AutoDO itself has one of this name"):
        read_policy(policy)
