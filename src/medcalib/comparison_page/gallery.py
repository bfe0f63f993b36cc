"""The same cases through all methods."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion

from medcalib.compare import Comparison
from medcalib.comparison_page.metric_words import metric_label, number_text
from medcalib.comparison_page.prediction_slices import (
    PredictionSlice,
    foreground_of,
    has_prediction,
    prediction_bytes,
    read_slice,
)
from medcalib.image_files.unreadable import UnreadableFileError
from medcalib.visualize.overlay import class_color

__all__ = ["Gallery", "gallery"]

MOST_CASES = 9
# bounds on what is read and on what the page holds
MOST_BYTES_READ = 400_000_000
MOST_BYTES_SHOWN = 6_000_000
# pixels of the longer side of one picture
SIZE = 220
GAP = 4
HEAT = "inferno"
COLOR_STEPS = 9
LEVELS = 63


@dataclass(frozen=True)
class Picture:
    """Probability and uncertainty of one method, side by side."""

    method: str
    source: str
    alt: str
    caption: str
    width: int
    height: int


@dataclass(frozen=True)
class GalleryCase:
    """One case through all methods."""

    case: str
    reason: str
    slice_name: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Gallery:
    """Cases that are shown.

    Attributes:
        cases: in order.
        text: how many are shown, and why these.
        maximum: upper end of the scale of the uncertainty, in nats.
        colors: the scale, from low to high.
        class_colors: colours of the outlines by class.
    """

    cases: Sequence[GalleryCase]
    text: str
    maximum: float
    colors: Sequence[str]
    class_colors: Mapping[str, str]


def gallery(comparison: Comparison) -> Gallery | None:
    """Pictures of a few cases, from the predictions beside the evaluations of each method's first seed.

    Args:
        comparison: what was compared.

    Returns:
        None if no case has predictions of all methods that have any.
    """
    folders = {name: seeds[0].folder.parent / "predictions" for name, seeds in comparison.evaluations.items()}
    folders = {name: folder for name, folder in folders.items() if folder.is_dir()}
    if not folders:
        return None
    quality = _quality(comparison)
    known = [case for case in quality.index if all(has_prediction(folder, case) for folder in folders.values())]
    if not known:
        return None
    chosen = _chosen(quality.loc[known], comparison.reference)
    chosen = dict(list(chosen.items())[: _affordable(folders, list(chosen))])
    read: dict[str, dict[str, PredictionSlice]] = {}
    for case in chosen:
        if slices := _slices(folders, case):
            read[case] = slices
    if not read:
        return None
    maximum = max(float(np.nanmax(one.entropy, initial=0.0)) for slices in read.values() for one in slices.values())
    # up to the next tenth, so that the scale reads well
    maximum = max(math.ceil(maximum * 10 - 1e-6) / 10, 0.1)
    cases: list[GalleryCase] = []
    size = 0
    for case, slices in read.items():
        pictures = [_picture(comparison, case, name, one, maximum, quality) for name, one in slices.items()]
        size += sum(len(picture.source) for picture in pictures)
        if cases and size > MOST_BYTES_SHOWN:
            break
        cases.append(GalleryCase(case, chosen[case], next(iter(slices.values())).name, pictures))
    return Gallery(
        cases,
        _text(comparison, cases, len(known), len(quality), folders),
        maximum,
        [_hex(colormaps[HEAT](step / (COLOR_STEPS - 1))) for step in range(COLOR_STEPS)],
        _class_colors(comparison, read),
    )


def _quality(comparison: Comparison) -> pd.DataFrame:
    """Dice, or else the primary metric, of the cases (case, method) of each method's first seed."""
    for metric in ("mean_dice", comparison.primary):
        columns = {
            name: seeds[0].metrics[metric]["mean"]
            for name, seeds in comparison.evaluations.items()
            if metric in seeds[0].metrics
        }
        if columns:
            table = pd.DataFrame(columns)
            table.attrs["metric"] = metric
            return table
    return pd.DataFrame()


def _chosen(quality: pd.DataFrame, reference: str) -> dict[str, str]:
    """Cases that are shown, with the reason."""
    metric = metric_label(quality.attrs.get("metric", ""))
    order = quality[reference if reference in quality else quality.columns[0]].dropna().sort_values(kind="stable")
    chosen: dict[str, str] = {}
    if len(order):
        places = {"worst": 0, "median": len(order) // 2, "best": len(order) - 1}
        if metric != "Dice":
            places = {"lowest": 0, "median": len(order) // 2, "highest": len(order) - 1}
        for word, place in places.items():
            chosen.setdefault(str(order.index[place]), f"{word} {metric} of {reference}")
    spread = (quality.max(axis=1) - quality.min(axis=1)).sort_values(ascending=False, kind="stable")
    for case, value in spread.items():
        if len(chosen) >= MOST_CASES:
            break
        if value > 0:
            chosen.setdefault(str(case), f"methods differ by {number_text(float(value))} in {metric}")
    return chosen or {str(case): "first" for case in quality.index[:MOST_CASES]}


def _affordable(folders: Mapping[str, Path], cases: Sequence[str]) -> int:
    """How many cases are read, at least one."""
    total = 0
    for place, case in enumerate(cases):
        total += sum(prediction_bytes(folder, case) for folder in folders.values())
        if total > MOST_BYTES_READ:
            return max(1, place)
    return len(cases)


def _slices(folders: Mapping[str, Path], case: str) -> dict[str, PredictionSlice]:
    """The same slice of every method; none of a case whose files cannot be read or differ in shape."""
    try:
        joined: NDArray[np.bool_] | None = None
        for folder in folders.values():
            one = foreground_of(folder, case)
            joined = one if joined is None else joined | one
        assert joined is not None
        return {name: read_slice(folder, case, joined) for name, folder in folders.items()}
    except (OSError, ValueError, UnreadableFileError):
        return {}


def _picture(
    comparison: Comparison, case: str, method: str, one: PredictionSlice, maximum: float, quality: pd.DataFrame
) -> Picture:
    rows, columns = _pixels(one)
    grey = _resized(one.probability, rows, columns, Image.Resampling.BILINEAR)
    left = np.repeat((_levels(grey) * 255).astype(np.uint8)[..., None], 3, axis=2)
    labels = _resized(one.segmentation.astype(np.float32), rows, columns, Image.Resampling.NEAREST).astype(int)
    for number in np.unique(labels[labels > 0]):
        mask = labels == number
        left[mask & ~binary_erosion(mask, iterations=2, border_value=1)] = _bytes(class_color(int(number)))
    heat = _resized(np.nan_to_num(one.entropy), rows, columns, Image.Resampling.BILINEAR) / maximum
    right = (colormaps[HEAT](_levels(heat))[..., :3] * 255).astype(np.uint8)
    both = Image.new("RGB", (2 * columns + GAP, rows), (128, 128, 128))
    both.paste(Image.fromarray(left), (0, 0))
    both.paste(Image.fromarray(right), (columns + GAP, 0))
    buffer = io.BytesIO()
    # otherwise thin outlines lose their colours
    both.save(buffer, "WEBP", lossless=True, quality=60, method=4)
    numbers = _numbers(comparison, case, method)
    return Picture(
        method,
        f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}",
        f"{case} by {method}: probability of foreground with outlines of the segmentation, and entropy; mean entropy "
        f"of the slice {number_text(float(np.nanmean(one.entropy)))} nats. {numbers}",
        numbers,
        *both.size,
    )


def _numbers(comparison: Comparison, case: str, method: str) -> str:
    metrics = comparison.evaluations[method][0].metrics
    shown = []
    for metric in dict.fromkeys(("mean_dice", comparison.primary)):
        table = metrics.get(metric)
        if table is not None and case in table.index:
            shown.append(f"{metric_label(metric)} {number_text(float(table['mean'].loc[case]))}")
    return ", ".join(shown)


def _pixels(one: PredictionSlice) -> tuple[int, int]:
    """Rows and columns of a picture with square pixels."""
    height, width = (count * mm for count, mm in zip(one.probability.shape, one.spacing, strict=True))
    scale = SIZE / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resized(values: NDArray, rows: int, columns: int, how: Image.Resampling) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(values, dtype=np.float32)).resize((columns, rows), how))


def _levels(values: NDArray) -> NDArray[np.float64]:
    """Values in [0, 1] on as many levels as can be told apart, which makes small files."""
    return np.rint(values.clip(0, 1).astype(np.float64) * LEVELS) / LEVELS


def _bytes(color: Sequence[float]) -> list[int]:
    return [round(255 * part) for part in color[:3]]


def _hex(color: Sequence[float]) -> str:
    return "#" + "".join(f"{part:02x}" for part in _bytes(color))


def _class_colors(comparison: Comparison, read: Mapping[str, Mapping[str, PredictionSlice]]) -> dict[str, str]:
    """Colours of the labels that occur, by number where the classes of the files are not those that are evaluated."""
    numbers = sorted(
        {int(n) for slices in read.values() for one in slices.values() for n in np.unique(one.segmentation) if n}
    )
    one = comparison.evaluations[comparison.reference][0]
    names = one.class_names
    known = not one.provenance.get("regions") and not one.provenance.get("include_background")
    known = known and bool(numbers) and len(names) >= numbers[-1]
    return {names[number - 1] if known else f"label {number}": _hex(class_color(number)) for number in numbers}


def _text(
    comparison: Comparison, cases: Sequence[GalleryCase], known: int, total: int, folders: Mapping[str, Path]
) -> str:
    lacking = [name for name in comparison.evaluations if name not in folders]
    text = (
        f"{len(cases)} of {known} cases with predictions are shown"
        f"{f' ({total} were evaluated)' if known < total else ''}: the worst, the median and the best of "
        f"{comparison.reference}, and those in which the methods differ most. Each picture is one slice, that with the "
        f"most foreground predicted by all methods together, of the first seed. Left: probability of foreground, from "
        f"black (0) to white (1), with outlines of the segmentation. Right: entropy."
    )
    return text + (f" No predictions lie beside the evaluations of {', '.join(lacking)}." if lacking else "")
