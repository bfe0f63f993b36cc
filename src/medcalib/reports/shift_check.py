"""Compare new images with the calibration cases of a guarantee, whose promise holds only if they are alike."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medcalib.files.writing import read_json, write_json
from medcalib.gathering import from_first
from medcalib.guarantees import read_guarantees
from medcalib.handlers.case_folders import CaseFolders
from medcalib.metrics import ShiftTest, case_shift_p_values, shift_test
from medcalib.transforms.scores import CONFIDENCE_SCORES

__all__ = ["ShiftCheck"]

# how uncertain an image is on the whole depends on how much around the organ it shows
_OF_FIELD_OF_VIEW = "_image_mean"


class ShiftCheck:
    """Test by their uncertainty scores whether new images are exchangeable with the cases of a fitted guarantee.

    Each image has a p-value of its own (`medcalib.metrics.case_shift_p_values`), and all images of the folder, those of
    earlier runs too, have one together (`medcalib.metrics.shift_test`), which is written to ``shift.json``. Scores that
    end in ``_image_mean`` are left out, since they depend on the field of view.

    Args:
        guarantee_file: the fitted guarantee, which holds the scores of its cases.
        folder: the folder of the new images.
        level: p-value from which on downwards the folder is warned of.

    Raises:
        UserError: the file is missing or damaged.

    Example:
        >>> import tempfile
        >>> from medcalib.guarantees import JointGuarantees, RecallControl, save_guarantees
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cases = [{"case": str(n), "scores": {"entropy_foreground_mean": n / 20}} for n in range(19)]
        ...     guarantees = JointGuarantees([RecallControl(["organ"])])
        ...     save_guarantees(f"{folder}/guarantee.pt", guarantees, cases, origin={}, split_digest="")
        ...     check = ShiftCheck(f"{folder}/guarantee.pt", CaseFolders(f"{folder}/out"))
        >>> check.case_p_value({"entropy_foreground_mean": 5.0})
        0.05
    """

    file = "shift.json"

    def __init__(self, guarantee_file: str | Path, folder: CaseFolders, level: float = 0.05) -> None:
        self.folder = folder
        self.level = level
        self.known: list[Mapping[str, float]] = [case["scores"] for case in read_guarantees(guarantee_file)["cases"]]

    def case_p_value(self, scores: Mapping[str, float]) -> float | None:
        """How unusual one image is; None if it has no score in common with the calibration cases.

        Args:
            scores: of the image by name, NaN where there is none.
        """
        names = self._names([scores])
        if not names:
            return None
        return float(case_shift_p_values(_table([scores], names), _table(self.known, names))[0])

    def tell(self) -> None:
        """Test all images in the folder, write what was found, and warn if they are not like the calibration cases.

        Warns:
            UserWarning: they are not, or they are too few to tell.
        """
        from_first(self._tell)

    def _tell(self) -> None:
        files = [file for file in sorted(self.folder.path.glob("*/*.json")) if file.stem == file.parent.name]
        contents = [read_json(file, f"remove {file.parent}, and it is predicted again") for file in files]
        scores = [content["scores"] for content in contents if content.get("scores")]
        names = self._names(scores)
        if not names:
            return
        found = shift_test(_table(scores, names), _table(self.known, names))
        told = self._report(found, len(scores), names)
        write_json(self.folder.path / self.file, told)
        numbers = f"the {len(scores)} image(s) in {self.folder.path}"
        known = f"the {len(self.known)} calibration cases of the guarantee"
        if found.p_value <= self.level:
            warnings.warn(
                f"{_capital(numbers)} are unlike {known} (p = {found.p_value:.2g}; most of all "
                f"{told['score']} is {told['direction']}), so what is promised does not hold for "
                f"them.",
                stacklevel=2,
            )
        elif found.smallest_p_value > self.level:
            warnings.warn(
                f"{_capital(numbers)} and {known} are too few to tell whether they are alike (p cannot be below "
                f"{found.smallest_p_value:.2g}); what is promised holds only if they are.",
                stacklevel=2,
            )
        else:
            print(
                f"Shift check: no difference found between {numbers} and {known} (p = {found.p_value:.2g}); what is "
                f"promised holds only if there is none."
            )

    def _report(self, found: ShiftTest, num_images: int, names: list[str]) -> dict[str, Any]:
        score = names[found.score]
        # guarantees see them turned, so that high ones are uncertain
        higher = found.larger != (score in CONFIDENCE_SCORES)
        return {
            "p_value": found.p_value,
            "score": score,
            "direction": "higher" if higher else "lower",
            "smallest_p_value": found.smallest_p_value,
            "level": self.level,
            "num_images": num_images,
            "num_calibration_cases": len(self.known),
            "scores": names,
        }

    def _names(self, scores: list[Mapping[str, float]]) -> list[str]:
        """Names of the scores that all cases have, or could have."""
        every = [*scores, *self.known]
        if not scores or not self.known:
            return []
        return [name for name in every[0] if not name.endswith(_OF_FIELD_OF_VIEW) and all(name in one for one in every)]


def _table(scores: list[Mapping[str, float]], names: list[str]) -> np.ndarray:
    return np.array([[np.nan if one[name] is None else one[name] for name in names] for one in scores], dtype=float)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
