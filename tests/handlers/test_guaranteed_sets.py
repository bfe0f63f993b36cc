"""Sets of voxels lie in the geometry of the image that was predicted."""

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from tests.image_files.test_series_choice import write_two

from medcalib.handlers import GuaranteedSetsHandler, ResultFolder
from medcalib.image_files.dicom_series import DicomSeries
from medcalib.image_files.series_choice import choose_series
from medcalib.task import Task
from medcalib.transforms import LoadCased
from medcalib.transforms.guaranteed_cases import GUARANTEED, SETS

pytest.importorskip("SimpleITK", reason="reads the files")
pytest.importorskip("pydicom", reason="writes the files")


@pytest.mark.parametrize("series", ["1.2.3", "1.2.4"])
def test_sets_have_the_grid_of_the_series_that_was_chosen(tmp_path, series):
    both = write_two(tmp_path / "both")
    (case,) = choose_series({"test": [{"case": "a", "image": str(both)}]}, series)["test"]
    case = LoadCased(num_channels=1)(case)
    voxels = torch.arange(case["image"][0].numel()).reshape(case["image"].shape) % 3 == 0
    engine = Engine(lambda _engine, _batch: [{SETS: {"outer": voxels}, GUARANTEED: {"values": {}}}])
    folder = ResultFolder(tmp_path / "out", {})
    folder.attach(engine)
    GuaranteedSetsHandler(folder, Task(["background", "organ"])).attach(engine)
    engine.run([[case]])
    found = nib.load(tmp_path / "out" / "a" / "a_outer.nii.gz")
    np.testing.assert_allclose(found.affine, DicomSeries(both, series).grid.affine)
    np.testing.assert_array_equal(np.asarray(found.dataobj), voxels[0])
