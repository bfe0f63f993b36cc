"""Settings of the documentation, which scripts/build_docs.sh builds with Sphinx."""

from pathlib import Path

from sphinx.application import Sphinx

from medcalib import __version__ as release

project = "medcalib"
author = "The medcalib developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"medcalib {release}"

# single backticks in docstrings: a link where the name is documented here, else plain code
default_role = "py:obj"
autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
myst_heading_anchors = 3


def link_pages(app: Sphinx, path: Path, docname: str, content: list[str]) -> None:
    """In what is included from outside of docs/, let links to files lead to the pages that show them."""
    for file, page in {"benchmarks/RESULTS.md": "measurements.md", "LICENSE": "license.md"}.items():
        content[0] = content[0].replace(f"]({file})", f"]({page})")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("include-read", link_pages)
