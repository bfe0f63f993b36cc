"""Datasets as lists of cases, divided into training, validation, test and calibration."""

from medcalib.data.cases import Case, Split, assemble_split, checked_split, split_cases, split_digest
from medcalib.data.chance_folds import split_in_folds
from medcalib.data.fit_halves import calibration_halves, case_groups
from medcalib.data.new_images import images_name, new_image_cases
from medcalib.data.pattern import pattern_cases
from medcalib.data.phantom.phantom_cells import make_phantom_cells, phantom_cells_cases
from medcalib.data.phantom.phantom_raters import make_phantom_raters, phantom_raters_cases
from medcalib.data.phantom.phantom_volumes import make_phantom, phantom_cases
from medcalib.data.phantom.volume_model import PhantomModel, PhantomVolumes
from medcalib.data.sets.acdc import acdc_cases
from medcalib.data.sets.amos import amos_cases
from medcalib.data.sets.bcdr import bcdr_cases
from medcalib.data.sets.brats import brats18_cases, brats21_cases
from medcalib.data.sets.cric import cric_cases
from medcalib.data.sets.decathlon import decathlon_cases
from medcalib.data.sets.isic import isic_cases
from medcalib.data.sets.isles import isles_cases
from medcalib.data.sets.kits import kits_cases
from medcalib.data.sets.mnms import mnms_cases
from medcalib.data.sets.nnunet_raw import nnunet_cases
from medcalib.data.splits import set_aside, split_fold, split_groups

__all__ = [
    "Case",
    "PhantomModel",
    "PhantomVolumes",
    "Split",
    "acdc_cases",
    "amos_cases",
    "assemble_split",
    "bcdr_cases",
    "brats18_cases",
    "brats21_cases",
    "calibration_halves",
    "case_groups",
    "checked_split",
    "cric_cases",
    "decathlon_cases",
    "images_name",
    "isic_cases",
    "isles_cases",
    "kits_cases",
    "make_phantom",
    "make_phantom_cells",
    "make_phantom_raters",
    "mnms_cases",
    "new_image_cases",
    "nnunet_cases",
    "pattern_cases",
    "phantom_cases",
    "phantom_cells_cases",
    "phantom_raters_cases",
    "set_aside",
    "split_cases",
    "split_digest",
    "split_fold",
    "split_groups",
    "split_in_folds",
]
