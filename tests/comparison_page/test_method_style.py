import pytest

from medcalib.comparison_page.method_style import DARK, LIGHT, method_styles

NAMES = [f"method_{place}" for place in range(26)]


def luminance(color):
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """The ratio of WCAG 2."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("groups", [None, {name: f"loss {place % 3}" for place, name in enumerate(NAMES)}])
def test_no_two_methods_look_alike(groups):
    assert len(set(method_styles(NAMES, NAMES[3], groups).values())) == len(NAMES)


def test_lines_without_marks_can_be_told_apart():
    looks = method_styles(NAMES, NAMES[0]).values()
    assert len({(look.number, look.dash) for look in looks}) == len(NAMES)


def test_a_group_has_one_colour():
    looks = method_styles(["a", "b", "c"], "a", {"a": "x", "b": "y", "c": "x"})
    assert looks["a"].number == looks["c"].number != looks["b"].number


def test_methods_of_a_single_group_have_colours_of_their_own():
    """As in a study of one loss, whose colour would say nothing."""
    assert method_styles(NAMES, NAMES[0], dict.fromkeys(NAMES, "loss")) == method_styles(NAMES, NAMES[0])


@pytest.mark.parametrize(("colors", "page"), [(LIGHT, "#ffffff"), (DARK, "#14171c")])
def test_colours_stand_out_from_the_page(colors, page):
    assert len(colors) == len(set(colors)) == len(LIGHT)
    assert min(contrast(color, page) for color in colors) >= 3
