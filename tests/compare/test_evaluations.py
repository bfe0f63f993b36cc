"""Reading the folders of evaluations."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from tests.predictions.predictions_on_disk import CASES, write_labels, write_volumes
from tests.reports.test_classification_report import TASK, make_images, run

from medcalib.compare import compare, find_evaluations, read_evaluation
from medcalib.errors import UserError
from medcalib.functional import calibration_error
from medcalib.handlers import ImagePredictionsHandler, ResultFolder
from medcalib.predictions import PredictionFolder, evaluate_predictions
from medcalib.reports import ClassificationReportHandler, ClassificationScoresHandler


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluations")
    predictions = PredictionFolder(write_volumes(root / "p"), write_labels(root / "l"), "probabilities")
    evaluate_predictions(predictions, CASES, root / "evaluation", class_names=["back", "left", "right"])
    return root / "evaluation"


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_what_was_written_is_read(folder):
    evaluation = read_evaluation(str(folder))
    assert evaluation.case_ids == list(CASES)
    assert evaluation.class_names == ["left", "right"]
    assert evaluation.statistics.counts.shape == (4, 2, 20)
    assert evaluation.summary == json.loads((folder / "summary.json").read_text())
    errors = calibration_error(evaluation.statistics).mean(1)
    np.testing.assert_allclose(evaluation.values("macro_ece"), errors, rtol=1e-12)
    assert evaluation.values("mean_dice").mean() == pytest.approx(evaluation.summary["mean_dice"])


def test_an_evaluation_of_a_bundle_is_read(trained):
    evaluation = read_evaluation(trained / "seed_12345" / "evaluation")
    assert len(evaluation.case_ids) == 3
    assert np.nanmean(evaluation.values("nll")) == pytest.approx(evaluation.summary["nll"])


def test_an_unknown_metric_is_named(folder):
    with pytest.raises(UserError, match=r"has no metric dice of each case; did you mean mean_dice"):
        read_evaluation(folder).values("dice")


@pytest.mark.parametrize("name", ["summary.json", "cases.csv", "bin_statistics.npz"])
def test_damaged_files_are_named_and_missing_ones_are_none(copy, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(b"" if name == "cases.csv" else content[:30])
    with pytest.raises(UserError, match=rf"{name} cannot be read .*evaluate again"):
        read_evaluation(copy)
    (copy / name).unlink()
    parts = {"summary.json": "summary", "cases.csv": "cases", "bin_statistics.npz": "statistics"}
    assert getattr(read_evaluation(copy), parts[name]) is None


def test_files_of_two_evaluations_do_not_mix(copy):
    table = (copy / "cases.csv").read_text().replace("case_2", "case_3")
    (copy / "cases.csv").write_text(table)
    with pytest.raises(UserError, match="hold different cases"):
        read_evaluation(copy)


def test_nothing_but_tables_is_enough(folder, tmp_path):
    (tmp_path / "bare").mkdir()
    for path in folder.glob("*_raw.csv"):
        shutil.copy(path, tmp_path / "bare")
    bare, full = read_evaluation(tmp_path / "bare"), read_evaluation(folder)
    assert (bare.summary, bare.cases, bare.statistics, bare.quality_control, bare.seed) == (None,) * 5
    assert (bare.class_names, bare.case_ids) == (full.class_names, full.case_ids)
    np.testing.assert_array_equal(bare.values("nll"), full.values("nll"))
    assert bare.provenance == {}


def test_a_folder_without_tables_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no <metric>_raw.csv: give the folder of an evaluation"):
        read_evaluation(tmp_path)


def test_attributes_of_cases_stay_texts(copy):
    summary = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps(summary | {"strata": {"centre": {}}}))
    table = pd.read_csv(copy / "cases.csv", dtype=str, keep_default_na=False)
    table.insert(1, "centre", ["01", "1", "NA", "2"])
    table.insert(2, "vendor", ["A", "B", "A", "A"])
    table.to_csv(copy / "cases.csv", index=False)
    cases = read_evaluation(copy).cases
    assert cases["centre"].tolist() == ["01", "1", "NA", "2"]
    assert cases["vendor"].tolist() == ["A", "B", "A", "A"]
    assert cases["nll"].dtype == float


def test_cases_that_are_named_as_files_are_the_same_ones(copy):
    with np.load(copy / "bin_statistics.npz") as arrays:
        renamed = dict(arrays) | {"cases": np.array([f"{case}.png" for case in arrays["cases"]])}
    np.savez(copy / "bin_statistics.npz", **renamed)
    for path in (*copy.glob("*_raw.csv"), copy / "cases.csv"):
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], *(line.replace(",", ".png,", 1) for line in lines[1:])]))
    evaluation = read_evaluation(copy)
    assert evaluation.case_ids == list(CASES)
    assert np.isfinite(evaluation.values("nll")).all()


@pytest.mark.parametrize("content", ['{"provenance": 3}', '{"strata": [1]}', '{"provenance": {"versions": 3}}'])
def test_a_summary_of_another_shape_is_named(copy, content):
    (copy / "summary.json").write_text(content)
    with pytest.raises(UserError, match=r"summary.json cannot be read \(its \w+ is no dictionary\)"):
        read_evaluation(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": lambda values: values[:2]}, "counts does not belong to its cases and classes"),
        ({"sum_pred": lambda values: values[:, :1]}, "sum_pred does not belong to its cases and classes"),
        ({"sum_true": lambda values: values[..., :3]}, "different numbers of bins"),
        ({"counts": lambda values: values.astype(str)}, "counts holds no numbers"),
    ],
)
def test_bins_of_other_shapes_are_named(copy, changes, message):
    with np.load(copy / "bin_statistics.npz") as arrays:
        found = dict(arrays)
    np.savez(copy / "bin_statistics.npz", **found | {name: change(found[name]) for name, change in changes.items()})
    with pytest.raises(UserError, match=rf"bin_statistics.npz cannot be read .*{message}"):
        read_evaluation(copy)


def test_a_metric_with_other_cases_than_the_list_of_cases_is_named(copy):
    lines = (copy / "nll_raw.csv").read_text().splitlines()
    (copy / "nll_raw.csv").write_text("\n".join(lines[:-1]))
    with pytest.raises(UserError, match=r"cases.csv holds case \w+, but nll_raw.csv beside it does not"):
        read_evaluation(copy)
    (copy / "nll_raw.csv").write_text("\n".join([*lines, lines[-1].replace(lines[-1].split(",")[0], "another")]))
    with pytest.raises(UserError, match=r"nll_raw.csv holds case another, but cases.csv beside it does not"):
        read_evaluation(copy)


class TestFinding:
    @pytest.fixture
    def bundle(self, folder, tmp_path):
        for seed in ("seed_20", "seed_3", "seed_3_debug"):
            shutil.copytree(folder, tmp_path / "bundle" / seed / "evaluation")
        (tmp_path / "bundle" / "seed_4" / "models").mkdir(parents=True)
        return tmp_path / "bundle"

    def test_a_bundle_gives_every_seed(self, bundle):
        found = find_evaluations(bundle)
        assert [path.parent.name for path in found] == ["seed_3", "seed_20"]
        assert [read_evaluation(path).seed for path in found] == [3, 20]

    def test_trial_runs_count_where_there_is_nothing_else(self, bundle):
        for seed in ("seed_20", "seed_3"):
            shutil.rmtree(bundle / seed)
        (found,) = find_evaluations(bundle)
        assert found.parent.name == "seed_3_debug"
        assert read_evaluation(found).debug

    def test_a_seed_and_an_evaluation_give_themselves(self, bundle, folder):
        assert find_evaluations(bundle / "seed_20") == [bundle / "seed_20" / "evaluation"]
        assert find_evaluations(folder) == [folder]

    def test_folders_without_one_are_named(self, bundle, tmp_path):
        with pytest.raises(UserError, match="seed_4 holds no evaluation: run the bundle with --mode inference_eval"):
            find_evaluations(bundle / "seed_4")
        with pytest.raises(UserError, match="nowhere is no folder"):
            find_evaluations(tmp_path / "nowhere")


IMAGES = {"base": make_images(number=30)}
# a softmax of another temperature decides the same
IMAGES["soft"] = [{**image, "pred": (0.3 * image["pred"].log()).softmax(0)} for image in IMAGES["base"]]


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    """The evaluations of two classifiers."""
    root = tmp_path_factory.mktemp("classified")
    for name, images in IMAGES.items():
        folder = ResultFolder(root / name, {"seed": 3})
        scores = ImagePredictionsHandler(TASK), ClassificationScoresHandler(num_bins=5)
        run(images, [folder, *scores, ClassificationReportHandler(folder, formats=())])
        (root / name / "retention.json").write_text('{"num_cases": 30}')
    return {name: [read_evaluation(root / name)] for name in IMAGES}


def test_classified_images_have_scores_of_each(classified):
    evaluation = classified["base"][0]
    assert evaluation.classifies
    assert evaluation.seed == 3
    for metric, table in evaluation.metrics.items():
        assert np.nanmean(table["mean"]) == pytest.approx(evaluation.summary[metric], rel=1e-6), metric
    for metric in ("accuracy", "nll", "brier", "nll_categorical", "brier_categorical"):
        assert evaluation.metrics[metric].index.tolist() == [image["case"] for image in IMAGES["base"]]
    assert {"auc", "sensitivity", "micro_ece", "top_label_ece"} <= set(evaluation.metrics)
    assert evaluation.retention == {"num_cases": 30}


def test_classifications_are_compared(classified):
    """With intervals of the areas by drawing images, each by SciPy."""
    found = compare(classified, "base", num_samples=300)
    assert (found.primary, found.margins) == ("top_label_ece", {"accuracy": 0.01})
    table = found.table.set_index(["metric", "class"])
    assert table.loc[("accuracy", "mean"), "warning"].startswith("equal in every case")
    assert table.loc[("accuracy", "mean"), "non_inferior"] is True
    labels = np.array([int(image["label"]) for image in IMAGES["base"]])

    def area(name, rows):
        these = IMAGES[name]
        given = np.array([these[row]["pred"][1].item() for row in rows])
        return roc_auc_score(labels[rows] == 1, given)

    drawn = stats.bootstrap(
        (np.arange(30),),
        lambda rows: area("soft", rows) - area("base", rows),
        n_resamples=300,
        vectorized=False,
        rng=np.random.default_rng(0),
    )
    row = table.loc[("auc", "low_grade")]
    assert row["difference"] == pytest.approx(area("soft", range(30)) - area("base", range(30)))
    # draws that equal the estimate count half, where SciPy goes by their rounding
    np.testing.assert_allclose([row["difference_low"], row["difference_high"]], drawn.confidence_interval, atol=3e-3)
    for metric in ("auc", "top_label_ece", "micro_ace", "nll"):
        level = found.levels.set_index(["metric", "class", "method"]).loc[(metric, "mean", "base")]
        assert level["mean"] == pytest.approx(classified["base"][0].summary[metric], rel=1e-6)
        assert level["low"] <= level["mean"] <= level["high"]
    table = found.table[found.table["class"] == "mean"].set_index("metric")
    for prefix in ("top_label", "micro"):
        assert table.loc[f"{prefix}_rmsce", "difference_low"] < table.loc[f"{prefix}_rmsce", "difference_high"]
        for name in ("ece", "rmsce"):
            assert "this metric is not drawn anew, so no interval" in table.loc[f"{prefix}_{name}_debiased", "warning"]


def test_segmentations_and_classifications_do_not_mix(folder, classified):
    with pytest.raises(UserError, match="cannot be compared: (class_names|num_bins|task) is"):
        compare({"a": [read_evaluation(folder)], "b": classified["soft"]}, "a")
