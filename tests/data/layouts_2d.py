"""Tiny pictures in the layouts of the real downloads: real names, columns and values.

Every ``make_<dataset>`` writes below the folder it is given, which it makes, and returns it. Lesions differ from what
is around them and cells of different classes from each other, so that a network has something to learn.
"""

import csv

import numpy as np
from PIL import Image

ISIC_NAMES = {"Training": ("Training_Data", "Training_GroundTruth"), "Test": ("Test_Data", "Test_GroundTruth")}
ISIC_PLAIN = {"Training": ("imgs", "masks"), "Test": ("imgs_test", "masks_test")}


def make_isic(folder, num_training=10, num_test=3, size=(48, 36)):
    """ISIC 2016: the four folders of the challenge; sizes of images differ, ``size`` is the first (width, height)."""
    names = {part: [f"ISBI2016_ISIC_Part1_{name}" for name in folders] for part, folders in ISIC_NAMES.items()}
    return _write_isic(folder, names, {"Training": num_training, "Test": num_test}, size)


def make_isic_plain(folder, num_training=10, num_test=3, size=(48, 36)):
    """ISIC 2016 in the folders ``imgs``, ``masks``, ``imgs_test``, ``masks_test``."""
    return _write_isic(folder, ISIC_PLAIN, {"Training": num_training, "Test": num_test}, size)


def _write_isic(folder, names, numbers, size):
    rng = np.random.default_rng(1)
    number = 0
    for part, (images, masks) in names.items():
        for directory in (images, masks):
            (folder / directory).mkdir(parents=True)
        for _ in range(numbers[part]):
            shape = (size[1] + number % 3 * 4, size[0] + number % 2 * 8)
            lesion = ellipse(rng, shape)
            skin = np.where(lesion[..., None], (120, 70, 60), (225, 180, 160)) + rng.normal(0, 6, (*shape, 3))
            Image.fromarray(skin.clip(0, 255).astype(np.uint8)).save(
                folder / images / f"ISIC_{number:07d}.jpg", quality=95
            )
            Image.fromarray(lesion.astype(np.uint8) * 255).save(folder / masks / f"ISIC_{number:07d}_Segmentation.png")
            number += 1
    return folder


BCDR_COLUMNS = (
    *("patient_id", "study_id", "series", "lesion_id", "segmentation_id", "image_view", "image_filename"),
    *("lw_x_points", "lw_y_points", "mammography_type", "mammography_nodule", "mammography_calcification"),
    *("mammography_microcalcification", "mammography_axillary_adenopathy", "mammography_architectural_distortion"),
    *("mammography_stroma_distortion", "age", "density", "classification"),
)


def make_bcdr(folder, datasets=("D01", "D02"), patients_each=6, size=(160, 120)):
    """BCDR: ``BCDR-D01_dataset/bcdr_d01_outlines.csv`` and ``patient_3/study_5/img_3_5_1_LCC.tif`` and so on.

    Names of columns and values have a space before them, as in the download. Every patient has a mass in two views; the
    first of each dataset has a second one in the same view, close to the corner, and a calcification.
    """
    rng = np.random.default_rng(2)
    for number, dataset in enumerate(datasets):
        root = folder / f"BCDR-{dataset}_dataset"
        rows = []
        for patient in range(1 + number * patients_each, 1 + (number + 1) * patients_each):
            for view_number, view in enumerate(("RCC", "LCC"), start=1):
                name = f"patient_{patient}/study_{patient + 2}/img_{patient}_{patient + 2}_1_{view}.tif"
                image = rng.normal(90, 8, (size[1], size[0]))
                first = patient == 1 + number * patients_each and view == "RCC"
                masses = [_outline(rng, (70, 60), 20)] + ([_outline(rng, (8, 10), 7)] if first else [])
                others = [_outline(rng, (120, 30), 6)] if first else []
                for index, (xs, ys) in enumerate(masses + others):
                    inside = _polygon(xs, ys, size)
                    image[inside] += 70
                    is_mass = index < len(masses)
                    numbers = (patient, patient + 2, 1, patient + 10 + index, len(rows), view_number)
                    kind = (1, int(is_mass), int(not is_mass), 0, 0, 0, 0)
                    diagnosis = "Malign" if patient % 2 else "Benign"
                    rows.append([*numbers, name, xs, ys, *kind, 55.5, "NaN", diagnosis])
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / name)
        write_bcdr_table(root / f"bcdr_{dataset.lower()}_outlines.csv", rows)
    return folder


def write_bcdr_table(path, rows, columns=BCDR_COLUMNS):
    """Write a table as in the download, with points and a space before every value."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([columns[0], *(f" {column}" for column in columns[1:])])
        for row in rows:
            table.writerow([f" {' '.join(map(str, value)) if np.ndim(value) else value}" for value in row])


CRIC_CLASSES = ("Negative for intraepithelial lesion", "ASC-US", "LSIL", "ASC-H", "HSIL", "SCC")
CRIC_COLUMNS = ("image_id", "image_filename", "image_doi", "cell_id", "bethesda_system", "nucleus_x", "nucleus_y")


def make_cric(folder, num_images=12, cells_each=8, size=(344, 255)):
    """CRIC Cervix: ``classifications.csv`` and images named by a hash; the first cell of each is in a corner."""
    rng = np.random.default_rng(3)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(num_images):
        name = f"{number * 2654435761 % 2**32:08x}{number:024x}.png"
        image = rng.normal(215, 5, (size[1], size[0], 3))
        for cell in range(cells_each):
            index = 0 if cell % 2 else int(rng.integers(1 + number % 2, len(CRIC_CLASSES)))
            place = rng.integers(25, (size[0] - 25, size[1] - 25)) if cell else np.array([6, size[1] - 4])
            radius = 5 + 2 * index
            part = tuple(slice(max(middle - radius, 0), middle + radius + 1) for middle in place[::-1])
            y, x = (np.arange(size[axis])[part[1 - axis]] - place[axis] for axis in (1, 0))
            image[part][np.hypot(y[:, None], x) <= radius] = (90 - 10 * index, 60, 130)
            rows.append(
                [number + 1, name, f"10.6084/m9.figshare.{number}", 1000 + len(rows), CRIC_CLASSES[index], *place]
            )
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / name)
    write_table(folder / "classifications.csv", CRIC_COLUMNS, rows)
    return folder


def write_table(path, columns, rows):
    """Write a csv."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def read_table(path):
    """Columns and rows of a csv."""
    with path.open(newline="") as file:
        columns, *rows = csv.reader(file)
    return columns, rows


def ellipse(rng, shape):
    """A mask (row, column) with one ellipse near the middle."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    centre = rng.uniform(-0.15, 0.15, 2)
    radii = rng.uniform(0.3, 0.6, 2)
    return ((y[:, None] - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1


def _outline(rng, middle, radius, count=24):
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    radii = radius * rng.uniform(0.8, 1.0, count)
    return [np.rint(m + radii * wave(angle)).astype(int) for m, wave in zip(middle, (np.cos, np.sin), strict=True)]


def _polygon(xs, ys, size):
    """Pixels (row, column) whose middle is inside, by rays to the right."""
    y, x = np.mgrid[: size[1], : size[0]]
    inside = np.zeros((size[1], size[0]), bool)
    for x0, y0, x1, y1 in zip(xs, ys, np.roll(xs, -1), np.roll(ys, -1), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside
