"""What guarantees promise, what happens on test cases, and how large their sets are, before and after calibration.

    python benchmarks/show_guarantees.py --bundles_dir=bundles
    python benchmarks/show_guarantees.py --run --data=phantom --bundles_dir=/tmp/show --data::max_epochs=20
    python benchmarks/show_guarantees.py --run --data=hippocampus --bundles_dir=/tmp/show \
        --data::dataset_dir=/data/Task04_Hippocampus

Without --run, evaluations that are there are read, of all seeds of all bundles in a folder. With --run, bundles of each
method are made, trained and evaluated first, without calibrator, with one, and with one that is fitted on all
calibration cases, as the guarantee is: then both guarantees have the same cases, and differ by the calibration alone.
What is no option of its own replaces a value of the configuration.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import machine

SHARED = "same_cases"
# what only a training has
OF_TRAINING = ("val_interval", "train::", "validate::", "guarantee_cases")
REPORT = "evaluation/guarantees.json"


def numbers(folder: Path) -> Iterator[dict[str, Any]]:
    """One row for each guarantee, class and group of every evaluation in a folder of bundles."""
    for file in sorted(folder.glob(f"*/seed_*/{REPORT}")):
        fragments = json.loads((file.parents[2] / "configs" / "metadata.json").read_text())["medcalib"]["fragments"]
        report, summary = json.loads(file.read_text()), json.loads((file.parent / "summary.json").read_text())
        for kind, of_part in report["guarantees"].items():
            for name, risk in of_part["classes"].items():
                yield from rows_of(fragments, kind, of_part, name, risk, summary)


def rows_of(
    fragments: Mapping[str, str],
    kind: str,
    of_part: Mapping[str, Any],
    name: str,
    risk: Mapping[str, Any],
    summary: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    """The row of a class, and those of its groups."""
    parts = fragments["method"].split("+")
    shared = {
        "data": fragments["data"],
        "method": parts[0],
        "calibrator": "+".join(parts[1:-1]) or "none",
        "guarantee": kind,
        "class": name,
    }
    sizes = next((of_set[name] for of_set in of_part["sets"].values() if name in of_set), {})
    for group, found in [("all", risk), *risk["groups"].items()]:
        realised = "-"
        if found["num_cases"]:
            low, mean, high = (100 * found[key] for key in ("low", "mean", "high"))
            realised = f"{mean:.1f} [{low:.1f}, {high:.1f}]"
        yield shared | {
            "group": group,
            "fitted on": found["fitted"]["num_cases"],
            "promised, %": f"{100 * of_part['promised']:g}",
            "realised, %": realised,
            "cases": found["num_cases"],
            "times the segmentation": number(sizes.get("stretch")) if group == "all" else "",
            "added": f"{number(sizes.get('added'))}" if group == "all" else "",
            "NLL": number(summary.get("nll"), 4),
        }


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits."""
    return "-" if value is None else f"{value:.{digits}g}"


def table(rows: list[dict[str, Any]]) -> str:
    """A table in Markdown; columns that are the same in all rows are named above it."""
    same = [key for key in rows[0] if len({row[key] for row in rows}) == 1] if len(rows) > 1 else []
    shown = [key for key in rows[0] if key not in same]
    lines = [", ".join(f"{key}: {rows[0][key]}" for key in same), ""]
    lines += [f"| {' | '.join(shown)} |", f"|{'---|' * len(shown)}"]
    return "\n".join(lines + [f"| {' | '.join(str(row[key]) for key in shown)} |" for row in rows])


def run_all(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    """Make, train and evaluate all bundles."""
    from medcalib.bundle.compose import generate
    from medcalib.bundle.run import run
    from medcalib.bundle.templates import find_templates

    def run_one(folder: Path, method: str, **more: Any) -> None:
        bundle, _ = generate(find_templates(), folder, options.data, options.loss, method)
        left_out = ("method::",) if not method.startswith(("mc_", "deep")) else ()
        for mode in ("train", "inference_eval"):
            own = without(overrides | more, (*left_out, *(() if mode == "train" else OF_TRAINING)))
            if not (bundle / f"seed_{options.seed}" / REPORT).exists():
                print(f"\n== {bundle.name}, {mode} {more or ''}", flush=True)
                run(str(bundle), mode, options.seed, overrides=own)

    for method in options.methods.split(","):
        run_one(options.bundles_dir, f"{method}+{options.guarantee}")
        run_one(options.bundles_dir, f"{method}+{options.calibrator}+{options.guarantee}")
    shared = options.bundles_dir / SHARED
    # the weights are the same
    for bundle in options.bundles_dir.glob(f"{options.data}_*"):
        if "+" not in bundle.name:
            shutil.copytree(bundle, shared / bundle.name, dirs_exist_ok=True)
    for method in options.methods.split(","):
        run_one(shared, f"{method}+{options.calibrator}+{options.guarantee}", guarantee_cases="all")


def without(overrides: dict[str, Any], beginnings: tuple[str, ...]) -> dict[str, Any]:
    """Values of which no id begins so."""
    return {key: value for key, value in overrides.items() if not key.startswith(beginnings)}


def main() -> None:
    """Run what is asked for, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles_dir", type=Path, default=Path("bundles"))
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--data", default="phantom")
    parser.add_argument("--loss", default="baseline_dice_ce")
    parser.add_argument("--methods", default="deterministic,mc_dropout,tta")
    parser.add_argument("--calibrator", default="temperature_scaling")
    parser.add_argument("--guarantee", default="recall_control")
    parser.add_argument("--seed", type=int, default=12345)
    options, rest = parser.parse_known_args()
    overrides = {}
    for word in rest:
        name, _, text = word.removeprefix("--").partition("=")
        try:
            overrides[name] = json.loads(text)
        except ValueError:
            overrides[name] = text
    if options.run:
        run_all(options, overrides)
    print(f"{machine()}\n")
    for title, folder in (
        ("Each on its own cases", options.bundles_dir),
        (f"{options.calibrator} and guarantee on the same cases", options.bundles_dir / SHARED),
    ):
        if rows := list(numbers(folder)):
            print(f"{title}\n\n{table(rows)}\n")


if __name__ == "__main__":
    main()
