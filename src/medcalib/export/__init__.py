"""Export trained bundles: bundles that run elsewhere, files for other programs, model cards."""

from medcalib.export.card import model_card
from medcalib.export.exporting import FORMATS, export
from medcalib.export.trained_bundle import TrainedBundle, open_trained

__all__ = ["FORMATS", "TrainedBundle", "export", "model_card", "open_trained"]
