#!/usr/bin/env python
"""Write the tables of fragments, contracts and rooms into README.md, CONTRIBUTING.md and docs/.

A table stands between <!-- table NAME --> and <!-- end -->; run this after adding a fragment or a room. The tests fail
when a table is out of date.
"""

import ast
import re
import runpy
from pathlib import Path

from medcalib.bundle.contract import CONTRACTS, MODULES
from medcalib.bundle.fragments import FragmentKind, fragment_names, read_yaml
from medcalib.bundle.templates import find_templates

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIGS = find_templates() / "configs"
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/adding_a_dataset.md",
    "docs/adding_a_loss.md",
    "docs/adding_a_method.md",
    "docs/adding_a_network.md",
    "docs/calibrators.md",
)


def table(header: list[str], rows: list[list]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def rooms() -> list[list[str]]:
    """Floor, name and first line of the docstring of every room, in the order of the floors."""
    rows = []
    for floor, names in enumerate(runpy.run_path(str(REPOSITORY / "tests" / "test_layers.py"))["FLOORS"], start=1):
        for name in sorted(names):
            room = REPOSITORY / "src" / "medcalib" / name
            source = room / "__init__.py" if room.is_dir() else room.with_suffix(".py")
            docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
            rows.append([floor, f"`{name}`", docstring.split("\n")[0]])
    return rows


def tables() -> dict[str, str]:
    """Every table by name."""
    bodies = {
        kind: {name: read_yaml(CONFIGS / kind / f"{name}.yaml")[kind] for name in fragment_names(CONFIGS, kind)}
        for kind in FragmentKind
    }
    result = {
        "data": table(
            ["`--data`", "task", "modality", "classes", "source", "licence"],
            [
                [
                    f"`{name}`",
                    body["metadata"]["task"],
                    body["metadata"]["modality"],
                    ", ".join(map(str, body["class_names"])),
                    body["metadata"]["source"],
                    body["metadata"]["licence"],
                ]
                for name, body in bodies[FragmentKind.DATA].items()
            ],
        )
    }
    result["modules"] = table(["`network_modules::`", "which"], [[f"`{n}`", text] for n, text in MODULES.items()])
    for kind in set(FragmentKind) - {FragmentKind.DATA}:
        rows = [[f"`{name}`", body["description"], body.get("reference", "")] for name, body in bodies[kind].items()]
        option = "--method" if kind is FragmentKind.CALIBRATOR else f"--{kind}"
        result[kind] = table([f"`{option}`", "what it is", "reference"], rows)
    for kind, fields in CONTRACTS.items():
        rows = [
            [f"`{kind}::{name}`", "yes" if field.required else "no", field.meaning] for name, field in fields.items()
        ]
        result[f"contract {kind}"] = table(["id", "required", "meaning"], rows)
    result["rooms"] = table(["floor", "room", "what it holds"], rooms())
    return result


def updated(text: str) -> str:
    """The page with its tables up to date."""
    made = tables()
    return re.sub(
        r"(<!-- table ([\w ]+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}{made[match[2]]}\n{match[3]}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for page in PAGES:
        path = REPOSITORY / page
        path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
