"""Export a trained bundle: as a bundle that runs elsewhere, or as one file that holds network and calibrator."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medcalib.errors import UserError, suggestion
from medcalib.export.export_place import ExportPlace
from medcalib.export.exported_bundle import export_bundle
from medcalib.export.file_metadata import file_metadata
from medcalib.export.trained_bundle import TrainedBundle, open_trained
from medcalib.export.window import check_exportable, example_windows, own_prediction, window_network
from medcalib.export.window_files import ENDINGS, predict_with_file, write_window_file
from medcalib.files.writing import read_json, write_json

__all__ = ["FORMATS", "TOLERANCE", "export"]

FORMATS = (*ENDINGS, "bundle")
TOLERANCE = 1e-5
"""How far probabilities of a file may be from those of the bundle without being told."""

_FAR = 1e-3

# rounding moves voxels whose probability lies on the border of two bins into the other one
_JUMPING = "histogram_binning"
_MOST_ON_BORDERS = 1e-3


def export(
    bundle: str | Path,
    format: str,  # noqa: A002
    seed: int | None = None,
    output: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    allow_edited: bool = False,
    debug: bool = False,
) -> Path:
    """Write a trained bundle in a form in which others can use it.

    A file is tried before it gets its name: two windows must give the probabilities of the bundle. What differs by more
    than `TOLERANCE` is told, and a file that is wrong is not written.
    Nothing that exists is ever replaced; the same once more is left untouched.

    Args:
        bundle: name of a bundle under ``bundles/``, or its path.
        format: one of `FORMATS`.
        seed: seed of its training; the bundle's own when None.
        output: folder to write to; ``export`` in the folder of the seed when None.
        overrides: values by configuration id; those of the training are known.
        allow_edited: accept a bundle whose configs were edited after it was generated.
        debug: take the weights of a debug run, to see whether an export works; they are worth nothing.

    Returns:
        The file, or the folder of the bundle, beside which its archive lies.

    Warns:
        UserWarning: probabilities differ by more than `TOLERANCE`, nobody could try the file, or the bundle has a
            guarantee, which is not exported.

    Raises:
        UserError: the format is unknown, the bundle is not trained, it cannot be written in this format, a package is
            missing, or something else lies in the place.
    """
    if format not in FORMATS:
        raise UserError(f"--format {format!r} is unknown{suggestion(str(format), FORMATS, list_all=True)}")
    trained = open_trained(bundle, seed, overrides, allow_edited, debug)
    place = trained.output_dir / "export" if output is None else Path(output).expanduser()
    if place.exists() and not place.is_dir():
        raise UserError(f"{place} is a file; --output names the folder to write to.")
    if trained.bundle.fits_guarantee:
        warnings.warn(
            f"The guarantee of {trained.bundle.name} is not exported: what is written gives its probabilities, and "
            f"sets and values with what is promised of them are made by medcalib run alone.",
            stacklevel=2,
        )
    if format == "bundle":
        return export_bundle(trained, place)
    return _export_file(trained, format, place)


def _export_file(trained: TrainedBundle, kind: str, folder: Path) -> Path:
    check_exportable(trained, kind)
    network = window_network(trained)
    about = file_metadata(trained, network, kind)
    file = folder / f"{trained.bundle.name}{ENDINGS[kind]}"
    beside = Path(f"{file}.json")
    if _is_there(file, beside, about):
        print(f"{file} was exported before and was left untouched.")
        return file
    windows = example_windows(trained)
    with ExportPlace(file) as place, ExportPlace(beside) as place_beside:
        write_window_file(network, kind, windows, place.draft, about)
        measured = _check(trained, kind, predict_with_file(place.draft, kind, windows), windows)
        write_json(place_beside.draft, about | measured | {"sha256": _sha256(place.draft)})
        place.publish()
        place_beside.publish()
    return file


def _is_there(file: Path, beside: Path, about: Mapping[str, Any]) -> bool:
    """Whether the same was exported before."""
    if not file.exists() and not beside.exists():
        return False
    if file.exists() and beside.exists():
        before = read_json(beside, "choose another --output, or move it away")
        wanted = dict(about)
        same = all(before.get(key) == _plain(value) for key, value in wanted.items())
        if same and before.get("sha256") == _sha256(file):
            return True
    raise UserError(
        f"{file if file.exists() else beside} exists and is another export than this, and an export never replaces "
        f"anything; choose another --output, or move it away."
    )


def _check(trained: TrainedBundle, kind: str, outputs: list[Tensor] | None, windows: Tensor) -> dict[str, Any]:
    """Compare what a file gives with what the bundle gives."""
    if outputs is None:
        warnings.warn(
            "onnxruntime is not installed, so the file was not tried; pip install 'medcalib[export]'.", stacklevel=2
        )
        return {"largest_difference": None}
    own = own_prediction(trained, windows)
    differences = (outputs[0] - own).abs()
    largest = float(differences.max())
    beyond = float((differences > TOLERANCE).float().mean())
    told = (
        f"{trained.bundle.name} as {kind} gives probabilities that differ from the bundle's own by up to {largest:.2g}"
    )
    jumps = trained.calibrator_kind == _JUMPING
    far = float((differences > _FAR).float().mean())
    if torch.isnan(differences).any() or far > (_MOST_ON_BORDERS if jumps else 0):
        raise UserError(f"{told}, so nothing was written; --format bundle works, and so may another format.")
    if beyond:
        reason = "its calibrator jumps at the borders of bins" if jumps else "numbers are rounded"
        warnings.warn(f"{told}, in {100 * beyond:.2g} % of the voxels of random windows, since {reason}.", stacklevel=2)
    return {"largest_difference": largest, "tolerance": TOLERANCE, "share_beyond_tolerance": beyond}


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
