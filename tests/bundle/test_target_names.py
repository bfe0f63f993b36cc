"""What a configuration names is a class or a function: since Python 3.12, `locate` prefers a module of that name."""

import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from tests.conftest import TEMPLATES

import medcalib
from medcalib.bundle.resolve import check_config
from medcalib.errors import UserError

NAME = re.compile(r"\b[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")


def names(value, key=None):
    """Every `_target_`, and every dotted name of an expression."""
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from names(item, inner)
    elif isinstance(value, list):
        for item in value:
            yield from names(item)
    elif isinstance(value, str) and key == "_target_":
        yield value
    elif isinstance(value, str) and re.match(r"\$(?!import\b|from\b)", value):
        yield from NAME.findall(re.sub(r"'[^']*'|@[\w:#]+", "", value))


def is_module(name):
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # what stands before the last dot is no package
        return False


CONFIGS = sorted(TEMPLATES.rglob("*.yaml"))
ALL_NAMES = {path: set(names(yaml.safe_load(path.read_text()))) for path in CONFIGS}


def test_the_names_are_found():
    found = set().union(*ALL_NAMES.values())
    assert {"medcalib.reports.collect_provenance", "medcalib.engines.UncertaintyEvaluator", "torch.device"} <= found
    assert len(found) > 100


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_no_name_of_a_template_is_that_of_a_module(path):
    assert [name for name in ALL_NAMES[path] if is_module(name)] == []


PACKAGES = sorted(path.parent for path in Path(medcalib.__file__).parent.glob("*/__init__.py"))


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda path: path.name)
def test_nothing_that_a_fragment_may_name_is_called_like_a_module(folder):
    package = importlib.import_module(f"medcalib.{folder.name}")
    assert set(getattr(package, "__all__", [])) & {path.stem for path in folder.iterdir()} == set()


@pytest.mark.parametrize("target", ["medcalib.reports.provenance", "medcalib.data.fingerprint", "monai.losses"])
def test_a_module_of_a_users_fragment_is_refused(target):
    with pytest.raises(UserError, match=f"loss::function::_target_.*{target} is a module"):
        check_config({"loss": {"function": {"_target_": target}}})


def test_functions_and_classes_are_taken():
    check_config({"a": {"_target_": "medcalib.reports.collect_provenance"}, "b": {"_target_": "DiceLoss"}})
