"""Figures: arrays in, a Matplotlib figure out; nothing here writes a file or knows of ``pyplot``."""

from medcalib.visualize.corruption_sheet import draw_corruption_sheet
from medcalib.visualize.guarantee_figure import GuaranteeRow, draw_guarantees
from medcalib.visualize.histogram import draw_dataset_reliability_histograms
from medcalib.visualize.overlay import draw_case_overlay
from medcalib.visualize.quality_control_figure import (
    draw_flagging_curves,
    draw_risk_coverage_curves,
    draw_score_scatter,
)
from medcalib.visualize.rater_maps import draw_rater_maps
from medcalib.visualize.reliability import (
    draw_case_reliability_diagrams,
    draw_dataset_reliability_diagrams,
)
from medcalib.visualize.retention_figure import draw_retention
from medcalib.visualize.style import ReliabilityStyle

__all__ = [
    "GuaranteeRow",
    "ReliabilityStyle",
    "draw_case_overlay",
    "draw_case_reliability_diagrams",
    "draw_corruption_sheet",
    "draw_dataset_reliability_diagrams",
    "draw_dataset_reliability_histograms",
    "draw_flagging_curves",
    "draw_guarantees",
    "draw_rater_maps",
    "draw_retention",
    "draw_risk_coverage_curves",
    "draw_score_scatter",
]
