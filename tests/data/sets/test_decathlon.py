from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.stats import spearmanr
from tests.conftest import REPOSITORY

from medcalib.data import decathlon_cases, split_digest
from medcalib.errors import UserError

REAL = REPOSITORY.parent / "shared" / "data" / "Task04_Hippocampus"


def write_volume(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), path)


@pytest.fixture
def dataset_dir(tmp_path):
    """A tiny dataset as the official archive unpacks, hidden twins included."""
    root = tmp_path / "Task04_Hippocampus"
    for number in range(1, 11):
        name = f"hippocampus_{number:03d}.nii.gz"
        for folder in ("imagesTr", "labelsTr"):
            write_volume(root / folder / name)
            (root / folder / f"._{name}").write_bytes(b"\0\5\x16\7")
    write_volume(root / "imagesTs" / "hippocampus_011.nii.gz")
    (root / "dataset.json").write_text("{}")
    return root


def everyone(split):
    return [case for part in ("training", "validation", "test") for case in split[part]]


class TestLayout:
    def test_pairs_images_and_labels(self, dataset_dir):
        listed = everyone(decathlon_cases(dataset_dir))
        assert sorted(case["case"] for case in listed) == [f"hippocampus_{i:03d}" for i in range(1, 11)]
        for case in listed:
            assert case["image"] == str(dataset_dir / "imagesTr" / f"{case['case']}.nii.gz")
            assert case["label"] == str(dataset_dir / "labelsTr" / f"{case['case']}.nii.gz")

    def test_splits_70_10_20(self, dataset_dir):
        sizes = {part: len(members) for part, members in decathlon_cases(dataset_dir, cases_per_patient=1).items()}
        assert sizes == {"training": 7, "validation": 1, "test": 2, "calibration": 1}

    def test_does_not_depend_on_the_order_of_the_file_system(self, dataset_dir, monkeypatch):
        expected = decathlon_cases(dataset_dir)
        real_glob = Path.glob
        monkeypatch.setattr(Path, "glob", lambda *args, **options: sorted(real_glob(*args, **options), reverse=True))
        assert decathlon_cases(dataset_dir) == expected

    def test_takes_text_and_a_trailing_slash(self, dataset_dir):
        assert decathlon_cases(f"{dataset_dir}/") == decathlon_cases(dataset_dir)

    def test_passes_fractions_and_seed_on(self, dataset_dir):
        options = {"fractions": (0.4, 0.3, 0.3), "cases_per_patient": 1}
        split = decathlon_cases(dataset_dir, seed=3, **options)
        assert len(split["test"]) == 3
        assert split_digest(split) != split_digest(decathlon_cases(dataset_dir, **options))


