"""Draw reliability figures from the bin statistics of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from ignite.engine import Engine, Events
from matplotlib.figure import Figure

from medcalib.handlers.binning_data import binned_cases
from medcalib.handlers.result_folder import ResultFolder
from medcalib.visualize.histogram import draw_dataset_reliability_histograms
from medcalib.visualize.reliability import CaseReliabilityDrawer, draw_dataset_reliability_diagrams

__all__ = ["ReliabilityDiagramHandler"]


class ReliabilityDiagramHandler:
    """Write the reliability diagrams of some cases, and diagram and histogram of the dataset.

    The figures go to ``reliability/``: ``case_<case>``, ``dataset_diagram`` and ``dataset_histogram``.

    Args:
        folder: where the files go.
        class_names: names of the binned classes.
        num_cases: for how many cases a diagram is drawn, the first ones in the order of their names; all when None.
        formats: file formats of the dataset figures.
        case_formats: file formats of the figures of cases.
        dpi: resolution of raster formats.
    """

    def __init__(
        self,
        folder: ResultFolder,
        class_names: Sequence[str],
        num_cases: int | None = 4,
        formats: Sequence[str] = ("png", "pdf"),
        case_formats: Sequence[str] = ("png",),
        dpi: int = 150,
    ) -> None:
        self.folder = folder
        self.class_names = [str(name) for name in class_names]
        self.num_cases = num_cases
        self.formats = tuple(formats)
        self.case_formats = tuple(case_formats)
        self.dpi = dpi

    def attach(self, engine: Engine) -> None:
        """Register the handler; attach it after the `BinningDataHandler`."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._announce)

    def __call__(self, engine: Engine) -> None:
        """Draw and write the figures."""
        if not self.folder.writes:
            return
        binned = binned_cases(engine, self).unique()
        arrays = [part.numpy() for part in binned.statistics]
        drawer = CaseReliabilityDrawer(self.class_names)
        for row in sorted(range(len(binned.cases)), key=binned.cases.__getitem__)[: self.num_cases]:
            case = binned.cases[row]
            figure = drawer.draw(*(array[row] for array in arrays), title=case)
            self._save(figure, f"case_{case}", self.case_formats)
        self._save(draw_dataset_reliability_diagrams(*arrays, self.class_names), "dataset_diagram", self.formats)
        self._save(draw_dataset_reliability_histograms(*arrays, self.class_names), "dataset_histogram", self.formats)

    def _save(self, figure: Figure, name: str, formats: Sequence[str]) -> None:
        for suffix in formats:
            path = self.folder.file(f"reliability/{name}.{suffix}")
            # compressing a PNG hard takes longer than drawing it
            options = {"pil_kwargs": {"compress_level": 1}} if suffix == "png" else {}
            figure.savefig(path, dpi=self.dpi, **options)

    def _announce(self, _engine: Engine) -> None:
        if self.folder.writes:
            figures = sorted(path for path in (self.folder.path / "reliability").iterdir())
            print("Figures:", *figures, sep="\n  ")
