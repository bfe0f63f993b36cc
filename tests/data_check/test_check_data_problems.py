"""The check of data before a training: what it finds wrong or strange, and its own errors."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tests.bundle.test_datasets import LAYOUTS, tiny_network
from tests.data.layouts import write_volume
from tests.data_check.data_checks import DAMAGES, SMALL

from medcalib.bundle.layout import Mode
from medcalib.bundle.opened import Bundle
from medcalib.data_check.data_warnings import _validation


class TestProblems:
    def test_every_damaged_case_is_named(self, check, hippocampus, hippocampus_dir):
        """All of them at once, and the others are still counted and drawn."""
        expected = {}
        for number, damage in enumerate(DAMAGES, start=3):
            case = f"hippocampus_{number:03}"
            expected[case] = damage(hippocampus_dir, f"{case}.nii.gz")
        code, printed, report = check(hippocampus, **SMALL, **{"data::dataset_dir": hippocampus_dir})
        assert code == 2
        assert f"{len(expected)} problems:" in printed
        assert len(report["problems"]) == len(expected)
        for case, problem in expected.items():
            (found,) = [sentence for sentence in report["problems"] if sentence.startswith(f"Case {case}: ")]
            assert problem in found
            assert found.endswith(".")
            assert f"\n  {found}\n" in printed
        counts = report["cases"]
        assert sum(counts[part]["number"] for part in ("training", "validation", "test")) == 20
        assert sum(counts[part]["with_problems"] for part in ("training", "validation", "test")) == len(expected)
        assert not set(report["first_batch"]) & set(expected)
        assert "(cases with problems are left out)" in printed
        assert (hippocampus / "data_check" / "first_batch.png").exists()
        assert report["memory"]["training_step"]["seconds"] > 0

    def test_missing_channels_of_brats(self, check, make_bundle, tmp_path):
        data = LAYOUTS["brats21"](tmp_path / "download")
        (data / "BraTS2021_00000" / "BraTS2021_00000_t2.nii.gz").unlink()
        (data / "BraTS2021_00006" / "BraTS2021_00006_seg.nii.gz").unlink()
        path = data / "BraTS2021_00003" / "BraTS2021_00003_t1ce.nii.gz"
        write_volume(path, np.ones((4, 5, 6), np.int16))
        bundle = make_bundle(tmp_path, data="brats21")
        code, _, report = check(bundle, **tiny_network("brats21"), **{"data::dataset_dir": data})
        assert code == 2
        problems = "\n".join(sorted(report["problems"]))
        first, second, third = problems.splitlines()
        assert "BraTS2021_00000_t2.nii.gz does not exist" in first
        assert "Case BraTS2021_00003: the channels differ in shape, (16, 16, 12) against (4, 5, 6)" in second
        assert "BraTS2021_00006_seg.nii.gz does not exist" in third
        assert "holds 8 of the 1251 published cases" in report["warnings"][0]

    def test_pictures(self, check, make_bundle, tmp_path):
        data = LAYOUTS["isic16"](tmp_path / "download")
        masks = data / "ISBI2016_ISIC_Part1_Training_GroundTruth"
        Image.new("L", (20, 20), 255).save(masks / "ISIC_0000001_Segmentation.png")
        (masks / "ISIC_0000002_Segmentation.png").write_bytes(b"no picture")
        bundle = make_bundle(tmp_path, data="isic16")
        code, _, report = check(bundle, **tiny_network("isic16"), **{"data::dataset_dir": data})
        first, second = sorted(report["problems"])
        assert code == 2
        assert "Case ISIC_0000001: image and label differ in shape" in first
        assert "ISIC_0000002_Segmentation.png cannot be read" in second

    def test_an_empty_region_of_interest(self, check, make_bundle, tmp_path):
        data = LAYOUTS["brats18"](tmp_path / "download")
        paths = sorted(data.glob("*/*/*_flair.nii.gz"))
        for path in paths:
            write_volume(path, np.zeros((16, 16, 12), np.int16))
        bundle = make_bundle(tmp_path, data="brats18")
        code, _, report = check(bundle, **tiny_network("brats18"), **{"data::dataset_dir": data})
        assert code == 2
        assert len(report["problems"]) == len(paths)
        for path in paths:
            start = f"Case {path.parent.name}: channel 0 of its image is nowhere above 0"
            assert sum(problem.startswith(start) for problem in report["problems"]) == 1

    def test_preprocessing_that_fails(self, check, hippocampus, hippocampus_dir):
        settings = SMALL | {"data::preprocessing::1::pixdim": [1, 1, 1, 1, 1], "data::dataset_dir": hippocampus_dir}
        settings["data::preprocessing::0::axcodes"] = "RA"
        code, _, report = check(hippocampus, **settings)
        assert code == 2
        first, *_ = report["problems"]
        assert first.startswith("Case hippocampus_0")
        assert ": its preprocessing fails (ValueError: " in first

    def test_when_no_training_case_is_left(self, check, hippocampus, hippocampus_dir):
        """The picture of an earlier check is removed, and the step is that of a batch of patches."""
        settings = SMALL | {"data::dataset_dir": hippocampus_dir}
        check(hippocampus, **settings)
        for path in (hippocampus_dir / "imagesTr").iterdir():
            path.write_bytes(b"")
        code, printed, report = check(hippocampus, **settings)
        assert code == 2
        assert len(report["problems"]) == 20
        assert not (hippocampus / "data_check" / "first_batch.png").exists()
        assert "first_batch.png" not in printed
        assert (report["first_batch"], report["shape"], report["memory"]["cache"]) == (None, None, None)
        assert report["memory"]["training_step"]["input_shape"] == [2, 1, 8, 8, 8]
        assert report["labels"]["all"]["anterior"]["num_cases"] == 20

    def test_patches_that_do_not_fit_the_network(self, check, hippocampus, hippocampus_dir):
        settings = SMALL | {"data::patch_size": [8, 8, 7], "data::dataset_dir": hippocampus_dir}
        code, printed, report = check(hippocampus, **settings)
        assert code == 2
        (problem,) = report["problems"]
        assert problem.startswith("The network cannot be trained with batches of shape 2 x 1 x 8 x 8 x 7 (")
        assert "one step       fails: " in printed

    def test_augmentation_that_fails(self, check, hippocampus, hippocampus_dir):
        settings = SMALL | {"data::augmentation::1::roi_size": [8, 8], "data::dataset_dir": hippocampus_dir}
        code, _, report = check(hippocampus, **settings)
        assert code == 2
        assert report["problems"][0].startswith("The first training batch cannot be made: ")


class TestWarnings:
    def warnings(self, check, bundle, **settings):
        code, printed, report = check(bundle, **SMALL | settings)
        assert code == 0, printed
        for warning in report["warnings"]:
            assert f"\n  {warning}\n" in printed
        return report["warnings"]

    def test_none(self, check, hippocampus, hippocampus_dir):
        settings = {"data::cases::fractions": [0.4, 0.3, 0.3], "data::dataset_dir": hippocampus_dir}
        assert self.warnings(check, hippocampus, **settings) == []

    def test_few_cases(self, check, hippocampus, hippocampus_dir):
        validation, test = self.warnings(check, hippocampus, **{"data::dataset_dir": hippocampus_dir})
        assert validation.startswith("The validation part has only 2 cases")
        assert test.startswith("The test part has only 4 cases")

    def test_a_class_that_no_training_case_has(self, check, hippocampus, hippocampus_dir):
        settings = {
            "data::cases::fractions": [0.4, 0.3, 0.3],
            "data::class_names": ["background", "anterior", "posterior", "tail"],
        }
        (warning,) = self.warnings(check, hippocampus, **settings, **{"data::dataset_dir": hippocampus_dir})
        assert warning.startswith("No training case has the class tail")

    def test_no_validation_case_with_foreground(self, check, hippocampus, hippocampus_dir):
        """The Dice that chooses the best epoch has no value then."""
        settings = {"data::cases::fractions": [0.5, 0.25, 0.25], "data::dataset_dir": hippocampus_dir}
        overrides = {id_: str(value) if id_ == "data::dataset_dir" else value for id_, value in settings.items()}
        parser = Bundle.open(hippocampus).workflow(Mode.TRAIN, overrides).parser
        for case in parser.get_parsed_content("split")["validation"]:
            label = nib.load(case["label"])
            nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), case["label"])
        found = self.warnings(check, hippocampus, **settings)
        told = "No validation case has any of the classes anterior, posterior, so the Dice"
        assert [warning.startswith(told) for warning in found].count(True) == 1

    @pytest.mark.parametrize(("images", "warned"), [((3, 0, 0), True), ((3, 1, 0), False)])
    def test_validation_images_of_one_class(self, images, warned):
        labels = dict(zip("abc", ({"voxels": number} for number in images), strict=True))
        found = list(_validation({"task": "classification", "labels": {"validation": labels}}))
        assert [w.startswith("All validation cases are of the class a, so the AUC") for w in found] == [True] * warned

    @pytest.mark.parametrize(("patch", "warned"), [([16, 16, 16], True), ([12, 12, 12], False), ([8, 12, 20], True)])
    def test_a_patch_larger_than_every_volume(self, check, hippocampus, hippocampus_dir, patch, warned):
        settings = {
            "data::cases::fractions": [0.4, 0.3, 0.3],
            "data::patch_size": patch,
            "data::dataset_dir": hippocampus_dir,
        }
        warnings = self.warnings(check, hippocampus, **settings)
        assert [w.startswith(f"data::patch_size {patch} is larger than every volume") for w in warnings] == [
            True
        ] * warned

    def test_little_memory(self, check, hippocampus, hippocampus_dir, monkeypatch):
        monkeypatch.setattr("medcalib.data_check.cache_size.machine_memory", lambda: 30_000)
        settings = {"data::cases::fractions": [0.4, 0.3, 0.3], "data::dataset_dir": hippocampus_dir}
        (cache,) = self.warnings(check, hippocampus, **settings)
        assert "this machine has 30 kB; keep fewer cases in memory, with --train::dataset::cache_rate=0." in cache
        rates = dict(option[2:].split("=") for option in cache.removesuffix(".").split() if option.startswith("--"))
        assert self.warnings(check, hippocampus, **settings, **rates) == []


class TestMistakes:
    def test_no_such_folder_of_data(self, refused, hippocampus, tmp_path):
        line = refused(hippocampus, **{"data::dataset_dir": tmp_path / "nowhere"})
        assert "nowhere' does not exist: set data::dataset_dir" in line

    def test_another_folder(self, refused, hippocampus, tmp_path):
        (tmp_path / "other").mkdir()
        assert "0 cases matched imagesTr" in refused(hippocampus, **{"data::dataset_dir": tmp_path / "other"})

    def test_an_unknown_id(self, refused, hippocampus):
        assert "--data::datset_dir does not exist" in refused(hippocampus, **{"data::datset_dir": "x"})

    def test_an_edited_bundle(self, refused, hippocampus):
        path = hippocampus / "configs" / "data.yaml"
        path.write_text(path.read_text() + "\nnum_bins: 7\n")
        assert "--allow_edited" in refused(hippocampus)

    def test_a_seed_that_is_none(self, refused, hippocampus):
        assert "--seed must be a whole number" in refused(hippocampus, "--seed", "first")

    def test_an_output_folder_that_cannot_be(self, refused, hippocampus, tmp_path):
        (tmp_path / "file").write_text("")
        line = refused(hippocampus, "--output_dir", str(tmp_path / "file"))
        assert "cannot be written" in line
        assert "--output_dir" in line

    def test_results_of_an_interrupted_check_stay_as_they_were(self, check, hippocampus, hippocampus_dir, monkeypatch):
        settings = SMALL | {"data::dataset_dir": hippocampus_dir}

        def interrupt(*_arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("medcalib.data_check.first_batch.preview", interrupt)
            assert check(hippocampus, **settings) == (130, "error: Interrupted; nothing was written.\n", None)
            monkeypatch.undo()
        check(hippocampus, **settings)
        before = {path.name: path.read_bytes() for path in (hippocampus / "data_check").iterdir()}
        monkeypatch.setattr("medcalib.data_check.first_batch.preview", interrupt)
        code, _, _ = check(hippocampus, **settings | {"data::batch_size": 1})
        assert code == 130
        assert {path.name: path.read_bytes() for path in (hippocampus / "data_check").iterdir()} == before
