"""The picture of a batch."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.contour import ContourSet

from medcalib.visualize.overlay import class_color
from medcalib.visualize.preview import draw_batch_preview

NAMES = {"class_names": ["background", "organ", "lesion"], "channel_names": ["MRI"]}


def batch(number=2, shape=(12, 10, 6), channels=1):
    rng = np.random.default_rng(0)
    images = rng.random((number, channels, *shape)).astype(np.float32)
    labels = np.zeros((number, 1, *shape), np.uint8)
    labels[:, :, 2:7, 3:8] = 1
    return images, labels, [f"case_{index}" for index in range(number)]


def outlines(axes):
    return [child for child in axes.get_children() if isinstance(child, ContourSet)]


def shown(axes):
    return np.asarray(axes.images[0].get_array()).swapaxes(0, 1)


def note(figure):
    return figure.legends[0].get_title().get_text()


def titles(figure):
    return [axes.get_title("left") for axes in figure.axes]


def test_the_slice_with_the_most_classes_is_drawn():
    images, labels, cases = batch()
    labels[0, 0, :, :, 1] = 1  # the largest organ
    labels[0, 0, 4, 5, 4] = 2  # the only lesion
    labels[1, 0, :, :, 2] = 1
    figure = draw_batch_preview(images, labels, cases, **NAMES)
    assert titles(figure) == ["case_0\nslice 5 of 6", "case_1\nslice 3 of 6"]
    assert [len(outlines(axes)) for axes in figure.axes] == [2, 1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["organ", "lesion"]


def test_grey_levels_are_those_of_the_network_on_one_scale():
    images, labels, cases = batch()
    images[1] = images[0] + 1
    figure = draw_batch_preview(images, labels, cases, **NAMES, window=(0, 100))
    low, high = images.min(), images.max()
    for axes, image, place in zip(figure.axes, images, (0, 0), strict=True):
        np.testing.assert_allclose(shown(axes), (image[0, :, :, place] - low) / (high - low), atol=1e-6)
    np.testing.assert_allclose(shown(figure.axes[1]) - shown(figure.axes[0]), 1 / (high - low), atol=1e-5)
    assert note(figure) == f"MRI: {low:.3g} (black) to {high:.3g} (white)"


def test_outlines_have_the_colour_of_their_class_and_lie_around_it():
    images, labels, cases = batch()
    figure = draw_batch_preview(images, labels, cases, **NAMES, spacing=(1, 2, 5))
    (outline,) = outlines(figure.axes[0])
    assert to_rgb(outline.get_edgecolor()[0]) == pytest.approx(class_color(1))
    vertices = outline.get_paths()[0].vertices
    np.testing.assert_allclose([*vertices.min(0), *vertices.max(0)], [2, 6, 7, 16])


def test_volumes_are_cut_across_the_coarsest_axis():
    images, labels, cases = batch()
    labels[:, :, 3, 4, 4] = 2
    for spacing, places in {(5, 1, 1): "slice 4 of 12", (1, 5, 1): "slice 5 of 10", (1, 1, 1): "slice 5 of 6"}.items():
        figure = draw_batch_preview(images, labels, cases, **NAMES, spacing=spacing)
        assert titles(figure)[0] == f"case_0\n{places}"


def test_channels_have_columns():
    images, labels, cases = batch(channels=4)
    names = NAMES | {"channel_names": ["T1", "T1CE", "T2", "FLAIR"]}
    figure = draw_batch_preview(images, labels, cases, **names, max_panels=4)
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["T1", "T1CE", "T2", "FLAIR"]
    assert titles(figure) == ["case_0\nslice 1 of 6", "", "", ""]
    assert all(len(outlines(axes)) == 1 for axes in figure.axes)
    assert "FLAIR: " in note(figure)
    assert not np.array_equal(shown(figure.axes[0]), shown(figure.axes[1]))


def test_pictures_are_drawn_whole_in_colours_from_the_top():
    images, labels, cases = batch(shape=(12, 10), channels=3)
    names = NAMES | {"channel_names": ["red", "green", "blue"]}
    figure = draw_batch_preview(images, labels, cases, **names)
    assert titles(figure) == cases
    assert shown(figure.axes[0]).shape == (12, 10, 3)
    assert figure.axes[0].get_ylim() == (10, 0)
    assert note(figure).startswith("colours: ")


def test_whole_images_have_the_names_of_their_classes():
    images, _, cases = batch(shape=(12, 10))
    figure = draw_batch_preview(images, np.array([[2], [0]]), cases, **NAMES)
    assert titles(figure) == ["case_0\nlesion", "case_1\nbackground"]
    assert figure.legends[0].get_texts() == []
    assert outlines(figure.axes[0]) == []


def test_independent_labels():
    images, labels, cases = batch()
    channels = np.concatenate([labels, np.zeros_like(labels)], axis=1)
    channels[:, 1, 4:6, 4:6] = 1
    figure = draw_batch_preview(images, channels, cases, class_names=["whole", "core"], channel_names=["MRI"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["whole", "core"]
    assert len(outlines(figure.axes[0])) == 2
    one = draw_batch_preview(images, labels, cases, class_names=["whole"], channel_names=["MRI"])
    assert [text.get_text() for text in one.legends[0].get_texts()] == ["whole"]


@pytest.mark.parametrize(
    ("number", "channels", "shape"), [(3, 1, (12, 10, 6)), (40, 4, (12, 10, 6)), (3, 4, (40, 8, 6)), (40, 1, (6, 60))]
)
def test_nothing_overlaps_or_leaves_the_page(number, channels, shape):
    images, labels, cases = batch(number, shape, channels)
    cases[0] = "a_very_long_name_of_a_case_" * 4
    names = {
        "class_names": [f"class {n}" for n in range(20)],
        "channel_names": [f"channel {n}" for n in range(channels)],
    }
    labels[:] = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)) % 20
    figure = draw_batch_preview(images, labels, cases, **names)
    assert len(figure.axes) <= 16
    FigureCanvasAgg(figure).draw()
    page = figure.bbox
    boxes = [axes.get_window_extent() for axes in figure.axes]
    boxes += [axes._left_title.get_window_extent() for axes in figure.axes if axes.get_title("left")]
    boxes += [figure.legends[0].get_window_extent()]
    for index, box in enumerate(boxes):
        assert page.x0 - 1 <= box.x0 <= box.x1 <= page.x1 + 1
        assert page.y0 - 1 <= box.y0 <= box.y1 <= page.y1 + 1
        for other in boxes[:index]:
            apart_across = box.x0 > other.x1 - 1 or other.x0 > box.x1 - 1
            assert apart_across or box.y0 > other.y1 - 1 or other.y0 > box.y1 - 1


def test_nothing_to_see():
    images, labels, cases = batch()
    images[:], labels[:] = 3, 0
    figure = draw_batch_preview(images, labels, cases, **NAMES)
    assert titles(figure)[0] == "case_0\nslice 4 of 6"
    assert figure.legends[0].get_texts() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((2, 3))}, "two or three spatial axes"),
        ({"cases": ["a"]}, "2 images need as many labels and names, not 2 and 1"),
        ({"channel_names": ["a", "b"]}, "1 channels need as many names, not 2"),
        ({"labels": np.full((2, 1, 12, 10, 6), 3)}, "labels must lie between 0 and 2, got \\[3\\]"),
        ({"labels": np.zeros((2, 1, 12, 10, 5))}, "spatial shape of the images"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    images, labels, cases = batch()
    with pytest.raises(ValueError, match=message):
        draw_batch_preview(**{"images": images, "labels": labels, "cases": cases, **NAMES} | change)
