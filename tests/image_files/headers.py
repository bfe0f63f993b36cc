"""NIfTI files whose headers say where they lie in the ways that real files do."""

import gzip

import nibabel as nib
import numpy as np

OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag([-2.0, 2, 3]), np.array([12.0, -30, 7])
)
LEFT_HANDED = np.diag([-2.0, 2, 3, 1]) + np.array([[0, 0, 0, 12.0], [0, 0, 0, -30], [0, 0, 0, 7], [0, 0, 0, 0]])
TURNED = np.array([[0, -2.0, 0, 9], [2, 0, 0, -7], [0, 0, 3, 5], [0, 0, 0, 1]])


def header(sform=None, qform=None, pixdim=None, units="mm", codes=(1, 1)):
    """A header with nothing but what is given; codes of sform and qform."""
    made = nib.Nifti1Header()
    made.set_data_shape((1, 1, 1))
    if qform is not None:
        made.set_qform(qform, codes[1])
    if pixdim is not None:
        made.set_zooms(pixdim)
    if sform is not None:
        made.set_sform(sform, codes[0])
    made.set_xyzt_units(units)
    return made


KINDS = {
    "unit sform": header(np.diag([-1.0, -1, 1, 1]), pixdim=(2, 2, 3), units="unknown", codes=(2, 0)),
    "sform only": header(TURNED),
    "sform moved against qform": header(TURNED, np.diag([2.0, 2, 3, 1])),
    "sform of other sizes than qform": header(np.diag([1.0, 1, 1, 1]), np.diag([2.0, 2, 3, 1])),
    "qform only": header(qform=OBLIQUE),
    "oblique": header(OBLIQUE, OBLIQUE, codes=(4, 2)),
    "left-handed": header(LEFT_HANDED, LEFT_HANDED),
    "neither": header(pixdim=(2, 2, 3)),
    "micrometres": header(np.diag([2000.0, 2000, 3000, 1]), np.diag([2000.0, 2000, 3000, 1]), units="micron"),
}
# the size of the voxels in mm, where it is not 2 x 2 x 3
SIZES = {"sform of other sizes than qform": (1, 1, 1)}


def write(path, values, head=None):
    """Write values with what a header says about their place; what it does not say stays as nibabel makes it."""
    head = (head or header(np.eye(4), np.eye(4))).copy()
    head.set_data_dtype(values.dtype)
    pixdim = head["pixdim"].copy()
    image = nib.Nifti1Image(values, None, head)
    image.header["pixdim"][:4] = pixdim[:4]
    nib.save(image, path)
    return str(path)


def patch(path, place, content):
    """Overwrite bytes of what a file holds, below its gzip where there is one."""
    packed = path.read_bytes()[:2] == b"\x1f\x8b"
    held = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    held[place : place + len(content)] = content
    path.write_bytes(gzip.compress(bytes(held)) if packed else bytes(held))
