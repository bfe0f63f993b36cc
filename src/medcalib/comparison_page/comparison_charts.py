"""Figures of means and differences: forest, calibration against Dice, profile over metrics, sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medcalib.compare import Comparison, pareto_front
from medcalib.comparison_page.chart import Chart, FigureBlock, Series
from medcalib.comparison_page.method_rows import difference_of, level_of
from medcalib.comparison_page.metric_words import metric_label, number_text, range_text, signed_text
from medcalib.comparison_page.page_context import PageContext

__all__ = ["forest", "profile", "sweeps", "trade_off"]

ROWS, FRAME = (30, 36, 48), 70
LEAST = 130
# letters from which a name takes two and three lines
LONG, LONGEST = 25, 46


def forest(comparison: Comparison, metrics: Sequence[str]) -> FigureBlock | None:
    """Difference of every method to the reference with its interval, a panel a metric."""
    methods = [name for name in comparison.evaluations if name != comparison.reference]
    ticks = [(len(methods) - 1 - place, name) for place, name in enumerate(methods)]
    letters = max(map(len, methods), default=0)
    row = ROWS[(letters >= LONG) + (letters >= LONGEST)]
    charts = []
    for metric in metrics:
        rows = {name: difference_of(comparison, metric, name) for name in methods}
        known = [(at, name) for at, name in ticks if not np.isnan(rows[name]["difference"])]
        if not known:
            continue
        way = "better \N{RIGHTWARDS ARROW}" if comparison.higher_is_better(metric) else "\N{LEFTWARDS ARROW} better"
        parts: list[Series] = []
        if (margin := comparison.margins.get(metric)) is not None:
            edge = -margin if comparison.higher_is_better(metric) else margin
            parts.append(Series([edge, edge], [-0.5, len(methods) - 0.5], label="margin"))
        parts += [_difference_point(rows[name], at, name) for at, name in known]
        charts.append(
            Chart(
                title=metric_label(metric),
                x_label=f"difference ({way})",
                y_label="",
                alt=f"Differences in {metric_label(metric)} to {comparison.reference}: "
                + "; ".join(f"{name} {_difference_text(rows[name])}" for _, name in known),
                parts=parts,
                x_range=_with_zero(parts),
                y_ticks=ticks,
                y_range=(-0.6, len(methods) - 0.4),
                zero=True,
                height=max(LEAST, FRAME + row * len(methods)),
            )
        )
    caption = (
        f"Difference to {comparison.reference} and its {100 * comparison.confidence:g} % interval. Where an interval "
        f"holds 0, no difference is shown. A dashed line marks the margin of what must not get worse."
    )
    return FigureBlock("forest", caption, charts) if charts else None


def _with_zero(parts: Sequence[Series]) -> tuple[float, float]:
    """Ends of an axis that holds all points, their intervals and 0."""
    values = [0.0]
    for part in parts:
        values += [float(value) for values in (part.x, *(part.x_ends or ())) for value in values if np.isfinite(value)]
    spare = 0.08 * (max(values) - min(values)) or 1.0
    return min(values) - spare, max(values) + spare


def _difference_point(row: dict[str, float], at: int, name: str) -> Series:
    return Series(
        [row["difference"]],
        [at],
        name,
        x_ends=([row["difference_low"]], [row["difference_high"]]),
        lines=False,
        markers=True,
        hover=[f"{name}\n{_difference_text(row)}"],
    )


def _difference_text(row: dict[str, float]) -> str:
    between = range_text(row["difference_low"], row["difference_high"], signed=True)
    return signed_text(row["difference"]) + (f" ({between})" if between else "")


def trade_off(comparison: Comparison, errors: Sequence[str], quality: str) -> FigureBlock | None:
    """Calibration errors against Dice or accuracy, with intervals, and the front of the methods that none beats.

    As figure 1 of https://arxiv.org/abs/2010.14290.
    """
    charts = []
    for error in errors:
        levels = {
            name: (level_of(comparison, error, name), level_of(comparison, quality, name))
            for name in comparison.evaluations
        }
        known = {name: both for name, both in levels.items() if not np.isnan([both[0]["mean"], both[1]["mean"]]).any()}
        if not known:
            continue
        x, y = ([both[place]["mean"] for both in known.values()] for place in (0, 1))
        front = pareto_front(x, y)
        parts = []
        best = [name for name, on in zip(known, front, strict=True) if on]
        for name, on in zip(known, front, strict=True):
            low, high = known[name]
            parts.append(
                Series(
                    [low["mean"]],
                    [high["mean"]],
                    name,
                    x_ends=([low["low"]], [low["high"]]),
                    y_ends=([high["low"]], [high["high"]]),
                    lines=False,
                    markers=True,
                    filled=bool(on),
                    hover=[
                        f"{name}\n{metric_label(error)} {number_text(low['mean'])}\n"
                        f"{metric_label(quality)} {number_text(high['mean'])}" + ("\non the Pareto front" if on else "")
                    ],
                )
            )
        charts.append(
            Chart(
                title=f"{metric_label(quality)} against {metric_label(error)}",
                x_label=f"{metric_label(error)} (lower is better)",
                y_label=f"{metric_label(quality)} (higher is better)",
                alt=f"{metric_label(quality)} against {metric_label(error)}; on the Pareto front: {', '.join(best)}",
                parts=[Series(*_steps(np.array(x)[front], np.array(y)[front])), *parts],
                height=400,
            )
        )
    caption = (
        f"Calibration error against {metric_label(quality)}, with {100 * comparison.confidence:g} % intervals. Filled "
        f"points are on the Pareto front: no method is at least as good in both and better in one. The dashed steps "
        f"bound what the front beats."
    )
    return FigureBlock("trade_off", caption, charts, list(comparison.evaluations)) if charts else None


def _steps(x: np.ndarray, y: np.ndarray) -> tuple[list[float], list[float]]:
    """Corners of the border between what a front beats and what it does not."""
    order = np.lexsort((y, x))
    corners: list[tuple[float, float]] = []
    for place in order:
        if corners:
            corners.append((float(x[place]), corners[-1][1]))
        corners.append((float(x[place]), float(y[place])))
    return [corner[0] for corner in corners], [corner[1] for corner in corners]


def profile(comparison: Comparison, metrics: Sequence[str]) -> FigureBlock | None:
    """All metrics beside one another, each scaled so that the best method is at the right and the worst at the left."""
    scaled: dict[str, list[float]] = {name: [] for name in comparison.evaluations}
    hover: dict[str, list[str]] = {name: [] for name in comparison.evaluations}
    ticks = []
    for metric in metrics:
        means = np.array([level_of(comparison, metric, name)["mean"] for name in comparison.evaluations])
        if np.isnan(means).all() or np.nanmax(means) == np.nanmin(means):
            continue
        higher = comparison.higher_is_better(metric)
        worst, best = (np.nanmin(means), np.nanmax(means)) if higher else (np.nanmax(means), np.nanmin(means))
        ticks.append(f"{metric_label(metric)}\n{number_text(worst)} to {number_text(best)}")
        for name, mean in zip(comparison.evaluations, means, strict=True):
            scaled[name].append(float((mean - worst) / (best - worst)))
            hover[name].append(f"{name}\n{metric_label(metric)} {number_text(float(mean))}")
    if len(ticks) < 2:
        return None
    places = [float(len(ticks) - 1 - place) for place in range(len(ticks))]
    chart = Chart(
        title="Profile over metrics",
        x_label="",
        y_label="",
        alt=f"Profile of {len(scaled)} methods over {', '.join(metric_label(metric) for metric in metrics)}.",
        parts=[Series(scaled[name], places, name, markers=True, hover=hover[name]) for name in scaled],
        x_ticks=[(0.0, "worst"), (1.0, "best")],
        y_ticks=list(zip(places, ticks, strict=True)),
        x_range=(-0.06, 1.06),
        y_range=(-0.4, len(ticks) - 0.6),
        height=400,
    )
    caption = (
        "One line a method. Every row runs from the worst mean (left) to the best (right) of these methods; the "
        "numbers below its name say how far apart they are, which may be less than their intervals."
    )
    return FigureBlock("profile", caption, [chart], list(comparison.evaluations))


def sweeps(comparison: Comparison, context: PageContext, metrics: Sequence[str]) -> list[FigureBlock]:
    """Means over the values of every setting that was varied, with bands, a panel a metric.

    Methods that are alike in their group and in all other settings that were varied form one line.
    """
    blocks = []
    for place, (setting, values) in enumerate(context.sweep.items(), start=1):
        lines: dict[tuple[object, ...], list[str]] = {}
        for name in comparison.evaluations:
            if name in values:
                others = (other.get(name) for key, other in context.sweep.items() if key != setting)
                lines.setdefault((context.groups.get(name, ""), *others), []).append(name)
        charts = [
            chart
            for metric in metrics
            if (chart := _sweep_chart(comparison, setting, values, lines, metric)) is not None
        ]
        caption = (
            f"Means over the values of {setting}, with {100 * comparison.confidence:g} % intervals as bands. A line "
            f"joins methods that differ in this setting only, in the look of the first of them."
        )
        if charts:
            shown = [sorted(names, key=lambda name: _number(values[name]))[0] for names in lines.values()]
            blocks.append(FigureBlock(f"sweep_{place}", caption, charts, shown))
    return blocks


def _sweep_chart(
    comparison: Comparison,
    setting: str,
    values: Mapping[str, float],
    lines: Mapping[tuple[object, ...], list[str]],
    metric: str,
) -> Chart | None:
    parts = []
    numeric = all(np.isfinite(_number(value)) for value in values.values())
    texts = list(dict.fromkeys(str(value) for value in values.values()))
    for names in lines.values():
        at = {name: _number(values[name]) if numeric else float(texts.index(str(values[name]))) for name in names}
        ordered = sorted(names, key=lambda name: at[name])
        rows = [level_of(comparison, metric, name) for name in ordered]
        if np.isnan([row["mean"] for row in rows]).all():
            continue
        parts.append(
            Series(
                [at[name] for name in ordered],
                [row["mean"] for row in rows],
                ordered[0],
                y_ends=([row["low"] for row in rows], [row["high"] for row in rows]),
                markers=True,
                hover=[
                    f"{name}\n{setting} = {values[name]}\n{metric_label(metric)} {number_text(row['mean'])}"
                    for name, row in zip(ordered, rows, strict=True)
                ],
            )
        )
    if not parts:
        return None
    way = "higher" if comparison.higher_is_better(metric) else "lower"
    return Chart(
        title=metric_label(metric),
        x_label=setting,
        y_label=f"{metric_label(metric)} ({way} is better)",
        alt=f"{metric_label(metric)} over {setting} for {len(parts)} lines of methods.",
        parts=parts,
        x_ticks=None if numeric else [(float(place), text) for place, text in enumerate(texts)],
    )


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")
