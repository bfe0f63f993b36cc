"""Tiny datasets in the layouts of the real downloads: real names and label values, small volumes.

Every ``make_<dataset>`` writes below the folder it is given, which it makes, and returns it. Images are brighter where
the label is higher, so that a network has something to learn.
"""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medcalib.errors import UserError

BRATS21_TRAIN_VAL = ("00000", "00002", "00003", "00005", "00008", "00009")
BRATS21_TEST = ("00006", "00014")


def write_volume(path, volume, spacing=(1.0, 1.0, 1.0), axcodes="LPS"):
    """Write a volume whose axes point as ``axcodes`` says."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (world_axis, sign) in enumerate(nib.orientations.axcodes2ornt(axcodes)):
        affine[int(world_axis), axis] = sign * spacing[axis]
    image = nib.Nifti1Image(volume, affine)
    if volume.ndim == 4:
        image.header.set_zooms((*spacing, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def blobs(rng, shape, values):
    """A label map with one ellipsoid of each value, nested, each strictly inside the volume."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    centre = rng.uniform(-0.1, 0.1, (3, 1, 1, 1))
    radius = np.sqrt(((grid - centre) ** 2).sum(0))
    label = np.zeros(shape, np.uint8)
    for value, limit in zip(values, np.linspace(0.85, 0.3, len(values)), strict=True):
        label[radius < limit] = value
    for index, value in enumerate(values):  # a coarse grid may skip a shell
        label[shape[0] // 2, index % shape[1], index // shape[1]] = value
    return label


def scan(rng, label, background=0.0, tissue=100.0, step=20.0, noise=5.0):
    """An image of a label map: a body with noise in it, on a background without."""
    body = np.zeros(label.shape, bool)
    body[1:-1, 1:-1] = True
    image = tissue + step * label.astype(float) + rng.normal(0, noise, label.shape)
    return np.where(body | (label > 0), image, background).astype(np.float32)


def make_hippocampus(folder, num_cases=10, shape=(12, 14, 12)):
    """Task04 of the Decathlon: ``imagesTr/hippocampus_001.nii.gz`` with its label of the same name in ``labelsTr``."""
    rng = np.random.default_rng(0)
    for number in range(1, num_cases + 1):
        label = np.zeros(shape, np.uint8)
        label[3:6, 4:9, 3:8], label[6:9, 4:9, 3:8] = 1, 2
        name = f"hippocampus_{number:03}.nii.gz"
        image = (label * 50 + rng.normal(0, 5, shape)).astype(np.float32)
        write_volume(folder / "imagesTr" / name, image, axcodes="RAS")
        write_volume(folder / "labelsTr" / name, label, axcodes="RAS")
    (folder / "dataset.json").write_text('{"name": "Hippocampus", "labels": {"0": "background"}}')
    return folder


def make_acdc(folder, num_training=4, num_testing=2, shape=(16, 18, 6)):
    """ACDC: ``training/patient001/patient001_frame01.nii.gz`` and so on; patients differ in the frame numbers."""
    rng = np.random.default_rng(1)
    spacing = (1.4, 1.4, 10.0)
    numbered = [("training", n) for n in range(1, num_training + 1)]
    numbered += [("testing", n) for n in range(101, num_testing + 101)]
    for part, number in numbered:
        patient = f"patient{number:03d}"
        for frame in (1, 9 + number % 5):
            label = blobs(rng, shape, (1, 2, 3))
            stem = folder / part / patient / f"{patient}_frame{frame:02d}"
            write_volume(stem.with_name(f"{stem.name}.nii.gz"), scan(rng, label), spacing)
            write_volume(stem.with_name(f"{stem.name}_gt.nii.gz"), label, spacing)
        recording = np.zeros((*shape, 3), np.float32)
        write_volume(folder / part / patient / f"{patient}_4d.nii.gz", recording, spacing)
        (folder / part / patient / "Info.cfg").write_text(f"ED: 1\nES: {9 + number % 5}\nGroup: DCM\n")
    return folder


def make_amos(folder, num_training=4, num_test=2, shape=(18, 16, 6)):
    """AMOS 2022: ``imagesTr/amos_0001.nii.gz`` and so on, with MRI among it and unlabelled ``imagesTs``."""
    rng = np.random.default_rng(2)
    spacing = (0.8, 0.8, 5.0)

    def write(part, number, labelled=True):
        label = blobs(rng, shape, range(1, 16))
        name = f"amos_{number:04d}.nii.gz"
        write_volume(folder / f"images{part}" / name, scan(rng, label, -1000, 40, 8), spacing)
        if labelled:
            write_volume(folder / f"labels{part}" / name, label, spacing)

    for index in range(num_training):
        write("Tr", 1 + 3 * index)
    for index in range(num_test):
        write("Va", 9 + 3 * index)
    for part, number in (("Tr", 507), ("Va", 541)):
        write(part, number)
    write("Ts", 2, labelled=False)
    (folder / "dataset.json").write_text("{}")
    return folder


def make_kits(folder, num_cases=5, shape=(8, 18, 18)):
    """KiTS23 as the repository: ``dataset/case_00000/imaging.nii.gz`` and so on, the first axis from head to foot."""
    rng = np.random.default_rng(3)
    for index in range(num_cases):
        case = folder / "dataset" / f"case_{index if index < 3 else 397 + index:05d}"
        label = blobs(rng, shape, (1, 2, 3))
        spacing = (3.0, 0.8, 0.8)
        write_volume(case / "imaging.nii.gz", scan(rng, label, -1000, 40, 40), spacing, "IPL")
        write_volume(case / "segmentation.nii.gz", label, spacing, "IPL")
        (case / "instances").mkdir()
    (folder / "dataset" / "kits23.json").write_text("[]")
    return folder


def make_brats21(folder, shape=(16, 16, 12)):
    """BraTS 2021: ``BraTS2021_00000/BraTS2021_00000_t1.nii.gz`` and so on, of both published case lists."""
    rng = np.random.default_rng(4)
    for number in BRATS21_TRAIN_VAL + BRATS21_TEST:
        _write_brats(rng, folder, f"BraTS2021_{number}", shape)
    return folder


def make_brats18(folder, num_cases=7, shape=(16, 16, 12)):
    """BraTS 2018: ``HGG/Brats18_TCIA01_100_1/Brats18_TCIA01_100_1_flair.nii.gz`` and so on."""
    rng = np.random.default_rng(5)
    for index in range(num_cases):
        _write_brats(rng, folder / ("LGG" if index % 3 == 2 else "HGG"), f"Brats18_TCIA01_{100 + index}_1", shape)
    (folder / "survival_data.csv").write_text("BraTS18ID,Age,Survival,ResectionStatus\n")
    return folder


def make_brats18_flat(folder, num_cases=7, shape=(10, 10, 8)):
    """BraTS 2018, preprocessed: ``case_0/FLAIR_2mm.nii.gz`` and so on, with a binary label."""
    rng = np.random.default_rng(6)
    for index in range(num_cases):
        label = blobs(rng, shape, (1,))
        case = folder / f"case_{index}"
        for channel in ("FLAIR", "T1", "T1_CE", "T2"):
            write_volume(case / f"{channel}_2mm.nii.gz", scan(rng, label, 0, 400), (2.0, 2.0, 2.0))
        write_volume(case / "GT_W_2mm.nii.gz", label, (2.0, 2.0, 2.0))
    return folder


def make_isles(folder, num_cases=7, shape=(20, 20, 4)):
    """ISLES 2018: ``TRAINING/case_1/SMIR.Brain.XX.O.CT.345562/SMIR.Brain.XX.O.CT.345562.nii`` and so on."""
    rng = np.random.default_rng(7)
    spacing = (0.9, 0.9, 5.0)
    for index in range(num_cases):
        label = blobs(rng, shape, (1,))
        channels = _perfusion(rng, label) | {"CT_4DPWI": np.zeros((*shape, 2), np.float32), "OT": label}
        for identifier, (name, volume) in enumerate(channels.items(), start=345562 + 10 * index):
            stem = f"SMIR.Brain.XX.O.{name}.{identifier}"
            write_volume(folder / "TRAINING" / f"case_{index + 1}" / stem / f"{stem}.nii", volume, spacing)
    (folder / "TESTING" / "case_1").mkdir(parents=True)
    return folder


def make_isles_flat(folder, num_cases=7, shape=(10, 10, 10)):
    """ISLES 2018, preprocessed: ``case_0/CT_2mm.nii.gz`` and so on."""
    rng = np.random.default_rng(8)
    for index in range(num_cases):
        label = blobs(rng, shape, (1,))
        for name, volume in (_perfusion(rng, label) | {"OT": label}).items():
            write_volume(folder / f"case_{index}" / f"{name}_2mm.nii.gz", volume, (2.0, 2.0, 2.0))
    return folder


MNMS_SUBJECTS = {
    "Training/Labeled": {"A0S9V9": ("Siemens", "A", 1), "B3F0V9": ("Philips", "B", 2), "C4S8W9": ("Siemens", "A", 1)},
    "Training/Unlabeled": {"D1L6T4": ("GE", "C", 4)},
    "Validation": {"E3L8U8": ("GE", "C", 4), "F0K4T6": ("Philips", "B", 3)},
    "Testing": {"G7N8R7": ("Canon", "D", 5), "H1M5Y6": ("Siemens", "A", 1)},
}


MNMS_TABLE = "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"


def make_mnms(folder, num_frames=4, shape=(16, 18, 6)):
    """M&Ms: ``Training/Labeled/A0S9V9/A0S9V9_sa.nii.gz`` (4D) and so on, and the csv that names ED and ES."""
    rng = np.random.default_rng(9)
    rows = []
    for part, code, vendor_name, vendor, centre in _mnms_subjects():
        ed, es = len(rows) % 2, 2 + len(rows) % 2
        rows.append([len(rows), code, vendor_name, vendor, centre, ed, es, 50, "NOR", "F", 170, 70])
        images = np.stack([scan(rng, np.zeros(shape, np.uint8)) for _ in range(num_frames)], axis=-1)
        labels = np.zeros((*shape, num_frames), np.uint8)
        for frame in (ed, es):
            labels[..., frame] = blobs(rng, shape, (3, 2, 1))
            images[..., frame] = scan(rng, labels[..., frame])
        spacing = (1.3, 1.3, 9.6)
        write_volume(folder / part / code / f"{code}_sa.nii.gz", images, spacing)
        if part != "Training/Unlabeled":
            write_volume(folder / part / code / f"{code}_sa_gt.nii.gz", labels, spacing)
    _write_mnms_table(folder / MNMS_TABLE, rows)
    return folder


def make_mnms_frames(folder, shape=(16, 18, 6)):
    """M&Ms, preprocessed: ``Training/A0S9V9/A0S9V9_ed.nii.gz`` and so on, the csv in the parent of the folder."""
    rng = np.random.default_rng(10)
    rows = []
    for part, code, vendor_name, vendor, centre in _mnms_subjects():
        if part == "Training/Unlabeled":
            continue
        rows.append([len(rows), code, vendor_name, vendor, centre, 0, 8, 50, "NOR", "F", 170, 70])
        for phase in ("ed", "es"):
            label = blobs(rng, shape, (3, 2, 1))
            subject = folder / part.split("/")[0] / code
            write_volume(subject / f"{code}_{phase}.nii.gz", scan(rng, label), (1.3, 1.3, 9.6))
            write_volume(subject / f"{code}_{phase}_gt.nii.gz", label, (1.3, 1.3, 9.6))
    _write_mnms_table(folder.parent / "201014_M&Ms_Dataset_Information_-_opendataset.csv", rows)
    return folder


def everyone(split):
    """All cases of a split."""
    return [case for part in ("training", "validation", "test") for case in split[part]]


def names(cases):
    """The sorted names of cases."""
    return sorted(case["case"] for case in cases)


def files_of(case):
    """All files of a case."""
    image = case["image"]
    return [Path(path) for path in (*([image] if isinstance(image, str) else image), case["label"])]


def message(function, *args, **options):
    """What a call that a user can mend says: one sentence."""
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def reverse_file_system(monkeypatch):
    """Let folders list their entries in the opposite order."""
    for method in ("glob", "iterdir"):
        real = getattr(Path, method)

        def backwards(*args, real=real, **options):
            return sorted(real(*args, **options), reverse=True)

        monkeypatch.setattr(Path, method, backwards)


def _write_brats(rng, folder, case, shape):
    label = blobs(rng, shape, (2, 1, 4))
    for channel in ("t1", "t1ce", "t2", "flair"):
        image = scan(rng, label, 0, 400).astype(np.int16)
        write_volume(folder / case / f"{case}_{channel}.nii.gz", image)
    write_volume(folder / case / f"{case}_seg.nii.gz", label)


def _perfusion(rng, label):
    levels = {"CT": (-1000, 40), "CT_CBF": (0, 200), "CT_CBV": (0, 30), "CT_MTT": (0, 6), "CT_Tmax": (0, 3)}
    return {
        name: scan(rng, label, background, tissue, step=tissue, noise=tissue / 20)
        for name, (background, tissue) in levels.items()
    }


def _mnms_subjects():
    for part, subjects in MNMS_SUBJECTS.items():
        for code, (vendor_name, vendor, centre) in subjects.items():
            yield part, code, vendor_name, vendor, centre


def _write_mnms_table(path, rows):
    header = ["", "External code", "VendorName", "Vendor", "Centre", "ED", "ES", "Age", "Pathology", "Sex", "Height"]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[*header, "Weight"], *rows])


def with_pairs(folder, names):
    """The folder, with an empty picture and mask of every name."""
    for name in names:
        (folder / f"{name}.png").touch()
        (folder / f"{name}_mask.png").touch()
    return folder
