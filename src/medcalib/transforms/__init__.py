"""Dictionary transforms that MONAI does not have."""

from medcalib.transforms.checks import CheckLabeld, CheckPredictiond
from medcalib.transforms.inversion import InvertProbabilitiesd, ToEvaluationSpaced
from medcalib.transforms.loading import LoadCased

__all__ = ["CheckLabeld", "CheckPredictiond", "InvertProbabilitiesd", "LoadCased", "ToEvaluationSpaced"]
