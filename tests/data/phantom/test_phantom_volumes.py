import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from medcalib.data import make_phantom, phantom_cases, split_digest
from medcalib.data.phantom.difficulty import Difficulty
from medcalib.data.phantom.volume_model import PhantomModel
from medcalib.errors import UserError
from medcalib.functional import bin_statistics, calibration_error

SMALL = {"num_training": 2, "num_validation": 1, "num_test": 1}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """The phantom as everyone gets it."""
    return phantom_cases(tmp_path_factory.mktemp("data") / "phantom")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "phantom"
    make_phantom(folder, **SMALL)
    return folder


def everyone(split):
    return split["training"] + split["validation"] + split["test"]


def difficulty(case):
    return case["attributes"]["difficulty"]


def array(path):
    return np.asanyarray(nib.load(path).dataobj)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def pooled_calibration(probability, label, num_bins=20):
    """ECE and ACE per class over all voxels, written out bin by bin."""
    ece, ace = [], []
    for structure in range(probability.shape[1]):
        confidence = probability[:, structure].astype(np.float64)
        correct = label == structure
        gaps, weights = [], []
        for lower in np.arange(num_bins) / num_bins:
            inside = (confidence > lower) & (confidence <= lower + 1 / num_bins)
            if lower == 0:
                inside |= confidence == 0
            if inside.any():
                gaps.append(abs(confidence[inside].mean() - correct[inside].mean()))
                weights.append(inside.mean())
        ece.append(np.sum(np.multiply(gaps, weights)))
        ace.append(np.mean(gaps))
    return np.array(ece), np.array(ace)


def sharpened(probability):
    powered = probability.astype(np.float64) ** 3
    return powered / powered.sum(1, keepdims=True)


class TestSplit:
    def test_sizes(self, split):
        sizes = {part: len(members) for part, members in split.items()}
        assert sizes == {"training": 20, "validation": 6, "test": 14, "calibration": 6}

    def test_case_has_its_files(self, split):
        for case in everyone(split):
            assert set(case) == {"case", "image", "label", "probability", "attributes"}
            for key in ("image", "label", "probability"):
                assert Path(case[key]).name == f"{case['case']}.nii.gz"
                assert Path(case[key]).is_file()

    def test_second_call_lists_the_same_without_writing(self, small):
        before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
        first, second = phantom_cases(small, **SMALL), phantom_cases(str(small), **SMALL)
        assert first == second
        assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before

    def test_some_cases_have_no_lesion(self, split):
        without = {
            part: sum(not np.any(array(case["label"]) == 2) for case in members) for part, members in split.items()
        }
        assert without == {"training": 2, "validation": 0, "test": 1, "calibration": 0}

    def test_every_part_has_hard_cases_of_several_kinds(self, split):
        kinds = {part: [difficulty(case) for case in members] for part, members in split.items()}
        hard = {
            part: [kind for kind in found if kind not in ("normal", "missing_lesion")] for part, found in kinds.items()
        }
        assert {part: len(found) for part, found in hard.items()} == {
            "training": 7,
            "validation": 2,
            "test": 5,
            "calibration": 2,
        }
        assert set(kinds["test"]) == set(kinds["training"]) == set(Difficulty)

    def test_a_case_without_lesion_says_so(self, split):
        for case in everyone(split):
            assert (difficulty(case) == Difficulty.MISSING_LESION) == (not np.any(array(case["label"]) == 2))

    def test_normal_cases_are_those_of_a_phantom_without_hard_ones(self, small, tmp_path):
        plain = phantom_cases(tmp_path / "plain", **SMALL, hard_share=0)
        assert {difficulty(case) for case in everyone(plain)} == {"normal"}
        mixed = phantom_cases(small, **SMALL)
        assert {difficulty(case) for case in everyone(mixed)} > {"normal"}
        for one, other in zip(everyone(mixed), everyone(plain), strict=True):
            same = Path(one["image"]).read_bytes() == Path(other["image"]).read_bytes()
            assert same == (difficulty(one) == Difficulty.NORMAL)

    def test_description(self, small):
        described = json.loads((small / "dataset.json").read_text())
        assert described["class_names"] == ["background", "organ", "lesion"]
        assert described["model"]["organ_annotator_sd"] == PhantomModel().organ_annotator_sd
        assert described["format_version"] == 2
        assert set(described["difficulties"]) == {f"phantom_00{number}" for number in range(1, 5)}
        assert described["training"] == ["phantom_001", "phantom_002"]


