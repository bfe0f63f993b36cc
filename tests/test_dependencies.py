"""What the package imports is what it declares, so that an installation of the wheel alone has it."""

import ast
import functools
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
# test tools and the generator of the documentation are for those who work on the project
# torch brings it where it can be used
BROUGHT_ALONG = {"triton"}
EXTRAS = sorted(set(PROJECT["optional-dependencies"]) - {"test", "docs"})


@functools.cache
def installed():
    return packages_distributions()


def declared(requirements):
    return {re.match(r"[\w.-]+", text)[0].lower().replace("_", "-") for text in requirements}


def undeclared(tree, names):
    """Packages that a module imports and ``names`` lack."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add(node.module.partition(".")[0])
    return {
        module
        for module in modules - set(sys.stdlib_module_names) - {"medcalib"} - BROUGHT_ALONG
        if not names & {name.lower().replace("_", "-") for name in installed().get(module, [module])}
    }


def test_whatever_is_imported_is_declared():
    names = declared(PROJECT["dependencies"])
    optional = names.union(*(declared(PROJECT["optional-dependencies"][extra]) for extra in EXTRAS))
    found = {}
    for path in sorted((REPOSITORY / "src" / "medcalib").rglob("*.py")):
        tree = ast.parse(path.read_text())
        # what an extra brings may be imported only inside a function, where it is needed
        top = ast.Module([node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)], [])
        if lacking := undeclared(top, names) | undeclared(tree, optional):
            found[path.name] = lacking
    assert found == {}


@pytest.mark.parametrize("source", ["import nosuchpackage", "from pytest import fixture"])
def test_the_rule_finds_what_is_not(source):
    assert undeclared(ast.parse(source), declared(PROJECT["dependencies"]))