class TestPatients:
    def test_consecutive_numbers_stay_together(self, dataset_dir):
        split = decathlon_cases(dataset_dir, cases_per_patient=2)
        assert {part: len(members) for part, members in split.items()} == {
            "training": 6,
            "validation": 2,
            "test": 2,
            "calibration": 2,
        }
        for members in split.values():
            pairs = [(int(case["case"][-3:]) - 1) // 2 for case in members]
            assert all(pairs.count(pair) == 2 for pair in pairs)
        assert decathlon_cases(dataset_dir) == split

    def test_other_names_are_a_patient_each(self, dataset_dir):
        for folder in ("imagesTr", "labelsTr"):
            (dataset_dir / folder / "hippocampus_004.nii.gz").rename(dataset_dir / folder / "mine.nii.gz")
        assert decathlon_cases(dataset_dir) == decathlon_cases(dataset_dir, cases_per_patient=1)

    @pytest.mark.skipif(not REAL.is_dir(), reason="the real data set is not here")
    def test_odd_and_next_number_of_the_hippocampus_are_one_person(self):
        """As the intensities show, in whose scale scans differ; the other neighbours are of two persons."""
        scale = {}
        for path in sorted((REAL / "imagesTr").glob("hippocampus_*.nii.gz"))[:60]:
            label = np.asarray(nib.load(REAL / "labelsTr" / path.name).dataobj)
            scale[int(path.name[12:15])] = np.asarray(nib.load(path).dataobj)[label > 0].mean()
        within, between = (
            np.array([(scale[n], scale[n + 1]) for n in scale if n % 2 == odd and n + 1 in scale]) for odd in (1, 0)
        )
        assert spearmanr(*within.T).statistic > 0.8 > 0.4 > spearmanr(*between.T).statistic


class TestErrors:
    @pytest.mark.parametrize("number", [0, 1.5, True, "2"])
    def test_cases_per_patient(self, dataset_dir, number):
        assert self.message(dataset_dir, cases_per_patient=number).startswith(f"cases_per_patient is {number!r}: ")

    def message(self, folder, **options):
        with pytest.raises(UserError) as caught:
            decathlon_cases(folder, **options)
        text = str(caught.value)
        assert "\n" not in text
        assert text.endswith(".")
        return text

    def test_missing_folder(self, tmp_path):
        text = self.message(tmp_path / "nowhere")
        assert str(tmp_path / "nowhere") in text
        assert "imagesTr" in text
        assert "medicaldecathlon.com" in text

    def test_empty_folder(self, tmp_path):
        text = self.message(tmp_path)
        assert "0 cases matched" in text
        assert "holds nothing" in text
        assert "medicaldecathlon.com" in text

    def test_other_layout(self, tmp_path):
        for number in range(8):
            (tmp_path / f"patient{number:03d}").mkdir()
        text = self.message(tmp_path)
        assert "imagesTr/*.nii.gz" in text
        assert "patient000/, patient001/, patient002/, patient003/, patient004/ and 3 more" in text

    def test_parent_of_the_task(self, dataset_dir):
        assert "Task04_Hippocampus/" in self.message(dataset_dir.parent)

    def test_a_file_instead_of_a_folder(self, dataset_dir):
        assert "is a file" in self.message(dataset_dir / "dataset.json")

    def test_image_without_label(self, dataset_dir):
        (dataset_dir / "labelsTr" / "hippocampus_004.nii.gz").unlink()
        text = self.message(dataset_dir)
        assert text.startswith(f"Case 'hippocampus_004' has no '{dataset_dir / 'labelsTr' / 'hippocampus_004.nii.gz'}'")
        assert "(9 cases matched imagesTr/*.nii.gz with labelsTr/*.nii.gz, 1 did not)" in text
        assert "medicaldecathlon.com" in text

    def test_label_without_image(self, dataset_dir):
        (dataset_dir / "imagesTr" / "hippocampus_007.nii.gz").unlink()
        text = self.message(dataset_dir)
        assert text.startswith(f"Case 'hippocampus_007' has no '{dataset_dir / 'imagesTr' / 'hippocampus_007.nii.gz'}'")

    def test_images_without_any_label(self, dataset_dir):
        for path in (dataset_dir / "labelsTr").iterdir():
            path.unlink()
        assert "0 cases matched" in self.message(dataset_dir)

    def test_too_few_cases(self, dataset_dir):
        for number in range(3, 11):
            for folder in ("imagesTr", "labelsTr"):
                (dataset_dir / folder / f"hippocampus_{number:03d}.nii.gz").unlink()
        assert self.message(dataset_dir).startswith("2 case(s) cannot fill a split")


@pytest.mark.skipif(not REAL.is_dir(), reason="the hippocampus data do not lie beside the repository")
def test_real_hippocampus():
    split = decathlon_cases(REAL)
    assert {part: len(members) for part, members in split.items()} == {
        "training": 138,
        "validation": 21,
        "test": 41,
        "calibration": 21,
    }
    for case in everyone(split):
        assert Path(case["image"]).is_file()
        assert Path(case["label"]).is_file()