class TestProbabilitiesAreTrue:
    @pytest.fixture(scope="class")
    def pooled(self, split):
        probability = np.concatenate([array(case["probability"]).reshape(-1, 3) for case in everyone(split)])
        label = np.concatenate([array(case["label"]).ravel() for case in everyone(split)])
        return probability, label

    def test_sum_to_one(self, pooled):
        np.testing.assert_allclose(pooled[0].sum(1), 1, atol=2e-7)

    def test_labels_come_as_often_as_stored(self, pooled):
        ece, ace = pooled_calibration(*pooled)
        assert np.all(ece < 1e-3), ece
        assert np.all(ace < 0.02), ace

    def test_sharpened_ones_are_not_calibrated(self, pooled):
        probability, label = pooled
        ece, ace = pooled_calibration(probability, label)
        sharp_ece, sharp_ace = pooled_calibration(sharpened(probability), label)
        assert np.all(sharp_ece > 3 * ece), (sharp_ece, ece)
        assert np.all(sharp_ace > 0.1), sharp_ace
        assert np.all(sharp_ace > 5 * ace), (sharp_ace, ace)

    def test_functional_says_the_same(self, pooled):
        label = torch.from_numpy(pooled[1].astype(np.int64))[None, None]
        for probability in (pooled[0], sharpened(pooled[0]).astype(np.float32)):
            statistics = bin_statistics(torch.from_numpy(probability).T[None], label, num_bins=20)
            ece, ace = pooled_calibration(probability, pooled[1])
            np.testing.assert_allclose(calibration_error(statistics, "expected")[0], ece, atol=1e-5)
            np.testing.assert_allclose(calibration_error(statistics, "average")[0], ace, atol=1e-3)

    def test_their_likelihood_cannot_be_improved(self, pooled):
        """The true distribution has the lowest expected negative log-likelihood of all."""
        probability, label = pooled

        def nll(predicted):
            return -np.mean(np.log(np.maximum(predicted[np.arange(len(label)), label], 1e-12)))

        blunted = np.sqrt(probability) / np.sqrt(probability).sum(1, keepdims=True)
        assert nll(probability) < nll(blunted)
        assert nll(probability) < nll(sharpened(probability))


class TestGeometry:
    def test_files_of_a_case_share_one_grid(self, split):
        for case in everyone(split):
            image, label, probability = (nib.load(case[key]) for key in ("image", "label", "probability"))
            assert image.shape == label.shape == probability.shape[:3]
            assert probability.shape[3] == 3
            for other in (label, probability):
                np.testing.assert_array_equal(other.affine, image.affine)

    def test_both_forms_of_the_affine_agree(self, split):
        for case in everyone(split):
            header = nib.load(case["image"]).header
            assert header["sform_code"] == header["qform_code"] == 1
            assert header.get_xyzt_units()[0] == "mm"
            np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-4)

    def test_orientation_origin_and_tilt_vary(self, split):
        affines = [nib.load(case["image"]).affine for case in everyone(split)]
        assert {"RAS", "LPS", "PIR"} < {"".join(nib.aff2axcodes(affine)) for affine in affines}
        assert len({tuple(affine[:3, 3].round(1)) for affine in affines}) == len(affines)
        oblique = [np.sum(np.abs(affine[:3, :3]) > 1e-3) > 3 for affine in affines]
        assert sum(oblique) == len(affines) // 4
        assert len({nib.load(case["image"]).shape for case in everyone(split)}) > 10

    def test_voxels_are_anisotropic(self, split):
        for case in everyone(split):
            zooms = nib.as_closest_canonical(nib.load(case["image"])).header.get_zooms()
            if difficulty(case) == Difficulty.VOXEL_SIZE:
                assert min(zooms) > 1.3
                assert max(zooms) >= 3.0
            else:
                np.testing.assert_allclose(zooms, (1.0, 1.0, 1.5), atol=1e-5)

    def test_volumes_were_turned_together(self, split):
        for case in everyone(split):
            image, label, probability = (array(case[key]) for key in ("image", "label", "probability"))
            assert np.mean(probability.argmax(-1) == label) > 0.9
            if difficulty(case) in (Difficulty.NORMAL, Difficulty.MISSING_LESION):
                assert image[label > 0].mean() > 1.4 * image[label == 0].mean()


