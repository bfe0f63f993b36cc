"""Files with the headers of real downloads, from training to the place of their predictions."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from tests.conftest import REPOSITORY
from tests.data import layouts
from tests.image_files.headers import header, write
from tests.image_files.test_grids import same_header

from medcalib.bundle.run import run
from medcalib.predictions import calibrate_predictions

REAL = REPOSITORY.parent / "shared" / "data" / "ACDC" / "database"
TINY = {
    "network::init_filters": 4,
    "network::blocks_down": [1, 1],
    "data::patch_size": [96, 96, 8],
    "inferer::overlap": 0.0,
    "max_epochs": 1,
}


def as_the_real_download(root):
    """Give every file the header of ACDC: a unit sform, no qform, the true size of the voxels in pixdim alone."""
    for path in root.rglob("*_frame*.nii.gz"):
        image = nib.load(path)
        values = np.asarray(image.dataobj)
        unit = header(np.diag([-1.0, -1, 1, 1]), pixdim=image.header.get_zooms()[:3], units="unknown", codes=(2, 0))
        write(path, values, unit)
    return root


def real_patients(root):
    """Two patients for training and one for testing."""
    for part, number in (("training", 2), ("testing", 1)):
        (root / part).mkdir(parents=True)
        for patient in sorted((REAL / part).glob("patient*"))[:number]:
            (root / part / patient.name).symlink_to(patient)
    return root


@pytest.fixture(params=["synthetic", "real"])
def acdc(request, tmp_path):
    if request.param == "synthetic":
        return as_the_real_download(layouts.make_acdc(tmp_path / "acdc", num_training=2, num_testing=1))
    if not REAL.is_dir():
        pytest.skip("the ACDC dataset is not there")
    return real_patients(tmp_path / "acdc")


@pytest.mark.slow
def test_unit_sform(acdc, make_bundle, tmp_path):
    bundle = make_bundle(tmp_path, data="acdc17")
    overrides = TINY | {
        "data::dataset_dir": str(acdc),
        "data::preprocessing::3::pixdim": [3, 3, 10],
        "limit_cases": 2,
        "inferer::roi_size": [96, 96, 8],
    }
    for mode in ("train", "inference_pred"):
        run(str(bundle), mode, debug=True, overrides=overrides)
    predictions = bundle / "seed_12345_debug" / "predictions"
    sources = {path.name.removesuffix(".nii.gz"): path for path in acdc.glob("testing/*/*_frame??.nii.gz")}
    labels = tmp_path / "labels"
    labels.mkdir()
    for case, source in sources.items():
        image = nib.load(source)
        for suffix in ("prob", "seg", "entropy"):
            same_header(source, predictions / case / f"{case}_{suffix}.nii.gz")
            assert nib.load(predictions / case / f"{case}_{suffix}.nii.gz").shape[:3] == image.shape
        shutil.copy(source.with_name(f"{case}_gt.nii.gz"), labels / f"{case}.nii.gz")
    calibration, other = sorted(sources)
    calibrate_predictions(
        predictions,
        labels,
        tmp_path / "out",
        kind="probabilities",
        calibration_cases=calibration,
        cases=other,
        calibrator="histogram_binning",
        evaluate=False,
    )
    same_header(sources[other], tmp_path / "out" / "predictions" / other / f"{other}_prob.nii.gz")


def test_a_header_that_cannot_be_is_one_sentence(make_bundle, hippocampus_dir, tmp_path, check):
    """As the check of a bundle tells it, and its training."""
    path = next(hippocampus_dir.glob("imagesTr/*.nii.gz"))
    flat = nib.load(path)
    write(path, flat.get_fdata(dtype=np.float32), header(np.diag([1.0, 1, 0, 1])))
    bundle = make_bundle(tmp_path, data="hippocampus")
    code, printed, report = check(bundle, **{"data::dataset_dir": str(hippocampus_dir)})
    assert code == 2
    assert f"{path} has an unusable sform (its voxels have no volume)" in printed
    assert len(report["problems"]) == 1
