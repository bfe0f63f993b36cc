"""Each layer imports only what stands above it, and heavy packages stay where they belong."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "medcalib"

FLOORS = [
    {"errors", "keys", "seeds"},
    {"processes", "process_group", "devices", "freed_memory"},
    {"files", "gathering"},
    {"functional", "networks", "image_files", "data"},
    {"losses", "metrics", "calibrators", "guarantees", "task"},
    {"inferers", "transforms", "visualize", "device_check"},
    {"engines", "handlers"},
    {"reports"},
    {"bundle"},
    {"data_check", "compare"},
    {"export", "planning"},
    {"comparison_page"},
    {"predictions"},
    {"study"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
ALLOWED = {
    "ignite": {"engines", "handlers", "reports"},
    "monai": set().union(*FLOORS[3:]) - {"functional"},
    "matplotlib": {"visualize", "handlers", "reports", "comparison_page"},
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
        if top == "medcalib" and rest and rest[0] != layer and LEVEL[rest[0]] >= LEVEL[layer]:
            found.append(f"{layer} must not import {module}")
        if top in ALLOWED and layer not in ALLOWED[top]:
            found.append(f"{layer} must not import {module}")
    return found


def private_imports(layer, source):
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules, names = [alias.name for alias in node.names], []
        elif isinstance(node, ast.ImportFrom):
            modules, names = [node.module], [alias.name for alias in node.names]
        else:
            continue
        for module in modules:
            top, *rest = module.split(".")
            if top != "medcalib":
                continue
            own = rest[:1] == [layer]
            private = [name for name in names if name.startswith("_") and not name.endswith("__")]
            found += [f"{module}.{name}" for name in private if not own or module != f"medcalib.{layer}"]
            found += [module for part in rest if part.startswith("_") and not own]
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


@pytest.mark.parametrize(("layer", "source"), sources())
def test_private_names_stay_in_their_module_and_private_modules_in_their_package(layer, source):
    assert private_imports(layer, source) == []


@pytest.mark.parametrize(
    "source",
    [
        "from medcalib.losses.l1ace import _Sums",
        "from medcalib.functional import _bins",
        "import medcalib.functional._bins",
    ],
)
def test_private_imports_are_found(source):
    assert private_imports("losses", source)


def test_every_name_of_a_module_means_one_thing():
    names = [path.stem for path in PACKAGE.rglob("*.py") if path.stem != "__init__"]
    assert {name for name in names if names.count(name) > 1} == set()


def test_no_catch_all_modules():
    names = {path.stem for path in PACKAGE.rglob("*.py")}
    assert not names & {"utils", "util", "helpers", "helper", "misc", "common", "manager"}
