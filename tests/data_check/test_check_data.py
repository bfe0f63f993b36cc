"""The check of data before a training: what it counts, and that it agrees with the training."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from ignite.engine import Events
from PIL import Image
from tests.bundle.test_datasets import LAYOUTS, tiny_network
from tests.data.layouts import make_kits
from tests.data.layouts_2d import make_cric
from tests.data_check.data_checks import CELLS, SMALL, options, truncated_gzip, volume
from torch.utils._pytree import tree_leaves

from medcalib.bundle.layout import Mode
from medcalib.bundle.opened import Bundle
from medcalib.data_check.dry_training import make_dry
from medcalib.data_check.first_batch import first_batch


class TestReport:
    def test_numbers_are_those_of_the_files(self, check, hippocampus, hippocampus_dir):
        code, printed, report = check(hippocampus, **SMALL, **{"data::dataset_dir": hippocampus_dir})
        assert code == 0, printed
        assert report["problems"] == []
        assert {part: found["number"] for part, found in report["cases"].items()} == {
            "training": 14, "validation": 2, "test": 4, "calibration": 2,
        }  # fmt: skip
        labels = [volume(path) for path in sorted((hippocampus_dir / "labelsTr").iterdir())]
        images = [volume(path) for path in sorted((hippocampus_dir / "imagesTr").iterdir())]
        for value, name in enumerate(("background", "anterior", "posterior")):
            found = report["labels"]["all"][name]
            assert found["voxels"] == sum((label == value).sum() for label in labels)
            assert found["num_cases"] == sum((label == value).any() for label in labels)
        assert report["labels"]["all"]["posterior"]["cases_without"] == ["hippocampus_001", "hippocampus_002"]
        shapes = np.array([label.shape for label in labels])
        assert report["shape"] == {
            "min": shapes.min(0).tolist(), "median": np.median(shapes, 0).tolist(), "max": shapes.max(0).tolist(),
        }  # fmt: skip
        assert report["spacing"]["median"] == [1, 1, 1]
        assert report["intensities"]["MRI"]["max"] == max(image.max() for image in images)
        assert report["dataset_dir"] == str(hippocampus_dir)

    def test_everything_is_printed_and_written(self, check, hippocampus, hippocampus_dir):
        _, printed, report = check(hippocampus, **SMALL, **{"data::dataset_dir": hippocampus_dir})
        lines = [line.split() for line in printed.splitlines()]
        assert ["training", "14", "0"] in lines
        posterior = report["labels"]["all"]["posterior"]
        assert ["posterior", f"{posterior['voxels']:,}"] in [line[:2] for line in lines]
        assert ["spacing", "(mm)", "1", "x", "1", "x", "1"] in [line[:7] for line in lines]
        assert "No problems" in printed
        folder = hippocampus / "data_check"
        assert printed.splitlines()[-1] == f"Written: {folder / 'data_check.json'}, {folder / 'first_batch.png'}"
        assert sorted(path.name for path in folder.iterdir()) == ["data_check.json", "first_batch.png"]
        with Image.open(folder / "first_batch.png") as picture:
            assert min(picture.size) > 100
        assert [path.name for path in hippocampus.iterdir() if path.name.startswith(("seed", "."))] == []

    def test_another_output_folder(self, check, hippocampus, hippocampus_dir, tmp_path):
        target = tmp_path / "else" / "where"
        code, printed, report = check(hippocampus, "--output_dir", str(target), **SMALL,
                                      **{"data::dataset_dir": hippocampus_dir})  # fmt: skip
        assert (code, report) == (0, None)
        assert json.loads((target / "data_check.json").read_text())["problems"] == []
        assert str(target / "first_batch.png") in printed

    @pytest.mark.parametrize("name", LAYOUTS)
    def test_every_dataset(self, check, make_bundle, tmp_path, name):
        data = LAYOUTS[name](tmp_path / "download")
        bundle = make_bundle(tmp_path, data=name)
        code, printed, report = check(bundle, **tiny_network(name), **{"data::dataset_dir": data})
        assert code == 0, printed
        assert report["memory"]["training_step"]["peak_memory"] > 0
        assert len(report["first_batch"]) >= 2
        assert (bundle / "data_check" / "first_batch.png").exists()
        assert sum(found["fraction"] for found in report["labels"]["all"].values()) == pytest.approx(1)

    def test_attributes_are_counted_by_part(self, check, make_bundle, tmp_path):
        data = LAYOUTS["mnms"](tmp_path / "download")
        bundle = make_bundle(tmp_path, data="mnms")
        _, printed, report = check(bundle, **tiny_network("mnms"), **{"data::dataset_dir": data})
        assert report["cases"]["training"]["attributes"]["vendor"] == {"Philips": 2, "Siemens": 4}
        assert report["cases"]["test"]["attributes"]["vendor"] == {"Canon": 2, "Siemens": 2}
        assert ["Siemens", "4", "0", "2"] in [line.split() for line in printed.splitlines()]

    def test_classification_counts_images(self, check, make_bundle, tmp_path):
        bundle = make_bundle(tmp_path, data="phantom_cells", loss="baseline_ce")
        code, printed, report = check(bundle, **CELLS, **{"data::dataset_dir": tmp_path / "cells"})
        assert code == 0, printed
        training = report["labels"]["training"]
        assert sum(found["voxels"] for found in training.values()) == 24
        counts = [str(report["labels"][part]["negative"]["num_cases"]) for part in ("training", "validation", "test")]
        assert ["negative", *counts] in [[line.split()[0], *line.split()[-3:]] for line in printed.splitlines() if line]
        assert len(report["first_batch"]) == 8

    def test_crops_of_pictures(self, check, make_bundle, tmp_path):
        bundle = make_bundle(tmp_path, data="cric", loss="baseline_ce")
        data = make_cric(tmp_path / "cric")
        settings = {
            "data::patch_size": [32, 32],
            "data::batch_size": 4,
            "network::block": "basic",
            "network::layers": [1, 1, 1, 1],
            "network::widths": [4, 8, 8, 16],
            "network::hidden": [8],
            "data::dataset_dir": data,
        }
        code, printed, report = check(bundle, **settings)
        assert code == 0, printed
        assert report["shape"]["median"] == [100, 100]
        assert sum(found["voxels"] for found in report["labels"]["all"].values()) == 12 * 8
        damaged = sorted((data / "images").iterdir())[0]
        damaged.write_bytes(damaged.read_bytes()[:500])
        code, _, report = check(bundle, **settings)
        assert code == 2
        assert len(report["problems"]) == 8
        assert all(str(damaged) in problem for problem in report["problems"])

    def test_independent_labels(self, check, tmp_path, make_bundle, hippocampus_dir):
        bundle = make_bundle(tmp_path, data="hippocampus")
        path = bundle / "configs" / "data.yaml"
        text = path.read_text().replace("[background, anterior, posterior]", "[whole, posterior]")
        regions = (
            "  - _target_: medcalib.transforms.Regionsd\n    keys: label\n    num_classes: 3\n"
            "    regions: {whole: [1, 2], posterior: [2]}\n    allow_missing_keys: true\n  augmentation:\n"
        )
        path.write_text(text.replace("  augmentation:\n", regions) + "\nactivation: sigmoid\n")
        code, printed, report = check(bundle, "--allow_edited", **SMALL, **{"data::dataset_dir": hippocampus_dir})
        assert code == 0, printed
        labels = [volume(path) for path in sorted((hippocampus_dir / "labelsTr").iterdir())]
        found = report["labels"]["all"]
        assert found["whole"]["voxels"] == sum((label > 0).sum() for label in labels)
        assert found["posterior"]["voxels"] == sum((label == 2).sum() for label in labels)
        size = sum(label.size for label in labels)
        assert found["whole"]["fraction"] == pytest.approx(found["whole"]["voxels"] / size)


class TestAgreementWithTheTraining:
    def parser(self, bundle, settings):
        return Bundle.open(bundle).workflow(Mode.TRAIN, settings, seed=7).parser

    def test_the_batch_is_the_first_one_of_the_training(self, bundle, tiny, tmp_path):
        settings = tiny | {"output_dir": str(tmp_path / "out")}
        workflow = Bundle.open(bundle).workflow(Mode.TRAIN, settings, seed=7)
        (tmp_path / "out").mkdir()
        workflow.initialize()
        trainer = workflow.parser.get_parsed_content("train::trainer")
        seen = []

        def keep(engine):
            seen.append({key: engine.state.batch[key] for key in ("case", "image", "label")})
            engine.terminate()

        trainer.add_event_handler(Events.ITERATION_STARTED, keep)
        trainer.run()
        problems = []
        torch.manual_seed(1)
        parser = self.parser(bundle, settings)
        make_dry(parser)
        batch = first_batch(parser, lambda cases: cases, problems)
        assert problems == []
        assert batch["case"] == seen[0]["case"]
        assert torch.equal(batch["image"].as_tensor(), seen[0]["image"].as_tensor())
        assert torch.equal(batch["label"].as_tensor(), seen[0]["label"].as_tensor())

    def test_the_cache_is_as_large_as_estimated(self, check, bundle, tiny):
        tiny = tiny | {"data::patch_size": [48, 48, 48]}  # to which some volumes are padded
        _, _, report = check(bundle, **tiny)
        parser = self.parser(bundle, tiny)

        def cached(part):
            items = parser.get_parsed_content(f"{part}::dataset")._cache
            return sum(leaf.nbytes for leaf in tree_leaves(items) if isinstance(leaf, torch.Tensor))

        estimate = report["memory"]["cache"]
        assert estimate["training"] > 1.2 * 4 / 2 * estimate["validation"]
        assert estimate["training"] == cached("train")
        assert estimate["validation"] == pytest.approx(cached("validate"), rel=0.25)
        _, _, half = check(bundle, **tiny, **{"train::dataset::cache_rate": 0.5})
        assert half["memory"]["cache"]["training"] == pytest.approx(estimate["training"] / 2, abs=1)
        assert half["memory"]["cache"]["validation"] == estimate["validation"]

    def test_the_disk_cache_is_as_large_as_estimated(self, check, make_bundle, tmp_path):
        """The check itself writes nothing there."""
        bundle = make_bundle(tmp_path, data="kits23")
        settings = SMALL | {"data::patch_size": [24, 24, 24], "data_dir": str(tmp_path), "num_workers": 0}
        settings["data::dataset_dir"] = str(make_kits(tmp_path / "kits23"))
        folder = tmp_path / "cache" / "kits23"
        code, printed, report = check(bundle, **settings)
        assert (code, folder.exists()) == (0, False), printed
        cache = report["memory"]["cache"]
        assert (cache["training"], cache["validation"]) == (0, 0)
        assert cache["disk"]["free_in"] == {str(folder): pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)}
        (line,) = [line for line in printed.splitlines() if str(folder) in line]
        assert line.startswith("  disk cache     ")
        assert "dataset cache" not in printed
        parser = self.parser(bundle, settings)
        for part, name in (("train", "training"), ("validate", "validation")):
            before = {path: path.stat().st_size for path in folder.glob("*.pt")}
            list(parser.get_parsed_content(f"{part}::dataset"))
            written = sum(path.stat().st_size for path in folder.glob("*.pt")) - sum(before.values())
            assert cache["disk"][name] == pytest.approx(written, rel=0.25)
        _, printed, report = check(bundle, **settings, **{"train::dataset::cache_dir": "null"})
        assert report["memory"]["cache"]["disk"] == {"training": 0, "validation": 0, "free_in": {}}
        assert "dataset cache  about 0 B" in printed

    def test_one_step_is_trained_with_the_first_batch(self, check, bundle, tiny):
        _, printed, report = check(bundle, **tiny, **{"data::batch_size": 2})
        step = report["memory"]["training_step"]
        network = self.parser(bundle, tiny).get_parsed_content("train::network")
        assert step["parameters"] == sum(parameter.numel() for parameter in network.parameters())
        assert step["input_shape"] == [2, 1, 32, 32, 32]
        assert step["seconds"] > 0
        if step["device"] == "cpu":
            # the process holds at least the weights, their gradients and the state of AdamW
            assert step["peak_memory"] > 4 * 4 * step["parameters"]
            assert "of the whole process at its peak, on cpu" in printed

    def test_a_method_that_uses_the_weights_of_another_bundle(self, check, make_bundle, tmp_path, tiny):
        tta = make_bundle(tmp_path, method="tta")
        code, printed, report = check(tta, **tiny)
        assert code == 0, printed
        assert report["bundle"].startswith("phantom_baseline_dice_ce_deterministic")
        assert (tta / "data_check" / "first_batch.png").exists()

    @pytest.mark.parametrize("method", ["mc_dropout_center", "layer_ensemble", "multi_head", "temperature_scaling"])
    def test_no_weights_are_needed(self, check, make_bundle, tmp_path, tiny, method):
        code, printed, report = check(make_bundle(tmp_path, method=method), **tiny)
        assert code == 0, printed
        assert report["memory"]["training_step"]["parameters"] > 0


@pytest.mark.slow
def test_as_a_command(hippocampus, hippocampus_dir):
    """With exit codes, without anything else on stderr, and from any folder."""
    command = [sys.executable, "-m", "medcalib.cli", "check", "--bundle", str(hippocampus)]
    command += options(SMALL | {"data::dataset_dir": hippocampus_dir})
    done = subprocess.run(command, capture_output=True, text=True, cwd=hippocampus)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Data of {hippocampus.name}, seed 12345\n")
    truncated_gzip(hippocampus_dir, "hippocampus_003.nii.gz")
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert "1 problem:\n  Case hippocampus_003: " in again.stdout
