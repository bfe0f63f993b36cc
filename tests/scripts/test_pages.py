"""README and docs say what is true."""

import re
import runpy

import pytest
from tests.conftest import REPOSITORY

WRITER = runpy.run_path(str(REPOSITORY / "scripts" / "write_tables.py"))


@pytest.mark.parametrize("page", WRITER["PAGES"])
def test_tables_are_up_to_date(page):
    text = (REPOSITORY / page).read_text()
    assert "<!-- table" in text
    assert WRITER["updated"](text) == text, "run python scripts/write_tables.py"


def test_links_lead_somewhere():
    pages = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_no_page_or_product_file_points_outside():
    for pattern in ("README.md", "docs/*.md", "src/**/*.py", "bundle_templates/**/*", "scripts/*", "*.py"):
        for path in REPOSITORY.glob(pattern):
            if path.is_file():
                assert "../shared" not in path.read_text(), path
