"""Where the predictions of a bundle's network are kept, so that other modes and bundles need not repeat them."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from monai.bundle import ConfigParser

from medcalib.errors import UserError, plain_reason, suggestion
from medcalib.inferers import SamplingInferer
from medcalib.inferers.prediction_cache import PredictionCache

__all__ = ["AUTO", "OFF", "chosen_cache", "keep_predictions"]

AUTO = "auto"
OFF = "off"
FOLDER = "MEDCALIB_CACHE_DIR"
SIZE = "MEDCALIB_CACHE_GB"
DEFAULT_GB = 10.0
_INFERER = "sampling_inferer"
# what somebody may type who means another word than a folder
_SWITCHES = ("none", "null", "no", "on", "yes", "true", "false", "0", "1")


def chosen_cache(option: str, bundle: Path, has_images: bool = False) -> PredictionCache | None:
    """The cache that ``--prediction_cache`` asks for.

    Args:
        option: ``auto``, ``off`` or a folder. ``auto`` is ``predictions`` in the folder that the environment variable
            ``MEDCALIB_CACHE_DIR`` names, else ``.cache/predictions`` beside the bundle.
        bundle: folder of the bundle.
        has_images: whether images are predicted that belong to no dataset; ``auto`` keeps nothing of them.

    Returns:
        The cache; None for ``off``.

    Raises:
        UserError: a folder that was named is a file or cannot be made, or the size in ``MEDCALIB_CACHE_GB`` is no
            number.
    """
    size = _max_bytes()
    if option == OFF or (option == AUTO and has_images):
        return None
    if option == AUTO:
        root = os.environ.get(FOLDER)
        folder = Path(root).expanduser() if root else bundle.resolve().parent / ".cache"
        return PredictionCache(folder / "predictions", size)
    folder = Path(option).expanduser()
    known = (AUTO, OFF, *_SWITCHES)
    if not folder.exists() and (option.lower() in known or difflib.get_close_matches(option, (AUTO, OFF), 1, 0.7)):
        raise UserError(
            f"--prediction_cache is auto, off or a folder, and there is no folder {option!r}"
            f"{suggestion(option.lower(), (AUTO, OFF)).rstrip('?.')}; write ./{option} for a folder of that name."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        told = "a file" if isinstance(error, FileExistsError) else plain_reason(error)
        raise UserError(
            f"The folder {folder} of --prediction_cache cannot be made ({told}); choose another one, auto or off."
        ) from None
    return PredictionCache(folder, size)


def keep_predictions(parser: ConfigParser, cache: PredictionCache | None) -> PredictionCache | None:
    """Let the inferer of a run keep its predictions.

    Args:
        parser: configuration of the run, which has been initialized.
        cache: where; nowhere when None.

    Returns:
        The cache; None if it is not used, also because the inferer is none of this package.
    """
    inferer = parser.get_parsed_content(_INFERER) if cache is not None and _INFERER in parser else None
    if not isinstance(inferer, SamplingInferer):
        return None
    inferer.keep_predictions(cache)
    return cache


def _max_bytes() -> int:
    text = os.environ.get(SIZE, "")
    try:
        size = float(text) if text.strip() else DEFAULT_GB
        if not 0 <= size < float("inf"):
            raise ValueError
    except ValueError:
        raise UserError(f"The environment variable {SIZE} must be a number of gigabytes, not {text!r}.") from None
    return int(size * 1e9)
