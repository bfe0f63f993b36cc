"""The page in real headless Chromium, as Debian packages it."""

import os
import shutil

import pytest
from tests.comparison_page import made_up

from medcalib.comparison_page import PageContext, write_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: install it from the system's packages"),
]
SIZES = {"wide": {"width": 1400, "height": 900}, "narrow": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    made = made_up.compared(tmp_path_factory.mktemp("runs"), methods=("baseline", "hard_" + 5 * "long_name_", "soft"))
    made_up.add_predictions(made, cases=4)
    made_up.add_costs(made)
    return write_page(
        made, tmp_path_factory.mktemp("out"), PageContext(title="Losses", commands=["medcalib " + 200 * "x"])
    )


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield started
        started.close()


@pytest.fixture
def opened(browser, path):
    """Open the page; at the end, nothing else was asked for and nothing was wrong."""
    contexts, requests, wrong = [], [], []

    def open_page(size="wide", **options):
        context = browser.new_context(viewport=SIZES[size], **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_page
    assert wrong == []
    assert {url for url in requests if not url.startswith(("data:", "blob:"))} == {path.as_uri()}
    for context in contexts:
        context.close()


def see_all(page):
    """Scroll until every figure is drawn."""
    for plot in page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for()


def column(page, table, place):
    return page.locator(f"#{table} tbody tr").evaluate_all(
        """(rows, place) => rows.map((row) => row.cells[place])
            .map((cell) => cell.getAttribute("data-value") || cell.querySelector(".cell").textContent)""",
        place,
    )


def test_landmarks_and_names_are_there(opened):
    page = opened()
    assert page.title() == "Losses"
    for role in ("main", "banner", "navigation", "contentinfo"):
        assert page.get_by_role(role).count() == 1, role
    assert page.get_by_role("heading", level=1).count() == 1
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("img, .plot, table, select, button, input, [role=region], [role=group]")]
            .filter((one) => !(one.alt || one.getAttribute("aria-label") || one.caption || one.textContent.trim()
                || (one.labels && one.labels.length)))
            .map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []
    assert page.locator("thead th:not([scope=col]), tbody tr > th:not([scope=row])").count() == 0


def test_tables_are_sorted_by_click_and_by_key(opened):
    page = opened()
    head = page.locator("#levels thead th").nth(1)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    values = [float(value) for value in column(page, "levels", 1)]
    assert values == sorted(values)
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(value) for value in column(page, "levels", 1)] == values[::-1]

    # a cell without a number comes last whichever way
    page.locator("#levels tbody tr").first.evaluate("(row) => row.cells[1].setAttribute('data-value', 'nan')")
    for _ in range(2):
        head.get_by_role("button").click()
        assert column(page, "levels", 1)[-1] == "nan"

    names = page.locator("#levels thead th").first
    names.get_by_role("button").press("Space")
    assert head.get_attribute("aria-sort") == "none"
    assert [name.split("_")[0] for name in column(page, "levels", 0)] == ["baseline", "hard", "soft"]


def test_the_gallery_is_gone_through_by_keyboard(opened):
    page = opened()
    gallery = page.locator(".gallery")
    cases = gallery.locator(".slide").evaluate_all("(slides) => slides.map((one) => one.getAttribute('aria-label'))")
    assert len(cases) > 2

    def shown():
        (case,) = gallery.locator(".slide:visible").evaluate_all(
            "(all) => all.map((one) => one.getAttribute('aria-label'))"
        )
        assert case in gallery.get_by_role("status").text_content()
        return case

    gallery.focus()
    assert shown() == cases[0]
    page.keyboard.press("ArrowRight")
    assert shown() == cases[1]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert shown() == cases[-1]
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert shown() == cases[0]
    # pictures of a slide are decoded when it is first shown
    page.wait_for_function(
        "() => [...document.querySelectorAll('.gallery .slide img')]"
        ".filter((one) => one.checkVisibility()).every((one) => one.complete)"
    )
    sizes = gallery.locator(".slide:visible img").evaluate_all("(all) => all.map((one) => one.naturalWidth)")
    assert len(sizes) == 3
    assert all(size > 100 for size in sizes)


def test_figures_show_what_is_chosen_in_the_colours_of_the_page(opened):
    page = opened(color_scheme="light")
    see_all(page)
    drawn = '[...document.querySelectorAll(".plot")].flatMap((plot) => plot.data).filter((trace) => trace.visible)'
    page.locator("[data-figure=reliability] select").select_option("lesion")
    variants = f"[...new Set({drawn}.map((trace) => trace.meta.variant))]"
    assert "lesion" in page.evaluate(variants)
    assert not {"organ", "mean over classes"} & set(page.evaluate(variants))

    of_method = f'{drawn}.filter((trace) => trace.meta.method === "soft").length'
    assert page.evaluate(of_method) > 5
    page.locator(".legend input[data-method=soft]").first.press("Space")
    assert page.evaluate(of_method) == 0
    assert page.locator(".legend input[data-method=soft]:checked").count() == 0

    color = "document.querySelector('.plot').layout.template.layout.font.color"
    before = page.evaluate(color)
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(500)
    assert page.evaluate(color) != before


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_figures_are_drawn_and_nothing_is_wider_than_the_page(opened, size, scheme):
    page = opened(size, color_scheme=scheme)
    see_all(page)
    assert page.locator(".plot").count() > 10
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
