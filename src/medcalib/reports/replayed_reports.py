"""Reports of cases that were evaluated before, each by an engine of its own, as one engine would have written them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ignite.engine import Engine, Events
from torch import Tensor

from medcalib.handlers.binned_cases import BinnedCases
from medcalib.handlers.image_predictions import ImagePredictions
from medcalib.handlers.result_folder import ResultFolder
from medcalib.handlers.results import BINNED, BOUNDARY_BINNED, CASE_SCORES, IMAGES, results_of
from medcalib.reports.classification_report import ClassificationReportHandler, ClassificationScoresHandler
from medcalib.reports.evaluation_report import EvaluationReportHandler
from medcalib.reports.quality_control_report import QualityControlHandler
from medcalib.reports.reliability_report import ReliabilityDiagramHandler
from medcalib.reports.retention_report import RetentionReportHandler
from medcalib.task import Task

__all__ = ["replay_images", "replay_volumes"]

Split = Mapping[str, Sequence[Mapping[str, Any]]]


def replay_volumes(
    folder: ResultFolder,
    binned: BinnedCases,
    metrics: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    split: Split,
    poor: Mapping[str, float] | None = None,
    band: BinnedCases | None = None,
) -> None:
    """Write the report of segmented cases.

    Args:
        folder: where the files go.
        binned: bin statistics of the cases.
        metrics: values (case, class) by metric, or (case, 1) of one without classes; NaN where a case has none.
        scores: uncertainty scores (case, 1) by name.
        split: says what the attributes of the cases are.
        poor: ``poor_below`` and ``max_poor`` of the quality control; None where nothing is to be said of it.
        band: bin statistics of the same cases near boundaries; None where there are none.
    """
    engine = _engine(folder)

    def begin(running: Engine) -> None:
        running.state.metric_details = dict(metrics)
        running.state.metrics = {}

    engine.add_event_handler(Events.STARTED, begin)
    found = results_of(engine)
    found.offer(BINNED, lambda: binned)
    if band is not None:
        found.offer(BOUNDARY_BINNED, lambda: band)
    if scores:
        found.offer(CASE_SCORES, lambda: dict(scores))
    # of a single class, nothing but its name tells a metric without classes from others
    several = len(binned.classes) > 1
    overall = [name for name, values in metrics.items() if several and values.shape[1] == 1] or ["nll_categorical"]
    EvaluationReportHandler(folder, split, overall).attach(engine)
    if scores and poor is not None:
        # thresholds belong to a network, and the errors of single voxels were not kept
        QualityControlHandler(
            folder,
            Task(["background", *binned.classes]),
            poor_below=poor["poor_below"],
            max_poor=poor["max_poor"],
            with_voxels=False,
        ).attach(engine)
    ReliabilityDiagramHandler(folder, num_cases=0).attach(engine)
    engine.run([0])


def replay_images(
    folder: ResultFolder, found: ImagePredictions, num_bins: int, split: Split, with_retention: bool
) -> None:
    """Write the report of classified images.

    Args:
        folder: where the files go.
        found: what was predicted.
        num_bins: number of bins of the calibration errors.
        split: says what the attributes of the cases are.
        with_retention: whether uncertainties are related to what is right.
    """
    engine = _engine(folder)
    results_of(engine).offer(IMAGES, lambda: found)
    ClassificationScoresHandler(num_bins).attach(engine)
    if with_retention:
        RetentionReportHandler(folder).attach(engine)
    ClassificationReportHandler(folder, split).attach(engine)
    engine.run([0])


def _engine(folder: ResultFolder) -> Engine:
    """One that has nothing to do but to end an epoch."""
    engine = Engine(lambda _engine, _batch: [])
    folder.attach(engine)
    return engine
