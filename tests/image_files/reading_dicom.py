"""Read DICOM objects with nothing but pydicom, by the place in the patient that every frame names."""

import numpy as np


def placed_frames(made):
    """Of every frame its item of the per-frame groups, its pixels, and the RAS affine from (column, row) to mm."""
    shared = made.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    pixels = made.pixel_array
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    for item, frame in zip(made.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        matrix = np.zeros((3, 3))
        # along a row one goes to the next column, whose distance is the second number
        matrix[:, 0], matrix[:, 1] = orientation[:3] * spacing[1], orientation[3:] * spacing[0]
        matrix[:, 2] = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        yield item, frame, np.diag([-1.0, -1, 1]) @ matrix


def volume_on(affine, shape, frames, kind):
    """The pixels of frames in the voxels (X, Y, Z) of an affine, and how far the worst lies from the voxel's middle."""
    volume, worst = np.zeros(shape, kind), 0.0
    for frame, matrix in frames:
        rows, columns = np.indices(frame.shape)
        places = matrix @ np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size)])
        voxels = np.linalg.solve(affine, np.vstack([places, np.ones(rows.size)]))[:3]
        index = np.rint(voxels).astype(int)
        worst = max(worst, np.abs(voxels - index).max())
        volume[tuple(index)] = frame.ravel()
    return volume, worst


def segment_volumes(made, affine, shape):
    """A boolean volume by label of a segment; voxels of which there is no frame do not belong to it."""
    found = {}
    shared = made.SharedFunctionalGroupsSequence[0]
    for segment in made.SegmentSequence:
        frames = [
            (frame, matrix)
            for item, frame, matrix in placed_frames(made)
            if (item if "SegmentIdentificationSequence" in item else shared)
            .SegmentIdentificationSequence[0]
            .ReferencedSegmentNumber
            == segment.SegmentNumber
        ]
        volume, worst = volume_on(affine, shape, frames, bool)
        assert worst < 1e-3
        found[segment.SegmentLabel] = volume
    return found


def referenced_slices(made):
    """Of every frame SOPInstanceUID of the slice to which it refers."""
    return [
        item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for item in made.PerFrameFunctionalGroupsSequence
    ]


def lacking(made):
    """Attributes that the standard asks for in every module of the object's kind, and that it lacks, by their path."""
    from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map

    found = []
    for module in get_iod_module_map()[get_sop_class_iod_map()[made.SOPClassUID]]:
        if module["usage"] != "M":
            continue
        for attribute in get_module_attribute_map()[module["key"]]:
            # each of the groups stands in one of two places, if it is needed at all
            in_groups = attribute["path"] in (["SharedFunctionalGroupsSequence"], ["PerFrameFunctionalGroupsSequence"])
            if attribute["type"] not in ("1", "2") or in_groups:
                continue
            holders = [made]
            for keyword in attribute["path"]:
                holders = [item for holder in holders for item in holder.get(keyword, ())]
            for holder in holders:
                empty = attribute["keyword"] not in holder
                if attribute["type"] == "1" and not empty:
                    value = holder[attribute["keyword"]].value
                    empty = value is None or (hasattr(value, "__len__") and len(value) == 0)
                if empty:
                    found.append((module["key"], *attribute["path"], attribute["keyword"]))
    return found
