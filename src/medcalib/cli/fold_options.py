"""Options of ``medcalib calibrate`` that go with ``--fold_bundles``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from medcalib.bundle.option_values import read_texts
from medcalib.cli.guarantee_options import check_needed, given_options
from medcalib.errors import UserError

__all__ = ["OF_FOLDS", "fold_options"]

OF_FOLDS = ("fold_bundles", "training_seed", "debug")
SHARED = (
    "output_dir",
    "predictions",
    "calibrator",
    "guarantee",
    "alpha",
    "min_covered",
    "keep_argmax",
    "evaluate",
    "num_bins",
    "include_background",
    "seed",
    "device",
)


def fold_options(command: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a command passes on where it is to calibrate a cross-validation of bundles.

    Args:
        command: the command, whose defaults tell which options were given.
        options: all of its options.

    Raises:
        UserError: an option does not go with the others, or is missing.
    """
    if misplaced := [name for name in given_options(command, options) if name not in (*OF_FOLDS, *SHARED)]:
        raise UserError(
            f"--{misplaced[0]} does not go with --fold_bundles, which knows it from the bundles; leave it out, or see "
            f"medcalib calibrate --help."
        )
    check_needed(options, ("output_dir",))
    bundles = read_texts("fold_bundles", options["fold_bundles"]) or []
    if not bundles:
        raise UserError("--fold_bundles names no bundle; give one of those that medcalib generate --folds 5 made.")
    chosen = {name: options[name] for name in (*SHARED, "debug")}
    chosen["predictions"] = read_texts("predictions", chosen["predictions"] or "") or []
    if options["training_seed"] is not None:
        chosen["training_seed"] = options["training_seed"]
    return {"bundles": bundles, **chosen}
