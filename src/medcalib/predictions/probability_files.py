"""Write the probabilities of cases to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from medcalib.predictions.evaluating import PredictionSource, activate_in_place
from medcalib.predictions.volumes import write_channels

__all__ = ["write_probabilities"]


def write_probabilities(
    source: PredictionSource, cases: Sequence[str], folder: Path, title: str = "calibrating"
) -> None:
    """Write ``<case>/<case>_prob.nii.gz`` of every case, one case at a time.

    Args:
        source: reads the cases; the logits that it returns are overwritten.
        cases: their ids.
        folder: where a folder for each case goes.
        title: stands before the bar.

    Raises:
        UserError: a case cannot be read.
    """
    for case in tqdm(cases, desc=title, unit="case", leave=False, disable=None):
        predicted = source.read(case, with_label=False)
        geometry = predicted.geometry
        probs = activate_in_place(predicted.logits, source.activation)
        del predicted
        write_channels(folder / case / f"{case}_prob.nii.gz", probs[0], geometry)
        del probs
