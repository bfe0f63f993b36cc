import numpy as np
import pytest
from tests.comparison_page import made_up

from medcalib.comparison_page.chart import Heat, Series
from medcalib.comparison_page.reliability_charts import reliability


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_up.of_segmentations(tmp_path_factory.mktemp("runs"), seeds=(1, 2), num_cases=5)


def test_curves_pool_the_voxels_of_all_cases_and_seeds(made):
    (chart,) = reliability(made)[0].charts
    (line,) = [one for one in chart.parts if (one.method, one.variant) == ("soft", "lesion")]
    counts, predicted, observed = (
        sum(one.statistics[part][:, 1].double().sum(0) for one in made.evaluations["soft"]) for part in range(3)
    )
    np.testing.assert_allclose(line.x, predicted / counts)
    np.testing.assert_allclose(line.y, observed / counts)


def test_the_mean_over_classes_is_the_mean_of_their_curves(made):
    (chart,) = reliability(made)[0].charts
    lines = {one.variant: one for one in chart.parts if isinstance(one, Series) and one.method == "hard"}
    np.testing.assert_allclose(lines["mean over classes"].y, (lines["organ"].y + lines["lesion"].y) / 2)


def test_a_histogram_counts_every_case_once_in_every_bin_that_it_has(made):
    for chart in reliability(made)[1].charts[1::2]:
        (heat,) = [part for part in chart.parts if isinstance(part, Heat) and part.variant == "organ"]
        cases = [one.statistics.counts[:, 0] > 0 for one in made.evaluations["soft"]]
        np.testing.assert_array_equal(heat.counts.sum(0), sum(one.sum(0) for one in cases))


def test_images_have_no_histogram(tmp_path):
    overlay, panels = reliability(made_up.of_images(tmp_path))
    assert [chart.title for chart in panels.charts] == ["baseline", "tempered"]
    assert overlay.variants == ["mean over classes", "negative", "positive"]


def test_without_statistics_there_is_nothing(made):
    bare = {
        name: tuple(made_up.without(one, "statistics") for one in seeds) for name, seeds in made.evaluations.items()
    }
    assert reliability(made_up.comparison(bare, "baseline", "macro_ace", {})) == []
