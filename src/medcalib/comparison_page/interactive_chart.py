"""Draw a chart for the page, with plotly."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from medcalib.comparison_page.chart import Bars, Chart, Heat, Series
from medcalib.comparison_page.method_style import MethodStyle
from medcalib.comparison_page.metric_words import name_lines

__all__ = ["interactive_chart"]

# a grey that shows on white and on black
GUIDE = "#808080"
LETTERS = 24
DIGITS = 5


def interactive_chart(chart: Chart, styles: Mapping[str, MethodStyle]) -> dict[str, Any]:
    """What plotly's script draws, as plain values; colours are those on white.

    Each trace carries its method and its variant in ``meta``, by which the page shows and hides it.

    Args:
        chart: what is drawn.
        styles: looks by method.

    Returns:
        ``data`` and ``layout``.
    """
    traces = [trace for part in chart.parts for trace in _traces(part, styles)]
    figure = go.Figure(data=traces)
    figure.update_layout(
        showlegend=False,
        height=chart.height,
        margin={"l": 8, "r": 12, "t": 8, "b": 8},
        hoverlabel={"align": "left"},
        hovermode="closest",
        barmode="overlay",
        dragmode=False,
    )
    for name, label, limits, ticks in (
        ("x", chart.x_label, chart.x_range, chart.x_ticks),
        ("y", chart.y_label, chart.y_range, chart.y_ticks),
    ):
        axis: dict[str, Any] = {"title": {"text": _escaped(label), "standoff": 6}, "automargin": True}
        if limits:
            axis["range"] = list(limits)
        if ticks is not None:
            axis |= {"tickvals": [at for at, _ in ticks], "ticktext": [_broken(text) for _, text in ticks]}
        figure.update_layout({f"{name}axis": axis | {"zeroline": chart.zero and name == "x"}})
    made: dict[str, Any] = figure.to_plotly_json()
    made["layout"].pop("template", None)
    return made


def _traces(part: Series | Bars | Heat, styles: Mapping[str, MethodStyle]) -> Iterator[Any]:
    meta = {"method": getattr(part, "method", ""), "variant": part.variant}
    if isinstance(part, Heat):
        centres = [_middles(size) for size in part.counts.shape]
        yield go.Heatmap(
            # by the root, as single cases are to be seen beside many
            z=[[round(float(count) ** 0.5, 3) if count else None for count in row] for row in part.counts],
            customdata=part.counts.tolist(),
            x=centres[1],
            y=centres[0],
            zmin=0,
            zmax=max(part.largest, 1) ** 0.5,
            colorscale="Viridis",
            showscale=False,
            hovertemplate="confidence %{x:.3f}<br>frequency %{y:.3f}<br>%{customdata} cases<extra></extra>",
            meta=meta,
        )
        return
    if isinstance(part, Bars):
        yield go.Bar(
            x=_plain(part.x),
            y=_plain(part.height),
            width=part.width,
            marker={"color": styles[part.method].color, "opacity": 0.4, "line": {"width": 0}},
            hovertemplate="confidence %{x:.3f}<br>frequency %{y:.3f}<extra></extra>",
            meta=meta,
        )
        return
    style = styles.get(part.method)
    color = style.color if style else GUIDE
    if part.y_ends is not None and part.lines:
        yield _band(part, color, meta)
    yield _line(part, style, color, meta)


def _band(part: Series, color: str, meta: dict[str, str]) -> Any:
    x, low, high = (np.asarray(values, dtype=float) for values in (part.x, *(part.y_ends or ((), ()))))
    known = ~np.isnan(low) & ~np.isnan(high)
    return go.Scatter(
        x=_plain([*x[known], *x[known][::-1]]),
        y=_plain([*high[known], *low[known][::-1]]),
        fill="toself",
        fillcolor=f"{color}2b",
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        meta=meta,
    )


def _line(part: Series, style: MethodStyle | None, color: str, meta: dict[str, str]) -> Any:
    named = _escaped(part.method or part.label)
    symbol = (style.symbol if style else "circle") + ("" if part.filled else "-open")
    trace: dict[str, Any] = {
        "x": _plain(part.x),
        "y": _plain(part.y),
        "mode": "+".join(
            name
            for name, on in (
                ("lines", part.lines),
                ("markers", part.markers),
                ("text", part.markers and bool(part.label)),
            )
            if on
        ),
        "line": {"color": color, "width": 2 if style else 1.2, "dash": style.dash if style else "dash"},
        "marker": {
            "color": color,
            "size": 9 if not part.lines else 7,
            "symbol": symbol,
            "line": {"width": 1.5, "color": color},
        },
        "hovertemplate": f"{named}<br>%{{x:.4g}}, %{{y:.4g}}<extra></extra>",
        "connectgaps": False,
        "meta": meta,
    }
    if part.hover:
        trace |= {
            "text": [_escaped(text).replace("\n", "<br>") for text in part.hover],
            "hovertemplate": "%{text}<extra></extra>",
        }
        trace["mode"] = trace["mode"].replace("+text", "")
    if not style:
        trace["hoverinfo"], trace["hovertemplate"] = "skip", None
    for name, ends, values in (("error_x", part.x_ends, part.x), ("error_y", part.y_ends, part.y)):
        if ends is not None and not part.lines:
            middle, low, high = (np.asarray(numbers, dtype=float) for numbers in (values, *ends))
            trace[name] = {
                "type": "data",
                "symmetric": False,
                "array": _plain(np.maximum(high - middle, 0)),
                "arrayminus": _plain(np.maximum(middle - low, 0)),
                "color": f"{color}99",
                "thickness": 1.3,
                "width": 3,
            }
    return go.Scatter(**trace)


def _middles(size: int) -> list[float]:
    return [round((place + 0.5) / size, DIGITS) for place in range(size)]


def _plain(values: Sequence[float] | Any) -> list[float | None]:
    """Numbers with as many digits as can be seen; None where there is none."""
    return [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for value in np.asarray(values, dtype=float)]


def _escaped(text: str) -> str:
    """A text in which plotly finds no mark-up, and no formula, which it would fetch a script for."""
    return html.escape(text, quote=False).replace("$", "&#36;").replace("%{", "%&#123;")


def _broken(text: str) -> str:
    """A long name on several lines."""
    return "<br>".join(_escaped(line) for part in text.split("\n") for line in name_lines(part, LETTERS))
