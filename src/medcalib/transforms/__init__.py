"""Dictionary transforms that MONAI does not have."""

from medcalib.transforms.inversion import InvertProbabilitiesd, ToEvaluationSpaced
from medcalib.transforms.labels import CheckLabeld
from medcalib.transforms.loading import LoadCased

__all__ = ["CheckLabeld", "InvertProbabilitiesd", "LoadCased", "ToEvaluationSpaced"]
