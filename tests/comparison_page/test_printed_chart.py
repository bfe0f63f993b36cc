import re

from tests.comparison_page import made_up
from tests.comparison_page.page_reading import PageReader

from medcalib.comparison_page import write_page
from medcalib.comparison_page.chart import Chart, FigureBlock, Series
from medcalib.comparison_page.method_style import method_styles
from medcalib.comparison_page.printed_chart import print_figure


def pages_of(path):
    return len(re.findall(rb"/Type /Page\b", path.read_bytes()))


def block(charts, variants):
    chart = Chart("a", "x", "y", "", [Series([0.0, 1.0], [0.0, 1.0], "a")])
    return FigureBlock("some", "", [chart] * charts, (), [f"class {one}" for one in range(variants)], "class", True)


def test_pages_do_not_grow_with_methods_times_classes(tmp_path, monkeypatch):
    monkeypatch.setattr("medcalib.comparison_page.chart.MOST_PRINTED", 4)
    styles = method_styles(["a"], "a", {})
    for charts, variants, expected in ((1, 3, 3), (2, 5, 2), (6, 2, 1)):
        print_figure(block(charts, variants), styles, tmp_path / "some.pdf")
        assert pages_of(tmp_path / "some.pdf") == expected


def test_the_caption_says_which_classes_are_printed(tmp_path, monkeypatch):
    monkeypatch.setattr("medcalib.comparison_page.page.print_figure", lambda block, styles, path: path.touch())
    monkeypatch.setattr("medcalib.comparison_page.chart.MOST_PRINTED", 8)
    classes = [f"organ_{number}" for number in range(3)]
    made = made_up.of_segmentations(tmp_path / "runs", ("a", "b"), num_cases=3, classes=classes)
    text = PageReader(write_page(made, tmp_path / "out").read_text(encoding="utf-8")).text
    assert text.count("The PDF holds 2 of the 4 choices of class, mean over classes, organ 0; the others are") == 1
