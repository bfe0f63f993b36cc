"""Fitted guarantees in files, and the comparison of what they were fitted for with what they are used for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from medcalib.errors import UserError
from medcalib.files.tensors import load_tensors, save_tensors
from medcalib.guarantees.joint_guarantees import JointGuarantees
from medcalib.networks.weights import weights_digest

__all__ = ["guarantee_origin", "load_guarantees", "read_guarantees", "save_guarantees"]

_KEYS = ("settings", "states", "lacking", "cases", "origin", "split_digest", "promises_nothing")
_TRAIN = "run --mode train, which fits it"
_ORIGINS = {
    "weights_digest": "other weights",
    "calibrator_digest": "another calibrator",
    "activation": "another activation",
}


def guarantee_origin(
    network: nn.Module, inference: Mapping[str, Any], calibrator_file: str | Path | None = None, **settings: Any
) -> dict[str, Any]:
    """All that decides the probabilities on which a guarantee is fitted, to be compared before it is used.

    Args:
        network: the network that predicts, with its weights.
        inference: settings of the inferer, as of `medcalib.reports.inference_settings`.
        calibrator_file: file of the calibrator that is applied; none when None.
        **settings: what else decides them, such as ``activation``.

    Returns:
        Plain values.

    Example:
        >>> origin = guarantee_origin(nn.Conv3d(1, 2, 1), {"num_members": 1}, activation="softmax")
        >>> origin["inference"], origin["calibrator_digest"], origin["activation"]
        ({'num_members': 1}, None, 'softmax')
    """
    calibrator = None
    if calibrator_file is not None:
        calibrator = weights_digest(load_tensors(calibrator_file, "calibrator", _TRAIN)["state"])
    return {
        "weights_digest": weights_digest(network.state_dict()),
        "calibrator_digest": calibrator,
        "inference": dict(inference),
        **settings,
    }


def save_guarantees(
    path: str | Path,
    guarantees: JointGuarantees,
    cases: Sequence[Mapping[str, Any]],
    origin: Mapping[str, Any],
    split_digest: str,
    promises_nothing: bool = False,
) -> None:
    """Write fitted guarantees with what is known of their fit; two equal fits give the same file.

    Args:
        path: the file, which is complete or not there.
        guarantees: the guarantees.
        cases: of each calibration case its identity as ``case``, ``image`` and ``label``, its ``group``, its ``dice``
            and its uncertainty ``scores``.
        origin: as of `guarantee_origin`.
        split_digest: digest of the split to which the cases belong.
        promises_nothing: whether it is a fit of a run of seconds.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from medcalib.guarantees import GuaranteeCase, RecallControl
        >>> guarantees = JointGuarantees([RecallControl(["organ"])])
        >>> case = GuaranteeCase("1", torch.tensor([[0.5]]), target=torch.tensor([[1]]))
        >>> guarantees.fit([guarantees.observe(case)] * 9)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_guarantees(f"{folder}/guarantee.pt", guarantees, [{"case": "1"}], {}, split_digest="0")
        ...     read_guarantees(f"{folder}/guarantee.pt")["cases"]
        [{'case': '1'}]
    """
    content = {
        "settings": guarantees.settings(),
        "states": {part.kind: part.state() for part in guarantees.fitted_parts},
        "lacking": dict(guarantees.lacking),
        "cases": [dict(case) for case in cases],
        "origin": dict(origin),
        "split_digest": split_digest,
        "promises_nothing": promises_nothing,
    }
    save_tensors(content, path)


def read_guarantees(path: str | Path) -> dict[str, Any]:
    """What a file of guarantees holds: ``settings``, ``states``, ``cases``, ``origin`` and ``split_digest``, ...

    Args:
        path: the file, as `save_guarantees` writes it.

    Raises:
        UserError: the file is missing, damaged, or holds no guarantees.

    Example:
        >>> read_guarantees("nowhere/guarantee.pt")
        Traceback (most recent call last):
        medcalib.errors.UserError: nowhere/guarantee.pt does not exist: run --mode train of this bundle ...
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist: run --mode train of this bundle and seed, which fits the guarantee.")
    content = load_tensors(path, "guarantee", f"delete it and {_TRAIN}")
    if not isinstance(content, dict) or any(key not in content for key in _KEYS):
        raise UserError(f"{path} is not a guarantee; delete it and {_TRAIN}.")
    return content


def load_guarantees(path: str | Path, guarantees: JointGuarantees, origin: Mapping[str, Any]) -> JointGuarantees:
    """Load fitted guarantees into those that were made with the same settings, and return them.

    Args:
        path: the file.
        guarantees: the guarantees, made with the settings of now.
        origin: as of `guarantee_origin`, of what is predicted now.

    Raises:
        UserError: the file is missing or damaged, or was fitted with other settings, or on other probabilities.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from medcalib.guarantees import GuaranteeCase, RecallControl
        >>> fitted, fresh = (JointGuarantees([RecallControl(["organ"])]) for _ in range(2))
        >>> case = GuaranteeCase("1", torch.tensor([[0.5]]), target=torch.tensor([[1]]))
        >>> fitted.fit([fitted.observe(case)] * 9)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_guarantees(f"{folder}/guarantee.pt", fitted, [{"case": "1"}], {}, split_digest="0")
        ...     load_guarantees(f"{folder}/guarantee.pt", fresh, {}).parts[0].fitted("organ")["num_cases"]
        9
    """
    content = read_guarantees(path)
    if content["settings"].keys() != guarantees.settings().keys():
        raise UserError(
            f"{path} holds {' and '.join(content['settings'])}, but {' and '.join(guarantees.kinds)} is asked for; use "
            f"the bundle of the former, or {_TRAIN} anew."
        )
    for kind, settings in guarantees.settings().items():
        before = content["settings"][kind]
        for name in settings.keys() | before.keys():
            if settings.get(name) != before.get(name):
                raise UserError(
                    f"{path} was fitted with {name} {before.get(name)}, but {settings.get(name)} is asked for; use the "
                    f"same, or {_TRAIN} anew."
                )
    if content["origin"] != dict(origin):
        raise UserError(f"{path} was fitted {_other(content['origin'], origin)}, or {_TRAIN} anew.")
    for part in guarantees.parts:
        if part.kind in content["states"]:
            part.load_state(content["states"][part.kind])
    guarantees.lacking = dict(content["lacking"])
    return guarantees


def _other(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The end of a sentence that says in what two origins differ."""
    for key, told in _ORIGINS.items():
        if before.get(key) != now.get(key):
            return f"with {told} than now, so its promise does not hold; use what it was fitted with"
    then, at_present = _flat(before), _flat(now)
    different = sorted(key for key in then.keys() | at_present.keys() if then.get(key) != at_present.get(key))
    key = different[0]
    return (
        f"on predictions with {key.removeprefix('inference.')} {then.get(key)}, not {at_present.get(key)}, so its "
        f"promise does not hold; predict as it was fitted"
    )


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
