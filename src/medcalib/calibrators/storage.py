"""Calibrators in files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from medcalib.calibrators.base import Calibrator
from medcalib.calibrators.fit_report import FitReport
from medcalib.errors import UserError
from medcalib.files.tensors import load_tensors, save_tensors
from medcalib.networks.weights import weights_digest

__all__ = ["keep_of_other_weights", "load_calibrator", "read_calibrator", "save_calibrator"]

KEYS = ("kind", "settings", "state", "report", "split_digest", "details")


def save_calibrator(
    path: str | Path,
    calibrator: Calibrator,
    report: FitReport,
    split_digest: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write a fitted calibrator with what is known about its fit.

    The file holds tensors, numbers, strings, lists and dictionaries only, so ``torch.load(weights_only=True)`` reads
    it. It is complete or not there, and its checksums are looked at when it is read.

    Args:
        path: the file.
        calibrator: the calibrator.
        report: the report of its fit.
        split_digest: digest of the split whose calibration cases it was fitted on.
        details: further plain values to keep, such as a digest of the weights and the cases of the fit.

    Raises:
        UserError: the calibrator is not fitted.

    Example:
        >>> import tempfile, torch
        >>> from medcalib.calibrators import TemperatureScaling, fit_calibrator
        >>> logits, labels = torch.tensor([[[9.0, 9.0, -9.0], [0.0, 0.0, 0.0]]]), torch.tensor([[[0, 1, 1]]])
        >>> calibrator = TemperatureScaling(num_classes=2)
        >>> report = fit_calibrator(calibrator, [(logits, labels)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_calibrator(f"{folder}/calibrator.pt", calibrator, report, split_digest="")
        ...     read_calibrator(f"{folder}/calibrator.pt")["kind"]
        'temperature_scaling'
    """
    if not calibrator.is_fitted:
        raise UserError(
            f"The {calibrator.kind} calibrator is not fitted, so it cannot be saved to {path}: fit it first."
        )
    content = {
        "kind": calibrator.kind,
        "settings": calibrator.settings(),
        "state": {name: value.detach().cpu().clone() for name, value in calibrator.state_dict().items()},
        "report": report.to_dict(),
        "split_digest": split_digest,
        "details": dict(details or {}),
    }
    save_tensors(content, path)


def read_calibrator(path: str | Path) -> dict[str, Any]:
    """What a file holds: ``kind``, ``settings``, ``state``, ``report``, ``split_digest``, ``details``.

    Args:
        path: the file.

    Raises:
        UserError: the file is missing, damaged, or no calibrator.

    Example:
        >>> import tempfile, torch
        >>> from medcalib.calibrators import TemperatureScaling, fit_calibrator
        >>> logits, labels = torch.tensor([[[9.0, 9.0, -9.0], [0.0, 0.0, 0.0]]]), torch.tensor([[[0, 1, 1]]])
        >>> calibrator = TemperatureScaling(num_classes=2)
        >>> report = fit_calibrator(calibrator, [(logits, labels)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_calibrator(f"{folder}/calibrator.pt", calibrator, report, split_digest="")
        ...     round(read_calibrator(f"{folder}/calibrator.pt")["report"]["nll_before"], 3)
        3.0
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist: run --mode train of this bundle and seed, which fits the calibrator.")
    content = load_tensors(path, "calibrator", "delete it and run --mode train")
    if not isinstance(content, dict) or any(key not in content for key in KEYS):
        raise UserError(f"{path} is not a calibrator; delete it and run --mode train, which fits one.")
    return content


def keep_of_other_weights(path: str | Path, weights_digest: str) -> Path | None:
    """Move a calibrator that was fitted on other weights out of the way of one that is about to be written.

    Args:
        path: the file.
        weights_digest: that of the weights of now.

    Returns:
        Where it lies now, ``<name>_<n>.pt`` beside it; None if there was nothing to move, or nothing that can be read.
    """
    path = Path(path)
    try:
        fitted_on = read_calibrator(path)["details"].get("weights_digest")
    except UserError:
        return None
    if fitted_on in (None, weights_digest):
        return None
    number = 1
    while (kept := path.with_stem(f"{path.stem}_{number}")).exists():
        number += 1
    return path.rename(kept)


def load_calibrator(
    path: str | Path, calibrator: Calibrator, network: nn.Module | None = None, calibrate: str | None = None
) -> Calibrator:
    """Load a fitted calibrator into one that was made with the same settings, and return it.

    Args:
        path: the file.
        calibrator: the calibrator; it stays on the device where it lies.
        network: the network whose logits it is to calibrate; not checked if None.
        calibrate: what it is to calibrate, the ``"mean"`` of several members or each of the ``"members"``; not checked
            if None.

    Raises:
        UserError: the file is missing or damaged, or holds a calibrator of another kind, of another number of classes,
            with other settings, of other weights, or fitted on the mean instead of the members, or vice versa.

    Example:
        >>> import tempfile, torch
        >>> from medcalib.calibrators import TemperatureScaling, fit_calibrator
        >>> logits, labels = torch.tensor([[[9.0, 9.0, -9.0], [0.0, 0.0, 0.0]]]), torch.tensor([[[0, 1, 1]]])
        >>> calibrator = TemperatureScaling(num_classes=2)
        >>> report = fit_calibrator(calibrator, [(logits, labels)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_calibrator(f"{folder}/calibrator.pt", calibrator, report, split_digest="")
        ...     loaded = load_calibrator(f"{folder}/calibrator.pt", TemperatureScaling(num_classes=2))
        >>> torch.equal(loaded(logits), calibrator(logits))
        True
    """
    content = read_calibrator(path)
    if content["kind"] != calibrator.kind:
        raise UserError(
            f"{path} holds a {content['kind']} calibrator, but {calibrator.kind} is asked for: use the bundle of the "
            f"former, or run --mode train."
        )
    for name, value in calibrator.settings().items():
        if content["settings"].get(name) != value:
            raise UserError(
                f"{path} holds a {calibrator.kind} calibrator with {name} {content['settings'].get(name)}, but "
                f"{name} {value} is asked for: use the same setting, or delete the file and run --mode train."
            )
    digest = content["details"].get("weights_digest")
    if network is not None and digest is not None and digest != weights_digest(network.state_dict()):
        raise UserError(
            f"{path} was fitted on other weights than those that are used now, so it does not fit them; run --mode "
            f"train again, which fits it anew."
        )
    fitted_on = content["details"].get("calibrate")
    if None not in (calibrate, fitted_on) and fitted_on != calibrate:
        raise UserError(
            f"{path} was fitted with calibrator::calibrate {fitted_on}, but {calibrate} is asked for; use the same "
            f"setting, or run --mode train again with the new one."
        )
    try:
        calibrator.load_state_dict(content["state"])
    except RuntimeError as error:
        raise UserError(
            f"{path} does not fit the {calibrator.kind} calibrator ({str(error).splitlines()[-1].strip()}); delete it "
            f"and run --mode train."
        ) from None
    return calibrator