class TestDeterminism:
    def test_same_seed_same_bytes(self, small, tmp_path):
        make_phantom(tmp_path / "again", **SMALL)
        assert contents(tmp_path / "again") == contents(small)

    def test_files_carry_no_time(self, small):
        for name, content in contents(small).items():
            if name.endswith(".gz"):
                assert content[4:8] == bytes(4), name

    def test_other_seed_other_volumes_but_same_split(self, small, tmp_path):
        other = phantom_cases(tmp_path / "other", **SMALL, seed=1)
        assert split_digest(other) == split_digest(phantom_cases(small, **SMALL))
        changed, original = contents(tmp_path / "other"), contents(small)
        assert changed.keys() == original.keys()
        assert all(changed[name] != original[name] for name in original)

    def test_cases_differ(self, small):
        images = [content for name, content in contents(small).items() if name.startswith("images")]
        assert len(set(images)) == 4


class TestInterruption:
    def test_broken_run_leaves_nothing(self, tmp_path, monkeypatch):
        real_draw, calls = PhantomModel.draw, []

        def draw(self, rng, with_lesion):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return real_draw(self, rng, with_lesion)

        monkeypatch.setattr(PhantomModel, "draw", draw)
        with pytest.raises(KeyboardInterrupt):
            phantom_cases(tmp_path / "phantom", **SMALL)
        assert list(tmp_path.iterdir()) == []

    def test_killed_run_leaves_no_dataset(self, tmp_path):
        folder = tmp_path / "phantom"
        process = subprocess.Popen(
            [sys.executable, "-c", f"from medcalib.data import make_phantom; make_phantom({str(folder)!r}, 500)"]
        )
        while process.poll() is None and not any(tmp_path.glob("*/*/images/*.nii.gz")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not folder.exists()
        assert len(phantom_cases(folder, **SMALL)["training"]) == 2

    def test_processes_at_the_same_time_agree(self, small, tmp_path):
        folder = tmp_path / "phantom"
        code = f"from medcalib.data import phantom_cases; phantom_cases({str(folder)!r}, **{SMALL})"
        processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
        assert [process.wait() for process in processes] == [0, 0, 0]
        assert contents(folder) == contents(small)
        assert list(tmp_path.iterdir()) == [folder]

    def test_loser_of_a_race_takes_what_the_winner_made(self, tmp_path, monkeypatch):
        folder, real_draw = tmp_path / "phantom", PhantomModel.draw

        def draw(self, rng, with_lesion):
            monkeypatch.setattr(PhantomModel, "draw", real_draw)
            make_phantom(folder, **SMALL)
            return real_draw(self, rng, with_lesion)

        monkeypatch.setattr(PhantomModel, "draw", draw)
        assert len(phantom_cases(folder, **SMALL)["training"]) == 2
        assert list(tmp_path.iterdir()) == [folder]

    def test_permissions_are_those_of_any_new_folder(self, tmp_path):
        make_phantom(tmp_path / "phantom", **SMALL)
        (tmp_path / "ordinary").mkdir()
        assert (tmp_path / "phantom").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


class TestErrors:
    def message(self, folder, **options):
        with pytest.raises(UserError) as caught:
            phantom_cases(folder, **{**SMALL, **options})
        text = str(caught.value)
        assert "\n" not in text
        assert text.endswith(".")
        return text

    @pytest.fixture
    def copy(self, small, tmp_path):
        for name, content in contents(small).items():
            (tmp_path / "phantom" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "phantom" / name).write_bytes(content)
        return tmp_path / "phantom"

    def test_empty_folder_is_filled(self, tmp_path):
        (tmp_path / "phantom").mkdir()
        assert len(phantom_cases(tmp_path / "phantom", **SMALL)["training"]) == 2

    def test_missing_parents_are_made(self, tmp_path):
        assert len(phantom_cases(tmp_path / "a" / "b" / "phantom", **SMALL)["training"]) == 2

    def test_link_to_an_empty_folder_is_followed(self, tmp_path):
        (tmp_path / "disk").mkdir()
        (tmp_path / "phantom").symlink_to(tmp_path / "disk")
        phantom_cases(tmp_path / "phantom", **SMALL)
        assert (tmp_path / "disk" / "dataset.json").is_file()

    def test_other_numbers(self, copy):
        text = self.message(copy, num_training=3)
        assert str(copy) in text
        assert "training" in text
        assert "delete the folder" in text

    def test_other_seed(self, copy):
        assert "other values of seed: delete the folder" in self.message(copy, seed=5)

    def test_other_format(self, copy):
        described = json.loads((copy / "dataset.json").read_text())
        (copy / "dataset.json").write_text(json.dumps({**described, "format_version": 0}))
        text = self.message(copy)
        assert "made by another version of medcalib, whose cases are others (format_version 0, not 2)" in text
        assert "delete the folder to have it made anew" in text

    def test_a_phantom_of_before_there_were_hard_cases(self, copy):
        """Its normal cases are the same files, but its others are not hard."""
        described = json.loads((copy / "dataset.json").read_text())
        del described["hard_share"], described["difficulties"]
        (copy / "dataset.json").write_text(json.dumps({**described, "format_version": 1}))
        before = contents(copy)
        assert "(format_version 1, not 2): delete the folder" in self.message(copy)
        assert contents(copy) == before

    def test_another_share_of_hard_cases(self, copy):
        assert "other values of hard_share: delete the folder" in self.message(copy, hard_share=1)

    def test_missing_file(self, copy):
        (copy / "labels" / "phantom_002.nii.gz").unlink()
        text = self.message(copy)
        assert "lacks 'labels/phantom_002.nii.gz'" in text
        assert "delete the folder" in text

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"name": "Hippocampus"}'])
    def test_other_dataset(self, tmp_path, content):
        (tmp_path / "dataset.json").write_text(content)
        assert f"'{tmp_path}' does not hold the dataset phantom " in self.message(tmp_path)
        assert (tmp_path / "dataset.json").read_text() == content

    def test_folder_of_something_else(self, tmp_path):
        (tmp_path / "thesis.docx").touch()
        assert "does not hold the dataset phantom " in self.message(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]

    def test_a_file_in_the_way(self, tmp_path):
        (tmp_path / "phantom").touch()
        assert "does not hold the dataset phantom " in self.message(tmp_path / "phantom")

    def test_unwritable_place(self, tmp_path):
        (tmp_path / "file").touch()
        text = self.message(tmp_path / "file" / "phantom")
        assert f"cannot be written to '{tmp_path / 'file' / 'phantom'}'" in text

    @pytest.mark.parametrize(
        "options",
        [
            {"num_test": 0},
            {"num_training": 2.5},
            {"num_validation": True},
            {"seed": -1},
            {"seed": "x"},
            {"hard_share": 2},
        ],
    )
    def test_numbers_that_make_no_sense(self, tmp_path, options):
        assert self.message(tmp_path / "phantom", **options).startswith(f"{next(iter(options))} is")
        assert list(tmp_path.iterdir()) == []
