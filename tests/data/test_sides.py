"""No patient, and nothing else that belongs together, is on two sides of the split of a dataset."""

import re

import pytest
from tests.conftest import REPOSITORY
from tests.data import layouts, layouts_2d

from medcalib.bundle.fragments import read_yaml
from medcalib.data import (
    acdc_cases,
    amos_cases,
    bcdr_cases,
    brats18_cases,
    brats21_cases,
    cric_cases,
    decathlon_cases,
    isic_cases,
    kits_cases,
    mnms_cases,
)

FRAGMENTS = REPOSITORY / "bundle_templates" / "configs" / "data"


def of_hippocampus(case):
    return (int(case["case"].split("_")[1]) - 1) // 2


def of_bcdr(case):
    return re.search("patient_[0-9]+", case["image"])[0]


SETS = {
    "acdc17": (lambda f: layouts.make_acdc(f, num_training=20), acdc_cases, lambda c: c["case"][:10], {}),
    "amos22": (lambda f: layouts.make_amos(f, num_training=20), amos_cases, lambda c: c["case"], {}),
    "brats18": (lambda f: layouts.make_brats18(f, num_cases=12), brats18_cases, lambda c: c["case"], {}),
    "brats21": (layouts.make_brats21, brats21_cases, lambda c: c["case"], {}),
    "cric": (layouts_2d.make_cric, cric_cases, lambda c: c["image"], {}),
    "hippocampus": (
        lambda f: layouts.make_hippocampus(f, num_cases=24, shape=(4, 4, 4)),
        decathlon_cases,
        of_hippocampus,
        {},
    ),
    "isic16": (layouts_2d.make_isic, isic_cases, lambda c: c["case"], {}),
    "kits23": (layouts.make_kits, kits_cases, lambda c: c["case"], {}),
    "mnms": (layouts.make_mnms, mnms_cases, lambda c: re.sub("_(ed|es)$", "", c["case"]), {}),
    "bcdr": (layouts_2d.make_bcdr, bcdr_cases, of_bcdr, {}),
}


@pytest.mark.filterwarnings("ignore:.*published cases of BraTS")
@pytest.mark.parametrize("name", SETS)
def test_what_belongs_together_is_on_one_side(name, tmp_path):
    make, list_cases, group, options = SETS[name]
    folder = make(tmp_path / name)
    for seed in range(3):
        split = list_cases(folder, **options, **({} if name == "mnms" else {"seed": seed}))
        groups = {part: {group(case) for case in cases} for part, cases in split.items()}
        for one, other in (("training", "validation"), ("training", "test"), ("validation", "test")):
            assert not groups[one] & groups[other], (seed, one, other)
        assert not groups["calibration"] & (groups["training"] | groups["test"])


def test_the_fragment_of_the_hippocampus_keeps_both_sides_of_a_person_together():
    cases = read_yaml(FRAGMENTS / "hippocampus.yaml")["data"]["cases"]
    assert "cases_per_patient" not in cases  # two where the names are those of the download
