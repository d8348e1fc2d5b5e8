"""Words and characters of messages."""

import json

from autodo.text import count_of, printable


def test_a_count_agrees_with_its_noun() -> None:
    assert [count_of(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert count_of(2, "class", "classes") == "2 classes"


def test_control_characters_and_lone_surrogates_are_escaped() -> None:
    assert printable("naïve 猫 \\n") == "naïve 猫 \\n"
    assert printable("a\x1b[2Jb\nc\u202ed") == r"a\x1b[2Jb\nc\u202ed"
    printable(json.loads(r'"\ud800"')).encode()
