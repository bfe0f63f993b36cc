"""Datasets as lists of cases, divided into training, validation, test and calibration."""

from medcalib.data.cases import Case, Split, assemble_split, split_cases, split_digest
from medcalib.data.decathlon import decathlon_cases
from medcalib.data.phantom import make_phantom, phantom_cases

__all__ = [
    "Case",
    "Split",
    "assemble_split",
    "decathlon_cases",
    "make_phantom",
    "phantom_cases",
    "split_cases",
    "split_digest",
]
