"""Training, prediction and evaluation of a bundle on a small phantom."""

import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from tests.conftest import PHANTOM_SIZE

from medcalib.bundle.run import run
from medcalib.data import phantom_cases
from medcalib.handlers.checkpoint import finished_epochs

METRICS = [
    "mean_dice", "macro_ece", "macro_ace", "macro_mce", "micro_ece", "micro_ace", "micro_mce", "nll", "brier",
    "macro_ece_debiased", "micro_ece_debiased", "micro_rmsce", "micro_rmsce_debiased",
]  # fmt: skip
CLASSES = ["organ", "lesion"]


@pytest.fixture
def cases(phantom_dir):
    return phantom_cases(phantom_dir, **PHANTOM_SIZE)["test"]


@pytest.fixture
def results(trained):
    return trained / "seed_12345"


def summary(folder):
    return json.loads((folder / "evaluation" / "summary.json").read_text())


def test_training_leaves_weights_scalars_log_and_config(results):
    assert set(torch.load(results / "models" / "model.pt", weights_only=True)) == set(
        torch.load(results / "models" / "checkpoint.pt", weights_only=True)["network"]
    )
    assert list((results / "tensorboard").glob("events*"))
    assert "mean_dice" in (results / "train.log").read_text()
    config = yaml.safe_load((results / "configs" / "train.yaml").read_text())
    assert config["network_def"]["init_filters"] == 4
    assert config["seed"] == 12345
    assert not list(results.rglob("*.unfinished*"))


def test_validation_logs_dice_and_calibration(results):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(results / "tensorboard")).Reload()
    for tag in ("mean_dice", "macro_ece", "macro_ace", "macro_mce", "train_loss"):
        assert tag in events.Tags()["scalars"]
    assert len(events.Scalars("mean_dice")) == 2


def test_predictions_lie_in_the_geometry_of_the_input(results, cases):
    for case in cases:
        source = nib.load(case["image"])
        folder = results / "predictions" / case["case"]
        prob = nib.load(folder / f"{case['case']}_prob.nii.gz")
        seg = nib.load(folder / f"{case['case']}_seg.nii.gz")
        for predicted in (prob, seg):
            np.testing.assert_allclose(predicted.affine, source.affine, atol=1e-5)
            np.testing.assert_allclose(predicted.header.get_zooms()[:3], source.header.get_zooms()[:3], rtol=1e-5)
            assert nib.aff2axcodes(predicted.affine) == nib.aff2axcodes(source.affine)
            assert predicted.shape[:3] == source.shape
        values = prob.get_fdata()
        assert prob.shape[3] == 3
        np.testing.assert_allclose(values.sum(-1), 1, atol=1e-5)
        assert seg.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(values.argmax(-1), np.asarray(seg.dataobj))
    orientations = {nib.aff2axcodes(nib.load(case["image"]).affine) for case in cases}
    assert len(orientations) > 1, "the phantom no longer tests orientations"


def test_every_table_has_the_agreed_shape(results, cases):
    folder = results / "evaluation"
    for metric in METRICS:
        table = pd.read_csv(folder / f"{metric}_raw.csv")
        assert list(table.columns) == ["filename", *CLASSES, "mean"]
        names = ["dataset"] if metric.startswith("micro") else [case["case"] for case in cases]
        assert sorted(table["filename"]) == sorted(names)
        np.testing.assert_allclose(table["mean"], table[CLASSES].mean(axis=1), rtol=1e-12)
        stats = pd.read_csv(folder / f"{metric}_summary.csv").set_index("class")
        np.testing.assert_allclose(stats.loc["mean", "mean"], table["mean"].mean(), rtol=1e-12)
    metrics = pd.read_csv(folder / "metrics.csv").set_index("metric")["value"]
    assert sorted(metrics.index) == sorted([*METRICS, "hd95", "mhd", "nll_categorical"])
    assert sorted(path.name for path in folder.glob("*.csv")) == sorted(
        [f"{name}_{kind}.csv" for name in metrics.index for kind in ("raw", "summary")] + ["cases.csv", "metrics.csv"]
    )
    for metric in METRICS:
        assert summary(results)[metric] == pytest.approx(metrics[metric], rel=1e-12)
        assert summary(results)["per_class"][metric].keys() == set(CLASSES)


def test_summary_says_what_produced_it(results, trained):
    told = summary(results)["provenance"]
    assert told["num_bins"] == 20
    assert told["include_background"] is False
    assert told["space"] == "resampled"
    assert told["calibrator"] is None
    assert told["edited"] is False
    assert told["checkpoint"] == f"{trained.name}/seed_12345/models/model.pt"
    for digest in ("bundle_digest", "checkpoint_digest", "split_digest"):
        assert len(told[digest]) == 64
    assert {"medcalib", "monai", "torch"} <= told["versions"].keys()


