"""Put what a check of data found into a report, and the report into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medcalib.data_check.case_checks import CheckedCases
from medcalib.data_check.case_summary import CaseSummary, attribute_counts, intensity_range, label_histogram, spread
from medcalib.keys import CaseKeys, SplitKeys

__all__ = ["describe_cases", "readable_bytes", "report_text"]

PERCENTILES = (1, 50, 99)
# so many values of an attribute are listed
LISTED_VALUES = 12


def describe_cases(checked: CheckedCases, class_names: Sequence[str], channel_names: Sequence[str]) -> dict[str, Any]:
    """Numbers of cases, sizes, intensities and labels as plain values.

    Args:
        checked: what was found in the cases.
        class_names: one name for each class.
        channel_names: one name for each channel.
    """
    parts = {str(part): [str(case[CaseKeys.CASE]) for case in cases] for part, cases in checked.split.items()}
    found = [summary for summary in checked.summaries.values() if summary.shape is not None]
    num_axes = [len(summary.shape or ()) for summary in found]
    rows = {
        name: [getattr(summary, name) for summary, number in zip(found, num_axes, strict=True) if number == num_axes[0]]
        for name in ("shape", "spacing")
    }
    return {
        "cases": {
            part: {
                "number": len(cases),
                "with_problems": sum(case in checked.damaged for case in cases),
                "attributes": attribute_counts(checked.split[part]),
            }
            for part, cases in parts.items()
        },
        "calibration_is_validation": parts[SplitKeys.CALIBRATION] == parts[SplitKeys.VALIDATION],
        **{name: spread(of_cases) if of_cases else None for name, of_cases in rows.items()},
        "intensities": intensity_range(found, channel_names, PERCENTILES),
        "labels": {
            part: label_histogram(cases, [checked.summaries[case] for case in cases], class_names)
            for part, cases in {"all": list(checked.summaries), **parts}.items()
        },
        "ignored": {
            part: _ignored({case: checked.summaries[case] for case in cases})
            for part, cases in {"all": list(checked.summaries), **parts}.items()
        },
    }


def _ignored(summaries: Mapping[str, CaseSummary]) -> dict[str, Any]:
    """Voxels of unknown truth, the share of all that they are, and the cases that have some, or nothing else."""
    labelled = {case: one for case, one in summaries.items() if one.label_size is not None}
    voxels = sum(one.ignored for one in labelled.values())
    total = voxels + sum(one.label_size or 0 for one in labelled.values())
    return {
        "voxels": voxels,
        "fraction": voxels / total if total else 0.0,
        "num_cases": sum(one.ignored > 0 for one in labelled.values()),
        "cases_of_nothing_else": [case for case, one in labelled.items() if one.ignored and not one.label_size],
    }


def report_text(report: Mapping[str, Any]) -> str:
    """The report as tables and sentences."""
    images = report["task"] == "classification"
    blocks = [
        f"Data of {report['bundle']}, seed {report['seed']}\n{report['dataset_dir']}",
        _cases(report),
        _sizes(report),
        _labels(report, images),
        _memory(report["memory"]),
        _first_batch(report),
    ]
    for name, kind in (("warnings", "warning"), ("problems", "problem")):
        sentences = report[name]
        number = len(sentences)
        head = f"{number or 'No'} {kind}{'s' * (number != 1)}"
        blocks.append("\n".join([f"{head}:" if number else head, *(f"  {sentence}" for sentence in sentences)]))
    return "\n\n".join(block for block in blocks if block)


def readable_bytes(number: float) -> str:
    """Bytes with three digits and a unit of powers of 1000.

    Example:
        >>> readable_bytes(1536), readable_bytes(123_456_789), readable_bytes(2e9)
        ('1.54 kB', '123 MB', '2 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def _cases(report: Mapping[str, Any]) -> str:
    rows = [["Cases", "number", "with problems"]]
    for part, found in report["cases"].items():
        same = part == SplitKeys.CALIBRATION and report["calibration_is_validation"]
        rows.append(
            [f"  {part}", str(found["number"]), "the validation cases" if same else str(found["with_problems"])]
        )
    blocks = [_table(rows)]
    parts = _parts(report)
    for name in {name: None for part in parts for name in report["cases"][part]["attributes"]}:
        counts = [report["cases"][part]["attributes"].get(name, {}) for part in parts]
        values = sorted({value for of_part in counts for value in of_part})
        if len(values) > LISTED_VALUES:
            blocks.append(f"{name}: {len(values)} different values, which the JSON file lists")
            continue
        rows = [[name, *parts]] + [[f"  {value}", *(str(c.get(value, 0)) for c in counts)] for value in values]
        blocks.append(_table(rows))
    return "\n\n".join(blocks)


def _sizes(report: Mapping[str, Any]) -> str:
    blocks = []
    if report["shape"]:
        units = {"shape": "pixels" if len(report["shape"]["min"]) == 2 else "voxels", "spacing": "mm"}
        if units["shape"] == "pixels" and report["spacing"]["min"] == report["spacing"]["max"] == [1.0, 1.0]:
            del units["spacing"]  # files of pictures say nothing of it
        rows = [["Images", *report["shape"]]]
        for name, unit in units.items():
            shown = [" x ".join(f"{value:.4g}" for value in row) for row in report[name].values()]
            rows.append([f"  {name} ({unit})", *shown])
        blocks.append(_table(rows))
    if report["intensities"]:
        columns = list(next(iter(report["intensities"].values())))
        heads = [f"{int(name[1:])} %" if name[0] == "p" else name for name in columns]
        rows = [["Intensities in the files", *heads]]
        rows += [[f"  {n}", *(f"{of_n[c]:.4g}" for c in columns)] for n, of_n in report["intensities"].items()]
        blocks.append(_table(rows))
    return "\n\n".join(blocks)


def _labels(report: Mapping[str, Any], images: bool) -> str:
    parts = _parts(report)
    heads = parts if images else [f"{part} cases" for part in parts]
    rows = [["Labels", "images" if images else "voxels", "fraction", *heads]]
    for name, found in report["labels"]["all"].items():
        shares = []
        for part in parts:
            of_part = report["labels"][part][name]
            total = of_part["num_cases"] + len(of_part["cases_without"])
            shares.append(str(of_part["num_cases"]) if images else f"{of_part['num_cases']} of {total}")
        fraction = "-" if np.isnan(found["fraction"]) else f"{100 * found['fraction']:.3g} %"
        rows.append([f"  {name}", f"{found['voxels']:,}", fraction, *shares])
    if (found := report["ignored"]["all"])["voxels"]:
        shares = [f"{report['ignored'][part]['num_cases']} of {report['cases'][part]['number']}" for part in parts]
        rows.append(["  to be ignored", f"{found['voxels']:,}", f"{100 * found['fraction']:.3g} %", *shares])
    return _table(rows)


def _memory(memory: Mapping[str, Any]) -> str:
    step, cache = memory["training_step"], memory["cache"]
    lines = ["Training"]
    if "failed" in step:
        lines.append(f"  one step       fails: {step['failed']}")
    else:
        shape = " x ".join(map(str, step["input_shape"]))
        whole = "allocated at the most" if step["device"].startswith("cuda") else "of the whole process at its peak"
        lines.append(
            f"  one step       {step['seconds']:.1f} s and {readable_bytes(step['peak_memory'])} {whole}, on "
            f"{step['device']} ({step['parameters']:,} parameters, batch of {shape})"
        )
    disk = cache["disk"] if cache else {"free_in": {}}
    if cache and (any(cache["cache_rate"].values()) or not disk["free_in"]):
        pieces = ", ".join(
            f"{part} cases {readable_bytes(cache[part])} at cache_rate {rate:g}"
            for part, rate in cache["cache_rate"].items()
        )
        lines.append(f"  dataset cache  about {readable_bytes(cache['training'] + cache['validation'])} ({pieces})")
    if disk["free_in"]:
        folders = " and ".join(
            f"{folder}, where {readable_bytes(free)} are free" for folder, free in disk["free_in"].items()
        )
        total = readable_bytes(disk["training"] + disk["validation"])
        lines.append(f"  disk cache     about {total} of prepared cases in {folders}")
    lines.append(f"  this machine has {readable_bytes(memory['machine'])} of memory")
    return "\n".join(lines)


def _first_batch(report: Mapping[str, Any]) -> str:
    if not report["first_batch"]:
        return ""
    # patches of one case follow each other
    cases = ", ".join(dict.fromkeys(report["first_batch"]))
    left_out = report["cases"][SplitKeys.TRAINING]["with_problems"]
    return f"First batch: {cases}{' (cases with problems are left out)' * bool(left_out)}"


def _parts(report: Mapping[str, Any]) -> list[str]:
    """The parts of the split that differ."""
    return [p for p in report["cases"] if p != SplitKeys.CALIBRATION or not report["calibration_is_validation"]]


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows with the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )
