"""What the cases of a dataset look like: sizes, voxels of each class, intensities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medcalib.data.cases import Case
from medcalib.keys import CaseKeys

__all__ = [
    "CaseSummary",
    "attribute_counts",
    "intensity_range",
    "label_histogram",
    "spread",
    "summarize_case",
]


class CaseSummary(NamedTuple):
    """What one case looks like.

    Attributes:
        shape: voxels along each spatial axis of the image; None where it could not be read.
        spacing: voxel size in mm along each axis; None as above.
        lowest: smallest value of each channel, (channel,); None as above.
        highest: largest value of each channel; None as above.
        sample: values of voxels drawn at random, the same number for every case, (channel, voxel); None as above.
        label_counts: voxels of each class, (class,); None where the label could not be used.
        label_size: all voxels of the label, of which those with a class may be fewer or counted twice where classes are
            independent; None as above.
        ignored: voxels of the label whose truth is unknown, which `label_counts` and `label_size` lack.
    """

    shape: tuple[int, ...] | None
    spacing: tuple[float, ...] | None
    lowest: NDArray[np.float32] | None
    highest: NDArray[np.float32] | None
    sample: NDArray[np.float32] | None
    label_counts: NDArray[np.int64] | None
    label_size: int | None
    ignored: int = 0


def summarize_case(
    image: ArrayLike | None,
    label: ArrayLike | None,
    num_classes: int,
    spacing: Sequence[float] | None = None,
    independent: bool = False,
    sample_size: int = 10_000,
) -> CaseSummary:
    """Reduce a case to what is needed of it for a summary of many.

    Args:
        image: (C, ...), finite; None if it could not be read.
        label: class indices (1, ...), or a channel of 0 and 1 for each class (class, ...); None if it cannot be used.
            Voxels of unknown truth are below 0.
        num_classes: number of classes.
        spacing: voxel size in mm along each spatial axis; 1 by default.
        independent: whether the label has one channel for each class.
        sample_size: number of voxels that are drawn, with replacement.

    Returns:
        The summary. Two calls draw the same voxels.

    Example:
        >>> case = summarize_case([[[0.0, 1.0], [2.0, 5.0]]], [[[0, 1], [1, 1]]], num_classes=3)
        >>> case.shape, case.highest.tolist(), case.label_counts.tolist()
        ((2, 2), [5.0], [1, 3, 0])
    """
    counts = size = None
    ignored = 0
    if label is not None:
        label = np.asarray(label)
        unknown = (label < 0).any(0)
        if ignored := int(unknown.sum()):
            label = label[:, ~unknown]
        if independent:
            counts = np.count_nonzero(label.reshape(num_classes, -1), axis=1)
            size = label[0].size
        else:
            counts = np.bincount(label.reshape(-1).astype(np.int64), minlength=num_classes)
            size = label.size
    if image is None:
        return CaseSummary(None, None, None, None, None, counts, size, ignored)
    image = np.asarray(image, dtype=np.float32)
    shape = image.shape[1:]
    values = image.reshape(len(image), -1)
    drawn = np.random.default_rng(0).integers(values.shape[1], size=sample_size)
    return CaseSummary(
        tuple(int(size) for size in shape),
        tuple(float(size) for size in ([1.0] * len(shape) if spacing is None else spacing)),
        values.min(1),
        values.max(1),
        values[:, drawn],
        counts,
        size,
        ignored,
    )


def spread(rows: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Smallest, median and largest value of each column.

    Args:
        rows: (case, axis), at least one case.

    Example:
        >>> spread([[10, 5], [30, 5], [14, 6]])
        {'min': [10.0, 5.0], 'median': [14.0, 5.0], 'max': [30.0, 6.0]}
    """
    values = np.asarray(rows, dtype=float)
    return {
        "min": values.min(0).tolist(),
        "median": np.median(values, axis=0).tolist(),
        "max": values.max(0).tolist(),
    }


def intensity_range(
    summaries: Sequence[CaseSummary], channel_names: Sequence[str], percentiles: Sequence[float] = (1, 50, 99)
) -> dict[str, dict[str, float]]:
    """Range of the intensities of each channel over all cases, as the files hold them.

    Args:
        summaries: of the cases; those whose image could not be read, or has another number of channels, are left out.
        channel_names: one name for each channel.
        percentiles: which ones to estimate, from voxels drawn at random, so that every case counts the same.

    Returns:
        By channel the exact ``min`` and ``max``, and a percentile as ``p01``; empty without any case.

    Example:
        >>> case = summarize_case(np.arange(101.0)[None], None, num_classes=2)
        >>> {name: round(value) for name, value in intensity_range([case], ["CT"], [50])["CT"].items()}
        {'min': 0, 'p50': 50, 'max': 100}
    """
    used = [
        (case.lowest, case.highest, case.sample)
        for case in summaries
        if case.lowest is not None and case.highest is not None and case.sample is not None
        if len(case.sample) == len(channel_names)
    ]
    if not used:
        return {}
    pooled = np.concatenate([sample for _, _, sample in used], axis=1)
    return {
        str(name): {
            "min": float(min(lowest[channel] for lowest, _, _ in used)),
            **{f"p{percent:02g}": float(np.percentile(pooled[channel], percent)) for percent in percentiles},
            "max": float(max(highest[channel] for _, highest, _ in used)),
        }
        for channel, name in enumerate(channel_names)
    }


def label_histogram(
    cases: Sequence[str], summaries: Sequence[CaseSummary], class_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """How often each class occurs.

    Args:
        cases: case ids.
        summaries: of the same cases; those without a usable label are left out.
        class_names: one name for each class.

    Returns:
        By class its ``voxels``, the ``fraction`` of all voxels of all labels that they are (NaN without any label), the
        number of cases that have the class, ``num_cases``, and the ids of those that lack it, ``cases_without``.

    Example:
        >>> summary = summarize_case(None, [[0, 0, 0, 1]], num_classes=3)
        >>> label_histogram(["a"], [summary], ["background", "organ", "lesion"])["lesion"]
        {'voxels': 0, 'fraction': 0.0, 'num_cases': 0, 'cases_without': ['a']}
    """
    usable = [(case, one) for case, one in zip(cases, summaries, strict=True) if one.label_counts is not None]
    counts = np.array([one.label_counts for _, one in usable], dtype=np.int64).reshape(len(usable), len(class_names))
    total = sum(one.label_size or 0 for _, one in usable)
    return {
        str(name): {
            "voxels": int(counts[:, index].sum()),
            "fraction": float(counts[:, index].sum() / total) if total else float("nan"),
            "num_cases": int((counts[:, index] > 0).sum()),
            "cases_without": [case for (case, _), own in zip(usable, counts, strict=True) if own[index] == 0],
        }
        for index, name in enumerate(class_names)
    }


def attribute_counts(cases: Sequence[Case]) -> dict[str, dict[str, int]]:
    """Number of cases by attribute and value, values in the order of their texts.

    Example:
        >>> cases = [{"case": "a", "attributes": {"vendor": "B"}}, {"case": "b", "attributes": {"vendor": "A"}}]
        >>> attribute_counts(cases)
        {'vendor': {'A': 1, 'B': 1}}
    """
    counts: dict[str, Counter] = {}
    for case in cases:
        attributes = case.get(CaseKeys.ATTRIBUTES)
        for name, value in (attributes if isinstance(attributes, Mapping) else {}).items():
            counts.setdefault(str(name), Counter())[str(value)] += 1
    return {name: dict(sorted(of_value.items())) for name, of_value in counts.items()}
