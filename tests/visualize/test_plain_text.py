"""Ids and names of classes are shown letter by letter, whatever Matplotlib would read into them."""

import io

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from medcalib import visualize
from medcalib.visualize.preview import draw_batch_preview

CLASSES = ["$x_{", "_left\\frac", r"$\undefined$", "a$b"]
CASE = r"case_1$ {^\q $"
COUNTS = np.full((4, 3), 10.0)


def overlay():
    labels = np.zeros((16, 16), int)
    for number in range(1, 4):
        labels[4 * number : 4 * number + 3, 2:12] = number
    image = np.random.default_rng(0).random((1, 16, 16))
    return visualize.draw_case_overlay(
        image, labels, labels * 0.1, class_names=CLASSES, title=CASE, uncertainty_label=CLASSES[0]
    )


def preview():
    labels = np.zeros((1, 1, 16, 16), int)
    labels[..., 2:5, 2:5], labels[..., 8:12, 2:5], labels[..., 8:12, 8:12] = 1, 2, 3
    images = np.random.default_rng(0).random((1, 2, 16, 16))
    return draw_batch_preview(images, labels, [CASE], class_names=CLASSES, channel_names=CLASSES[:2])


def dataset():
    return np.stack([COUNTS] * 2), np.stack([COUNTS * 0.4] * 2), np.stack([COUNTS * 0.5] * 2)


FIGURES = {
    "overlay": overlay,
    "preview": preview,
    "case": lambda: visualize.draw_case_reliability_diagrams(COUNTS, COUNTS * 0.4, COUNTS * 0.5, CLASSES, title=CASE),
    "diagrams": lambda: visualize.draw_dataset_reliability_diagrams(*dataset(), CLASSES, title=CASE),
    "histograms": lambda: visualize.draw_dataset_reliability_histograms(*dataset(), CLASSES, title=CASE),
}


def texts(figure):
    return [text for text in figure.findobj(Text) if text.get_text().strip()]


@pytest.mark.parametrize("figure", FIGURES)
def test_nothing_is_mathematics(figure, recwarn):
    drawn = FIGURES[figure]()
    for suffix in ["png", "pdf"] if figure == "overlay" else ["png"]:
        drawn.savefig(io.BytesIO(), format=suffix, dpi=50)
    shown = " ".join(text.get_text() for text in texts(drawn)).replace("\n", " ").replace("_", " ")
    assert any("$" in text.get_text() for text in texts(drawn))
    assert not any(text.get_parse_math() and "$" in text.get_text() for text in texts(drawn))
    assert r"mathdefault" not in shown
    assert CLASSES[1].replace("_", " ") in shown  # a legend would leave it out, since it begins with _
    assert not [warning for warning in recwarn if "legend" in str(warning.message)]
    assert matplotlib.rcParams["text.parse_math"] is True


def test_every_function_that_draws_shows_plain_text():
    """Those that are not drawn here too."""
    functions = [getattr(visualize, name) for name in visualize.__all__ if name.startswith("draw_")]
    functions += [draw_batch_preview]
    assert all(hasattr(function, "__wrapped__") for function in functions)