def test_numbers_follow_from_the_predictions(results, cases):
    """The exported files alone, read with nibabel and NumPy loops, give the reported numbers."""
    dice = pd.read_csv(results / "evaluation" / "mean_dice_raw.csv").set_index("filename")
    ece = pd.read_csv(results / "evaluation" / "macro_ece_raw.csv").set_index("filename")
    brier = pd.read_csv(results / "evaluation" / "brier_raw.csv").set_index("filename")
    for case in cases:
        name = case["case"]
        folder = results / "predictions" / name
        prob = nib.load(folder / f"{name}_prob.nii.gz").get_fdata(dtype=np.float32)
        seg = np.asarray(nib.load(folder / f"{name}_seg.nii.gz").dataobj)
        label = np.asarray(nib.load(case["label"]).dataobj)
        for index, column in enumerate(CLASSES, start=1):
            truth, p = label == index, prob[..., index].astype(np.float64)
            if not truth.any():
                assert np.isnan([dice.loc[name, column], ece.loc[name, column], brier.loc[name, column]]).all()
                continue
            overlap = 2 * (truth & (seg == index)).sum() / (truth.sum() + (seg == index).sum())
            assert dice.loc[name, column] == pytest.approx(overlap, abs=1e-6)
            assert brier.loc[name, column] == pytest.approx(((p - truth) ** 2).mean(), rel=1e-5)
            bins = np.clip(np.ceil(p * 20).astype(int) - 1, 0, 19)
            gaps = [abs(p[bins == k].sum() - truth[bins == k].sum()) for k in range(20)]
            assert ece.loc[name, column] == pytest.approx(sum(gaps) / p.size, rel=1e-4)


def test_bin_statistics_reproduce_the_calibration_errors(results):
    stored = np.load(results / "evaluation" / "bin_statistics.npz")
    assert list(stored["classes"]) == CLASSES
    counts, pred, true = stored["counts"], stored["sum_pred"], stored["sum_true"]
    assert counts.dtype == np.int64
    pooled = np.abs(pred.sum(0) - true.sum(0)).sum(-1) / counts.sum((0, 2))
    assert summary(results)["micro_ece"] == pytest.approx(pooled.mean(), rel=1e-9)
    per_case = np.abs(pred - true).sum(-1) / counts.sum(-1)
    per_case[true.sum(-1) == 0] = np.nan
    assert summary(results)["macro_ece"] == pytest.approx(np.nanmean(np.nanmean(per_case, 1)), rel=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("drawn_figures")
def test_figures_are_drawn(trained, tiny, tmp_path):
    weights = trained / "seed_12345" / "models" / "model.pt"
    elsewhere = {"output_dir": str(tmp_path), "checkpoint": str(weights)}
    run(str(trained), "inference_eval", overrides=tiny | elsewhere)
    folder = tmp_path / "evaluation" / "reliability"
    names = {path.name for path in folder.iterdir()}
    assert {"dataset_histogram.pdf", "dataset_histogram.png", "dataset_diagram.png"} <= names
    assert sum(name.startswith("case_") for name in names) == 2
    for path in (tmp_path / "evaluation").rglob("*.png"):
        assert min(Image.open(path).size) > 200, path
    for path in (tmp_path / "evaluation").rglob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF"), path


def test_a_finished_training_says_so_and_returns(trained, tiny, capsys):
    before = (trained / "seed_12345" / "models" / "checkpoint.pt").stat().st_mtime_ns
    run(str(trained), "train", overrides=tiny)
    assert "finished 2 of 2 epochs already" in capsys.readouterr().out
    assert (trained / "seed_12345" / "models" / "checkpoint.pt").stat().st_mtime_ns == before


@pytest.fixture
def fresh_copy(trained, tmp_path):
    """A copy of the trained bundle without its results."""
    copy = tmp_path / "copy" / trained.name
    shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("seed_*"))
    return copy


def assert_same_results(folder, other):
    """The weights of the last epoch are equal bit for bit, and the summaries letter for letter."""
    first, second = (
        torch.load(f / "seed_12345" / "models" / "checkpoint.pt", weights_only=True) for f in (folder, other)
    )
    assert first["best_epoch"] == second["best_epoch"]
    for name, tensor in first["network"].items():
        assert torch.equal(tensor, second["network"][name]), name
    texts = [(f / "seed_12345" / "evaluation" / "summary.json").read_text() for f in (folder, other)]
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_two_runs_are_identical(trained, tiny, fresh_copy):
    run(str(fresh_copy), "train", overrides=tiny)
    run(str(fresh_copy), "inference_eval", overrides=tiny)
    assert_same_results(fresh_copy, trained)


