"""Labels that may overlap, regions of classes and regions of interest, from training to evaluation.

What a bundle reports is computed once more from the files that it wrote, with NumPy.
"""

import copy
import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tests.conftest import PHANTOM_SIZE, TEMPLATES

from medcalib.bundle.bundle_metadata import read_metadata
from medcalib.bundle.compose import generate
from medcalib.bundle.fragments import read_yaml
from medcalib.bundle.run import run
from medcalib.calibrators import read_calibrator
from medcalib.data import phantom_cases
from medcalib.errors import UserError
from medcalib.handlers import case_overlay
from medcalib.visualize import draw_case_overlay

SEED = "seed_12345"
NUM_BINS = 20
ABOVE = 100.0
REGIONS = {"organ_and_lesion": [1, 2], "lesion": [2]}
QUICK = {"evaluation::num_case_diagrams": 0, "quality_control::calibrate_threshold": False}
SPACING = {
    "_target_": "monai.transforms.Spacingd",
    "keys": ["image", "label"],
    "pixdim": [1.5, 1.5, 2.0],
    "mode": ["bilinear", "nearest"],
    "allow_missing_keys": True,
}


def independent(fragment, labels):
    fragment["data"]["class_names"] = list(labels)
    make = {"_target_": "medcalib.transforms.Regionsd", "keys": "label", "allow_missing_keys": True}
    fragment["data"]["preprocessing"].append(make | {"regions": labels, "num_classes": 3})
    fragment["activation"] = "sigmoid"


def binary(fragment):
    independent(fragment, {"foreground": [1, 2]})


def two_channels(fragment):
    fragment["data"] |= {"class_names": ["background", "foreground"], "label_map": {1: 1, 2: 1}}


def overlapping(fragment):
    independent(fragment, REGIONS)


def regions(fragment):
    fragment["data"] |= {"regions": REGIONS, "evaluate": "regions"}
    fragment["data"]["preprocessing"].insert(1, SPACING)


def bright(fragment):
    transforms = fragment["data"]["preprocessing"]
    transforms[0]["keys"] = ["image", "label", "region_of_interest"]
    mark = {"_target_": "medcalib.transforms.RegionOfInterestd", "keys": "image", "names": "region_of_interest"}
    transforms.insert(0, mark | {"channel": 0, "above": ABOVE})


def both(fragment):
    overlapping(fragment)
    fragment["data"] |= {"regions": {"all": [0, 1]}, "evaluate": "regions"}


