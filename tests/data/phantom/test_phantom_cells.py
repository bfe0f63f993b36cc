import csv
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from medcalib.data import make_phantom_cells, phantom_cells_cases, split_digest
from medcalib.data.phantom.cell_model import CELL_CLASS_NAMES, CellModel
from medcalib.errors import UserError
from medcalib.transforms import CheckLabeld, LoadPictured

SMALL = {"num_training": 3, "num_validation": 2, "num_test": 2}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """The cells as everyone gets them."""
    return phantom_cells_cases(tmp_path_factory.mktemp("data") / "phantom_cells")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "phantom_cells"
    make_phantom_cells(folder, **SMALL)
    return folder


@pytest.fixture(scope="module")
def cells():
    """Cells without their images, which nothing but the images depends on."""
    model = CellModel(size=1)
    return [model.draw(np.random.default_rng(number)) for number in range(3000)]


def everyone(split):
    return split["training"] + split["validation"] + split["test"]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def nucleus(image):
    """Where a cell is dark: no cytoplasm takes up so much green."""
    return image[..., 1] < 128


def chi_square(probability, label):
    """The p-value of labels under their probabilities, by the mean of each class in ten equal groups."""
    values = []
    for index in range(probability.shape[1]):
        groups = np.array_split(np.argsort(probability[:, index], kind="stable"), 10)
        for group in groups:
            expected = probability[group, index]
            spread = np.sqrt((expected * (1 - expected)).sum())
            if spread > 1:  # in the tails a count is not normal
                values.append(((label[group] == index).sum() - expected.sum()) / spread)
    return stats.chi2.sf(np.sum(np.square(values)), len(values))


def sharpened(probability):
    powered = probability**2
    return powered / powered.sum(1, keepdims=True)


class TestModel:
    def test_probabilities_are_those_of_readers_with_a_logistic_error(self):
        """Readers drawn one by one."""
        model = CellModel()
        rng = np.random.default_rng(1)
        for size, chromatin in ((0.0, 0.0), (1.0, -0.4), (0.5, 1.0), (2.0, 2.0)):
            severity = model.size_weight * size + model.chromatin_weight * chromatin
            read = severity + rng.logistic(0, model.reader_scale, 200_000)
            grades = np.bincount(np.digitize(read, model.thresholds), minlength=3) / len(read)
            np.testing.assert_allclose(model.probability(size, chromatin), grades, atol=0.005)

    def test_probabilities_are_a_distribution(self, cells):
        probability = np.array([cell.probability for cell in cells])
        assert probability.min() >= 0
        np.testing.assert_allclose(probability.sum(1), 1, atol=1e-12)

    def test_labels_are_drawn_from_the_probabilities(self, cells):
        probability = np.array([cell.probability for cell in cells])
        label = np.array([cell.label for cell in cells])
        assert chi_square(probability, label) > 1e-3
        assert chi_square(sharpened(probability), label) < 1e-6

    def test_probabilities_follow_from_what_is_stored(self, cells):
        for cell in cells[:50]:
            assert cell.probability == CellModel().probability(cell.nucleus_size, cell.chromatin)

    def test_grades_are_hard_to_tell_but_not_too_hard(self, cells):
        probability = np.array([cell.probability for cell in cells])
        assert 0.75 < probability.max(1).mean() < 0.85
        assert probability.mean(0).min() > 0.15

    def test_probabilities_can_be_told_from_the_image(self):
        """Size and shade of what is dark tell the severity, whatever the colour of the cytoplasm."""
        model = CellModel()
        drawn = [model.draw(np.random.default_rng(number)) for number in range(150)]
        features = []
        for cell in drawn:
            dark = nucleus(cell.image)
            radius, shade = np.sqrt(dark.sum()), cell.image[dark].mean()
            features.append([1, radius, shade, radius**2, shade**2, radius * shade, cell.image[dark].std()])
        features = np.array(features)
        severity = np.array([model.size_weight * c.nucleus_size + model.chromatin_weight * c.chromatin for c in drawn])
        weights = np.linalg.lstsq(features[:100], severity[:100], rcond=None)[0]
        assert np.corrcoef(features[100:] @ weights, severity[100:])[0, 1] > 0.95

    def test_nuclei_have_the_size_they_should(self):
        model = CellModel()
        for number in range(40):
            cell = model.draw(np.random.default_rng(number))
            radius = np.sqrt(nucleus(cell.image).sum() / np.pi)
            assert radius == pytest.approx(
                model.nucleus_radius + model.nucleus_radius_sd * cell.nucleus_size, rel=0.2, abs=0.5
            )


