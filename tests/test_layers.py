"""Each layer imports only what stands above it, and heavy packages stay where they belong."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "medcalib"

LAYERS = [
    {"errors", "keys"},
    {"files", "folders", "locks", "processes", "tensor_files"},
    {"functional"},
    {"losses", "metrics", "calibrators", "networks", "data", "visualize"},
    {"inferers", "transforms"},
    {"engines", "handlers"},
    {"bundle"},
    {"analysis"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ALLOWED = {
    "ignite": {"engines", "handlers"},
    "monai": set().union(*LAYERS[3:]),
    "matplotlib": {"visualize", "handlers", "analysis"},
}


def imports(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def violations(layer, source):
    found = []
    for module in imports(source):
        top, *rest = module.split(".")
        if top == "medcalib" and rest and LEVEL[rest[0]] > LEVEL[layer]:
            found.append(f"{layer} must not import {module}")
        if top in ALLOWED and layer not in ALLOWED[top]:
            found.append(f"{layer} must not import {module}")
    return found


def sources():
    for path in sorted(PACKAGE.rglob("*.py")):
        layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if layer != "__init__":
            yield pytest.param(layer, path.read_text(), id=str(path.relative_to(PACKAGE)))


@pytest.mark.parametrize(("layer", "source"), sources())
def test_imports_point_upwards(layer, source):
    assert violations(layer, source) == []


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("functional", "import monai.losses"),
        ("functional", "from medcalib.losses import x"),
        ("metrics", "import ignite.engine"),
        ("handlers", "from medcalib.bundle.run import run"),
    ],
)
def test_the_rule_finds_violations(layer, source):
    assert violations(layer, source)


def test_no_catch_all_modules():
    names = {path.stem for path in PACKAGE.rglob("*.py")}
    assert not names & {"utils", "util", "helpers", "helper", "misc", "common", "manager"}
