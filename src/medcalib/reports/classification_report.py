"""Score classified images, write the results and print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from ignite.engine import Engine, Events

from medcalib.files.result_tables import case_table, write_metrics, write_table
from medcalib.files.writing import write_json
from medcalib.functional import categorical_brier_score, categorical_negative_log_likelihood
from medcalib.handlers.image_predictions import ImagePredictions
from medcalib.handlers.result_folder import ResultFolder
from medcalib.handlers.results import CLASSIFIED, IMAGES, results_of
from medcalib.metrics import ClassificationScores, classification_scores
from medcalib.reports.reliability_report import check_band_level
from medcalib.reports.strata import case_attributes, strata_text, with_attributes
from medcalib.visualize import ReliabilityStyle, draw_case_reliability_diagrams

__all__ = ["ClassificationReportHandler", "ClassificationScoresHandler"]

DATASET = "dataset"
TOP_LABEL = "predicted class"
_PRINTED = {
    "auc": "AUC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "micro_ece": "ECE",
    "micro_ace": "ACE",
    "micro_mce": "MCE",
    "nll": "NLL",
    "brier": "Brier",
}
_PRINTED_STRATA = {
    "accuracy": "accuracy",
    "nll_categorical": "NLL",
    "brier_categorical": "Brier",
    "top_label_ece": "ECE",
}


class ClassificationScoresHandler:
    """Score the images of an epoch with `medcalib.metrics.classification_scores`.

    Leaves the scores in the results of the engine and their overall numbers in ``engine.state.metrics``. It needs an
    `ImagePredictionsHandler` on the same engine.

    Args:
        num_bins: number of equal bins on [0, 1].

    Example:
        >>> import torch
        >>> from medcalib.handlers import ImagePredictionsHandler
        >>> from medcalib.task import Task
        >>> engine = Engine(lambda engine, batch: batch)
        >>> ImagePredictionsHandler(Task(["healthy", "ill"])).attach(engine)
        >>> ClassificationScoresHandler(num_bins=10).attach(engine)
        >>> image = {"case": "a", "pred": torch.tensor([0.2, 0.8]), "label": torch.tensor([1])}
        >>> engine.run([[image]]).metrics["accuracy"]
        1.0
    """

    def __init__(self, num_bins: int = 20) -> None:
        self.num_bins = num_bins

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        results = results_of(engine)
        results.need(self, IMAGES)
        results.offer(CLASSIFIED, lambda: self._score(engine))
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: results_of(engine)[CLASSIFIED])

    def _score(self, engine: Engine) -> ClassificationScores:
        found: ImagePredictions = results_of(engine)[IMAGES]
        scores = classification_scores(found.probabilities, found.labels, self.num_bins)
        engine.state.metrics.update(scores.overall)
        return scores


class ClassificationReportHandler:
    """Turn the scores of classified images into tables, ``summary.json``, a reliability diagram and a printed table.

    Writes ``metrics.csv`` with every number of ``engine.state.metrics``; for each score that has values per class
    ``<score>_raw.csv`` with one row called ``dataset``; ``cases.csv`` with one row per image: its label, what was
    predicted, whether that is right, the probability of the predicted class, its scores and uncertainties;
    ``bin_statistics.npz`` with ``counts``, ``sum_pred``, ``sum_true`` (case, class, bin), ``cases`` and ``classes``,
    and the first three of the predicted class as ``top_label_...`` (case, 1, bin); ``summary.json`` with the numbers,
    the values per class, the number of images of each class and the provenance; and ``reliability/dataset_diagram``.
    Where cases have attributes, such as a centre, these are columns of ``cases.csv`` after ``filename``, and
    ``summary.json`` holds, as ``strata``, by attribute and value the overall numbers of the images that have it.

    It needs a `ClassificationScoresHandler` and an `medcalib.handlers.ImagePredictionsHandler` on the same engine.

    Args:
        folder: where the files go.
        split: the dataset's split, which says what the attributes of its cases are; none when None.
        formats: file formats of the figure.
        dpi: resolution of raster formats.
        band_level: probability of the band around perfect calibration in the reliability diagram, by consistency
            resampling of the images, as of `medcalib.functional.consistency_band`; no band when None.

    Raises:
        UserError: ``band_level`` is out of range; or, when the epoch ends, an attribute has the name of another column
            of ``cases.csv``.

    Example:
        >>> from medcalib.handlers import ImagePredictionsHandler
        >>> from medcalib.task import Task
        >>> engine, folder = Engine(lambda engine, batch: batch), ResultFolder("evaluation")
        >>> found = ImagePredictionsHandler(Task(["healthy", "ill"])), ClassificationScoresHandler(num_bins=10)
        >>> for handler in (folder, *found, ClassificationReportHandler(folder)):
        ...     handler.attach(engine)
    """

    def __init__(
        self,
        folder: ResultFolder,
        split: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        formats: Sequence[str] = ("png", "pdf"),
        dpi: int = 150,
        band_level: float | None = 0.95,
    ) -> None:
        check_band_level("handlers::report::band_level", band_level)
        self.band_level = band_level
        self.folder = folder
        self.attributes = case_attributes(split or {})
        self.formats = tuple(formats)
        self.dpi = dpi

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        results_of(engine).need(self, IMAGES, CLASSIFIED)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _write(self, engine: Engine) -> None:
        results = results_of(engine)
        # metrics of other handlers, too
        results.complete()
        found: ImagePredictions = results[IMAGES]
        scores: ClassificationScores = results[CLASSIFIED]
        if not self.folder.writes:
            return
        metrics = {name: float(value) for name, value in engine.state.metrics.items()}
        write_metrics(metrics, self.folder.file("metrics.csv"))
        for name, values in scores.per_class.items():
            table = case_table([DATASET], found.classes, values.numpy()[None])
            write_table(table, self.folder.file(f"{name}_raw.csv"))
        cases = with_attributes(self._cases(found), self.attributes)
        write_table(cases, self.folder.file("cases.csv"))
        strata = self._strata(found, cases, scores.statistics.num_bins)
        np.savez_compressed(
            self.folder.file("bin_statistics.npz"),
            **{name: part.numpy() for name, part in scores.statistics._asdict().items()},
            **{f"top_label_{name}": part.numpy() for name, part in scores.top_label._asdict().items()},
            cases=np.array(found.cases),
            classes=np.array(found.classes),
        )
        numbers = np.bincount(found.labels[:, 0].long().numpy(), minlength=len(found.classes))
        summary = {
            **metrics,
            "num_cases": len(found.cases),
            "per_class": {
                name: dict(zip(found.classes, values.tolist(), strict=True))
                for name, values in scores.per_class.items()
            },
            "num_values": dict(zip(found.classes, numbers.tolist(), strict=True)),
            **({"strata": strata} if strata else {}),
            "provenance": self.folder.provenance,
        }
        write_json(self.folder.file("summary.json"), summary)
        self._draw(scores, found.classes)
        text = self._text(scores, numbers, found.classes)
        self.folder.tell("\n".join([text, strata_text(strata, _PRINTED_STRATA)]).rstrip())

    def _cases(self, found: ImagePredictions) -> pd.DataFrame:
        probabilities, labels = found.probabilities, found.labels[:, 0].long()
        confidence, predicted = probabilities.max(1)
        single = probabilities, found.labels
        return pd.DataFrame(
            {
                "filename": found.cases,
                "label": [found.classes[index] for index in labels],
                "predicted": [found.classes[index] for index in predicted],
                "correct": (predicted == labels).int(),
                "confidence": confidence,
                "nll_categorical": categorical_negative_log_likelihood(*single),
                "brier_categorical": categorical_brier_score(*single),
                **found.uncertainties,
            }
        )

    def _strata(self, found: ImagePredictions, cases: pd.DataFrame, num_bins: int) -> dict[str, Any]:
        names = dict.fromkeys(name for case in found.cases for name in self.attributes.get(case, {}))
        return {
            name: {
                value: {
                    "num_cases": len(rows),
                    **classification_scores(found.probabilities[rows], found.labels[rows], num_bins).overall,
                }
                for value, rows in cases.groupby(name).indices.items()
            }
            for name in names
        }

    def _draw(self, scores: ClassificationScores, classes: Sequence[str]) -> None:
        counts, sum_pred, sum_true = (
            np.concatenate([of_classes[0], of_predicted[0]])
            for of_classes, of_predicted in zip(scores.statistics.pool(), scores.top_label.pool(), strict=True)
        )
        style = ReliabilityStyle(count_label="images", empty_label="no images")
        names = [*classes, TOP_LABEL]
        figure = draw_case_reliability_diagrams(
            counts, sum_pred, sum_true, names, style=style, band_level=self.band_level
        )
        self.folder.save_figure("reliability/dataset_diagram", figure, self.formats, self.dpi)

    def _text(self, scores: ClassificationScores, numbers: np.ndarray, classes: Sequence[str]) -> str:
        rows = pd.DataFrame(
            {title: [*scores.per_class[name].tolist(), scores.overall[name]] for name, title in _PRINTED.items()},
            index=[*classes, "mean"],
        )
        rows.insert(0, "images", [*numbers, numbers.sum()])
        overall = scores.overall
        return (
            f"\n{rows.to_string(float_format=lambda value: f'{value:.4f}', na_rep='-')}\n\n"
            f"Each class against the others; one that no image has is left out.\n"
            f"All classes together: accuracy {overall['accuracy']:.4f}, NLL {overall['nll_categorical']:.4f}, "
            f"Brier {overall['brier_categorical']:.4f}, ECE of the predicted class {overall['top_label_ece']:.4f}.\n"
            f"Root mean square calibration error of the predicted class {overall['top_label_rmsce']:.4f}; less what "
            f"chance adds to that of {numbers.sum()} images {overall['top_label_rmsce_debiased']:.4f}."
        )
