"""What an evaluation writes: tables, figures and summaries, by Ignite handlers."""

from medcalib.reports.classification_report import ClassificationReportHandler, ClassificationScoresHandler
from medcalib.reports.evaluation_report import EvaluationReportHandler
from medcalib.reports.flagging_rule import FlaggingRule
from medcalib.reports.guarantee_report import GuaranteeReportHandler
from medcalib.reports.image_flagging_rule import ImageFlaggingRule
from medcalib.reports.new_images_table import NewClassifiedImagesHandler, NewImagesHandler
from medcalib.reports.object_size_report import ObjectSizeReportHandler
from medcalib.reports.provenance import collect_provenance, inference_settings
from medcalib.reports.quality_control_report import QualityControlHandler
from medcalib.reports.rater_report import RaterReportHandler
from medcalib.reports.reliability_report import ReliabilityDiagramHandler
from medcalib.reports.retention_report import RetentionReportHandler
from medcalib.reports.shift_check import ShiftCheck

__all__ = [
    "ClassificationReportHandler",
    "ClassificationScoresHandler",
    "EvaluationReportHandler",
    "FlaggingRule",
    "GuaranteeReportHandler",
    "ImageFlaggingRule",
    "NewClassifiedImagesHandler",
    "NewImagesHandler",
    "ObjectSizeReportHandler",
    "QualityControlHandler",
    "RaterReportHandler",
    "ReliabilityDiagramHandler",
    "RetentionReportHandler",
    "ShiftCheck",
    "collect_provenance",
    "inference_settings",
]
