"""The model card of a trained bundle, written from what was measured, in the form of the Hugging Face hub."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from medcalib.calibrators import read_calibrator
from medcalib.compare import bootstrap_interval
from medcalib.compare.metric_names import in_order, metric_title
from medcalib.compare.raw_tables import is_pooled, read_raw_table
from medcalib.export.trained_bundle import TrainedBundle, portable_settings
from medcalib.files.writing import read_json
from medcalib.metrics.poor_limit import poor_limit_words

__all__ = ["card_head", "model_card"]

NOT_EVALUATED = "not evaluated"
_ORIGIN = " Every number here was written by a program from the files of the training and the evaluation."
_OF_PROBABILITIES = (
    "Its probabilities are calibrated, if at all, for images like those of the training and calibration cases: of "
    "another scanner, protocol or population they promise nothing until they are measured there."
)
# names that the hub knows
_HUB_METRICS = {"mean_dice": "dice", "accuracy": "accuracy", "auc": "roc_auc", "brier": "brier_score"}


def card_head(trained: TrainedBundle, metadata: Mapping[str, Any]) -> str:
    """The YAML at the top of a card, which the hub reads: licence, library, task, and results if there are any."""
    task = "image-classification" if trained.bundle.classifies else "image-segmentation"
    head: dict[str, Any] = {
        "license": "apache-2.0",
        "library_name": "monai",
        "pipeline_tag": task,
        "tags": ["monai", "medical", "medcalib", "calibration", "uncertainty"],
    }
    if trained.evaluation is not None:
        title = str(trained.config["data"]["metadata"]["title"])
        head["model-index"] = [
            {
                "name": trained.bundle.name,
                "results": [
                    {
                        "task": {"type": task, "name": metadata["task"]},
                        "dataset": {"type": title, "name": title, "split": "test"},
                        "metrics": [
                            {"type": _HUB_METRICS.get(name, name), "value": value, "name": metric_title(name)}
                            for name, value in _numbers(trained.evaluation).items()
                        ],
                    }
                ],
            }
        ]
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n"


def model_card(trained: TrainedBundle, metadata: Mapping[str, Any], diagram: str | None = None) -> str:
    """The text of a card. Where nothing was measured it says so.

    Args:
        trained: the bundle.
        metadata: its ``metadata.json`` as it is exported.
        diagram: path of its reliability diagram relative to the card; none when None.
    """
    sections = [
        f"# {trained.bundle.name}\n\n{metadata['description']}{_ORIGIN}\n",
        _section("Intended use and limits", _limits(trained, metadata)),
        _section("How to use it", _use(trained, metadata)),
        _section("Model", _model(trained, metadata)),
        _section("Data", _data(trained, metadata)),
        _section("Results", _results(trained, diagram)),
        _section("Calibration", _calibration(trained)),
        _section("Flagging", _flagging(trained)),
        _section("Training, hardware and versions", _training(trained)),
        _section("How to repeat it", _repeat(trained)),
    ]
    return "".join(sections)


def _section(title: str, text: str) -> str:
    return f"\n## {title}\n\n{text}\n"


def _limits(trained: TrainedBundle, metadata: Mapping[str, Any]) -> str:
    channels = ", ".join(map(str, trained.content("data::channel_names")))
    text = (
        f"{metadata['intended_use']} It is no medical device. It was made for {metadata['task'].lower()}, images of "
        f"the modality {_modality(metadata)} with the channels {channels}. {_OF_PROBABILITIES}"
    )
    if trained.config["data"].get("regions"):
        text += " Results are reported on regions, unions of the classes that the network predicts."
    return text


def _use(trained: TrainedBundle, metadata: Mapping[str, Any]) -> str:
    lines = [
        "    pip install medcalib",
        "    cd <this folder>",
        "    python -m monai.bundle run --config_file configs/inference.yaml --dataset_dir <folder of the dataset>",
    ]
    text = "\n".join(lines) + "\n\npredicts the test cases of a dataset of the same layout into `output/`."
    text += (
        " Images of no dataset, NIfTI files or pictures as in the training:\n\n"
        "    python -m monai.bundle run --config_file \"['configs/inference.yaml','configs/images.yaml']\" "
        "--images <folder> --output_dir <folder>\n\n"
    )
    if trained.bundle.classifies:
        text += "writes `predictions.csv`: classes, probabilities, scores, and which images a person should look at."
    else:
        text += (
            "writes probabilities, segmentation and uncertainty of each, and `predictions.csv`: volumes with intervals,"
            " scores, and which cases a person should look at."
        )
    return text + (
        " The configuration runs code through `$` expressions, so run only bundles that you trust. The weights lie in "
        f"`models/model.pt` (SHA-256 of their values {metadata['medcalib']['weights_digest'][:16]}...)."
    )


def _model(trained: TrainedBundle, metadata: Mapping[str, Any]) -> str:
    fragments = trained.bundle.fragments
    network = trained.config.get("network", {})
    networks = trained.num_networks
    rows = {
        "network": f"`{fragments.get('network', '?')}`: {network.get('description', '')}"
        + ("" if networks is None else f"; {networks} of them"),
        "loss": _described(trained, "loss"),
        "method": _described(trained, "method"),
        "calibrator": _described(trained, "calibrator") if "calibrator" in trained.config else "none",
        "classes": metadata["label_classes"],
        "window": f"{' x '.join(map(str, metadata['network_data_format']['inputs']['image']['spatial_shape']))}",
        "parameters": f"{sum(value.numel() for value in trained.state.values()):,}",
        "digest of the bundle": f"`{trained.bundle.digest}`",
    }
    return _table(["", ""], rows.items())


def _data(trained: TrainedBundle, metadata: Mapping[str, Any]) -> str:
    about = trained.config["data"]["metadata"]
    text = (
        f"{about['description']} Source: {about['source']}. Licence of the data: {about['licence']}; whether it lets "
    )
    text += "weights be shared that were trained on them is for you to find out."
    if reference := about.get("reference"):
        text += f" Reference: {reference}."
    record = trained.record
    if record is None:
        return f"{text}\n\nThe training did not record which cases it saw."
    calibrated = None
    if trained.calibrator_file is not None:
        calibrated = len(read_calibrator(trained.calibrator_file)["details"].get("cases", [])) or None
    evaluated = trained.evaluation
    rows = {
        "training": len(record.cases["training"]),
        "validation, by which the epoch was chosen": len(record.cases["validation"]),
        "calibration, on which the calibrator was fitted": "no calibrator" if calibrated is None else calibrated,
        "test": NOT_EVALUATED if evaluated is None else evaluated.get("num_cases", "?"),
    }
    ids = "Ids of training and validation are in `models/training.json`."
    return f"{text}\n\n{_table(['part', 'cases'], rows.items())}\n\n{ids}"


def _results(trained: TrainedBundle, diagram: str | None) -> str:
    summary = trained.evaluation
    if summary is None:
        return (
            f"**This model was {NOT_EVALUATED}**: nobody knows how good its segmentations or its probabilities are. "
            f"`medcalib run --bundle {trained.bundle.name} --mode inference_eval` does it."
        )
    folder, rows = trained.output_dir / "evaluation", []
    for metric, value in _numbers(summary).items():
        per_class = "; ".join(
            f"{name} {_number(number)}" for name, number in summary.get("per_class", {}).get(metric, {}).items()
        )
        rows.append([metric_title(metric), _number(value), _interval(folder / f"{metric}_raw.csv"), per_class or "-"])
    unseen = "" if trained.record is None else ", on which nothing was trained, chosen or calibrated"
    text = (
        f"On {summary.get('num_cases', '?')} test cases of the dataset{unseen}.\n\n"
        f"{_table(['metric', 'mean', '95 % interval over cases', 'classes'], rows)}\n\n"
        f"Intervals are bias-corrected and accelerated bootstrap intervals of the mean over the test cases; they say "
        f"nothing about other seeds of the training. Pooled numbers have one value for all cases and none here."
    )
    if (lacking := summary.get("cases_without_class")) and any(lacking.values()):
        counts = ", ".join(f"{name} {len(cases)}" for name, cases in lacking.items() if cases)
        text += f" Cases without a class, which are left out of its mean: {counts}."
    if diagram is not None:
        text += f"\n\n![Reliability diagram of the test cases]({diagram})"
    return text


def _calibration(trained: TrainedBundle) -> str:
    if trained.calibrator_file is None:
        return "The probabilities are those of the network; no calibrator was fitted."
    report = read_calibrator(trained.calibrator_file)["report"]
    text = (
        f"`{report['kind']}`, fitted on {report['num_voxels']:,} voxels of {report['num_cases']} calibration cases: "
        f"NLL {_number(report['nll_before'])} before, {_number(report['nll_after'])} after; ECE "
        f"{_number(report['ece_before'])} before, {_number(report['ece_after'])} after, on the cases of the fit. "
        f"It moved the decision of {100 * report['decisions_changed']:.2g} % of the voxels."
    )
    if report["kept_identity"]:
        text += " The fit did not lower the NLL, so the calibrator changes nothing."
    if report.get("parameters"):
        text += f" Fitted values: {json.dumps(report['parameters'])}."
    return text


def _flagging(trained: TrainedBundle) -> str:
    report = trained.quality_control
    if report is None or not trained.thresholds:
        return f"No thresholds: quality control was {NOT_EVALUATED}, or found none on calibration cases."
    rows = []
    for name, threshold in trained.thresholds.items():
        of_score = report["scores"][name]["threshold"]
        rows.append(
            [
                f"`{name}`",
                f"{threshold['flag']} {_number(threshold['value'])}",
                _number(of_score.get("flagged")),
                _number(of_score.get("poor_left")),
            ]
        )
    cases = next(iter(report["scores"].values()))["threshold"]["calibration_cases"]
    return (
        f"A case is poor if its Dice is below {poor_limit_words(report)}. Thresholds were found on {cases} calibration "
        f"cases so that at most {100 * report['max_poor']:g} % of all cases are poor and not flagged; what they do to "
        f"the test cases stands beside them. New images are flagged by `entropy_foreground_mean`.\n\n"
        f"{_table(['score', 'flagged if', 'share of test cases flagged', 'poor and not flagged'], rows)}"
    )


def _training(trained: TrainedBundle) -> str:
    rows: list[Sequence[Any]] = []
    for index, (training, folder) in enumerate(zip(trained.provenance["trainings"], trained.models_dirs, strict=True)):
        file = folder.parent / "cost" / "train.json"
        cost = read_json(file, "") if file.exists() else {}
        rows.append(
            [
                index + 1,
                f"{training['epochs']} of {training['max_epochs']}",
                f"{training['best_epoch']}, by {training['chosen_by']}",
                f"{cost['device']} ({cost['cpu']}, {cost['threads']} threads)" if cost else "not recorded",
                f"{cost['seconds']:.0f}" if cost else "not recorded",
            ]
        )
    versions = ", ".join(f"{name} {version}" for name, version in trained.provenance["versions"].items())
    evaluated = (trained.evaluation or {}).get("provenance", {}).get("versions")
    text = _table(["training", "epochs", "best epoch", "hardware", "seconds"], rows)
    text += "".join(f"\n\n{told}" for told in _course(trained))
    text += f"\n\nSeed {trained.seed}. Versions at the export: {versions}."
    if evaluated and evaluated != trained.provenance["versions"]:
        text += f" At the evaluation: {', '.join(f'{name} {version}' for name, version in evaluated.items())}."
    return text


def _repeat(trained: TrainedBundle) -> str:
    fragments = trained.bundle.fragments
    options = {kind: fragments[kind] for kind in ("data", "loss", "method", "network") if kind in fragments}
    words = ["medcalib", "generate", *(word for kind, name in options.items() for word in (f"--{kind}", name))]
    used = portable_settings(trained.overrides)
    of_training = (trained.record.overrides if trained.record is not None else {}) | used
    lines = [shlex.join(words)]
    origin = _origin(trained)
    for mode, settings in (("train", of_training), ("inference_pred", used), ("inference_eval", used)):
        given = [f"--{id_}={json.dumps(value, separators=(',', ':'))}" for id_, value in settings.items()]
        options = ["--bundle", trained.bundle.name, "--mode", mode, "--seed", str(trained.seed)]
        if mode == "train" and origin is not None:
            options.append(f"--initial_weights={origin['given']}")
        lines.append(shlex.join(["medcalib", "run", *options, *given]))
    text = "\n".join(f"    {line}" for line in lines)
    note = "The dataset is looked for in `data/`, or where `--data::dataset_dir` says."
    if trained.record is not None and trained.record.trained_on:
        note += " These commands train it in one go, which gives other weights than a training that was made longer."
    if trained.bundle.edited:
        note += " The configuration of this bundle was edited after it was generated, so these commands make another."
    return f"{text}\n\n{note}"


def _origin(trained: TrainedBundle) -> dict[str, Any] | None:
    """The weights that were given to its training to begin with; None if there were none."""
    origin = None if trained.record is None else trained.record.starts_from
    return origin if origin is not None and "given" in origin else None


def _course(trained: TrainedBundle) -> list[str]:
    """What is unusual in how it was trained: weights to begin with, and epochs that were added."""
    told = []
    if (origin := _origin(trained)) is not None:
        seen = "nobody recorded which cases those have seen"
        if origin["cases"] is not None:
            numbers = [f"{len(cases)} {part}" for part, cases in origin["cases"].items()]
            seen = f"those have seen {' and '.join(numbers)} cases, which `models/training.json` lists"
        text = f"The training began with the weights of `{origin['given']}` (SHA-256 of their values "
        text += f"{origin['weights_digest'][:16]}...); {seen}."
        if anew := origin["replaced"]:
            text += f" Began anew: {', '.join(map(str, anew))}."
        told.append(text)
    for step in [] if trained.record is None else trained.record.trained_on:
        text = f"The training was to have {step['planned']} epochs, and went on after epoch {step['after_epoch']} to "
        told.append(f"{text}{step['max_epochs']}.")
    return told


def _described(trained: TrainedBundle, kind: str) -> str:
    group = trained.config[kind]
    reference = f" ({group['reference']})" if group.get("reference") else ""
    return f"{group.get('description', '')}{reference}"


def _modality(metadata: Mapping[str, Any]) -> str:
    return str(metadata["network_data_format"]["inputs"]["image"]["modality"])


def _numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """Every metric that has a value."""
    found = {name: value for name, value in summary.items() if isinstance(value, float)}
    return {name: found[name] for name in in_order(found)}


def _interval(path: Path) -> str:
    if not path.exists():
        return "-"
    table = read_raw_table(path)
    if is_pooled(table):
        return "-"
    interval = bootstrap_interval(table["mean"].to_numpy())
    return "-" if np.isnan(interval.low) else f"{_number(interval.low)} to {_number(interval.high)}"


def _number(value: Any) -> str:
    return "-" if value is None or (isinstance(value, float) and np.isnan(value)) else f"{value:.4g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)
