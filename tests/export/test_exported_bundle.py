"""Exported bundles need nothing but this package, and what MONAI does with bundles works on them."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, verify_metadata, verify_net_in_out
from monai.bundle import run as monai_run
from tests.bundle.test_specification import SPECIFICATION
from tests.conftest import REPOSITORY, TEMPLATES
from tests.export.made_weights import make_weights, small_settings

from medcalib.bundle.compose import generate
from medcalib.bundle.fragments import FragmentKind, fragment_names
from medcalib.bundle.resolve import check_config
from medcalib.bundle.run import run
from medcalib.errors import UserError
from medcalib.export import export, open_trained
from medcalib.export.card import model_card
from medcalib.export.exported_bundle import exported_metadata
from medcalib.export.trained_bundle import exported_record
from medcalib.export.window import example_windows, own_prediction
from medcalib.handlers.training_record import TrainingRecord
from medcalib.networks import weights_digest

DATA = fragment_names(TEMPLATES / "configs", FragmentKind.DATA)
METHODS = fragment_names(TEMPLATES / "configs", FragmentKind.METHOD)


def made(folder, data="phantom", method="temperature_scaling", num_networks=None):
    """A bundle with weights that no training made, exported; its folder, and the bundle with its options."""
    bundle = generate(TEMPLATES, folder / "bundles", data, "baseline_ce", method)[0]
    settings = small_settings(bundle) | ({"method::num_networks": num_networks} if num_networks else {})
    make_weights(bundle, settings)
    return export(bundle, "bundle", output=folder / "out", overrides=settings), bundle, settings


def parsed(folder, name="inference.yaml"):
    return yaml.safe_load((folder / "configs" / name).read_text())


@pytest.mark.parametrize("data", DATA)
def test_every_dataset(tmp_path, data):
    """No dataset is there, and none is needed for this."""
    folder, _, _ = made(tmp_path, data)
    moved = tmp_path / "moved"
    folder.rename(moved)
    config = ConfigParser.load_config_file(str(moved / "configs" / "inference.yaml"))
    check_config(config)
    if (moved / "configs" / "images.yaml").exists():
        check_config(
            ConfigParser.load_config_files(
                [str(moved / "configs" / name) for name in ("inference.yaml", "images.yaml")]
            )
        )
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SPECIFICATION))
    metadata = moved / "configs" / "metadata.json"
    verify_metadata(meta_file=str(metadata), filepath=str(schema))
    assert next(iter(json.loads(metadata.read_text())["required_packages_version"])) == "medcalib"
    files = {"config_file": str(moved / "configs" / "inference.yaml"), "meta_file": str(metadata)}
    verify_net_in_out("network_def", device="cpu", bundle_root=str(moved), **files)
    for path in moved.rglob("*"):
        if path.suffix in (".json", ".yaml", ".md", ".conf"):
            assert str(tmp_path) not in path.read_text()
    # 'not evaluated' is said instead of numbers
    assert "**This model was not evaluated**" in (moved / "README.md").read_text()


# MONAI computes the divisors of anisotropic images with NumPy, which no script holds
@pytest.mark.slow
@pytest.mark.parametrize("data", sorted(set(DATA) - {"mnms"}))
def test_torchscript_of_monai_holds_the_calibrator(tmp_path, data):
    folder, bundle, settings = made(tmp_path, data)
    ckpt_export(
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(folder / "models" / "model.pt"),
        config_file=str(folder / "configs" / "inference.yaml"),
        meta_file=str(folder / "configs" / "metadata.json"),
        bundle_root=str(folder),
    )
    trained = open_trained(bundle, overrides=settings)
    windows = example_windows(trained)
    with torch.no_grad():
        probs = torch.jit.load(str(tmp_path / "model.ts"))(windows)
    torch.testing.assert_close(probs, own_prediction(trained, windows), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_brings_its_weights(tmp_path, method):
    num_networks = 2 if method.endswith("_ensemble") and method != "layer_ensemble" else None
    folder, bundle, _settings = made(tmp_path, method=method, num_networks=num_networks)
    shutil.rmtree(bundle.parent)
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.yaml"))
    parser["bundle_root"] = str(folder)
    # as MONAI Label and others take them: strictly, into network_def
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    # whole as it is blended and calibrated: no dataset is looked for on the way
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        logits = parser.get_parsed_content("inferer")(image, network)[0]
        case = parser.get_parsed_content("to_probabilities")({"pred": logits, "image": image[0]})
        expected = network(image)[0] if "mc_dropout" not in method else case["pred"]
    torch.testing.assert_close(case["pred"], expected, atol=1e-5, rtol=0)
    trained = parser.get_parsed_content("trained_network")
    said = json.loads((folder / "configs" / "metadata.json").read_text())["medcalib"]
    assert said["weights_digest"] == weights_digest(trained.state_dict())
    assert said["weights_bundle"] is None


def test_a_changed_network_is_stored_with_its_changes(tmp_path):
    folder, bundle, settings = made(tmp_path, method="fine_tune")
    assert not (folder / "models" / "calibrator.pt").exists()
    assert "calibrator" not in parsed(folder)
    trained = open_trained(bundle, overrides=settings)
    windows = example_windows(trained)
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.yaml"))
    parser["bundle_root"] = str(folder)
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    with torch.no_grad():
        torch.testing.assert_close(network(windows), own_prediction(trained, windows), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("data", "method"),
    [("phantom", "deterministic+recall_control"), ("phantom_cells", "deterministic+prediction_sets")],
)
def test_a_guarantee_stays_here(tmp_path, data, method):
    """What is exported gives the probabilities, and asks for no file that was left behind."""
    with pytest.warns(UserWarning, match=r"The guarantee of .* is not exported"):
        folder, _, _ = made(tmp_path, data, method)
    without = parsed(made(tmp_path / "without", data, "deterministic")[0])
    config = ConfigParser.load_config_file(str(folder / "configs" / "inference.yaml"))
    check_config(config)
    assert "guarantee" not in (folder / "configs" / "inference.yaml").read_text()
    assert "guarantee" not in (folder / "configs" / "images.yaml").read_text()
    assert config.keys() == without.keys()
    assert config["handlers"] == without["handlers"]


def test_weights_of_a_debug_run(tmp_path):
    """They lie in a folder of their own; what is exported is not limited to the cases of such a run."""
    _, bundle, settings = made(tmp_path, method="deterministic")
    (bundle / "seed_12345").rename(bundle / "seed_12345_debug")
    with pytest.raises(UserError, match="is not trained with seed 12345 yet"):
        export(bundle, "bundle", overrides=settings)
    folder = export(bundle, "bundle", overrides=settings, debug=True)
    assert folder.parent == bundle / "seed_12345_debug" / "export"
    config = parsed(folder)
    assert (config["limit_cases"], config["debug"]) == (None, False)
    assert config["output_dir"] == "$@bundle_root + '/output'"


def test_data_whose_fragment_names_their_folder_are_looked_for_among_other_datasets(tmp_path):
    """As `medcalib new-data` writes it."""
    templates = tmp_path / "templates"
    shutil.copytree(TEMPLATES, templates)
    fragment = templates / "configs" / "data" / "phantom.yaml"
    fragment.write_text(fragment.read_text().replace("\"$@data_dir + '/phantom'\"", str(tmp_path / "my knees"), 1))
    bundle = generate(templates, tmp_path / "bundles", "phantom", "baseline_ce", "deterministic")[0]
    settings = small_settings(bundle)
    make_weights(bundle, settings)
    folder = export(bundle, "bundle", output=tmp_path / "out", overrides=settings)
    assert str(tmp_path) not in (folder / "configs" / "inference.yaml").read_text()
    assert parsed(folder)["dataset_dir"] == "$@data_dir + '/my knees'"


def test_what_belongs_to_this_machine_stays_here(tmp_path):
    bundle = generate(TEMPLATES, tmp_path / "bundles", "phantom", "baseline_ce", "deterministic")[0]
    settings = small_settings(bundle)
    make_weights(bundle, settings)
    places = {"data::dataset_dir": str(tmp_path), "data_dir": str(tmp_path), "device": "cpu"}
    folder = export(bundle, "bundle", output=tmp_path / "out", overrides=settings | places)
    assert str(tmp_path) not in (folder / "configs" / "inference.yaml").read_text()
    assert parsed(folder)["dataset_dir"] == "$@data_dir + '/phantom'"
    assert parsed(folder)["device"].startswith("$")
    with pytest.raises(UserError, match="overlays::cases::0 is /x, which is there on this machine only"):
        export(bundle, "bundle", output=tmp_path / "new", overrides=settings | {"overlays::cases": ["/x"]})
    # it is run by MONAI, not by medcalib run
    with pytest.raises(
        UserError, match=f"was exported from {re.escape(bundle.name)}; run it in its folder with python"
    ):
        export(folder, "bundle", output=tmp_path / "again")


def test_weights_with_which_a_training_began_are_told(tmp_path):
    """Without the folders of this machine; the command that repeats it names them, too."""
    bundle = generate(TEMPLATES, tmp_path / "bundles", "phantom", "baseline_ce", "deterministic")[0]
    settings = small_settings(bundle)
    make_weights(bundle, settings)
    seen = {"training": [{"case": "x", "image": "a", "label": "b"}], "validation": []}
    origin = {
        "given": "/home/anna/best.pt", "bundle": None, "file": "//home/anna/best.pt", "file_digest": "1",
        "weights_digest": "2" * 64, "replaced": ["head"], "left_out": [], "cases": seen,
    }  # fmt: skip
    step = {"after_epoch": 2, "planned": 2, "max_epochs": 3}
    none = {"training": [], "validation": []}
    record = exported_record([TrainingRecord(none, starts_from=origin, trained_on=[step])])
    assert record.starts_from["cases"] == seen
    assert "anna" not in str(record)
    trained = replace(open_trained(bundle, overrides=settings), record=record)
    card = model_card(trained, exported_metadata(trained))
    assert "began with the weights of `best.pt`" in card
    assert "have seen 1 training and 0 validation cases" in card
    assert "went on after epoch 2 to 3." in card
    repeated = [line for line in card.splitlines() if line.startswith("    medcalib run")]
    assert ["--initial_weights=best.pt" in line for line in repeated] == [True, False, False]
    plain = model_card(replace(trained, record=TrainingRecord(none)), exported_metadata(trained))
    assert "initial_weights" not in plain


@pytest.mark.slow
def test_from_training_to_a_prediction_elsewhere(trained, tiny, tmp_path, phantom_dir, monkeypatch):
    """The zip alone gives the predictions of the bundle bit by bit, and flags new images as the bundle does."""
    folder = export(trained, "bundle", output=tmp_path / "out")
    archive = folder.with_name(f"{folder.name}.zip")
    before = archive.read_bytes()
    assert export(trained, "bundle", output=tmp_path / "out") == folder
    (tmp_path / "else").mkdir()
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "else")
    moved = tmp_path / "else" / folder.name
    files = [path for path in moved.rglob("*") if path.is_file()]
    of_this_machine = rf"/tmp/|{re.escape(str(REPOSITORY))}|{re.escape(str(Path.home()))}|\.\./shared"
    for path in files:
        assert path.read_bytes() == (folder / path.relative_to(moved)).read_bytes()
        if path.suffix in (".json", ".yaml", ".md", ".csv"):
            assert not re.search(of_this_machine, path.read_text()), path
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.yaml"]
    done = subprocess.run([*command, "--dataset_dir", str(phantom_dir)], cwd=moved, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    maps = sorted((trained / "seed_12345" / "predictions").glob("*/*.nii.gz"))
    assert maps
    for path in maps:
        other = moved / "output" / "predictions" / path.parent.name / path.name
        np.testing.assert_array_equal(nib.load(path).get_fdata(), nib.load(other).get_fdata())

    image = str(next((phantom_dir / "images").glob("*")))
    settings = {id_: value for id_, value in tiny.items() if "epochs" not in id_ and "cases" not in id_}
    run(str(trained), "inference_pred", images=image, overrides=settings | {"output_dir": str(tmp_path / "own")})
    monkeypatch.chdir(moved)
    monai_run(config_file=["configs/inference.yaml", "configs/images.yaml"], images=image)
    (new,) = (moved / "output").parent.glob("images/*/predictions.csv")
    pd.testing.assert_frame_equal(pd.read_csv(new), pd.read_csv(tmp_path / "own" / "predictions.csv"))
    assert pd.read_csv(new)["flagged"].notna().all()

    made_workflow = ConfigWorkflow("configs/inference.yaml", workflow_type="infer", dataset_dir=str(phantom_dir))
    made_workflow.initialize()
    assert made_workflow.check_properties() == []
    made_workflow.finalize()

    # what is there is never replaced
    (folder / "configs" / "inference.yaml").write_text("edited: true\n")
    with pytest.raises(UserError, match=r"another configs/inference.yaml\), and an export never replaces anything"):
        export(trained, "bundle", output=tmp_path / "out")
    assert (folder / "configs" / "inference.yaml").read_text() == "edited: true\n"
    assert archive.read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [folder.name, archive.name]


@pytest.mark.slow
def test_a_card_says_what_was_measured(trained, tmp_path):
    folder = export(trained, "bundle", output=tmp_path / "out")
    card = (folder / "README.md").read_text()
    _, head, text = card.split("---\n", 2)
    head = yaml.safe_load(head)
    summary = json.loads((trained / "seed_12345" / "evaluation" / "summary.json").read_text())
    assert head["library_name"] == "monai"
    assert head["pipeline_tag"] == "image-segmentation"
    (result,) = head["model-index"][0]["results"]
    told = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert told["dice"] == summary["mean_dice"]
    assert told["macro_ece"] == summary["macro_ece"]
    assert f"| Dice | {summary['mean_dice']:.4g} |" in text
    assert "evaluation/reliability/dataset_diagram.png" in text
    assert (folder / "evaluation" / "reliability" / "dataset_diagram.png").exists()
    assert "| training | 4 |" in text
    assert "--data::cases::num_test=3" in text
    assert "Licence of the data: Apache-2.0" in text
    for title in ("Intended use and limits", "Data", "Results", "Calibration", "Flagging", "How to repeat it"):
        assert f"\n## {title}\n" in text
    # beside MONAI's own place for it
    assert "](../evaluation/reliability/dataset_diagram.png)" in (folder / "docs" / "README.md").read_text()


@pytest.mark.slow
def test_an_evaluation_of_other_weights_is_not_told(trained, tmp_path):
    copied = tmp_path / "bundles" / trained.name
    shutil.copytree(trained, copied)
    file = copied / "seed_12345" / "evaluation" / "summary.json"
    summary = json.loads(file.read_text())
    summary["provenance"]["checkpoint_digest"] = "another"
    file.write_text(json.dumps(summary))
    folder = export(copied, "bundle", output=tmp_path / "out")
    card = (folder / "README.md").read_text()
    assert "**This model was not evaluated**" in card
    assert "model-index" not in card
    assert "No thresholds" in card
    assert not (folder / "evaluation").exists()
