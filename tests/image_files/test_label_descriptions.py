"""Names and colours of labels, read back by the rules of the programs that they are for."""

import gzip
import re

import nibabel as nib
import numpy as np
import pytest
from tests.image_files.written import OBLIQUE, orthogonal, to_lps

from medcalib.image_files.label_descriptions import NamedLabel, itk_snap_labels, slicer_colors, slicer_segmentation

LABELS = [
    NamedLabel(0, "background", None),
    NamedLabel(4, "left  lung", (1.0, 0.2, 0.0)),
    NamedLabel(1, 'so-called "node"\nof it', (0.0, 0.5, 1.0)),
    NamedLabel(2, " ", (0.5, 0.5, 0.5)),
]


def read_by_slicer(text):
    """As vtkMRMLColorTableStorageNode does: words of a line, the largest value first of all, at most 1023 bytes."""
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    table = {}
    for line in lines:
        assert len(line) < 1024
        value, name, *color = line.split()
        assert 0 <= int(value) <= 32768
        red, green, blue, alpha = map(float, color)
        table[int(value)] = (name, (red, green, blue, alpha))
    return table


def read_by_itk_snap(text):
    """As ColorLabelTable::LoadFromFile does: seven numbers, anything up to a quote, the name up to the next one."""
    table = {}
    for line in text.split("\n"):
        if not line or line.startswith("#"):
            continue
        found = re.fullmatch(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+(\d)\s+(\d)[^"]*"([^"]+)".*', line)
        value, red, green, blue, alpha, visible, mesh, name = found.groups()
        assert int(value) < 2**16 - 1
        table[int(value)] = (name, (int(red), int(green), int(blue), float(alpha)), (visible, mesh))
    return table


def test_slicer_reads_every_label():
    assert read_by_slicer(slicer_colors(LABELS)) == {
        0: ("background", (0, 0, 0, 0)),
        4: ("left_lung", (255, 51, 0, 255)),
        1: ('so-called_"node"_of_it', (0, 128, 255, 255)),
        2: ("2", (128, 128, 128, 255)),
    }


def test_itk_snap_reads_every_label():
    assert read_by_itk_snap(itk_snap_labels(LABELS)) == {
        0: ("Clear Label", (0, 0, 0, 0), ("0", "0")),
        4: ("left lung", (255, 51, 0, 1), ("1", "1")),
        1: ("so-called 'node' of it", (0, 128, 255, 1), ("1", "1")),
        2: ("2", (128, 128, 128, 1), ("1", "1")),
    }


@pytest.mark.parametrize(
    ("value", "slicer", "snap"), [(40_000, False, True), (-1, False, False), (65_535, False, False)]
)
def test_values_that_a_program_cannot_have_do_not_cost_the_others(value, slicer, snap):
    labels = [*LABELS[:2], NamedLabel(value, "odd", (1.0, 1.0, 1.0))]
    for text, read, has in (
        (slicer_colors(labels), read_by_slicer, slicer),
        (itk_snap_labels(labels), read_by_itk_snap, snap),
    ):
        assert set(read(text)) == ({0, 4, value} if has else {0, 4})
        assert "odd" in text


VALUES = np.random.default_rng(0).integers(0, 3, (5, 4, 3)).astype(np.int16)


class TestSegmentation:
    def test_simple_itk_reads_voxels_place_and_fields(self, tmp_path):
        sitk = pytest.importorskip("SimpleITK")
        affine = orthogonal(OBLIQUE)
        slicer_segmentation(tmp_path / "a.seg.nrrd", nib.Nifti1Image(VALUES, affine), LABELS)
        image = sitk.ReadImage(str(tmp_path / "a.seg.nrrd"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, VALUES)
        for index in ((0, 0, 0), (4, 0, 0), (0, 3, 0), (0, 0, 2)):
            np.testing.assert_allclose(
                image.TransformIndexToPhysicalPoint(index), (to_lps(affine) @ (*index, 1))[:3], atol=1e-4
            )
        field = image.GetMetaData
        assert [field(f"Segment{number}_Name") for number in range(3)] == ["left lung", 'so-called "node" of it', "2"]
        assert [field(f"Segment{number}_LabelValue") for number in range(3)] == ["4", "1", "2"]
        assert {field(f"Segment{number}_Layer") for number in range(3)} == {"0"}
        assert len({field(f"Segment{number}_ID") for number in range(3)}) == 3
        assert field("Segment0_Color") == "1 0.2 0"
        assert field("Segment0_Extent") == "0 4 0 3 0 2"
        assert field("Segmentation_ReferenceImageExtentOffset") == "0 0 0"
        assert not image.HasMetaDataKey("Segment3_ID")

    def test_labels_that_overlap_are_layers(self, tmp_path):
        sitk = pytest.importorskip("SimpleITK")
        channels = np.stack([VALUES > 0, VALUES > 1], -1).astype(np.uint8)
        labels = [LABELS[0], NamedLabel(1, "whole", (1.0, 0.0, 0.0)), NamedLabel(2, "core", (0.0, 1.0, 0.0))]
        slicer_segmentation(tmp_path / "a.seg.nrrd", nib.Nifti1Image(channels, np.eye(4)), labels)
        image = sitk.ReadImage(str(tmp_path / "a.seg.nrrd"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0, 3), channels)
        read = [[image.GetMetaData(f"Segment{n}_{key}") for key in ("Name", "Layer", "LabelValue")] for n in (0, 1)]
        assert read == [["whole", "0", "1"], ["core", "1", "1"]]

    def test_a_sheared_grid_and_another_byte_order(self, tmp_path):
        """SimpleITK refuses it; the header must say it all the same."""
        image = nib.Nifti1Image(VALUES.astype(">i2"), OBLIQUE)
        slicer_segmentation(tmp_path / "a.seg.nrrd", image, LABELS)
        head, _, packed = (tmp_path / "a.seg.nrrd").read_bytes().partition(b"\n\n")
        raw = np.frombuffer(gzip.decompress(packed), "<i2").reshape(VALUES.shape, order="F")
        np.testing.assert_array_equal(raw, VALUES)
        vectors = re.search(r"space directions: (.*)", head.decode())[1].split()
        read = np.array([[float(number) for number in vector.strip("()").split(",")] for vector in vectors])
        np.testing.assert_allclose(read.T, to_lps(OBLIQUE)[:3, :3], rtol=1e-6)
