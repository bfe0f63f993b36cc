"""Say how well uncertainties tell right from wrong predictions of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from numpy.typing import NDArray

from medcalib.errors import UserError
from medcalib.files.writing import write_json
from medcalib.handlers.image_predictions import ImagePredictions
from medcalib.handlers.result_folder import ResultFolder
from medcalib.handlers.results import IMAGES, results_of
from medcalib.metrics import retained_accuracy, risk_coverage
from medcalib.visualize import draw_retention, draw_risk_coverage_curves

__all__ = ["RetentionReportHandler"]

RETENTION = "retention"


class RetentionReportHandler:
    """Relate the uncertainties of classified images to whether their predicted class is right.

    Leaves ``<uncertainty>_aurc`` and ``<uncertainty>_excess_aurc`` in ``engine.state.metrics``, the area under the
    risk-coverage curve, where the risk of an image is 1 if it is wrong, and its excess over a perfect order. Writes
    ``retention.json``, with the same numbers, the range of each uncertainty, and what
    `medcalib.metrics.retained_accuracy` finds at thresholds on the uncertainty scaled to [0, 1]; and the figures
    ``retention/retention`` (right and wrong predictions across uncertainty ranges) and ``retention/risk_coverage``. An
    uncertainty that is the same for all images, as the variance of a single member is, is left out of the figures.

    It needs an `medcalib.handlers.ImagePredictionsHandler` on the same engine.

    Args:
        folder: where the files go.
        thresholds: on uncertainties scaled to [0, 1].
        formats: file formats of the figures.
        dpi: resolution of raster formats.

    Raises:
        UserError: the thresholds are no numbers in [0, 1].

    Example:
        >>> from medcalib.handlers import ImagePredictionsHandler
        >>> from medcalib.task import Task
        >>> engine, folder = Engine(lambda engine, batch: batch), ResultFolder("evaluation")
        >>> for handler in (folder, ImagePredictionsHandler(Task(["healthy", "ill"])), RetentionReportHandler(folder)):
        ...     handler.attach(engine)
    """

    def __init__(
        self,
        folder: ResultFolder,
        thresholds: Sequence[float] = (0.3, 0.6, 0.9),
        formats: Sequence[str] = ("png", "pdf"),
        dpi: int = 150,
    ) -> None:
        if not isinstance(thresholds, Sequence) or not all(_is_share(number) for number in thresholds):
            raise UserError(f"retention::thresholds is {thresholds!r}: give a list of numbers from 0 to 1.")
        self.folder = folder
        self.thresholds = tuple(thresholds)
        self.formats = tuple(formats)
        self.dpi = dpi

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        results = results_of(engine)
        results.need(self, IMAGES)
        results.offer(RETENTION, lambda: self._report(engine))
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: results_of(engine)[RETENTION])

    def _report(self, engine: Engine) -> dict[str, Any]:
        found: ImagePredictions = results_of(engine)[IMAGES]
        correct = (found.probabilities.argmax(1) == found.labels[:, 0]).numpy()
        uncertainties = {name: values.double().numpy() for name, values in found.uncertainties.items()}
        report = {name: self._of_uncertainty(values, correct) for name, values in uncertainties.items()}
        for name, numbers in report.items():
            for area in ("aurc", "excess_aurc"):
                engine.state.metrics[f"{name}_{area}"] = numbers[area]
        if self.folder.writes:
            write_json(self.folder.file("retention.json"), report)
            self._draw(uncertainties, correct)
        return report

    def _of_uncertainty(self, values: NDArray, correct: NDArray) -> dict[str, Any]:
        risk = risk_coverage(values, ~correct)
        known = values[~np.isnan(values)]
        kept = retained_accuracy(values, correct, self.thresholds)
        return {
            "aurc": risk.aurc,
            "excess_aurc": risk.excess_aurc,
            "lowest": float(known.min(initial=np.inf)),
            "highest": float(known.max(initial=-np.inf)),
            "num_cases": risk.count,
            "without_uncertainty": risk.unknown,
            "thresholds": [
                dict(zip(kept._fields, map(float, numbers), strict=True)) for numbers in zip(*kept, strict=True)
            ],
        }

    def _draw(self, uncertainties: dict[str, NDArray], correct: NDArray) -> None:
        known = {name: values for name, values in uncertainties.items() if np.nanmax(values) > np.nanmin(values)}
        if not known:
            return
        figures = {
            "retention": draw_retention(known, correct, self.thresholds),
            "risk_coverage": draw_risk_coverage_curves(
                {name: risk_coverage(values, ~correct) for name, values in known.items()}, "part that is wrong"
            ),
        }
        for name, figure in figures.items():
            self.folder.save_figure(f"retention/{name}", figure, self.formats, self.dpi)


def _is_share(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= 1
