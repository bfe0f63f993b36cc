"""Fixtures of studies."""

import sys
import types

import pytest
import yaml


@pytest.fixture
def write_study(tmp_path):
    """Write a study file; keys that are None are left out."""

    def write(name="some", **keys):
        content = {"data": "phantom", "losses": ["baseline_ce", "softl1ace_dice_ce"]} | keys
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return path

    return write


@pytest.fixture
def page(monkeypatch):
    """A stand-in for the page of the report; the list holds what it was given."""
    given = []
    module = types.ModuleType("medcalib.comparison_page")

    def write_page(comparison, output, context=None):
        given.append((comparison, context))
        (output / "index.html").write_text("the page")
        return output / "index.html"

    module.write_page, module.PageContext, module.shift_rows = write_page, types.SimpleNamespace, None
    monkeypatch.setitem(sys.modules, "medcalib.comparison_page", module)
    return given
