import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.contour import ContourSet
from tests.visualize.printed import assert_on_the_page

from medcalib.visualize import draw_case_overlay
from medcalib.visualize.overlay import class_color

NAMES = ["background", "organ", "lesion"]


def case(shape=(12, 10), seed=0):
    rng = np.random.default_rng(seed)
    prediction = np.zeros(shape, dtype=int)
    prediction[2:7, 3:8] = 1
    prediction[4:6, 4:6] = 2
    label = np.roll(prediction, 1, axis=0)
    return {
        "image": rng.random((1, *shape)),
        "prediction": prediction,
        "uncertainty": rng.random(shape),
        "label": label,
        "class_names": NAMES,
    }


def outlines(axes):
    return [child for child in axes.get_children() if isinstance(child, ContourSet)]


def ends(outline):
    vertices = outline.get_paths()[0].vertices
    return np.concatenate([vertices.min(axis=0), vertices.max(axis=0)])


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def pixels(figure, axes):
    """What is drawn inside the axes, from the upper left corner, in [0, 1]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = axes.get_window_extent()
    drawn = np.asarray(canvas.buffer_rgba())[::-1] / 255
    return drawn[int(box.y0) + 1 : int(box.y1) - 1, int(box.x0) + 1 : int(box.x1) - 1, :3][::-1]


@pytest.mark.parametrize("box", [(3, 8, 2, 6), (0, 12, 0, 10), (0, 1, 0, 1), (11, 12, 4, 10)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 3.0)])
def test_outline_runs_between_the_pixels_inside_and_outside(box, spacing):
    data = case()
    data["prediction"] = np.zeros((12, 10), dtype=int)
    data["prediction"][box[0] : box[1], box[2] : box[3]] = 1
    del data["label"]
    axes = draw_case_overlay(**data, spacing=spacing).axes[0]
    (outline,) = outlines(axes)
    expected = np.array([box[0], box[2], box[1], box[3]]) * np.tile(spacing, 2)
    np.testing.assert_allclose(ends(outline), expected)
    assert axes.get_xlim() == (0, 12 * spacing[0])
    assert axes.get_ylim() == (0, 10 * spacing[1])


def test_every_class_has_its_colour_and_every_segmentation_its_line():
    figure = draw_case_overlay(**case())
    left, right, _ = figure.axes
    drawn = outlines(left)
    colours = [to_rgba(outline.get_edgecolor()[0], alpha=1) for outline in drawn]
    dashes = [outline.get_linestyle()[0] for outline in drawn]
    assert colours[:2] == colours[2:]
    assert colours[0] != colours[1]
    assert dashes[0] == dashes[1]
    assert dashes[2] == dashes[3] != dashes[0]
    # The truth lies one pixel to the right of the prediction.
    np.testing.assert_allclose(ends(drawn[0]) - ends(drawn[2]), [1, 0, 1, 0])
    assert outlines(right) == []
    assert legend(figure) == ["organ", "lesion", "ground truth", "prediction"]
    handles = figure.legends[0].legend_handles
    assert [to_rgba(handle.get_color()) for handle in handles[:2]] == colours[:2]


def test_legend_names_what_is_there():
    data = case()
    data["label"] = None
    data["prediction"][data["prediction"] == 1] = 0
    assert legend(draw_case_overlay(**data)) == ["lesion", "prediction"]
    data["prediction"][:] = 0
    assert legend(draw_case_overlay(**data)) == ["prediction"]


def bands(axes):
    """The opacity of each band, (right, up)."""
    return [np.swapaxes(np.asarray(picture.get_array())[..., 3], 0, 1) for picture in axes.images[1:]]


def sets_of(prediction):
    """A pixel less and a pixel more of each class."""
    found = {"inner": [], "outer": []}
    for number in (1, 2):
        mask = prediction == number
        moved = [np.roll(mask, step, axis) for axis in (0, 1) for step in (-1, 1)]
        found["inner"].append(np.logical_and.reduce([mask, *moved]))
        found["outer"].append(np.logical_or.reduce([mask, *moved]))
    return {name: np.stack(masks) for name, masks in found.items()}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("inner", "outer"), "inner to outer set"),
        (("outer",), "added by the outer set"),
        (("inner",), "not in the inner set"),
    ],
)
def test_sets_of_a_guarantee_are_a_band_around_the_outline(given, words):
    data = case()
    sets = sets_of(data["prediction"])
    figure = draw_case_overlay(**data, **{name: sets[name] for name in given})
    left, right, _ = figure.axes
    shown = bands(left)
    assert len(shown) == 2
    assert len(right.images) == 2
    for number, opacity in enumerate(shown, start=1):
        predicted = data["prediction"] == number
        inner, outer = (sets[name][number - 1] if name in given else predicted for name in ("inner", "outer"))
        np.testing.assert_array_equal(opacity > 0, outer & ~inner)
        color = np.asarray(left.images[number].get_array())[0, 0, :3]
        np.testing.assert_allclose(color, class_color(number))
    assert legend(figure) == ["organ", "lesion", "ground truth", "prediction", words]


def test_a_band_without_prediction_has_its_class_in_the_legend():
    data = case()
    data["prediction"][:] = data["label"][:] = 0
    outer = np.zeros((2, 12, 10), dtype=bool)
    outer[1, 3:5, 3:5] = True
    assert legend(draw_case_overlay(**data, outer=outer)) == [
        "lesion",
        "ground truth",
        "prediction",
        "added by the outer set",
    ]
    assert legend(draw_case_overlay(**data, outer=outer & False)) == ["ground truth", "prediction"]


@pytest.mark.parametrize("origin", ["lower", "upper"])
def test_band_lies_where_its_pixels_lie(origin):
    nothing = np.zeros((12, 10), dtype=int)
    outer = np.zeros((1, 12, 10), dtype=bool)
    outer[0, :3, :2] = True
    names = ["background", "organ"]
    figure = draw_case_overlay(np.ones((1, 12, 10)), nothing, nothing, class_names=names, origin=origin, outer=outer)
    drawn = pixels(figure, figure.axes[0])
    colored = np.ptp(drawn, axis=2) > 0.1
    assert colored[-1 if origin == "lower" else 0, 0]
    assert colored.any(0).mean() == pytest.approx(3 / 12, abs=0.02)
    assert colored.any(1).mean() == pytest.approx(2 / 10, abs=0.02)


def test_sets_of_other_classes_are_refused():
    data = case()
    with pytest.raises(ValueError, match="outer must hold 2 classes"):
        draw_case_overlay(**data, outer=np.zeros((3, 12, 10)))
    with pytest.raises(ValueError, match="inner must have the shape"):
        draw_case_overlay(**data, inner=np.zeros((2, 12, 9)))


def test_many_classes_have_different_colours():
    data = case((20, 20))
    data["prediction"] = np.repeat(np.arange(20), 20).reshape(20, 20)
    data["label"] = None
    data["class_names"] = [str(number) for number in range(20)]
    figure = draw_case_overlay(**data)
    assert len({tuple(outline.get_edgecolor()[0]) for outline in outlines(figure.axes[0])}) == 19


def test_heat_has_the_colours_of_the_bar_and_hides_nothing_where_certain():
    data = case()
    data["uncertainty"] = np.linspace(0, 2.4, 120).reshape(12, 10)
    data["uncertainty"][3, 3] = np.nan
    _, axes, bar = draw_case_overlay(**data, maximum=1.2).axes
    heat = np.swapaxes(axes.images[1].get_array(), 0, 1)
    part = np.minimum(np.nan_to_num(data["uncertainty"]) / 1.2, 1)
    np.testing.assert_allclose(heat[..., :3], colormaps["inferno"](part)[..., :3])
    opacity = heat[..., 3]
    assert opacity[0, 0] == opacity[3, 3] == 0
    assert (np.diff(np.delete(opacity.ravel(), 33)) >= 0).all()
    assert 0.5 < opacity.max() < 1
    assert bar.get_ylim() == (0, 1.2)
    assert bar.get_ylabel() == "entropy (nats)"


def test_scale_ends_at_the_largest_entropy_there_can_be():
    data = case()
    figure = draw_case_overlay(**data)
    np.testing.assert_allclose(figure.axes[2].get_ylim(), (0, np.log(3)))
    data["uncertainty"] = np.full((12, 10), np.log(3) + 1e-6)
    extended, exact = (len(draw_case_overlay(**data, maximum=top).axes[2].patches) for top in (1.0, None))
    assert extended == exact + 1


@pytest.mark.parametrize(("origin", "corner"), [("lower", (-1, 0)), ("upper", (0, 0))])
@pytest.mark.parametrize("rgb", [False, True])
def test_first_pixel_lies_at_the_left_and_at_the_origin(origin, corner, rgb):
    image = np.zeros((3 if rgb else 1, 12, 10))
    image[0, :4, :2] = 1
    nothing = np.zeros((12, 10), dtype=int)
    figure = draw_case_overlay(image, nothing, nothing, class_names=NAMES, origin=origin, rgb=rgb, window=(0, 100))
    for axes in figure.axes[:2]:
        drawn = pixels(figure, axes)
        height, width, _ = drawn.shape
        bright = drawn[..., 0] > 0.5
        assert bright[corner]
        assert bright.any(0).sum() / width == pytest.approx(4 / 12, abs=0.02)
        assert bright.any(1).sum() / height == pytest.approx(2 / 10, abs=0.02)
        assert (drawn[corner][1:] < 0.1).all() == rgb


@pytest.mark.parametrize("origin", ["lower", "upper"])
def test_outline_and_image_lie_on_each_other(origin):
    data = case()
    data["prediction"] = np.zeros((12, 10), dtype=int)
    data["prediction"][1:5, 1:4] = 1
    data["image"] = data["prediction"][None] * 0.5
    data["label"] = None
    figure = draw_case_overlay(**data, origin=origin)
    drawn = pixels(figure, figure.axes[0])
    coloured = np.argwhere(np.ptp(drawn, axis=-1) > 0.3)
    bright = np.argwhere(drawn.min(axis=-1) > 0.9)
    np.testing.assert_allclose(coloured.min(0), bright.min(0), atol=3)
    np.testing.assert_allclose(coloured.max(0), bright.max(0), atol=3)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0), (4.0, 1.0), (1.0, 20.0)])
def test_panels_have_the_shape_of_the_slice_in_millimetres(spacing):
    figure = draw_case_overlay(**case(), spacing=spacing)
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    for axes in figure.axes[:2]:
        box = axes.get_position()
        assert box.width * width / (box.height * height) == pytest.approx(12 * spacing[0] / (10 * spacing[1]))
    assert width == pytest.approx(3.35)
    assert height < 3.5


def test_grey_levels_run_between_the_percentiles():
    data = case()
    data["image"] = np.arange(120.0).reshape(1, 12, 10)
    data["image"][0, 0, 0] = np.nan
    levels = np.swapaxes(draw_case_overlay(**data, window=(10, 90)).axes[0].images[0].get_array(), 0, 1)
    low, high = np.percentile(np.arange(1.0, 120.0), (10, 90))
    expected = np.clip((np.arange(120.0) - low) / (high - low), 0, 1).reshape(12, 10)
    np.testing.assert_allclose(levels, expected)
    data["image"][:] = 7
    assert np.isfinite(draw_case_overlay(**data).axes[0].images[0].get_array()).all()


def test_volume_is_named_and_its_sides_are_written():
    data = case((12, 10, 4))
    data["image"] = np.random.default_rng(0).random((1, 12, 10, 4))
    figure = draw_case_overlay(**data, affine=np.diag([-1.0, -1.0, 3.0, 1.0]), title="case 7")
    axes = figure.axes[0]
    assert axes.get_title() == "axial slice 1 of 4"
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert places["L"][0] < 0.1 < 0.9 < places["R"][0]
    assert places["P"][1] < 0.1 < 0.9 < places["A"][1]
    assert figure.get_suptitle() == "case 7"
    # The file's axes point to the left and the back, so the organ appears turned round.
    np.testing.assert_allclose(ends(outlines(axes)[2]), [12 - 7, 10 - 8, 12 - 2, 10 - 3])
    assert len(draw_case_overlay(**data).axes[0].texts) == 0


@pytest.mark.parametrize("suffix", ["png", "pdf"])
@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 4), (40, 9, 2)])
def test_everything_lies_on_the_page(tmp_path, shape, suffix):
    data = case(shape)
    data["image"] = np.random.default_rng(0).random((1, *shape))
    data["class_names"] = ["background", "right adrenal gland", "left adrenal gland"]
    affine = np.diag([1.0, 1.0, 3.0, 1.0]) if len(shape) == 3 else None
    figure = draw_case_overlay(**data, affine=affine, title="a case", maximum=0.5)
    figure.draw_without_rendering()
    sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
    assert min(sizes) >= 7
    assert_on_the_page(figure)
    parts = [figure.legends[0], *(axes for axes in figure.axes[:2])]
    lowest = min(axes.get_window_extent().y0 for axes in parts[1:])
    assert parts[0].get_window_extent().y1 <= lowest
    figure.savefig(tmp_path / f"figure.{suffix}")


def test_pyplot_is_left_alone():
    before = dict(matplotlib.rcParams)
    draw_case_overlay(**case())
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"origin": "left"}, 'origin must be "lower" or "upper"'),
        ({"maximum": 0.0}, "must be above 0 and finite, got 0.0"),
        ({"class_names": ["background"]}, "must be above 0 and finite"),
        ({"class_names": NAMES[:2]}, r"labels must lie between 0 and 1, got \[0, 1, 2\]"),
        ({"label": np.full((12, 10), -2)}, "labels must lie between 0 and 2"),
        ({"width": 1.0}, "width must be at least"),
        ({"label": np.zeros((12, 9))}, "label must have the shape"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        draw_case_overlay(**(case() | change))


def nested():
    """A ring around a disc, and a box that touches the ring: three classes that share borders."""
    x, y = np.mgrid[:48, :48]
    distance = np.hypot(x - 20, y - 24)
    labels = np.zeros((48, 48), int)
    labels[distance < 12], labels[distance < 7] = 2, 1
    labels[(x > 28) & (x < 40) & (y > 14) & (y < 34) & (distance >= 12)] = 3
    return labels


def is_coloured(drawn, number):
    return np.abs(drawn - np.array(class_color(number))).max(axis=-1) < 0.3


@pytest.mark.parametrize("label", [True, False])
def test_classes_that_share_a_border_are_outlined_side_by_side(label):
    """Each along its whole border, and none over another: the disc in a ring does not vanish."""
    labels = nested()
    data = {"image": np.zeros((1, 48, 48)), "prediction": labels, "uncertainty": labels * 0.0}
    names = ["background", "disc", "ring", "box"]
    figure = draw_case_overlay(**data, label=labels if label else None, class_names=names, width=12.0)
    drawn = pixels(figure, figure.axes[0])
    own = labels.T[::-1]  # as it is drawn: rows from the top
    for number in (1, 2, 3):
        near = np.zeros((50, 50), bool)  # voxels with a pixel of the colour in them or beside them
        for row, column in np.argwhere(is_coloured(drawn, number)) * 48 // np.array(drawn.shape[:2]):
            near[row : row + 3, column : column + 3] = True
        inner = np.pad(own == number, 1)
        surrounded = np.logical_and.reduce([np.roll(inner, step, axis) for step in (1, -1) for axis in (0, 1)])
        border = (inner & ~surrounded)[1:-1, 1:-1]
        assert near[1:-1, 1:-1][border].mean() > 0.8, number
