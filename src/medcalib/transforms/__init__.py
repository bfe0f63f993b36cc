"""Dictionary transforms that MONAI does not have."""

from medcalib.transforms.calibration import Calibrated
from medcalib.transforms.checks import CheckLabeld, CheckPredictiond
from medcalib.transforms.images import LoadPictured
from medcalib.transforms.inversion import InvertProbabilitiesd, ToEvaluationSpaced
from medcalib.transforms.loading import LoadCased
from medcalib.transforms.regions import RegionOfInterestd, Regionsd, label_regions
from medcalib.transforms.uncertainty import Entropyd

__all__ = [
    "Calibrated",
    "CheckLabeld",
    "CheckPredictiond",
    "Entropyd",
    "InvertProbabilitiesd",
    "LoadCased",
    "LoadPictured",
    "RegionOfInterestd",
    "Regionsd",
    "ToEvaluationSpaced",
    "label_regions",
]
