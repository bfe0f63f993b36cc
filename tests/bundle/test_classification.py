"""Classification of whole images through the command lines' functions, on few phantom cells."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, verify_metadata
from scipy.stats import entropy
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from tests.bundle.test_specification import workflow
from tests.conftest import TEMPLATES
from tests.data.layouts_2d import make_cric

from medcalib.bundle.compose import generate
from medcalib.bundle.fragments import FragmentKind, fragment_names, read_yaml
from medcalib.bundle.layout import CONFIGS, METADATA, Mode
from medcalib.bundle.opened import Bundle
from medcalib.bundle.run import run
from medcalib.calibrators import CalibrationCase, TemperatureScaling, fit_calibrator, read_calibrator
from medcalib.data import phantom_cells_cases
from medcalib.errors import UserError
from medcalib.networks import ImageClassifier

SIZES = {"num_training": 24, "num_validation": 12, "num_test": 10}
CLASSES = ["negative", "low_grade", "high_grade"]
SMALL_NETWORK = {"network::layers": [1, 1, 1, 1], "network::widths": [4, 8, 8, 16]}
METHODS = ["deterministic", "mc_dropout", "tta", "multi_head", "temperature_scaling"]
# the methods and calibrators that a test of their own takes through the same way, slowly
OTHERS = [
    "mc_dropout_center", "mc_dropout_decoder", "deep_ensemble", "tta_deep_ensemble", "checkpoint_ensemble",
    "layer_ensemble", "vector_scaling", "platt_scaling", "isotonic", "histogram_binning", "fine_tune",
    "multi_head+temperature_scaling", "softl1ace_tuning",
]  # fmt: skip
LOSSES_OF_MAPS = ["svls", *(name for name in fragment_names(TEMPLATES / CONFIGS, FragmentKind.LOSS) if "dice" in name)]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Overrides that make a bundle of the phantom cells run in seconds."""
    return {
        "data::dataset_dir": str(tmp_path_factory.mktemp("data") / "cells"),
        **{f"data::cases::{name}": number for name, number in SIZES.items()},
        **SMALL_NETWORK,
        "data::batch_size": 8,
        "data::max_epochs": 2,
    }


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Generate a bundle beside the others of this module, so that weights are shared."""
    folder = tmp_path_factory.mktemp("bundles")

    def generated(method="deterministic", loss="baseline_ce", data="phantom_cells"):
        return generate(TEMPLATES, folder, data, loss, method)[0]

    return generated


@pytest.fixture(scope="module")
def results(make, cells):
    """The output folder of a method after training, prediction and evaluation; each is run once."""
    done = {}

    def of_method(method):
        if method not in done:
            bundle = make(method)
            for mode in Mode:
                run(str(bundle), mode, overrides=cells)
            done[method] = bundle / "seed_12345"
        return done[method]

    return of_method


def tables(folder):
    return pd.read_csv(folder / "predictions" / "predictions.csv"), pd.read_csv(folder / "evaluation" / "cases.csv")


def probabilities(folder):
    return tables(folder)[0][[f"probability_{name}" for name in CLASSES]].to_numpy()


def check_results(folder, cells):
    """The tables follow from the predictions, and the summary from the tables, by scikit-learn."""
    predictions, cases = tables(folder)
    summary = json.loads((folder / "evaluation" / "summary.json").read_text())
    split = phantom_cells_cases(cells["data::dataset_dir"], **SIZES)["test"]
    assert list(predictions["case"]) == list(cases["filename"]) == [case["case"] for case in split]
    p = probabilities(folder)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert list(predictions["predicted"]) == list(cases["predicted"]) == [CLASSES[index] for index in p.argmax(1)]
    labels = np.array([case["label"] for case in split])
    assert list(cases["label"]) == [CLASSES[label] for label in labels]
    assert ("variance" in predictions) == ("variance" in cases)
    for name in {"entropy", "mutual_information", "variance", "sample_mean_uncertainty"} & set(predictions):
        np.testing.assert_allclose(predictions[name], cases[name], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(predictions["entropy"], -(p * np.log(p)).sum(1), rtol=1e-4)
    known = [index for index in range(3) if index in labels]
    assert summary["accuracy"] == pytest.approx(accuracy_score(labels, p.argmax(1)))
    # only here are they divided by their sum: that would part ties, on which the AUC depends
    exact = p / p.sum(1, keepdims=True)
    assert summary["nll_categorical"] == pytest.approx(log_loss(labels, exact, labels=range(3)), rel=1e-5)
    assert summary["auc"] == pytest.approx(np.mean([roc_auc_score(labels == index, p[:, index]) for index in known]))
    assert summary["num_cases"] == SIZES["num_test"]
    assert summary["provenance"]["fragments"]["data"] == "phantom_cells"
    assert not list(folder.rglob("*.nii.gz"))
    assert not list(folder.rglob("*.unfinished*"))


@pytest.mark.parametrize("method", METHODS)
def test_from_training_to_tables(results, cells, method):
    check_results(results(method), cells)


@pytest.mark.slow
@pytest.mark.parametrize("method", OTHERS)
def test_other_methods_from_training_to_tables(results, cells, method):
    check_results(results(method), cells)


def test_nothing_is_left_out():
    methods = fragment_names(TEMPLATES / CONFIGS, FragmentKind.METHOD)
    calibrators = fragment_names(TEMPLATES / CONFIGS, FragmentKind.CALIBRATOR)
    assert set(methods) | set(calibrators) <= {*METHODS, *OTHERS, "auxiliary", "local_temperature_scaling"}


@pytest.mark.parametrize("method", METHODS)
def test_members_disagree_where_there_are_several(results, method):
    predictions, _ = tables(results(method))
    several = method not in ("deterministic", "temperature_scaling")
    for name in ("mutual_information", "variance"):
        assert (name in predictions) == several
        assert not several or (predictions[name] > 0).all()


def test_training_logs_what_chooses_the_best_epoch(results):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = results("deterministic")
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    for tag in ("auc", "accuracy", "micro_ece", "nll_categorical", "train_loss"):
        assert tag in events.Tags()["scalars"]
    values = [event.value for event in events.Scalars("auc")]
    state = torch.load(folder / "models" / "checkpoint.pt", weights_only=True)
    assert state["best_metric"] == pytest.approx(max(values))
    assert values.index(max(values)) + 1 == state["best_epoch"]


def test_the_progress_bar_shows_auc(make, cells, tmp_path, capsys):
    run(str(make()), "train", overrides=cells | {"output_dir": str(tmp_path / "out"), "data::max_epochs": 1})
    assert "val AUC" in capsys.readouterr().err


@torch.no_grad()
def test_tta_is_what_flipped_images_say_together(make, results, cells):
    made = workflow(make("tta"), Mode.INFERENCE_PRED, cells)
    network, dataset = made.network_def, made.parser.get_parsed_content("dataset")
    network.load_state_dict(torch.load(results("deterministic") / "models" / "model.pt", weights_only=True))
    network.eval()
    members = []
    for case in dataset:
        image = case["image"].as_tensor()[None]
        views = [image, image.flip(2), image.flip(3), image.flip(2, 3)]
        members.append(torch.cat([network(view).double().softmax(1) for view in views]).numpy())
    members = np.array(members)  # (image, view, class)
    mean = members.mean(1)
    found = tables(results("tta"))[0]
    np.testing.assert_allclose(probabilities(results("tta")), mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["variance"], members.var(1).mean(1), rtol=1e-3, atol=1e-8)
    information = entropy(mean, axis=1) - entropy(members, axis=2).mean(1)
    np.testing.assert_allclose(found["mutual_information"], information, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found["sample_mean_uncertainty"], 1 - 2 * (mean.max(1) - 0.5) ** 2, rtol=1e-5)


def test_a_temperature_scales_all_log_odds_alike(results):
    plain, scaled = (np.log(probabilities(results(method))) for method in ("deterministic", "temperature_scaling"))
    slopes = (scaled[:, 1:] - scaled[:, :1]) / (plain[:, 1:] - plain[:, :1])
    report = read_calibrator(results("temperature_scaling") / "models" / "calibrator.pt")
    np.testing.assert_allclose(slopes, np.exp(-report["state"]["log_temperature"].item()), rtol=1e-3)
    assert report["report"]["nll_after"] <= report["report"]["nll_before"]
    assert report["report"]["num_cases"] == SIZES["num_validation"]


def test_temperature_scaling_finds_the_temperature_of_predictions_without_axes():
    generator = torch.Generator().manual_seed(0)
    truth = 1.5 * torch.randn(400, 3, generator=generator)
    labels = torch.multinomial(truth.softmax(1), 1, generator=generator)
    cases = [CalibrationCase(3 * truth[i : i + 1], labels[i : i + 1]) for i in range(400)]
    calibrator = TemperatureScaling(num_classes=3)
    report = fit_calibrator(calibrator, cases, include_background=True)
    assert 2.5 < calibrator.temperature < 3.5
    assert report.nll_after < report.nll_before - 0.1
    assert calibrator(3 * truth).shape == (400, 3)


@pytest.mark.parametrize("mode", list(Mode))
def test_no_property_is_missing(results, make, cells, mode):
    results("deterministic")
    made = workflow(make(), mode, cells)
    assert made.check_properties() == []
    made.finalize()


def test_metadata_say_that_an_image_has_one_prediction(make, tmp_path):
    metadata = json.loads((make() / CONFIGS / METADATA).read_text())
    pred = metadata["network_data_format"]["outputs"]["pred"]
    assert pred["type"] == "probabilities"
    assert pred["num_channels"] == 3
    assert pred["spatial_shape"] == [1, 3]
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object"}))
    verify_metadata(meta_file=str(make() / CONFIGS / METADATA), filepath=str(schema))


def test_the_plain_command_of_monai_runs_the_same_files(make):
    readme = (make() / "docs" / "README.md").read_text()
    assert "classification.yaml" in readme


@pytest.mark.parametrize("data", ["cric", "phantom_cells"])
@pytest.mark.parametrize("loss", fragment_names(TEMPLATES / CONFIGS, FragmentKind.LOSS))
@pytest.mark.parametrize("method", ["deterministic", "multi_head"])
def test_every_loss_trains_or_says_why_not(make, data, loss, method):
    """The loss that the trainer is given, on logits as the network gives them."""
    bundle = make(method, loss, data)
    parser = ConfigParser(Bundle.open(bundle).config(Mode.TRAIN))
    num_classes = len(parser["data::class_names"])
    logits = torch.randn(6, num_classes, requires_grad=True)
    heads = [logits, 2 * logits] if method == "multi_head" else logits
    labels = torch.tensor([[0], [1], [1], [0], [1], [0]], dtype=torch.uint8)
    if loss in LOSSES_OF_MAPS:
        with pytest.raises(RuntimeError) as raised:
            parser.get_parsed_content("train::trainer::loss_function")
        assert "needs the regions of a label map" in str(raised.value.__cause__)
        return
    value = parser.get_parsed_content("train::trainer::loss_function")(heads, labels)
    value.backward()
    assert torch.isfinite(value)
    assert logits.grad.any(1).all()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["average", "individual", "combined", "meta"])
def test_losses_of_several_heads_train(make, cells, tmp_path, mode):
    out = tmp_path / "out"
    run(
        str(make("multi_head")), "train", overrides=cells | {"train::loss_function::mode": mode, "output_dir": str(out)}
    )
    weights = torch.load(out / "models" / "model.pt", weights_only=True)
    first, second = (weights[f"network.head.heads.{head}.output.weight"] for head in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("method", "loss", "overrides", "message"),
    [
        ("deterministic", "baseline_dice_ce", {}, "holds a Dice.*Loss, which needs the regions of a label map"),
        (
            "deterministic",
            "baseline_ce",
            {"network::weights": "nowhere.pth"},
            "nowhere.pth does not exist; network::",
        ),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(make, cells, tmp_path, method, loss, overrides, message):
    out = tmp_path / "out"
    with pytest.raises(UserError, match=message) as raised:
        run(str(make(method, loss)), "train", overrides=cells | overrides | {"output_dir": str(out)})
    assert "\n" not in str(raised.value)
    assert not out.exists()


@pytest.mark.parametrize("widths", [[8, 16, 16, 16], [16, 16, 16, 16]])
def test_channels_come_last_only_where_the_gradient_is_safe(make, widths):
    parser = ConfigParser(Bundle.open(make()).config(Mode.TRAIN))
    parser.update({"network::widths": widths})
    network = parser.get_parsed_content("placed_network")
    layout = torch.contiguous_format if min(widths) < 16 else torch.channels_last
    assert parser.get_parsed_content("memory_format") is layout
    assert network.features.layer2[0].conv1.weight.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("calibrator", ["auxiliary", "local_temperature_scaling"])
def test_calibrators_that_need_neighbours_are_refused(results, make, cells, calibrator):
    results("deterministic")  # its weights are used
    with pytest.raises(
        UserError, match=f"The {calibrator} calibrator looks at neighbours along 2 axes.*temperature_scaling"
    ):
        run(str(make(calibrator)), "train", overrides=cells)


@pytest.mark.parametrize("name", ["cric", "phantom_cells"])
def test_fragments_keep_their_contract(make, name):
    make(data=name)
    metadata = read_yaml(TEMPLATES / CONFIGS / "data" / f"{name}.yaml")["data"]["metadata"]
    assert metadata["title"] == name


def test_the_network_of_the_published_work():
    settings = read_yaml(TEMPLATES / CONFIGS / "network" / "resnet50.yaml")["network"]
    shape = ("block", "layers", "widths", "stem_size", "stem_stride", "max_pool", "hidden", "dropout")
    with torch.device("meta"):  # shapes only
        features = ImageClassifier(3, 2, **{name: settings[name] for name in shape}).features(
            torch.empty(1, 3, 224, 224)
        )
    assert features.shape == (1, 2048)


def test_cric_from_pretrained_features_to_tables(make, tmp_path):
    """In the layout of the download, with the feature extractor frozen."""
    torch.manual_seed(1)
    source = ImageClassifier(3, 7, "basic", [1, 1, 1, 1], [4, 8, 8, 16], hidden=[])
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    overrides = {
        "data::dataset_dir": str(make_cric(tmp_path / "CRIC")),
        "data::patch_size": [32, 32],
        "network::block": "basic",
        **SMALL_NETWORK,
        "network::hidden": [8],
        "network::weights": str(tmp_path / "weights.pt"),
    }
    bundle = make(data="cric")
    run(str(bundle), "train", debug=True, overrides=overrides)
    (tmp_path / "weights.pt").unlink()  # a prediction needs the checkpoint alone
    for mode in ("inference_pred", "inference_eval"):
        run(str(bundle), mode, debug=True, overrides=overrides)
    folder = bundle / "seed_12345_debug"
    trained = torch.load(folder / "models" / "checkpoint.pt", weights_only=True)["network"]
    assert all(torch.equal(trained[name], v) for name, v in source.state_dict().items() if name.startswith("features"))
    predictions, cases = tables(folder)
    assert set(predictions["predicted"]) <= {"negative", "abnormal"}
    assert cases["bethesda"].notna().all()
    config = yaml.safe_load((folder / "configs" / "train.yaml").read_text())
    assert config["network"]["frozen"] is True
