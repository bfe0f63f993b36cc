"""What is in a dataset, and what was planned for it: as plain values, and as a page to be read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import medcalib
from medcalib.data_check.case_summary import spread
from medcalib.data_check.data_report import readable_bytes
from medcalib.planning.dataset_measures import DatasetMeasures
from medcalib.planning.dataset_source import DatasetSource
from medcalib.planning.fragment_plan import Choice, FragmentPlan

__all__ = ["planning_report", "report_page"]


def planning_report(
    name: str, source: DatasetSource, measures: DatasetMeasures, plan: FragmentPlan, budget: str
) -> dict[str, Any]:
    """Everything as plain values.

    Args:
        name: name of the fragment.
        source: the dataset.
        measures: of its cases.
        plan: what was planned.
        budget: how the memory was stated.
    """
    return {
        "name": name,
        "dataset_dir": str(source.root),
        "task": "classification" if source.classification else "segmentation",
        "num_cases": len(source.cases),
        "version": medcalib.__version__,
        "size": spread(measures.rows("size").tolist()),
        "spacing": spread(measures.rows("spacing").tolist()),
        "orientations": dict(Counter(case["orientation"] for case in measures.cases if case["orientation"])),
        "channels": {channel: measures.channel(index) for index, channel in enumerate(plan.channel_names)},
        "classes": _classes(source, measures, plan),
        "ignored": _ignored(measures, plan),
        "notes": list(source.notes),
        "warnings": list(plan.warnings),
        "budget": budget,
        "step_memory": plan.memory,
        "plan": {
            "label_map": plan.labels.label_map,
            "ignore_label": plan.labels.ignored,
            "regions": plan.labels.regions,
            "cases": {"value": source.listing, "reason": source.listing_reason},
            **{
                key: [_choice(choice) for choice in found] if isinstance(found, list) else _choice(found)
                for key, found in (
                    ("preprocessing", plan.preprocessing),
                    ("augmentation", plan.augmentation),
                    ("patch_size", plan.patch_size),
                    ("tta_flip_axes", plan.flips),
                    ("batch_size", plan.batch_size),
                    ("max_epochs", plan.max_epochs),
                    ("networks", plan.network),
                    ("learning_rate", plan.learning_rate),
                )
            },
            **({"surface_tolerance_mm": _choice(plan.surface_tolerance)} if plan.surface_tolerance else {}),
        },
    }


def report_page(report: Mapping[str, Any], commands: Sequence[str]) -> str:
    """The report in Markdown.

    Args:
        report: as of `planning_report`.
        commands: what to type next.
    """
    blocks = [f"# {report['name']}", f"{report['num_cases']} labelled cases in `{report['dataset_dir']}`."]
    for head, key in (("To know", "notes"), ("To look at", "warnings")):
        if report[key]:
            blocks += [f"## {head}", "\n".join(f"- {sentence}" for sentence in report[key])]
    unit = "pixels" if len(report["size"]["min"]) == 2 else "voxels"
    rows = [[f"size ({unit})", *_triple(report["size"])]]
    if unit == "voxels":
        rows.append(["spacing (mm)", *_triple(report["spacing"])])
    blocks += ["## Images", _table(["", "smallest", "median", "largest"], rows)]
    if report["orientations"]:
        told = ", ".join(f"{axes} ({number})" for axes, number in report["orientations"].items())
        blocks.append(f"Orientation of the files: {told}.")
    where = "all pixels" if report["task"] == "classification" else "the foreground"
    head = ["", "lowest", "0.5 %", "median", "99.5 %", "highest", "mean", "std"]
    keys = ("lowest", "p0.5", "p50", "p99.5", "highest", "mean", "std")
    rows = [[channel, *(f"{one[key]:.4g}" for key in keys)] for channel, one in report["channels"].items()]
    blocks += [f"Intensities; all but lowest and highest in {where}:", _table(head, rows)]
    blocks += ["## Classes", _class_table(report)]
    if report["ignored"]:
        blocks[-1] += "\n\nTo be ignored, value {value}: {share:.2g} % of the {unit} of {num_cases} cases.".format(
            **report["ignored"], unit=unit
        )
    blocks += ["## Plan", f"For {report['budget']}."]
    if report["step_memory"] is not None:
        blocks[-1] += (
            f" Weights and activations of one training step take about {readable_bytes(report['step_memory'])}, as "
            f"counted for the network without a device; what `medcalib check` measures counts."
        )
    blocks.append(_table(["", "chosen", "since"], list(_choices(report["plan"]))))
    blocks += ["## Next", "\n".join(f"    {command}" for command in commands)]
    return "\n\n".join(blocks) + "\n"


def _classes(source: DatasetSource, measures: DatasetMeasures, plan: FragmentPlan) -> dict[str, dict[str, Any]]:
    found = {}
    for name, value in zip(plan.labels.class_names, plan.labels.values, strict=True):
        own = [(case, case["classes"][str(value)]) for case in measures.cases if str(value) in case["classes"]]
        one: dict[str, Any] = {"value": value, "num_cases": len(own)}
        if not source.classification:
            volumes = [entry["voxels"] * math.prod(case["spacing"]) for case, entry in own]
            one |= (
                {"voxels": sum(entry["voxels"] for _, entry in own), "volume": spread([[v] for v in volumes])}
                if own
                else {"voxels": 0, "volume": None}
            )
            objects = [(entry["smallest"], case["case"]) for case, entry in own if "smallest" in entry]
            smallest, case = min(objects, default=(None, None))
            one |= {"smallest_object": smallest, "smallest_object_in": case}
            one["objects"] = sum(entry.get("objects", 0) for _, entry in own)
        found[name] = one
    return found


def _ignored(measures: DatasetMeasures, plan: FragmentPlan) -> dict[str, Any] | None:
    """How many voxels are of unknown truth, in per cent of the cases that have some."""
    own = [case for case in measures.cases if str(plan.labels.ignored) in case["classes"]]
    if plan.labels.ignored is None:
        return None
    voxels = sum(case["classes"][str(plan.labels.ignored)]["voxels"] for case in own)
    total = sum(entry["voxels"] for case in own for entry in case["classes"].values())
    share = 100 * voxels / total if total else 0.0
    return {"value": plan.labels.ignored, "num_cases": len(own), "voxels": voxels, "share": share}


def _class_table(report: Mapping[str, Any]) -> str:
    if report["task"] == "classification":
        return _table(["", "images"], [[name, str(one["num_cases"])] for name, one in report["classes"].items()])
    unit = "pixels" if len(report["size"]["min"]) == 2 else "mm³"
    rows = []
    for name, one in report["classes"].items():
        volume = "-" if one["volume"] is None else f"{one['volume']['median'][0]:.4g}"
        smallest = "-" if one["smallest_object"] is None else f"{one['smallest_object']} ({one['smallest_object_in']})"
        rows.append([name, str(one["value"]), str(one["num_cases"]), volume, str(one["objects"] or "-"), smallest])
    heads = ["", "value in the files", "cases", f"median volume ({unit})", "objects", "voxels of the smallest object"]
    return _table(heads, rows)


def _choices(plan: Mapping[str, Any]) -> Any:
    for key, found in plan.items():
        for choice in found if isinstance(found, list) else [found]:
            if isinstance(choice, Mapping) and "reason" in choice:
                value = choice["value"]
                steps = value if isinstance(value, list) and value and isinstance(value[0], Mapping) else None
                shown = ", ".join(str(step["_target_"]).rpartition(".")[2] for step in steps) if steps else str(value)
                yield [key, f"`{shown}`", choice["reason"]]
            elif choice is not None:
                yield [key, f"`{choice}`", "as the labels say"]


def _choice(choice: Choice) -> dict[str, Any]:
    return {"value": choice.value, "reason": choice.reason}


def _triple(spread_of: Mapping[str, Sequence[float]]) -> list[str]:
    return [" x ".join(f"{value:.4g}" for value in spread_of[key]) for key in ("min", "median", "max")]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
