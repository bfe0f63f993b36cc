"""Calibrators: maps from logits to logits that are fitted after the training, and how they are fitted and stored."""

from medcalib.calibrators.auxiliary import AuxiliaryCalibrator
from medcalib.calibrators.base import Calibrator
from medcalib.calibrators.calibration_cases import CalibrationCase
from medcalib.calibrators.fine_tune import FineTune
from medcalib.calibrators.fit_report import FitReport
from medcalib.calibrators.fitting.fit import fit_calibrator
from medcalib.calibrators.fitting.gradient_fit import TrainingOptions
from medcalib.calibrators.local_temperature import LocalTemperatureScaling
from medcalib.calibrators.non_parametric import HistogramBinningCalibrator, IsotonicCalibrator
from medcalib.calibrators.scaling import PlattScaling, TemperatureScaling, VectorScaling
from medcalib.calibrators.storage import load_calibrator, read_calibrator, save_calibrator

__all__ = [
    "AuxiliaryCalibrator",
    "CalibrationCase",
    "Calibrator",
    "FineTune",
    "FitReport",
    "HistogramBinningCalibrator",
    "IsotonicCalibrator",
    "LocalTemperatureScaling",
    "PlattScaling",
    "TemperatureScaling",
    "TrainingOptions",
    "VectorScaling",
    "fit_calibrator",
    "load_calibrator",
    "read_calibrator",
    "save_calibrator",
]
