import pytest
from tests.data.layouts import everyone, files_of, make_kits, message, names, reverse_file_system

from medcalib.data import kits_cases, split_digest


@pytest.fixture
def root(tmp_path):
    return make_kits(tmp_path / "kits23", num_cases=10)


def test_lists_every_case(root):
    split = kits_cases(root)
    assert names(everyone(split))[:4] == ["case_00000", "case_00001", "case_00002", "case_00400"]
    for case in everyone(split):
        image, label = files_of(case)
        assert image == root / "dataset" / case["case"] / "imaging.nii.gz"
        assert label == root / "dataset" / case["case"] / "segmentation.nii.gz"
        assert image.is_file()
        assert label.is_file()


def test_the_root_may_be_the_repository_or_its_dataset(root):
    assert kits_cases(root) == kits_cases(root / "dataset")


def test_splits_80_to_20_and_nine_to_one_of_the_rest(root):
    assert {part: len(cases) for part, cases in kits_cases(root).items()} == {
        "training": 7,
        "validation": 1,
        "test": 2,
        "calibration": 1,
    }


def test_the_shares_of_the_real_set():
    """489 cases: 98 for testing, 39 for validation."""
    from medcalib.data import split_cases

    split = split_cases([{"case": f"case_{i:05d}"} for i in range(489)], (0.72, 0.08, 0.2))
    assert [len(split[part]) for part in ("training", "validation", "test")] == [352, 39, 98]


def test_does_not_depend_on_the_order_of_the_file_system(root, monkeypatch):
    expected = kits_cases(root)
    reverse_file_system(monkeypatch)
    assert kits_cases(root) == expected
    assert split_digest(expected) != split_digest(kits_cases(root, seed=1))


class TestErrors:
    def test_missing_folder(self, tmp_path):
        assert "github.com/neheller/kits23" in message(kits_cases, tmp_path / "nowhere")

    def test_other_folder(self, tmp_path):
        (tmp_path / "imagesTr").mkdir()
        text = message(kits_cases, tmp_path)
        assert "0 cases matched case_*/imaging.nii.gz" in text
        assert "which holds imagesTr/" in text

    def test_the_images_were_not_downloaded(self, root):
        """The repository holds the labels; a command fetches the images."""
        for path in root.glob("dataset/case_*/imaging.nii.gz"):
            path.unlink()
        text = message(kits_cases, root)
        assert text.startswith(
            f"Case 'case_00000' has no '{root / 'dataset' / 'case_00000' / 'imaging.nii.gz'}' (0 cases"
        )
        assert "10 did not" in text
        assert "kits23_download_data" in text

    def test_case_without_label(self, root):
        (root / "dataset" / "case_00402" / "segmentation.nii.gz").unlink()
        assert message(kits_cases, root).startswith("Case 'case_00402' has no")

    def test_too_few_cases(self, tmp_path):
        assert message(kits_cases, make_kits(tmp_path, num_cases=2)).startswith("2 case(s) cannot fill a split")
