"""Draw reliability figures from the bin statistics of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from ignite.engine import Engine, Events

from medcalib.errors import UserError
from medcalib.functional import INDEPENDENT_UNITS
from medcalib.handlers.binned_cases import BinnedCases
from medcalib.handlers.result_folder import ResultFolder
from medcalib.handlers.results import BINNED, results_of
from medcalib.visualize import (
    draw_case_reliability_diagrams,
    draw_dataset_reliability_diagrams,
    draw_dataset_reliability_histograms,
)

__all__ = ["ReliabilityDiagramHandler", "check_band_level"]


def check_band_level(id_: str, band_level: float | None) -> None:
    """Refuse a probability that is none, under the configuration id that gives it."""
    if band_level is not None and not 0 < band_level < 1:
        raise UserError(f"{id_} must lie between 0 and 1, such as 0.95, not {band_level}.")


class ReliabilityDiagramHandler:
    """Write the reliability diagrams of some cases, and diagram and histogram of the dataset.

    The figures go to ``reliability/``: ``case_<case>``, ``dataset_diagram`` and ``dataset_histogram``.

    Args:
        folder: where the files go.
        num_cases: for how many cases a diagram is drawn, the first ones that are seen; all when None.
        formats: file formats of the dataset figures.
        case_formats: file formats of the figures of cases.
        dpi: resolution of raster formats.
        band_level: probability of the band around perfect calibration in the diagram of the dataset, as of
            `medcalib.visualize.draw_dataset_reliability_diagrams`; no band when None.
        band_unit: what is independent in it, ``case`` or ``voxel``.

    Raises:
        UserError: ``band_level`` or ``band_unit`` is none of these.

    Example:
        >>> from medcalib.handlers import CalibrationErrorHandler
        >>> from medcalib.task import Task
        >>> engine, folder = Engine(lambda engine, batch: batch), ResultFolder("evaluation")
        >>> found = CalibrationErrorHandler(Task(["background", "organ"]))
        >>> for handler in (folder, found, ReliabilityDiagramHandler(folder, num_cases=None)):
        ...     handler.attach(engine)
    """

    def __init__(
        self,
        folder: ResultFolder,
        num_cases: int | None = 2,
        formats: Sequence[str] = ("png", "pdf"),
        case_formats: Sequence[str] = ("png",),
        dpi: int = 150,
        band_level: float | None = 0.95,
        band_unit: str = "case",
    ) -> None:
        check_band_level("handlers::reliability::band_level", band_level)
        if band_unit not in INDEPENDENT_UNITS:
            raise UserError(
                f"handlers::reliability::band_unit must be {' or '.join(INDEPENDENT_UNITS)}, not {band_unit!r}."
            )
        self.folder = folder
        self.num_cases = num_cases
        self.formats = tuple(formats)
        self.case_formats = tuple(case_formats)
        self.dpi = dpi
        self.band_level = band_level
        self.band_unit = band_unit

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        results_of(engine).need(self, BINNED)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._draw)

    def _draw(self, engine: Engine) -> None:
        binned: BinnedCases = results_of(engine)[BINNED].unique()
        if not self.folder.writes:
            return
        counts, sum_pred, sum_true = (part.numpy() for part in binned.statistics)
        for row, case in enumerate(binned.cases[: self.num_cases]):
            figure = draw_case_reliability_diagrams(
                counts[row], sum_pred[row], sum_true[row], binned.classes, title=case
            )
            self.folder.save_figure(f"reliability/case_{case}", figure, self.case_formats, self.dpi)
        diagram = draw_dataset_reliability_diagrams(
            counts, sum_pred, sum_true, binned.classes, band_level=self.band_level, band_unit=self.band_unit
        )
        self.folder.save_figure("reliability/dataset_diagram", diagram, self.formats, self.dpi)
        histogram = draw_dataset_reliability_histograms(counts, sum_pred, sum_true, binned.classes)
        self.folder.save_figure("reliability/dataset_histogram", histogram, self.formats, self.dpi)
