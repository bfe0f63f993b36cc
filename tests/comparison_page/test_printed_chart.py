import re

from tests.comparison_page import made_up
from tests.comparison_page.page_reading import PageReader

from medcalib.comparison_page import write_page
from medcalib.comparison_page.chart import Chart, FigureBlock, Series
from medcalib.comparison_page.method_style import method_styles
from medcalib.comparison_page.printed_chart import print_figure, printed_figure


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


def test_names_of_many_methods_have_a_line_each(tmp_path):
    """As many charts on a page as keep names apart, whatever the number of methods."""
    styles = method_styles(["a"], "a", {})
    for methods, expected in ((5, 1), (30, 4)):
        ticks = [(float(place), f"method {place}") for place in range(methods)]
        chart = Chart("a", "x", "", "", [Series([0.0], [0.0], "a")], y_ticks=ticks)
        figure = FigureBlock("some", "", [chart] * 8)
        print_figure(figure, styles, tmp_path / "some.pdf")
        assert pages_of(tmp_path / "some.pdf") == expected
        page = printed_figure(FigureBlock("some", "", [chart] * (8 // expected)), styles)
        rows = 8 // expected / 2
        assert page.get_size_inches()[1] / rows > methods * 0.11
