"""Classified images: what their bin statistics say of each of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch import Tensor

from medcalib.compare.raw_tables import DATASET
from medcalib.functional import BinStatistics, brier_score, negative_log_likelihood
from medcalib.metrics import class_calibration_errors, top_label_calibration_errors

__all__ = ["case_tables_of_images", "class_probabilities", "top_label_tables"]

_OVERALL = {"accuracy": "correct", "nll_categorical": "nll_categorical", "brier_categorical": "brier_categorical"}
_OF_CLASSES = {"nll": negative_log_likelihood, "brier": brier_score}


def class_probabilities(statistics: BinStatistics) -> tuple[Tensor, Tensor]:
    """What was predicted of each image, and what it is.

    The one prediction of an image fills one bin of each class, so that the sum over bins is the prediction.

    Args:
        statistics: bin statistics (image, class, bin).

    Returns:
        Probabilities (image, class), and the index of each image's class (image, 1).
    """
    return statistics.sum_pred.sum(-1), statistics.sum_true.sum(-1).argmax(1, keepdim=True)


def case_tables_of_images(
    cases: pd.DataFrame, statistics: BinStatistics | None, class_names: list[str]
) -> dict[str, pd.DataFrame]:
    """What ``cases.csv`` and bins say, also of evaluations that did not write all of it.

    That is of every image whether it is right, and the proper scoring rules; and the calibration errors of all images.

    Args:
        cases: what ``cases.csv`` of the evaluation holds.
        statistics: bin statistics (image, class, bin).
        class_names: names of the classes.

    Returns:
        By metric, one row a case with ``mean``; of ``nll`` and ``brier``, each class against all others, also a column
        for each class. Of ``micro_ece`` and its kin one row ``dataset`` with these columns. A class that no image has
        is NaN.
    """
    index = pd.Index(cases["filename"], name="case")
    tables = {
        name: pd.DataFrame({"mean": cases[column].to_numpy(dtype=float)}, index=index)
        for name, column in _OVERALL.items()
        if column in cases
    }
    if statistics is not None:
        probabilities, labels = class_probabilities(statistics)
        absent = (statistics.sum_true.sum((0, 2)) == 0).numpy()
        for name, score in _OF_CLASSES.items():
            values = score(probabilities[..., None], labels[..., None]).numpy()
            table = pd.DataFrame(np.where(absent, np.nan, values), columns=class_names, index=index)
            tables[name] = table.assign(mean=table.mean(axis=1))
        dataset = pd.Index([DATASET], name="case")
        for name, errors in class_calibration_errors(statistics).items():
            table = pd.DataFrame(errors.numpy()[None], columns=class_names, index=dataset)
            tables[f"micro_{name}"] = table.assign(mean=table.mean(axis=1))
    return tables


def top_label_tables(statistics: BinStatistics) -> dict[str, pd.DataFrame]:
    """Calibration errors of the probability of the predicted class, over all images together.

    Args:
        statistics: bin statistics of the predicted class, (image, 1, bin).

    Returns:
        By metric, ``top_label_ece`` and its kin, debiased ones too, one row ``dataset`` with ``mean``.
    """
    index = pd.Index([DATASET], name="case")
    return {
        f"top_label_{name}": pd.DataFrame({"mean": [error]}, index=index)
        for name, error in top_label_calibration_errors(statistics).items()
    }
