"""Options of ``medcalib calibrate`` that go with ``--guarantee``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medcalib.errors import UserError

__all__ = ["OWN", "check_needed", "given_options", "guarantee_options"]

OWN = ("guarantee", "alpha", "min_covered")
SHARED = (
    "predictions_dir",
    "labels_dir",
    "kind",
    "calibration_cases",
    "cases",
    "output_dir",
    "activation",
    "regions",
    "plans_file",
    "class_names",
    "evaluate",
)
NEEDED = ("predictions_dir", "cases", "output_dir")


def guarantee_options(command: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a command passes on where it is to fit or apply a guarantee; None where it is not.

    Args:
        command: the command, whose defaults tell which options were given.
        options: all of its options.

    Raises:
        UserError: an option does not go with the others, or is missing.
    """
    given = given_options(command, options)
    if options["guarantee"] is None:
        if misplaced := [name for name in given if name in OWN]:
            raise UserError(f"--{misplaced[0]} goes with --guarantee, such as --guarantee=margin_control.")
        if options["kind"] == "masks":
            raise UserError("--kind=masks goes with --guarantee=margin_control; to calibrate, give probabilities.")
        return None
    if misplaced := [name for name in given if name not in (*OWN, *SHARED)]:
        raise UserError(f"--{misplaced[0]} does not go with --guarantee; leave it out.")
    check_needed(options, NEEDED)
    chosen = {name: options[name] for name in (*OWN, *SHARED)}
    if "activation" not in given:
        chosen["activation"] = None
    return chosen


def given_options(command: Callable[..., Any], options: Mapping[str, Any]) -> list[str]:
    """Names of the options that are not as they are when nobody gives them.

    Example:
        >>> def command(seed: int = 0, debug: bool = False): ...
        >>> given_options(command, {"seed": 1, "debug": False})
        ['seed']
    """
    defaults = {name: parameter.default for name, parameter in inspect.signature(command).parameters.items()}
    return [name for name, value in options.items() if value != defaults[name]]


def check_needed(options: Mapping[str, Any], needed: Sequence[str]) -> None:
    """Check that options were given.

    Raises:
        UserError: one of them was not.
    """
    if missing := [name for name in needed if options[name] is None]:
        raise UserError(f"--{missing[0]} is missing; medcalib calibrate --help says what it is.")
