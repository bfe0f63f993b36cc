#!/usr/bin/env python
"""Write the tables of fragments, contracts and rooms into README.md, CONTRIBUTING.md and docs/.

A table stands between <!-- table NAME --> and <!-- end -->; run this after adding a fragment or a room. The tests fail
when a table is out of date.
"""

import ast
import inspect
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from pydoc import locate
from typing import Any

from medcalib.bundle.contract import CONTRACTS, MODULES, field_of
from medcalib.bundle.fragments import FragmentKind, fragment_names, read_yaml
from medcalib.bundle.layout import (
    CALIBRATED_GUARANTEE_FIT,
    CALIBRATION_CONFIGS,
    CLASSIFICATION,
    GUARANTEE_CONFIGS,
    IGNORED_VOXELS,
    INFERENCE_CONFIGS,
    LABEL_CONFIGS,
    RATERS,
    SHARED_CONFIGS,
    Mode,
)
from medcalib.bundle.method_names import JOINED
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
    "docs/configs.md",
    "docs/guarantees.md",
)
LONGEST = 60
"""Characters of a value that are shown."""

EXAMPLES = {
    "seed": 7,
    "output_dir": "/results/run_1",
    "data_dir": "/data",
    "calibration_cases": "[phantom_004,phantom_005]",
    "limit_cases": 5,
    "num_workers": 4,
    "max_epochs": 100,
    "val_interval": 5,
    "device": "cpu",
    "amp": "false",
    "num_bins": 15,
    "include_background": "true",
    "l1ace_params::num_bins": 10,
    "guarantee_cases": "all",
    "guarantee_group_by": "vendor",
    "guarantee_min_group_cases": 30,
    "inferer::roi_size": "[64,64,64]",
    "inferer::sw_batch_size": 1,
    "inferer::overlap": 0.25,
    "inferer::mode": "constant",
    "train::dataset::cache_rate": 0.5,
    "train::optimizer::lr": 0.0005,
    "train::optimizer::weight_decay": 0.0,
    "train::trainer_handlers::tensorboard": "null",
    "train::trainer_handlers::progress": "null",
    "validate::handlers::tensorboard": "null",
    "handlers::overlays": "null",
    "handlers::reliability": "null",
    "additional_metrics::mhd": "null",
    "additional_metrics::hd95": "null",
    "boundary::tolerance_mm": 2,
    "boundary::band_mm": 3,
    "object_sizes::report": "true",
    "object_sizes::limits_ml": "[2,10]",
    "overlays::num_cases": 10,
    "overlays::cases": "[phantom_008]",
    "evaluation::space": "original",
    "evaluation::num_case_diagrams": 0,
    "quality_control::poor_below": 0.7,
    "quality_control::max_poor": 0.1,
    "quality_control::calibrate_threshold": "false",
    "retention::thresholds": "[0.5]",
    "network::init_filters": 16,
    "network::blocks_down": "[1,2,2]",
    "network::dsdepth": 2,
    "network::features": "[16,16,32,64,128,16]",
    "network::filters": "[16,32,64]",
    "network::feature_size": 48,
    "network::norm": "instance",
    "network::widths": "[16,32,64,128]",
    "network::hidden": "[128]",
    "network::weights": "resnet50.pth",
}
"""A value that a user might give, of the ids that users change."""


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
    result["ids"] = all_ids()
    result["modules"] = table(["`network_modules::`", "which"], [[f"`{n}`", text] for n, text in MODULES.items()])
    for kind in set(FragmentKind) - {FragmentKind.DATA}:
        rows = [[f"`{name}`", body["description"], body.get("reference", "")] for name, body in bodies[kind].items()]
        option = "--method" if kind in JOINED else f"--{kind}"
        result[kind] = table([f"`{option}`", "what it is", "reference"], rows)
    for kind, fields in CONTRACTS.items():
        rows = [
            [f"`{kind}::{name}`", "yes" if field.required else "no", field.meaning] for name, field in fields.items()
        ]
        result[f"contract {kind}"] = table(["id", "required", "meaning"], rows)
    result["rooms"] = table(["floor", "room", "what it holds"], rooms())
    return result