@pytest.mark.slow
def test_a_stopped_training_resumes_to_the_same_results(trained, tiny, fresh_copy, stopped_in_second_epoch):
    with stopped_in_second_epoch():
        run(str(fresh_copy), "train", overrides=tiny)
    assert finished_epochs(fresh_copy / "seed_12345" / "models") == 1
    run(str(fresh_copy), "train", overrides=tiny)
    run(str(fresh_copy), "inference_eval", overrides=tiny)
    assert_same_results(fresh_copy, trained)


def test_another_seed_gives_other_weights(trained, tiny):
    run(str(trained), "train", seed=7, overrides=tiny | {"data::max_epochs": 1})
    first, other = (
        torch.load(trained / f"seed_{seed}" / "models" / "model.pt", weights_only=True) for seed in (12345, 7)
    )
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_original_space_equals_resampled_where_nothing_is_resampled(trained, tiny, tmp_path):
    """The phantom's preprocessing only reorients, so both spaces give the same numbers."""
    folder = tmp_path / trained.name
    shutil.copytree(trained, folder)
    before = summary(folder / "seed_12345")
    more = {
        "data::surface_tolerance_mm": {"organ": 1.5, "lesion": 500},
        "boundary::band_mm": 500,
        "object_sizes::limits_ml": [1e-6, 2e-6],
    }
    run(str(folder), "inference_eval", overrides=tiny | {"evaluation::space": "original"} | more)
    after = summary(folder / "seed_12345")
    assert after["provenance"]["space"] == "original"
    for metric in METRICS:
        assert after[metric] == pytest.approx(before[metric], rel=1e-6)
    check_more(folder / "seed_12345" / "evaluation", after)
    kept = json.loads((folder / "seed_12345" / "evaluation_1" / "summary.json").read_text())
    assert kept == before, "an evaluation with other settings must not overwrite the one before"


def check_more(folder, after):
    """What an evaluation has besides where it is asked for, with a band and sizes that hold everything."""
    assert after["provenance"]["surface_tolerance_mm"] == {"organ": 1.5, "lesion": 500}
    assert after["provenance"]["boundary_band_mm"] == 500
    for average in ("macro", "micro"):
        for error in ("ece", "ace", "mce"):
            assert after[f"{average}_boundary_{error}"] == pytest.approx(after[f"{average}_{error}"], rel=1e-9)
    assert (folder / "boundary_bin_statistics.npz").exists()
    dice = pd.read_csv(folder / "surface_dice_raw.csv")
    predicted = pd.read_csv(folder / "hd95_raw.csv")["lesion"].notna()
    assert set(dice["lesion"][predicted]) <= {1.0}
    assert dice["organ"].dropna().between(0, 1).all()
    sizes = pd.read_csv(folder / "object_sizes.csv").set_index(["class", "size"])
    for name in CLASSES:
        assert sizes.loc[(name, "large"), "num_cases"] == after["num_values"]["mean_dice"][name]
        assert sizes.loc[(name, "large"), "macro_ece"] == pytest.approx(after["per_class"]["macro_ece"][name])
        assert sizes.loc[(name, "large"), "hd95"] == pytest.approx(after["per_class"]["hd95"][name], nan_ok=True)


def test_debug_runs_in_its_own_folder(bundle, tiny):
    run(str(bundle), "train", debug=True, overrides=tiny)
    assert (bundle / "seed_12345_debug" / "models" / "model.pt").exists()
    assert not (bundle / "seed_12345").exists()


@pytest.mark.parametrize("mode", ["train", "inference_pred", "inference_eval"])
def test_every_run_says_what_it_cost(results, mode):
    cost = json.loads((results / "cost" / f"{mode}.json").read_text())
    assert list(cost) == [
        "mode", "seconds", "seconds_saved", "num_cases", "peak_memory_bytes", "peak_gpu_memory_bytes", "device", "cpu",
        "threads", "processes", "finished",
    ]  # fmt: skip
    assert (cost["mode"], cost["finished"], cost["device"]) == (mode, True, "cpu")
    assert cost["num_cases"] == PHANTOM_SIZE["num_training" if mode == "train" else "num_test"]
    assert cost["seconds"] > 0
    assert cost["peak_memory_bytes"] > 50 * 2**20


@pytest.mark.slow
def test_the_seconds_of_a_training_that_was_stopped_add_up(bundle, tiny, stopped_in_second_epoch):
    with stopped_in_second_epoch():
        run(str(bundle), "train", overrides=tiny)
    path = bundle / "seed_12345" / "cost" / "train.json"
    cost = json.loads(path.read_text())
    assert not cost["finished"]
    path.write_text(json.dumps(cost | {"seconds": 1000.0}))
    run(str(bundle), "train", overrides=tiny)
    cost = json.loads(path.read_text())
    assert cost["finished"]
    assert 1000 < cost["seconds"] < 1900
    before = path.read_bytes()
    run(str(bundle), "train", overrides=tiny)
    assert path.read_bytes() == before, "a training that is finished costs nothing"
