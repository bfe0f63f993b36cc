"""README and docs say what is true."""

import re
import runpy

import pytest
from tests.conftest import REPOSITORY

from medcalib.bundle.fragments import lookup
from medcalib.bundle.layout import Mode
from medcalib.bundle.opened import Bundle
from medcalib.bundle.option_values import override_values
from medcalib.bundle.overrides import check_overrides

# those that name what others may import
PACKAGES = sorted(
    path.parent.name
    for path in (REPOSITORY / "src" / "medcalib").glob("*/__init__.py")
    if "__all__" in path.read_text()
)

WRITER = runpy.run_path(str(REPOSITORY / "scripts" / "write_tables.py"))


@pytest.mark.parametrize("page", WRITER["PAGES"])
def test_tables_are_up_to_date(page):
    text = (REPOSITORY / page).read_text()
    assert "<!-- table" in text
    assert WRITER["updated"](text) == text, "run python scripts/write_tables.py"


PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def anchors(page):
    """Those that GitHub and MyST give to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        if target.startswith("http"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_package_has_a_page(package):
    assert f".. automodule:: medcalib.{package}\n" in (REPOSITORY / "docs" / "api" / f"{package}.md").read_text()


def test_no_page_or_product_file_points_outside():
    for pattern in ("README.md", "docs/*.md", "src/**/*.py", "bundle_templates/**/*", "scripts/*", "*.py"):
        for path in REPOSITORY.glob(pattern):
            if path.is_file():
                assert "../shared" not in path.read_text(), path


def test_every_id_of_the_page_may_be_set_as_the_example_says(tmp_path, make_bundle):
    kinds = [("phantom", network) for network in (None, "unet", "dynunet", "swin_unetr")] + [("phantom_cells", None)]
    bundles = [make_bundle(tmp_path, data, "softl1ace_ce", "deterministic", network) for data, network in kinds]
    bundles.append(make_bundle(tmp_path, method="temperature_scaling+recall_control"))
    configs = [Bundle.open(bundle).config(mode) for bundle in bundles for mode in Mode]
    for id_, text in WRITER["EXAMPLES"].items():
        assert f"`--{id_}={text}`" in (REPOSITORY / "docs" / "configs.md").read_text(), id_
        known = [config for config in configs if lookup(config, id_)[0]]
        assert known, id_
        check_overrides(known[0], override_values({id_: str(text)}))
