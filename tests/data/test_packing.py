"""Every layout is found whether its files are packed by gzip or not."""

import gzip
import warnings
from functools import partial

import pytest
from tests.data import layouts

from medcalib import data


def make_pattern(folder):
    """Files of which nothing is known but a pattern."""
    return layouts.make_hippocampus(folder)


LISTED = {
    layouts.make_acdc: data.acdc_cases,
    layouts.make_amos: data.amos_cases,
    layouts.make_kits: data.kits_cases,
    layouts.make_brats21: data.brats21_cases,
    layouts.make_brats18: data.brats18_cases,
    layouts.make_brats18_flat: data.brats18_cases,
    layouts.make_isles: data.isles_cases,
    layouts.make_isles_flat: data.isles_cases,
    layouts.make_mnms: data.mnms_cases,
    layouts.make_mnms_frames: data.mnms_cases,
    layouts.make_hippocampus: data.decathlon_cases,
    make_pattern: partial(data.pattern_cases, image="imagesTr/{case}.nii.gz", label="labelsTr/{case}.nii.gz"),
}


def otherwise(path):
    """Pack a file, or unpack it, as its name says afterwards."""
    if path.name.endswith(".gz"):
        path.with_name(path.name.removesuffix(".gz")).write_bytes(gzip.decompress(path.read_bytes()))
    else:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    path.unlink()


def listed(make, root):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parts of BraTS 2021 are there
        split = LISTED[make](root)
    return {part: [case["case"] for case in cases] for part, cases in split.items()}, split


@pytest.mark.parametrize("every", [1, 2], ids=["all", "half"])
@pytest.mark.parametrize("make", LISTED, ids=lambda make: make.__name__)
def test_files_that_are_packed_otherwise_are_taken(make, every, tmp_path):
    root = make(tmp_path / "data")
    before, _ = listed(make, root)
    for path in sorted(root.rglob("*.nii*"))[::every]:
        if not path.name.startswith("."):
            otherwise(path)
    after, split = listed(make, root)
    assert after == before
    for cases in split.values():
        for case in cases:
            for path in layouts.files_of(case):
                assert path.is_file()
