"""Score classified images, write the results and print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from ignite.engine import Engine, Events
from torch import Tensor

from medcalib.files.result_tables import case_table, write_metrics, write_table
from medcalib.files.writing import write_json
from medcalib.functional import categorical_brier_score, categorical_negative_log_likelihood
from medcalib.handlers.image_predictions import ImagePredictions, image_predictions
from medcalib.handlers.result_folder import ResultFolder
from medcalib.metrics import ClassificationScores, classification_scores
from medcalib.reports.strata import case_attributes, strata_text, with_attributes
from medcalib.visualize import ReliabilityStyle, draw_case_reliability_diagrams
from medcalib.visualize.rendering import render

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

    Leaves the scores in ``engine.state.classification_scores`` and their overall numbers in ``engine.state.metrics``.
    Attach it after an `ImagePredictionsHandler`.

    Args:
        num_bins: number of equal bins on [0, 1].
    """

    def __init__(self, num_bins: int = 20) -> None:
        self.num_bins = num_bins

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Score the epoch."""
        found = image_predictions(engine, self)
        scores = classification_scores(found.probabilities, found.labels, self.num_bins)
        engine.state.classification_scores = scores
        engine.state.metrics.update(scores.overall)


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

    Attach it after the handlers that leave metrics, a `ClassificationScoresHandler` among them.

    Args:
        folder: where the files go.
        class_names: one name for each class.
        split: the dataset's split, which says what the attributes of its cases are; none when None.
        formats: file formats of the figure.
        dpi: resolution of raster formats.

    Raises:
        UserError: when the epoch ends, an attribute has the name of another column of ``cases.csv``.
    """

    def __init__(
        self,
        folder: ResultFolder,
        class_names: Sequence[str],
        split: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        formats: Sequence[str] = ("png", "pdf"),
        dpi: int = 150,
    ) -> None:
        self.folder = folder
        self.class_names = [str(name) for name in class_names]
        self.attributes = case_attributes(split or {})
        self.formats = tuple(formats)
        self.dpi = dpi
        self._printed = ""

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, self._print)

    def _write(self, engine: Engine) -> None:
        found = image_predictions(engine, self)
        scores: ClassificationScores | None = getattr(engine.state, "classification_scores", None)
        if scores is None:
            raise RuntimeError("ClassificationReportHandler needs a ClassificationScoresHandler attached before it.")
        if not self.folder.writes:
            return
        metrics = {name: float(value) for name, value in engine.state.metrics.items()}
        write_metrics(metrics, self.folder.file("metrics.csv"))
        for name, values in scores.per_class.items():
            table = case_table([DATASET], self.class_names, values.numpy()[None])
            write_table(table, self.folder.file(f"{name}_raw.csv"))
        cases = with_attributes(self._cases(found), self.attributes)
        write_table(cases, self.folder.file("cases.csv"))
        strata = self._strata(found, cases, scores.statistics.num_bins)
        np.savez_compressed(
            self.folder.file("bin_statistics.npz"),
            **{name: part.numpy() for name, part in scores.statistics._asdict().items()},
            **{f"top_label_{name}": part.numpy() for name, part in scores.top_label._asdict().items()},
            cases=np.array(found.cases),
            classes=np.array(self.class_names),
        )
        numbers = np.bincount(found.labels[:, 0].long().numpy(), minlength=len(self.class_names))
        summary = {
            **metrics,
            "num_cases": len(found.cases),
            "per_class": {
                name: dict(zip(self.class_names, values.tolist(), strict=True))
                for name, values in scores.per_class.items()
            },
            "num_values": dict(zip(self.class_names, numbers.tolist(), strict=True)),
            **({"strata": strata} if strata else {}),
            "provenance": self.folder.provenance,
        }
        write_json(self.folder.file("summary.json"), summary)
        self._draw(scores)
        self._printed = "\n".join([self._text(scores, numbers), strata_text(strata, _PRINTED_STRATA)]).rstrip()

    def _cases(self, found: ImagePredictions) -> pd.DataFrame:
        probabilities, labels = found.probabilities, found.labels[:, 0].long()
        confidence, predicted = probabilities.max(1)
        single = probabilities, found.labels
        return pd.DataFrame(
            {
                "filename": found.cases,
                "label": self._names(labels),
                "predicted": self._names(predicted),
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

    def _names(self, indices: Tensor) -> list[str]:
        return [self.class_names[index] for index in indices.tolist()]

    def _draw(self, scores: ClassificationScores) -> None:
        pooled = [
            np.concatenate([of_classes[0], of_predicted[0]])
            for of_classes, of_predicted in zip(scores.statistics.pool(), scores.top_label.pool(), strict=True)
        ]
        style = ReliabilityStyle(count_label="images", empty_label="no images")
        figure = draw_case_reliability_diagrams(*pooled, [*self.class_names, TOP_LABEL], style=style)
        for suffix, content in render(figure, self.formats, self.dpi).items():
            self.folder.file(f"reliability/dataset_diagram.{suffix}").write_bytes(content)

    def _text(self, scores: ClassificationScores, numbers: np.ndarray) -> str:
        rows = pd.DataFrame(
            {title: [*scores.per_class[name].tolist(), scores.overall[name]] for name, title in _PRINTED.items()},
            index=[*self.class_names, "mean"],
        )
        rows.insert(0, "images", [*numbers, numbers.sum()])
        overall = scores.overall
        return (
            f"\n{rows.to_string(float_format=lambda value: f'{value:.4f}', na_rep='-')}\n\n"
            f"Each class against the others; one that no image has is left out.\n"
            f"All classes together: accuracy {overall['accuracy']:.4f}, NLL {overall['nll_categorical']:.4f}, "
            f"Brier {overall['brier_categorical']:.4f}, ECE of the predicted class {overall['top_label_ece']:.4f}."
        )

    def _print(self, _engine: Engine) -> None:
        if self.folder.writes:
            print(self._printed)
