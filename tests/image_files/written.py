"""One volume in every format, written by hand or by pydicom, so that nothing is read by what wrote it."""

import zlib

import numpy as np

# turned, with other spacing along each axis, and left-handed
OBLIQUE = np.array([[0.79, -0.12, 0.2, -30.5], [0.1, 0.9, -0.4, 12.25], [0, 0.42, 2.4, 5], [0, 0, 0, 1.0]])
PERMUTED = np.array([[0, 0, -2.5, 40.0], [0.5, 0, 0, -10], [0, 0.75, 0, 7], [0, 0, 0, 1]])


def orthogonal(affine):
    """The nearest affine whose axes are at right angles, with the same voxel sizes."""
    left, _, right = np.linalg.svd(affine[:3, :3])
    found = affine.copy()
    found[:3, :3] = left @ right @ np.diag(np.linalg.norm(affine[:3, :3], axis=0))
    return found


def to_lps(affine):
    return np.diag([-1.0, -1, 1, 1]) @ affine


def numbers(values):
    return " ".join(repr(float(value)) for value in np.ravel(values))


def write_meta_image(path, values, affine, beside="", packed=False):
    """Write int16 (X, Y, Z); voxels go into the file ``beside``, or follow the header."""
    lps = to_lps(affine)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    raw = np.asarray(values, "<i2").tobytes(order="F")
    raw = zlib.compress(raw) if packed else raw
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        f"CompressedData = {packed}",
        *([f"CompressedDataSize = {len(raw)}"] if packed else []),
        # one row for each axis of the image
        f"TransformMatrix = {numbers((lps[:3, :3] / spacing).T)}",
        f"Offset = {numbers(lps[:3, 3])}",
        f"ElementSpacing = {numbers(spacing)}",
        f"DimSize = {' '.join(map(str, values.shape))}",
        "ElementType = MET_SHORT",
        f"ElementDataFile = {beside or 'LOCAL'}\n",
    ]
    header = "\n".join(lines).encode()
    path.write_bytes(header if beside else header + raw)
    if beside:
        (path.parent / beside).write_bytes(raw)
    return path


def write_nrrd(path, values, affine, beside="", space="left-posterior-superior"):
    """Write int16 (X, Y, Z) in the given space, that of the patient."""
    signs = [-1 if word in ("left", "posterior") else 1 for word in space.split("-")]
    placed = np.diag([*signs, 1.0]) @ affine
    vectors = [f"({','.join(repr(float(value)) for value in column)})" for column in placed[:3].T]
    lines = [
        "NRRD0004",
        "type: short",
        "dimension: 3",
        f"space: {space}",
        f"sizes: {' '.join(map(str, values.shape))}",
        f"space directions: {' '.join(vectors[:3])}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: raw",
        f"space origin: {vectors[3]}",
        *([f"data file: {beside}"] if beside else []),
        "\n",
    ]
    raw = np.asarray(values, "<i2").tobytes(order="F")
    path.write_bytes("\n".join(lines).encode() + (b"" if beside else raw))
    if beside:
        (path.parent / beside).write_bytes(raw)
    return path


def write_dicom(folder, values, affine, skip=(), series="1.2.3", slopes=(1,), intercept=0, signed=False, **tags):
    """Write what is stored (X, Y, Z) as slices whose names say nothing of their order."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    def text(places):
        return [f"{value:.12f}"[:16] for value in places]

    lps = to_lps(affine)
    spacing = np.linalg.norm(lps[:3, :2], axis=0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(values.shape[2]):
        if number in skip:
            continue
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{series}.{number + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        one.Modality, one.PatientID, one.StudyInstanceUID = "CT", "nobody", "1.2"
        one.SeriesInstanceUID, one.SeriesDescription, one.InstanceNumber = series, f"series {series}", number + 1
        one.ImagePositionPatient = text(lps[:3, 3] + number * lps[:3, 2])
        one.ImageOrientationPatient = text((lps[:3, :2] / spacing).T.ravel())
        one.PixelSpacing = text(spacing[::-1])
        one.Columns, one.Rows = values.shape[:2]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, int(signed)
        one.RescaleSlope, one.RescaleIntercept = str(slopes[number % len(slopes)]), str(intercept)
        one.PixelData = values[:, :, number].T.astype("<i2" if signed else "<u2").tobytes()
        for name, value in tags.items():
            setattr(one, name, value)
        one.save_as(folder / f"IM{(7 * number + 3) % 101:03d}", enforce_file_format=True)
    return folder
