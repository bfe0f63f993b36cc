"""One test case of a bundle, as its network is given it, with every corruption at every level.

    python benchmarks/show_corruptions.py BUNDLE_FOLDER corruptions.png
    python benchmarks/show_corruptions.py BUNDLE_FOLDER corruptions.png --case=patient_007 --data::dataset_dir=/data/x

The bundle needs no training. What is no option of its own replaces a value of the configuration.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from medcalib.bundle.layout import Mode
from medcalib.bundle.opened import Bundle
from medcalib.bundle.option_values import override_values
from medcalib.errors import UserError, suggestion
from medcalib.keys import NUM_CORRUPTION_LEVELS, CorruptionKeys
from medcalib.transforms import CorruptImaged
from medcalib.visualize import draw_corruption_sheet


def slices(bundle: str, case: str | None, overrides: dict[str, Any]) -> tuple[dict[str, list[np.ndarray]], Any]:
    """By corruption the slices of all levels, and the image."""
    parser = Bundle.open(bundle).workflow(Mode.INFERENCE_EVAL, overrides).parser
    cases = parser.get_parsed_content("split")["test"]
    chosen = next((one for one in cases if case in (None, one["case"])), None)
    if chosen is None:
        names = [str(one["case"]) for one in cases]
        raise UserError(f"--case {case!r} is no test case of {bundle}, as {names[0]} is{suggestion(str(case), names)}")
    prepared = parser.get_parsed_content("preprocessing")(dict(chosen))
    seed = parser.get_parsed_content("seed")
    volume = prepared["image"].ndim == 4
    label = np.asarray(prepared["label"])
    # where most of the label is, or else in the middle
    sums = label[0].astype(bool).sum((0, 1)) if volume else None
    place = None if sums is None else int(sums.argmax()) if sums.any() else sums.size // 2

    def shown(image: Any) -> np.ndarray:
        values = np.asarray(image)
        if volume:
            return values[0, ..., place]
        return np.moveaxis(values, 0, -1) if len(values) == 3 else values[0]

    sheets = {
        str(kind): [
            shown(CorruptImaged(kind, level, seed)(prepared)["image"]) for level in range(NUM_CORRUPTION_LEVELS + 1)
        ]
        for kind in CorruptionKeys
    }
    return sheets, prepared["image"]


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("output", type=Path)
    parser.add_argument("--case")
    given, more = parser.parse_known_args()
    overrides = override_values(dict(word.removeprefix("--").split("=", 1) for word in more))
    try:
        sheets, image = slices(given.bundle, given.case, overrides)
    except UserError as error:
        parser.error(str(error))
    volume = image.ndim == 4
    sides = tuple(float(side) for side in image.pixdim[:2]) if volume else (1.0, 1.0)
    figure = draw_corruption_sheet(sheets, "lower" if volume else "upper", sides)
    figure.savefig(given.output, dpi=160)
    print(given.output)


if __name__ == "__main__":
    main()