class TestSplit:
    def test_sizes(self, split):
        sizes = {part: len(members) for part, members in split.items()}
        assert sizes == {"training": 240, "validation": 60, "test": 100, "calibration": 60}

    def test_case_has_picture_class_and_probabilities(self, split):
        for case in everyone(split):
            assert set(case) == {"case", "image", "label", "probability"}
            assert Path(case["image"]).name == f"{case['case']}.png"
            assert case["label"] in (0, 1, 2)
            assert type(case["label"]) is int
            assert sum(case["probability"]) == pytest.approx(1, abs=1e-12)

    def test_plain_values_only(self, split):
        assert json.loads(json.dumps(split)) == split

    def test_all_classes_are_in_every_part(self, split):
        for members in split.values():
            shares = [count / len(members) for _, count in sorted(Counter(c["label"] for c in members).items())]
            assert len(shares) == 3
            assert min(shares) > 0.1

    def test_labels_come_as_often_as_stored(self, split):
        probability = np.array([case["probability"] for case in everyone(split)])
        label = np.array([case["label"] for case in everyone(split)])
        assert chi_square(probability, label) > 1e-3
        assert chi_square(sharpened(sharpened(probability)), label) < 1e-6

    def test_every_case_loads(self, split):
        load, check = LoadPictured(num_channels=3), CheckLabeld("label", CELL_CLASS_NAMES)
        for case in everyone(split)[::20]:
            loaded = check(load(case))
            assert loaded["image"].shape == (3, 64, 64)
            assert loaded["label"].tolist() == [case["label"]]

    def test_cells_are_dark_in_the_middle_of_a_light_slide(self, split):
        for case in everyone(split)[::20]:
            pixels = np.asarray(Image.open(case["image"])).astype(float)
            assert pixels[24:40, 24:40, 0].min() < 110
            assert np.mean([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]) > 210

    def test_table_and_description(self, small):
        with (small / "cells.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["case", "label", *CELL_CLASS_NAMES, "nucleus_size", "chromatin"]
        for row, case in zip(rows, everyone(phantom_cells_cases(small, **SMALL)), strict=True):
            assert row["case"] == case["case"]
            stored = CellModel().probability(float(row["nucleus_size"]), float(row["chromatin"]))
            assert case["probability"] == list(stored)
        described = json.loads((small / "dataset.json").read_text())
        assert described["class_names"] == list(CELL_CLASS_NAMES)
        assert described["model"]["reader_scale"] == CellModel().reader_scale
        assert described["training"] == ["cell_001", "cell_002", "cell_003"]

    def test_second_call_lists_the_same_without_writing(self, small):
        before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
        first, second = phantom_cells_cases(small, **SMALL), phantom_cells_cases(str(small), **SMALL)
        assert first == second
        assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


class TestDeterminism:
    def test_same_seed_same_bytes(self, small, tmp_path):
        make_phantom_cells(tmp_path / "again", **SMALL)
        assert contents(tmp_path / "again") == contents(small)

    def test_other_seed_other_cells_but_same_split(self, small, tmp_path):
        other = phantom_cells_cases(tmp_path / "other", **SMALL, seed=1)
        assert split_digest(other) == split_digest(phantom_cells_cases(small, **SMALL))
        changed, original = contents(tmp_path / "other"), contents(small)
        assert changed.keys() == original.keys()
        assert all(changed[name] != original[name] for name in original)

    def test_cells_differ(self, small):
        pictures = [content for name, content in contents(small).items() if name.endswith(".png")]
        assert len(set(pictures)) == 7


class TestInterruption:
    def test_broken_run_leaves_nothing(self, tmp_path, monkeypatch):
        real_draw, calls = CellModel.draw, []

        def draw(self, rng):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return real_draw(self, rng)

        monkeypatch.setattr(CellModel, "draw", draw)
        with pytest.raises(KeyboardInterrupt):
            phantom_cells_cases(tmp_path / "cells", **SMALL)
        assert list(tmp_path.iterdir()) == []

    def test_killed_run_leaves_no_dataset(self, tmp_path):
        folder = tmp_path / "cells"
        code = f"from medcalib.data import make_phantom_cells; make_phantom_cells({str(folder)!r}, 50000)"
        process = subprocess.Popen([sys.executable, "-c", code])
        while process.poll() is None and not any(tmp_path.glob("*/*/images/*.png")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not folder.exists()
        assert len(phantom_cells_cases(folder, **SMALL)["training"]) == 3

    def test_loser_of_a_race_takes_what_the_winner_made(self, small, tmp_path, monkeypatch):
        folder, real_draw = tmp_path / "cells", CellModel.draw

        def draw(self, rng):
            monkeypatch.setattr(CellModel, "draw", real_draw)
            make_phantom_cells(folder, **SMALL)
            return real_draw(self, rng)

        monkeypatch.setattr(CellModel, "draw", draw)
        assert len(phantom_cells_cases(folder, **SMALL)["training"]) == 3
        assert contents(folder) == contents(small)
        assert list(tmp_path.iterdir()) == [folder]


class TestErrors:
    def message(self, folder, **options):
        with pytest.raises(UserError) as caught:
            phantom_cells_cases(folder, **{**SMALL, **options})
        text = str(caught.value)
        assert "\n" not in text
        assert text.endswith(".")
        return text

    @pytest.fixture
    def copy(self, small, tmp_path):
        for name, content in contents(small).items():
            (tmp_path / "cells" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "cells" / name).write_bytes(content)
        return tmp_path / "cells"

    def test_empty_folder_is_filled(self, tmp_path):
        (tmp_path / "cells").mkdir()
        assert len(phantom_cells_cases(tmp_path / "cells", **SMALL)["test"]) == 2

    def test_missing_parents_are_made(self, tmp_path):
        assert len(phantom_cells_cases(tmp_path / "a" / "b", **SMALL)["test"]) == 2

    @pytest.mark.parametrize(("options", "what"), [({"num_training": 4}, "training"), ({"seed": 5}, "values of seed:")])
    def test_other_numbers(self, copy, options, what):
        text = self.message(copy, **options)
        assert str(copy) in text
        assert what in text
        assert "delete the folder" in text

    def test_other_format(self, copy):
        described = json.loads((copy / "dataset.json").read_text())
        (copy / "dataset.json").write_text(json.dumps({**described, "format_version": 0}))
        assert "by another version of medcalib" in self.message(copy)

    def test_missing_picture(self, copy):
        (copy / "images" / "cell_002.png").unlink()
        assert "lacks 'images/cell_002.png': delete the folder" in self.message(copy)

    def test_missing_table(self, copy):
        (copy / "cells.csv").unlink()
        assert "lacks the row of cell_001 in 'cells.csv'" in self.message(copy)

    def test_table_cut_short(self, copy):
        text = (copy / "cells.csv").read_text()
        (copy / "cells.csv").write_text(text[: text.index("cell_005") + 20])
        assert "lacks the row of cell_005 in 'cells.csv'" in self.message(copy)

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"name": "phantom"}'])
    def test_other_dataset(self, tmp_path, content):
        (tmp_path / "dataset.json").write_text(content)
        assert f"'{tmp_path}' does not hold the dataset phantom_cells" in self.message(tmp_path)
        assert (tmp_path / "dataset.json").read_text() == content

    def test_folder_of_something_else(self, tmp_path):
        (tmp_path / "thesis.docx").touch()
        assert "does not hold the dataset phantom_cells" in self.message(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]

    def test_unwritable_place(self, tmp_path):
        (tmp_path / "file").touch()
        assert f"cannot be written to '{tmp_path / 'file' / 'cells'}'" in self.message(tmp_path / "file" / "cells")

    @pytest.mark.parametrize(
        "options", [{"num_test": 0}, {"num_training": 2.5}, {"num_validation": True}, {"seed": -1}, {"seed": "x"}]
    )
    def test_numbers_that_make_no_sense(self, tmp_path, options):
        assert self.message(tmp_path / "cells", **options).startswith(f"{next(iter(options))} is")
        assert list(tmp_path.iterdir()) == []
