import re

import pytest

from reports.keys import key


@pytest.mark.parametrize("parts", [("svhn (wrn-28-10)", "100-0.1"), ("猫", "$"), ("a" * 500,), ("<b>", "\n"), ("",)])
def test_a_key_is_an_anchor_and_a_file_name(parts: tuple[str, ...]) -> None:
    assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", key(*parts))
    assert len(key(*parts)) < 60


def test_different_parts_have_different_keys() -> None:
    parts = [("a b",), ("a-b",), ("a", "b"), ("A b",), ("a" * 100,), ("a" * 101,), ("猫",), ("犬",)]
    assert len({key(*part) for part in parts}) == len(parts)
    assert key("a", "b") == key("a", "b")
