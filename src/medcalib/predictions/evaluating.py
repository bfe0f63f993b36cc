"""Evaluate predictions that lie in files as a bundle evaluates its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from monai.engines import SupervisedEvaluator
from monai.handlers import MeanDice, from_engine
from monai.utils import CommonKeys
from torch import Tensor, nn

from medcalib.compare.evaluations import Evaluation, read_evaluation
from medcalib.devices import named_device
from medcalib.errors import UserError
from medcalib.files.folders import complete_folder
from medcalib.functional import to_probabilities
from medcalib.handlers import (
    CalibrationErrorHandler,
    ProgressBarHandler,
    RegionMetricHandler,
    ReleaseHandler,
    ResultFolder,
    UncertaintyScoresHandler,
)
from medcalib.keys import MEMBER_MAPS, Activation, CaseKeys, UncertaintyKeys
from medcalib.metrics import BrierScoreMetric, NegativeLogLikelihoodMetric
from medcalib.predictions.prediction_folder import PredictedCase, PredictionFolder, most_probable
from medcalib.predictions.prediction_paths import read_case_list
from medcalib.reports import EvaluationReportHandler, QualityControlHandler
from medcalib.task import Task
from medcalib.visualize import draw_dataset_reliability_diagrams, draw_dataset_reliability_histograms

__all__ = ["PredictionSource", "evaluate_predictions", "write_evaluation"]

# A user's mistake ends an evaluation, too, and is told by whoever catches it, not also by the engine.
_SILENT = logging.Logger("silent")
_SILENT.addHandler(logging.NullHandler())
# begins the names of the maps of members in a batch
MEMBERS = "members_"


class PredictionSource(Protocol):
    """What reads predictions, such as a `PredictionFolder`."""

    @property
    def activation(self) -> Activation:
        """How logits become probabilities."""

    def read(self, case: str, with_label: bool = True) -> PredictedCase:
        """Read a case."""


def evaluate_predictions(
    predictions: PredictionFolder,
    cases: str | Path | Sequence[str],
    output_dir: str | Path,
    class_names: Sequence[str] | None = None,
    num_bins: int = 20,
    include_background: bool = False,
    provenance: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> Evaluation:
    """Evaluate predictions against their labels, on the grid of the files, and write and print the results.

    The folder holds what the ``evaluation`` of a bundle holds: Dice, NLL, Brier score and the calibration errors ECE,
    ACE and MCE for every case and class (``<metric>_raw.csv``, ``cases.csv``), their means (``metrics.csv``,
    ``summary.json``), ``bin_statistics.npz``, and reliability diagram and histogram in ``reliability``.

    Args:
        predictions: the predictions.
        cases: case ids, or the text file that lists them.
        output_dir: the folder; it must not exist, and appears when it is complete.
        class_names: one name for each predicted class; ``class_0``, ... or the names of the regions by default.
        num_bins: number of bins of the calibration errors.
        include_background: whether class 0 of exclusive classes counts.
        provenance: what ``summary.json`` is to say about where the predictions come from.
        device: where metrics are computed, as of :func:`calibrate_predictions`.

    Returns:
        The results.

    Raises:
        UserError: the output exists, there is no such device, the number of class names is wrong, or what
            ``PredictionFolder.read`` raises.
    """
    listed = read_case_list(cases)
    predictions.case_ids |= set(listed)
    chosen = named_device(device)
    with complete_folder(output_dir) as draft:
        write_evaluation(
            predictions,
            listed,
            draft,
            task=Task(
                checked_class_names(predictions, listed[0], class_names),
                predictions.activation,
                include_background=include_background,
            ),
            num_bins=num_bins,
            provenance=provenance,
            device=chosen,
        )
    return read_evaluation(Path(output_dir).expanduser())


def write_evaluation(
    predictions: PredictionSource,
    cases: Sequence[str],
    folder: Path,
    *,
    task: Task,
    num_bins: int,
    provenance: Mapping[str, Any] | None,
    device: torch.device,
    title: str = "evaluating",
    poor_below: float | None = None,
    split: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> None:
    """Do what :func:`evaluate_predictions` does in a folder that is part of another result.

    Args:
        predictions: the predictions.
        cases: case ids.
        folder: where the files go.
        task: what is predicted.
        num_bins: number of bins.
        provenance: what ``summary.json`` is to say about where the predictions come from.
        device: where metrics are computed.
        title: first word of the progress bar.
        poor_below: cases of which Dice is below it are poor, and ``quality_control.json`` is to say how well the
            uncertainty scores find them, which are in ``cases.csv`` then; None where nothing is to be said of them.
        split: says what the attributes of the cases are, by which results are reported, too; none when None.

    Raises:
        UserError: as :func:`evaluate_predictions`.
    """
    settings = {"num_bins": num_bins, "include_background": task.include_background, "space": "original"}
    results = _QuietFolder(folder, {**(provenance or {}), **settings})
    metrics = {
        "nll": RegionMetricHandler(NegativeLogLikelihoodMetric(task.include_first_channel)),
        "brier": RegionMetricHandler(BrierScoreMetric(task.include_first_channel)),
    }
    if task.exclusive:
        metrics["nll_categorical"] = RegionMetricHandler(NegativeLogLikelihoodMetric(categorical=True))
    uncertainty = []
    if poor_below is not None:
        control = QualityControlHandler(results, task, poor_below, option_prefix="--")
        uncertainty = [UncertaintyScoresHandler(task), control]
    evaluator = SupervisedEvaluator(
        device=device,
        val_data_loader=_Batches(predictions, cases),
        # the predictions are made already
        network=nn.Identity(),
        postprocessing=_Decided(task, with_maps=poor_below is not None),
        key_val_metric={
            "mean_dice": MeanDice(
                include_background=task.include_first_channel,
                num_classes=task.num_exclusive_classes,
                output_transform=from_engine(["seg", CommonKeys.LABEL]),
            )
        },
        additional_metrics=metrics,
        val_handlers=[
            results,
            CalibrationErrorHandler(task, num_bins),
            ProgressBarHandler(title),
            EvaluationReportHandler(results, split),
            *uncertainty,
            ReleaseHandler(),
        ],
    )
    evaluator.logger = _SILENT
    evaluator.run()
    statistics = read_evaluation(folder).statistics
    if statistics is None:
        raise RuntimeError(f"{folder} was evaluated without bins.")
    bins = [part.numpy() for part in statistics]
    (folder / "reliability").mkdir()
    drawn: dict[str, Callable[..., Any]] = {
        "diagram": draw_dataset_reliability_diagrams,
        "histogram": draw_dataset_reliability_histograms,
    }
    for kind, draw in drawn.items():
        figure = draw(*bins, task.reported_classes)
        for suffix in ("png", "pdf"):
            figure.savefig(folder / "reliability" / f"dataset_{kind}.{suffix}", dpi=150)


def checked_class_names(predictions: PredictionFolder, case: str, class_names: Sequence[str] | None) -> list[str]:
    """One name for each predicted class.

    Raises:
        UserError: the number of names is not that of the classes of the case, or a name stands there twice.
    """
    num_classes = predictions.read(case, with_label=False).logits.shape[1]
    if class_names is None:
        return list(predictions.regions or [f"class_{number}" for number in range(num_classes)])
    names = [str(name) for name in class_names]
    if len(names) != num_classes or len(set(names)) != len(names):
        raise UserError(
            f"class_names lists {', '.join(names)}, but {num_classes} classes are predicted for case {case}; give each "
            f"a name of its own, in their order{', background first' * (predictions.activation is Activation.SOFTMAX)}."
        )
    return names


def activate_in_place(logits: Tensor, activation: Activation) -> Tensor:
    """Turn logits (B, C, X, Y, Z) into probabilities, slab by slab, so that no second volume is needed."""
    for slab in logits.split(1, 2):
        slab.copy_(to_probabilities(slab, activation is Activation.SIGMOID))
    return logits


class _QuietFolder(ResultFolder):
    """A folder of results inside of another one, which does not have its name yet."""

    def save_figure(self, name: str, figure: Any, formats: Sequence[str], dpi: int) -> None:
        """Write a figure in each format, and do not print where."""
        for suffix in formats:
            figure.savefig(self.file(f"{name}.{suffix}"), dpi=dpi)


class _Decided:
    """Add to the probabilities of a case their segmentation, and where uncertainty is asked for their entropy."""

    def __init__(self, task: Task, with_maps: bool) -> None:
        self.task = task
        self.with_maps = with_maps

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        probs = data[CommonKeys.PRED]
        seg = most_probable(probs)[None] if self.task.exclusive else probs >= 0.5
        case = {**data, "seg": seg}
        if self.with_maps:
            # under other names than in the batch, where they would stay
            for key in filter(lambda key: MEMBERS + key in data, (*MEMBER_MAPS, UncertaintyKeys.AGREEMENT)):
                case[str(key)] = data[MEMBERS + key].to(probs.device)
            case[str(UncertaintyKeys.ENTROPY)] = self.task.entropy(probs)
        return case


class _Batches:
    """Batches of one case as an evaluator takes them, with probabilities in the place of the image."""

    def __init__(self, predictions: PredictionSource, cases: Sequence[str]) -> None:
        self.predictions = predictions
        self.cases = list(cases)

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for case in self.cases:
            yield self._batch(case)

    def _batch(self, case: str) -> dict[str, Any]:
        predicted = self.predictions.read(case)
        return {
            CaseKeys.CASE.value: [case],
            CommonKeys.IMAGE: activate_in_place(predicted.logits, self.predictions.activation),
            CommonKeys.LABEL: predicted.labels,
            **{MEMBERS + name: values for name, values in predicted.maps.items()},
        }