FRAGMENTS = {
    "binary": binary,
    "two_channels": two_channels,
    "overlapping": overlapping,
    "regions": regions,
    "bright": bright,
    "both": both,
}
# what the channels of a prediction, or the regions that are reported, are in the files of labels
TRUTH = {"binary": {"foreground": [1, 2]}, "overlapping": REGIONS, "regions": REGIONS}
TRUTH["bright"] = TRUTH["labels"] = {"organ": [1], "lesion": [2]}


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    """The templates with a fragment for each kind of task."""
    folder = shutil.copytree(TEMPLATES, tmp_path_factory.mktemp("templates") / "bundle_templates")
    phantom = read_yaml(folder / "configs" / "data" / "phantom.yaml")
    for name, change in FRAGMENTS.items():
        fragment = copy.deepcopy(phantom)
        change(fragment)
        (folder / "configs" / "data" / f"{name}.yaml").write_text(yaml.safe_dump(fragment, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the bundles of this module lie."""
    return tmp_path_factory.mktemp("activations")


@pytest.fixture(scope="module")
def make(templates, folder):
    """Generate a bundle of one of the fragments."""

    def make(data, method="deterministic", loss="baseline_dice_ce"):
        return generate(templates, folder / "bundles", data, loss, method)[0]

    return make


@pytest.fixture(scope="module")
def settings(tiny):
    """A training that is just long enough for predictions that are neither empty nor certain."""
    return tiny | {"data::batch_size": 1, "data::max_epochs": 4, "train::optimizer::lr": 0.02}


@pytest.fixture(scope="module")
def predicted(make, settings):
    """Train and predict with a fragment and a method, once."""
    done = {}

    def predict(data, method="deterministic", **more):
        if (data, method) not in done:
            bundle = make(data, method)
            # with the windows of the validation, as every other training of this bundle
            run(str(bundle), "train", overrides=settings)
            run(str(bundle), "inference_pred", overrides=settings | more)
            done[data, method] = bundle
        return done[data, method]

    return predict


@pytest.fixture(scope="module")
def evaluated(predicted, settings):
    """Evaluate with a fragment and a method on a grid, once."""
    done = {}

    def evaluate(data, method="deterministic", space="resampled", more=(), **overrides):
        key = (data, method, space, *sorted(overrides.items()))
        if key not in done:
            bundle = predicted(data, method, **dict(more))
            run(
                str(bundle),
                "inference_eval",
                overrides=settings | QUICK | dict(more) | {"evaluation::space": space} | overrides,
            )
            done[key] = Evaluation(bundle / SEED / "evaluation")
        return done[key]

    return evaluate


class Evaluation:
    """The tables of an evaluation, read at once, since the next evaluation moves them."""

    def __init__(self, path):
        self.summary = json.loads((path / "summary.json").read_text())
        self.tables = {
            file.name.removesuffix("_raw.csv"): pd.read_csv(file, index_col="filename")
            for file in path.glob("*_raw.csv")
        }
        self.cases = pd.read_csv(path / "cases.csv", index_col="filename")
        self.quality = json.loads((path / "quality_control.json").read_text())
        with np.load(path / "bin_statistics.npz") as arrays:
            self.bins = {name: arrays[name] for name in arrays.files}

    def numbers(self):
        """Every number of the summary."""
        kept = {key: value for key, value in self.summary.items() if key not in ("provenance", "cases_without_class")}
        return pd.json_normalize(kept).iloc[0].astype(float)


def test_cases(phantom_dir):
    return phantom_cases(phantom_dir, **PHANTOM_SIZE)["test"]


test_cases.__test__ = False


def read_map(bundle, case, name):
    """A written map with its channels first."""
    volume = nib.load(bundle / SEED / "predictions" / case / f"{case}_{name}.nii.gz").get_fdata(dtype=np.float32)
    return volume[None] if volume.ndim == 3 else np.moveaxis(volume, -1, 0)


def read_truth(case, sets):
    label = np.asarray(nib.load(case["label"]).dataobj)
    return np.stack([np.isin(label, values) for values in sets.values()])


def binary_entropy(p):
    p = p.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.nan_to_num(p * np.log(p)) - np.nan_to_num((1 - p) * np.log1p(-p))


def dice(seg, truth):
    """Dice of each channel, NaN where there is nothing in the truth."""
    return np.array(
        [2 * (s & t).sum() / (s.sum() + t.sum()) if t.any() else np.nan for s, t in zip(seg, truth, strict=True)]
    )


def ece(p, y):
    """Expected calibration error of one class, over equal bins that are closed at their upper end."""
    place = np.clip(np.ceil(p.astype(np.float64) * NUM_BINS) - 1, 0, NUM_BINS - 1).astype(int)
    gaps = np.bincount(place, p.astype(np.float64) - y, NUM_BINS)
    return np.abs(gaps).sum() / p.size


def nll(p, y):
    p = np.clip(p.astype(np.float64), 1.1920929e-07, 1 - 1.1920929e-07)
    return -np.mean(np.where(y, np.log(p), np.log1p(-p)))


def brier(p, y):
    return np.mean((p.astype(np.float64) - y) ** 2)


def check_scores(evaluation, names, cases, probs, segs, truths, masks):
    """Compare what was reported per case with NumPy on what was written."""
    assert any(seg.any() for seg in segs)
    for metric, function in (("macro_ece", ece), ("nll", nll), ("brier", brier)):
        table = evaluation.tables[metric]
        assert list(table.columns) == [*names, "mean"]
        for case, p, y, mask in zip(cases, probs, truths, masks, strict=True):
            wanted = [function(p[c][mask], y[c][mask]) if y[c][mask].any() else np.nan for c in range(len(names))]
            np.testing.assert_allclose(table.loc[case["case"], list(names)], wanted, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(table.loc[case["case"], "mean"], np.nanmean(wanted), rtol=1e-4, atol=1e-6)
    for case, seg, y in zip(cases, segs, truths, strict=True):
        found = evaluation.tables["mean_dice"].loc[case["case"], list(names)]
        np.testing.assert_allclose(found, dice(seg, y), atol=1e-6)
    assert evaluation.summary["per_class"]["nll"].keys() == set(names)
    assert evaluation.bins["classes"].tolist() == list(names)
    # a voxel counts once in every class, and only inside its mask
    counted = [mask.sum() for mask in masks]
    np.testing.assert_array_equal(
        evaluation.bins["counts"].sum(-1), np.repeat(np.array(counted)[:, None], len(names), 1)
    )
    assert evaluation.summary["nll"] == pytest.approx(evaluation.tables["nll"]["mean"].mean())


@pytest.mark.parametrize("space", ["resampled", "original"])
@pytest.mark.parametrize("data", ["binary", "overlapping"])
def test_independent_labels(predicted, evaluated, phantom_dir, data, space):
    bundle, evaluation = predicted(data), evaluated(data, space=space)
    cases = test_cases(phantom_dir)
    probs = [read_map(bundle, case["case"], "prob") for case in cases]
    segs = [read_map(bundle, case["case"], "seg") > 0 for case in cases]
    truths = [read_truth(case, TRUTH[data]) for case in cases]
    for case, p, seg in zip(cases, probs, segs, strict=True):
        assert p.shape == (len(TRUTH[data]), *nib.load(case["image"]).shape)
        np.testing.assert_array_equal(seg, p >= 0.5)
        entropy = read_map(bundle, case["case"], "entropy")
        np.testing.assert_allclose(entropy[0], binary_entropy(p).sum(0), atol=1e-5)
        assert evaluation.cases.loc[case["case"], "entropy_image_mean"] == pytest.approx(
            entropy.mean(dtype=np.float64), rel=1e-4
        )
        found = evaluation.cases.loc[case["case"], "mean_foreground_confidence"]
        wanted = p.max(0)[seg.any(0)].mean(dtype=np.float64) if seg.any() else np.nan
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
    everywhere = [np.ones(p.shape[1:], bool) for p in probs]
    check_scores(evaluation, TRUTH[data], cases, probs, segs, truths, everywhere)
    assert "nll_categorical" not in evaluation.tables
    assert evaluation.summary["provenance"]["activation"] == "sigmoid"
    metadata = read_metadata(bundle)["network_data_format"]["outputs"]["pred"]
    assert metadata["num_channels"] == len(TRUTH[data])


@pytest.mark.parametrize("data", ["binary", "overlapping"])
def test_figures_show_what_was_predicted(predicted, folder, settings, phantom_dir, data, monkeypatch):
    """Also where the numbers in the file of the label are not those of the channels."""
    bundle = predicted(data)  # draws, too
    drawn = []

    def draw(image, seg, uncertainty, label, **options):
        drawn.append((seg, label, options["class_names"], options["maximum"]))
        return draw_case_overlay(image, seg, uncertainty, label, **options)

    monkeypatch.setattr(case_overlay, "draw_case_overlay", draw)
    checkpoint = {"checkpoint": str(bundle / SEED / "models" / "model.pt"), "output_dir": str(folder / f"{data}_drawn")}
    run(str(bundle), "inference_pred", overrides=settings | checkpoint | {"limit_cases": 1})
    ((seg, label, names, maximum),) = drawn
    case = test_cases(phantom_dir)[0]
    numbers = np.arange(1, len(TRUTH[data]) + 1).reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(label, (read_truth(case, TRUTH[data]) * numbers).max(0))
    np.testing.assert_array_equal(seg, (read_map(bundle, case["case"], "seg") * numbers).max(0))
    assert names == ["background", *TRUTH[data]]
    assert maximum == pytest.approx(len(TRUTH[data]) * np.log(2))
    assert (folder / f"{data}_drawn" / "predictions" / case["case"] / f"{case['case']}_overlay.png").is_file()


@pytest.mark.parametrize(("data", "method"), [("binary", "tta"), ("overlapping", "mc_dropout")])
def test_members_of_independent_labels(predicted, evaluated, phantom_dir, data, method):
    # one window, since logits and maps are blended apart where windows overlap
    whole = (("inferer::roi_size", [64, 64, 64]),)
    members = {"tta": ("method::sampler::flip_axes", [0]), "mc_dropout": ("method::sampler::num_members", 2)}
    evaluation = evaluated(data, method, more=(*whole, members[method]))
    bundle = predicted(data, method)
    cases = test_cases(phantom_dir)
    maps = {name: [read_map(bundle, case["case"], name) for case in cases] for name in ("prob", "seg", "entropy")}
    for case, p, seg, entropy in zip(cases, *maps.values(), strict=True):
        assert p.shape[0] == len(TRUTH[data])
        np.testing.assert_array_equal(seg > 0, p >= 0.5)
        np.testing.assert_allclose(entropy[0], binary_entropy(p).sum(0), atol=1e-5)
        information, variance = (read_map(bundle, case["case"], name) for name in ("mutual_information", "variance"))
        assert (information >= 0).all()
        # of the entropy of the mean, what the members disagree about is a part
        assert (information <= entropy + 1e-5).all()
        assert information.max() > 0
        assert 0 < variance.max() <= 0.25
    everywhere = [np.ones(p.shape[1:], bool) for p in maps["prob"]]
    segs, truths = [seg > 0 for seg in maps["seg"]], [read_truth(case, TRUTH[data]) for case in cases]
    check_scores(evaluation, TRUTH[data], cases, maps["prob"], segs, truths, everywhere)
    assert evaluation.cases["pairwise_dice"].between(0, 1).all()


@pytest.mark.parametrize("method", ["temperature_scaling", "isotonic"])
@pytest.mark.parametrize("data", ["binary", "overlapping"])
def test_calibrators_of_independent_labels(predicted, evaluated, phantom_dir, data, method):
    plain, evaluation = predicted(data), evaluated(data, method)
    bundle = predicted(data, method)
    content = read_calibrator(bundle / SEED / "models" / "calibrator.pt")
    report = content["report"]
    assert report["nll_after"] <= report["nll_before"]
    assert len(report["class_ece_before"]) == len(TRUTH[data])
    cases = test_cases(phantom_dir)
    probs = [read_map(bundle, case["case"], "prob") for case in cases]
    segs = [read_map(bundle, case["case"], "seg") > 0 for case in cases]
    truths = [read_truth(case, TRUTH[data]) for case in cases]
    check_scores(evaluation, TRUTH[data], cases, probs, segs, truths, [np.ones(p.shape[1:], bool) for p in probs])
    for case, p in zip(cases, probs, strict=True):
        before = read_map(plain, case["case"], "prob").astype(np.float64).clip(1e-9, 1 - 1e-9)
        odds = np.log(before) - np.log1p(-before)
        if method == "temperature_scaling":
            temperature = float(content["state"]["log_temperature"].exp())
            inside = (before > 1e-3) & (before < 1 - 1e-3)  # else float32 says too little of the odds
            np.testing.assert_allclose(p[inside], 1 / (1 + np.exp(-odds[inside] / temperature)), atol=1e-4)
        else:
            for channel, after in zip(odds, p, strict=True):
                inside = np.abs(channel) < 7
                order = np.argsort(channel[inside], axis=None)
                assert (np.diff(after[inside][order]) > -1e-3).all()


def softened(bundle):
    """The weights of a trained bundle with small logits, and the names of its heads.

    A large logit makes one probability 1 in float32, which loses the digits of the other one.
    """
    weights = torch.load(bundle / SEED / "models" / "model.pt", weights_only=True)
    heads = [name for name in weights if ".head." in name]
    assert heads
    return weights | {name: weights[name] / 4 for name in heads}, heads


def test_one_channel_says_what_two_exclusive_classes_say(make, predicted, folder, settings):
    """A network of one channel, and the same with a second channel of zeros before it."""
    weights, heads = softened(predicted("binary"))
    torch.save(weights, folder / "one_channel.pt")
    for name in heads:
        weights[name] = torch.cat([torch.zeros_like(weights[name]), weights[name]])
    torch.save(weights, folder / "two_channels.pt")
    found = {}
    for name, data in (("one_channel", "binary"), ("two_channels", "two_channels")):
        where = {"checkpoint": str(folder / f"{name}.pt"), "output_dir": str(folder / name)}
        flips = {"method::sampler::flip_axes": [0]}
        run(str(make(data, "tta")), "inference_eval", overrides=settings | QUICK | where | flips)
        found[name] = Evaluation(folder / name / "evaluation")
    single, double = (evaluation.numbers() for evaluation in found.values())
    extra = {name for name in double.index if "nll_categorical" in name}
    assert extra
    assert set(double.index) - set(single.index) == extra
    assert {"micro_ece", "macro_ace", "brier", "mhd"} < set(single.index)
    for name, value in single.items():
        assert value == pytest.approx(double[name], rel=1e-4, abs=1e-7), name
    scores = [evaluation.cases for evaluation in found.values()]
    assert {"variance_image_mean", "pairwise_dice"} < set(scores[0])
    pd.testing.assert_frame_equal(scores[0], scores[1][scores[0].columns], rtol=1e-4, atol=1e-7)
    voxels = [evaluation.quality["voxels"]["entropy_aurc"] for evaluation in found.values()]
    assert voxels[0] == pytest.approx(voxels[1], rel=1e-3)


def test_a_score_over_exclusive_classes_belongs_to_none(evaluated, predicted, tmp_path):
    """Also where there is a single class beside the background, so that tables of all metrics are one value wide."""
    torch.save(softened(predicted("two_channels"))[0], tmp_path / "soft.pt")
    evaluation = evaluated("two_channels", checkpoint=str(tmp_path / "soft.pt"))
    table = evaluation.tables["nll_categorical"]
    assert list(table.columns) == ["mean"]
    # both classes say the same
    np.testing.assert_allclose(table["mean"], evaluation.tables["nll"]["foreground"], rtol=1e-4)


@pytest.mark.parametrize("evaluate", ["regions", "labels"])
def test_regions(predicted, evaluated, phantom_dir, evaluate):
    bundle = predicted("regions")
    evaluation = evaluated("regions", space="original", **{"data::evaluate": evaluate})
    cases = test_cases(phantom_dir)
    probs = [read_map(bundle, case["case"], "prob") for case in cases]
    labels = [read_map(bundle, case["case"], "seg")[0] for case in cases]
    assert all(p.shape[0] == 3 for p in probs)
    sets = TRUTH[evaluate]
    sums = [np.stack([p[values].sum(0) for values in sets.values()]) for p in probs]
    segs = [np.stack([np.isin(seg, values) for values in sets.values()]) for seg in labels]
    truths = [read_truth(case, sets) for case in cases]
    check_scores(evaluation, sets, cases, sums, segs, truths, [np.ones(p.shape[1:], bool) for p in probs])
    assert evaluation.summary["provenance"]["regions"] == (REGIONS if evaluate == "regions" else None)
    assert ("nll_categorical" in evaluation.tables) == (evaluate == "labels")
    # the maps and their scores are those of the classes that were predicted
    for case, p in zip(cases, probs, strict=True):
        entropy = -(p * np.log(np.maximum(p, 1e-30))).sum(0).mean(dtype=np.float64)
        found = evaluation.cases.loc[case["case"], "entropy_image_mean"]
        assert found == pytest.approx(entropy, rel=1e-4)


def test_regions_on_the_grid_of_the_network(predicted, evaluated):
    """There, what is reported of a region that is one class is what is reported of the class."""
    by_region = evaluated("regions", **{"data::evaluate": "regions"})
    by_label = evaluated("regions", **{"data::evaluate": "labels"})
    for metric in ("mean_dice", "macro_ece", "macro_ace", "nll", "brier", "mhd"):
        table, other = by_region.tables[metric], by_label.tables[metric]
        assert list(table.columns) == [*REGIONS, "mean"]
        np.testing.assert_allclose(table["lesion"], other["lesion"], rtol=1e-5)
        assert not np.allclose(table["organ_and_lesion"], other["organ"])


def test_regions_of_members(evaluated):
    more = (("method::sampler::flip_axes", [0]),)
    evaluation = evaluated("regions", "tta", more=more)
    assert evaluation.summary["per_class"]["mean_dice"].keys() == set(REGIONS)
    assert evaluation.cases["pairwise_dice"].between(0, 1).all()


def test_results_on_regions_and_on_labels_are_kept_apart(predicted, evaluated):
    for evaluate in ("regions", "labels"):
        evaluated("regions", **{"data::evaluate": evaluate})
    bundle = predicted("regions")
    told = [json.loads(path.read_text())["regions"] for path in bundle.glob(f"{SEED}/evaluation*/provenance.json")]
    assert REGIONS in told
    assert None in told


@pytest.mark.parametrize("space", ["resampled", "original"])
def test_region_of_interest(predicted, evaluated, phantom_dir, space):
    bundle, evaluation = predicted("bright"), evaluated("bright", space=space)
    cases = test_cases(phantom_dir)
    probs = [read_map(bundle, case["case"], "prob")[1:] for case in cases]
    labels = [read_map(bundle, case["case"], "seg")[0] for case in cases]
    segs = [np.stack([label == 1, label == 2]) for label in labels]
    truths = [read_truth(case, TRUTH["bright"]) for case in cases]
    masks = [nib.load(case["image"]).get_fdata() > ABOVE for case in cases]
    assert all(0.2 < mask.mean() < 0.8 for mask in masks)
    check_scores(evaluation, TRUTH["bright"], cases, probs, segs, truths, masks)


def test_region_of_interest_of_a_calibrator(predicted):
    """A calibrator is fitted on the voxels in which it is measured."""
    report = read_calibrator(predicted("bright", "temperature_scaling") / SEED / "models" / "calibrator.pt")["report"]
    assert 0 < report["num_voxels"] < 0.8 * report["num_cases"] * 40**3


LOSSES = ["softl1ace_dice_ce", "focal", "svls", "mbls", "label_smoothing"]


@pytest.mark.slow
@pytest.mark.parametrize("data", ["binary", "overlapping"])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_train(make, settings, data, loss):
    bundle = make(data, loss=loss)
    run(str(bundle), "train", overrides=settings)
    state = torch.load(bundle / SEED / "models" / "checkpoint.pt", weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())


@pytest.mark.parametrize("data", ["binary", "overlapping"])
def test_a_loss_of_exclusive_classes_is_refused(make, settings, data):
    bundle = make(data, loss="nacl")
    with pytest.raises(UserError, match="NACL is defined for exclusive classes only") as caught:
        run(str(bundle), "train", overrides=settings)
    assert "\n" not in str(caught.value)
    assert not (bundle / SEED).exists()


def test_regions_of_independent_labels_are_refused(make, settings):
    bundle = make("both")
    with pytest.raises(UserError, match=r"data::regions are sets of exclusive classes, but the activation is sigmoid"):
        run(str(bundle), "train", overrides=settings)
    assert not (bundle / SEED).exists()


def test_a_misspelt_choice_of_regions_is_refused(make, settings):
    bundle = make("regions")
    with pytest.raises(UserError, match="data::evaluate is 'region', but must be one of labels, regions"):
        run(str(bundle), "train", overrides=settings | {"data::evaluate": "region", "seed": 3})
    assert not (bundle / "seed_3").exists()


def test_a_label_map_is_no_target_of_independent_labels(make, settings):
    """As when the transform that makes the channels was forgotten."""
    bundle = make("two_channels")
    with pytest.raises(UserError, match=r"Case phantom_\d+: its label has 1 channel\(s\), but must have 2") as caught:
        run(str(bundle), "train", overrides=settings | {"activation": "sigmoid", "seed": 3})
    assert "\n" not in str(caught.value)
