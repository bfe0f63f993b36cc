"""Dictionary transforms that MONAI does not have."""

from medcalib.transforms.calibrate import Calibrated
from medcalib.transforms.checks import CheckForegroundd, CheckLabeld, CheckPredictiond
from medcalib.transforms.corruption import CorruptImaged, ShowCorruptedd, corrupt
from medcalib.transforms.crops import LoadCropd
from medcalib.transforms.guaranteed_cases import ApplyGuaranteesd, ObserveGuaranteesd
from medcalib.transforms.ignored_voxels import LeaveOutIgnoredd
from medcalib.transforms.images import LoadPictured
from medcalib.transforms.inversion import InvertProbabilitiesd, ToEvaluationSpaced
from medcalib.transforms.known_class_indices import KnownClassesToIndicesd
from medcalib.transforms.loading import CheckSpatialDims, LoadCased
from medcalib.transforms.regions import RegionOfInterestd, Regionsd, label_regions
from medcalib.transforms.scores import UncertaintyScoresd

__all__ = [
    "ApplyGuaranteesd",
    "Calibrated",
    "CheckForegroundd",
    "CheckLabeld",
    "CheckPredictiond",
    "CheckSpatialDims",
    "CorruptImaged",
    "InvertProbabilitiesd",
    "KnownClassesToIndicesd",
    "LeaveOutIgnoredd",
    "LoadCased",
    "LoadCropd",
    "LoadPictured",
    "ObserveGuaranteesd",
    "RegionOfInterestd",
    "Regionsd",
    "ShowCorruptedd",
    "ToEvaluationSpaced",
    "UncertaintyScoresd",
    "corrupt",
    "label_regions",
]
