import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from medcalib.visualize import CaseReliabilityDrawer, draw_case_reliability_diagrams
from medcalib.visualize.rendering import Backdrop, png, render, render_case, render_dataset

NAMES = ("a", "b")


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


def saved(figure, dpi):
    """What Matplotlib itself writes."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return pixels(content.getvalue())


def cases():
    """Cases of several sizes and biases, one with a class that is absent, one with a class that nothing is known of."""
    rng = np.random.default_rng(2)
    for size, tilt in ((9, 0.4), (3000, -0.4), (40, 0.0), (10**6, 0.3), (2000, -0.4)):
        counts = rng.integers(0, size, (2, 10)) * (rng.random((2, 10)) > 0.2)
        confidence = (np.arange(10) + rng.random((2, 10))) / 10
        frequency = np.clip(confidence + tilt * np.array([[1], [-1]]), 0, 1)
        if size == 40:
            frequency[0] = counts[1] = 0
        yield counts, counts * confidence, rng.binomial(counts, frequency)


def test_pictures_of_cases_are_those_of_a_figure_drawn_from_scratch():
    for number, sums in enumerate([*cases(), *cases()]):
        title = f"case {number}"
        # The PDF is drawn from the same figure at another resolution.
        files = render_case(sums, NAMES, title, ["pdf", "png"], 70)
        fresh = saved(draw_case_reliability_diagrams(*sums, NAMES, title=title), 70)
        np.testing.assert_array_equal(pixels(files["png"]), fresh)
        assert files["pdf"].startswith(b"%PDF")


@pytest.mark.parametrize("options", [{"show_counts": False}, {"show_title": False}, {"columns": 1}])
def test_every_layout_can_be_drawn_over_a_backdrop(options):
    drawer = CaseReliabilityDrawer(NAMES, **options)
    backdrop = Backdrop(drawer.grid.figure, drawer.changing, dpi=60)
    for sums in cases():
        figure = drawer.draw(*sums, title="case")
        picture = backdrop.picture(drawer.counts.decade).copy()
        np.testing.assert_array_equal(picture, saved(figure, 60))


def test_what_lies_over_a_changing_artist_stays_there():
    figure = Figure(figsize=(2, 2))
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    moving = axes.add_artist(Rectangle((0, 0), 0.5, 0.5, color="red", zorder=2))
    axes.add_artist(Rectangle((0.2, 0.2), 0.4, 0.4, facecolor=(0, 0, 1, 0.5), zorder=3))
    axes.add_artist(Rectangle((0.1, 0.4), 0.4, 0.4, color="green", zorder=2.5, visible=False))
    axes.add_artist(Rectangle((0.4, 0.1), 0.4, 0.4, color="grey", zorder=1))
    backdrop = Backdrop(figure, [moving], dpi=50)
    for place in (0.0, 0.3, -0.2):
        moving.set_xy((place, place))
        np.testing.assert_array_equal(backdrop.picture(), saved(figure, 50))


def test_a_state_of_the_unchanging_is_drawn_once():
    figure = Figure(figsize=(1, 1), facecolor=(1, 0, 0, 0.3))
    title = figure.text(0.5, 0.5, "one")
    label = figure.text(0.1, 0.1, "first")
    backdrop = Backdrop(figure, [title], dpi=50)
    first = backdrop.picture("first").copy()
    label.set_text("second")
    np.testing.assert_array_equal(backdrop.picture("first"), first)
    np.testing.assert_array_equal(backdrop.picture("second"), saved(figure, 50))
    np.testing.assert_array_equal(backdrop.picture("first"), first)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 1), (6, 9)])
def test_png_keeps_every_pixel_and_states_the_resolution(shape):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 4), dtype=np.uint8)
    image = Image.open(io.BytesIO(png(picture, 150)))
    np.testing.assert_array_equal(np.asarray(image), picture)
    np.testing.assert_allclose(image.info["dpi"], 150, atol=0.02)


def test_rendered_figure_is_what_matplotlib_saves_and_keeps_its_resolution():
    figure = Figure(figsize=(3, 2), dpi=77, facecolor="#eeddcc")
    figure.subplots().plot([0, 1], [1, 3])
    np.testing.assert_array_equal(pixels(render(figure, ["png"], 90)["png"]), saved(figure, 90))
    assert figure.dpi == 77


@pytest.mark.parametrize("kind", ["diagram", "histogram"])
def test_figures_of_a_dataset_come_in_every_format(kind):
    sums = [np.stack(part) for part in zip(*cases(), strict=True)]
    files = render_dataset(kind, sums, NAMES, ("png", "pdf"), 150)
    assert pixels(files["png"]).shape[1] in (1049, 1050)
    assert files["pdf"].startswith(b"%PDF")
