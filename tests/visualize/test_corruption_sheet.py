"""The sheet of one case at all levels of several corruptions."""

import numpy as np
import pytest
from tests.visualize.printed import assert_on_the_page

from medcalib.visualize import draw_corruption_sheet


def sheets(shape=(12, 20), levels=6):
    plain = np.random.default_rng(0).normal(100, 20, shape)
    return {name: [plain + 3 * level for level in range(levels)] for name in ("noise", "bias_field")}


def test_every_level_is_shown_on_the_scale_of_the_image_as_it_is():
    made = sheets()
    figure = draw_corruption_sheet(made)
    low, high = np.percentile(made["noise"][0], (0.5, 99.5))
    assert len(figure.axes) == 12
    for axes, image in zip(figure.axes, [*made["noise"], *made["bias_field"]], strict=True):
        (shown,) = axes.images
        np.testing.assert_allclose(np.asarray(shown.get_array()).T, np.clip((image - low) / (high - low), 0, 1))
        assert shown.get_clim() == (0, 1)


@pytest.mark.parametrize("shape", [(12, 20), (30, 10), (16, 16, 3)])
def test_it_is_on_the_page_with_a_name_for_each_row_and_column(shape):
    figure = draw_corruption_sheet(sheets(shape))
    assert [axes.get_title() for axes in figure.axes[:6]] == ["as it is", *(f"level {level}" for level in range(1, 6))]
    assert figure.axes[6].get_ylabel() == "bias field"
    assert_on_the_page(figure)
