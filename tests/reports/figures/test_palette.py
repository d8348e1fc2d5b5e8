import re

import pytest

from reports.figures.palette import NEUTRAL, class_colours, styles


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_forty_methods_look_different() -> None:
    names = ["baseline", *(f"method-{i}" for i in range(40))]
    assert len(set(styles(names).values())) == 41


def test_the_first_methods_differ_by_colour() -> None:
    found = styles(["a", "baseline", "b", "c", "d", "e", "f", "g", "a"])
    assert len({found[name].colour for name in "abcdef"}) == 6
    assert found["g"].colour == found["a"].colour
    assert found["g"].dash != found["a"].dash
    assert [name for name, style in found.items() if style.colour == NEUTRAL] == ["baseline"]


def test_any_number_of_methods_has_a_style() -> None:
    assert len(styles(str(i) for i in range(200))) == 200
    assert styles([]) == {}


@pytest.mark.parametrize("page", ["#ffffff", "#121212"])
def test_colours_are_visible_on_white_and_on_dark(page: str) -> None:
    for style in styles(["baseline", *"abcdef"]).values():
        assert contrast(style.colour, page) > 2


def test_a_dash_is_the_same_in_both_formats() -> None:
    *_, style = styles("abcdefg").values()
    assert style.linestyle is not None
    lengths = [float(length) for length in style.dasharray(2).split()]
    assert lengths == [2 * length for length in style.linestyle[1]]
    assert (styles("a")["a"].dasharray(2), styles("a")["a"].linestyle) == ("none", None)


@pytest.mark.parametrize("count", [0, 1, 2, 10, 11, 100])
def test_every_class_has_a_colour_of_its_own(count: int) -> None:
    colours = class_colours(count)
    assert len(set(colours)) == len(colours) == count
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)
