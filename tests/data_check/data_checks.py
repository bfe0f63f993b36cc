"""What the tests of the check of data share: settings that make it fast, and what can be wrong."""

import nibabel as nib
import numpy as np
from tests.data.layouts import write_volume

SMALL = {
    "network::init_filters": 4,
    "network::blocks_down": [1, 1],
    "data::patch_size": [8, 8, 8],
    "data::batch_size": 2,
}
CELLS = {
    "data::cases::num_training": 24,
    "data::cases::num_validation": 20,
    "data::cases::num_test": 20,
    "network::layers": [1, 1, 1, 1],
    "network::widths": [4, 8, 8, 16],
    "data::batch_size": 8,
}


def options(settings):
    return [f"--{name}={str(value).replace(' ', '')}" for name, value in settings.items()]


def volume(path):
    return np.asarray(nib.load(path).dataobj)


def missing_image(root, path):
    (root / "imagesTr" / path).unlink()
    return f"{root / 'imagesTr' / path} does not exist"


def missing_label(root, path):
    (root / "labelsTr" / path).unlink()
    return f"{root / 'labelsTr' / path} does not exist"


def truncated_gzip(root, path):
    file = root / "imagesTr" / path
    file.write_bytes(file.read_bytes()[:1500])
    return f"{file} cannot be read"


def other_label_value(root, path):
    file = root / "labelsTr" / path
    label = volume(file).copy()
    label[0, 0, :3] = 7
    write_volume(file, label, axcodes="RAS")
    return f"{file} holds 7 in 3 voxels, but only the values 0 to 2 have a meaning"


def not_a_number(root, path):
    file = root / "imagesTr" / path
    image = volume(file).copy()
    image[0, 0, :2] = np.nan
    write_volume(file, image, axcodes="RAS")
    return f"{file} holds 2 NaN or Inf"


def other_shape(root, path):
    file = root / "labelsTr" / path
    write_volume(file, np.zeros((5, 5, 5), np.uint8), axcodes="RAS")
    return f"image and label differ in shape, {volume(root / 'imagesTr' / path).shape} against (5, 5, 5)"


def two_channels(root, path):
    file = root / "imagesTr" / path
    write_volume(file, np.stack([volume(file)] * 2, -1), axcodes="RAS")
    return f"{file} has 2 channel(s), but data::channel_names lists 1"


DAMAGES = [
    missing_image, missing_label, truncated_gzip, other_label_value, not_a_number, other_shape, two_channels,
]  # fmt: skip