def config_ids(path: Path, known: dict[str, str]) -> tuple[str, list[list[str]]]:
    """What a file of the templates is for, and of every id in it the value, the comment above it and an example.

    Args:
        path: the file.
        known: what files that are merged before say of ids; this file's are added.
    """
    about, comments = read_comments(path)
    rows = []
    for id_, value in ids(read_yaml(path)):
        name = id_.replace("+", "")
        field = field_of(name)
        parents = [name.rpartition("::")[0] for name in (id_, name)]
        told = (
            comments.get(id_)
            or (field.meaning if field else "")
            or known.get(name)
            or MODULES.get(name.removeprefix("network_modules::"))
            or purpose(value)
            or comments.get(parents[0])
            or known.get(parents[1], "")
        )
        known[name] = told
        rows.append([f"`{name}`", shown(value), told, f"`--{name}={EXAMPLES[name]}`" if name in EXAMPLES else ""])
    return about, rows


def purpose(value: Any) -> str:
    """Of a component the first sentence of its documentation."""
    if not isinstance(value, dict) or "_target_" not in value:
        return ""
    paragraph = (inspect.getdoc(locate(value["_target_"])) or "").partition("\n\n")[0]
    return re.split(r"(?<=\w)[.:](?: |$)", " ".join(paragraph.split()))[0]


def ids(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every id of a mapping with its value; the arguments of a component are part of it, unless users change them."""
    for key, value in content.items():
        id_ = f"{prefix}::{key}" if prefix else str(key)
        if not isinstance(value, dict) or not value or "_target_" in value:
            yield id_, value
        if isinstance(value, dict):
            inner = ids(value, id_)
            yield from (one for one in inner if "_target_" not in value or one[0].replace("+", "") in EXAMPLES)


def read_comments(path: Path) -> tuple[str, dict[str, str]]:
    """The comment at the head of a file, and by id the comment above it."""
    head, comments, waiting, parents = "", {}, [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("# "):
            if not head and waiting and waiting[-1].endswith(".") and not parents:
                head, waiting = " ".join(waiting), []
            waiting.append(text[2:])
        elif key := re.match(r"( *)([\w+:]+):(?: |$)", line):
            if not head and not parents and waiting and waiting[-1].endswith("."):
                head, waiting = " ".join(waiting), []
            depth = len(key[1]) // 2
            parents = [*parents[:depth], key[2]]
            comments["::".join(parents)] = " ".join(waiting)
            waiting = []
        else:
            head = head or (" ".join(waiting) if not parents else "")
            waiting = []
    return head, comments


def shown(value: Any) -> str:
    """A value in a cell of a table: of a component its name, of what is long its beginning."""
    if isinstance(value, dict) and "_target_" in value:
        value = value["_target_"]
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text if len(text) <= LONGEST else text[: LONGEST - 4] + ' ...'}`"


def all_ids() -> str:
    """The tables of ids of every shared file, of every file of a mode and of every network."""
    files = [*SHARED_CONFIGS, *INFERENCE_CONFIGS, Mode.INFERENCE_PRED, Mode.INFERENCE_EVAL]
    files += [*LABEL_CONFIGS[IGNORED_VOXELS], CLASSIFICATION]
    files += [f"{CLASSIFICATION}/{mode}" for mode in (Mode.INFERENCE_PRED, Mode.INFERENCE_EVAL)]
    files += [*LABEL_CONFIGS[RATERS], *CALIBRATION_CONFIGS, *GUARANTEE_CONFIGS, CALIBRATED_GUARANTEE_FIT]
    files += [
        f"{CLASSIFICATION}/{name}" for name in GUARANTEE_CONFIGS if (CONFIGS / CLASSIFICATION / f"{name}.yaml").exists()
    ]
    files += [
        "boundary",
        "poor_cases",
        "label_files",
        "mlflow",
        "multi_gpu",
        "initial_weights",
        "corruption",
        "corruption_figures",
        "debug",
        "images",
        "guaranteed_images",
    ]
    files += [f"{FragmentKind.NETWORK}/{name}" for name in fragment_names(CONFIGS, FragmentKind.NETWORK)]
    parts, known = [], {}
    for name in files:
        about, rows = config_ids(CONFIGS / f"{name}.yaml", known)
        parts.append(f"## `{name}.yaml`\n\n{about}\n\n{table(['id', 'value', 'what it does', 'example'], rows)}\n")
    return "\n".join(parts)


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
