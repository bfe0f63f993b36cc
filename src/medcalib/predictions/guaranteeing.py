"""Guarantees on what another program predicted: fitted on some cases, applied to others, from files to files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from tqdm import tqdm

import medcalib
from medcalib.errors import UserError, suggestion
from medcalib.files.folders import complete_folder
from medcalib.files.result_tables import write_table
from medcalib.files.writing import read_json, write_json
from medcalib.guarantees import (
    Guarantee,
    JointGuarantees,
    MarginControl,
    PrecisionControl,
    RecallControl,
    guarantee_from_state,
)
from medcalib.handlers.guaranteed_sets import file_endings
from medcalib.image_files.grids import image_like
from medcalib.keys import Activation, CaseKeys
from medcalib.predictions.guarantee_inputs import GuaranteeInputs, MaskInputs, ProbabilityInputs
from medcalib.predictions.prediction_folder import PredictionFolder
from medcalib.predictions.prediction_paths import read_case_list
from medcalib.predictions.prediction_values import PredictionKind
from medcalib.reports.guarantee_evaluation import write_guarantee_evaluation
from medcalib.transforms.guaranteed_cases import GUARANTEED, said_of

__all__ = [
    "MASKS",
    "apply_guarantee",
    "check_guarantee_name",
    "fit_guarantee",
    "guarantee_predictions",
    "write_guarantee",
]

MASKS = "masks"
"""Kind of predictions that are label maps."""
KINDS = (MASKS, *PredictionKind)
FILE = "guarantee.json"
FITTED: dict[str, type[Guarantee]] = {kind.kind: kind for kind in (MarginControl, RecallControl, PrecisionControl)}


def guarantee_predictions(
    predictions_dir: str | Path,
    output_dir: str | Path,
    *,
    cases: str | Path | Sequence[str],
    labels_dir: str | Path | None = None,
    calibration_cases: str | Path | Sequence[str] | None = None,
    guarantee: str = "margin_control",
    kind: str | None = None,
    alpha: float | None = None,
    min_covered: float | None = None,
    activation: Activation | str | None = None,
    regions: Mapping[str, Sequence[int]] | None = None,
    plans_file: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    evaluate: bool = True,
) -> JointGuarantees:
    """Fit a guarantee on the predictions of some cases and apply it to those of others, or apply a fitted one.

    The output folder holds ``guarantee.json``, the fitted guarantee, which another call applies to new predictions of
    the same program; ``predictions/<case>/<case>_<set>_<class>.nii.gz``, masks of 0 and 1 in the geometry of the
    prediction; ``predictions.csv``, what is said of each case; and, where ``cases`` have labels, ``evaluation``, what
    was promised and what happened, as a bundle writes it (`medcalib.reports.GuaranteeReportHandler`).

    Args:
        predictions_dir: folder of the predictions: masks as `MaskInputs` reads them, others as `PredictionFolder` does.
        output_dir: the folder of the results; it must not exist, and appears when it is complete.
        cases: ids of the cases to which it is applied, or the text file that lists them.
        labels_dir: folder of the labels; not needed to apply a fitted guarantee.
        calibration_cases: the same of the cases on which it is fitted; never cases that the program was trained on.
        guarantee: ``margin_control``, which masks are enough for, ``recall_control`` or ``precision_control``; or the
            ``guarantee.json`` of an earlier call, which is applied.
        kind: ``masks``, ``probabilities`` or ``logits``; masks when None.
        alpha: the loss that is allowed; 0.1 when None.
        min_covered: of ``margin_control``, the share of a class that is to be covered, in all but ``alpha`` of the
            cases.
        activation: of probabilities, ``softmax``, also when None, or ``sigmoid``.
        regions: the labels of each region by its name; of probabilities with the sigmoid only.
        plans_file: the ``plans.json`` of nnU-Net's training, for its archives.
        class_names: names of the classes, background first.
        evaluate: whether promises are compared with the labels of ``cases``, if there is a ``labels_dir``.

    Returns:
        The fitted guarantee.

    Raises:
        UserError: naming case and file or option: an option or a list is wrong, a case is in both lists, cases are too
            few for the level, the output exists, or a file is missing or does not fit the others.
    """
    given: dict[str, Any] = {
        "kind": kind,
        "activation": None if activation is None else str(activation),
        "regions": None if regions is None else {name: list(labels) for name, labels in regions.items()},
        "class_names": None if class_names is None else list(class_names),
    }
    listed = read_case_list(cases, "cases")
    known: dict[str, Any] = {}
    fit_on: list[str] = []
    if guarantee.endswith(".json"):
        known = _read(Path(guarantee).expanduser())
        _check_given(guarantee, known, {**given, "alpha": alpha, "min_covered": min_covered}, calibration_cases)
        given = known["settings"]
    else:
        given["kind"] = kind or MASKS
        check_guarantee_name(guarantee, given["kind"])
        if labels_dir is None or calibration_cases is None:
            missing = "labels_dir" if labels_dir is None else "calibration_cases"
            raise UserError(f"{missing} is missing, which is needed to fit {guarantee}.")
        fit_on = read_case_list(calibration_cases, "calibration_cases")
    if shared := [case for case in listed if case in (fit_on or known.get("calibration_cases", ()))]:
        raise UserError(
            f"The case {shared[0]} is one of those on which the guarantee is fitted, so nothing can be promised of it; "
            f"keep it in one of calibration_cases and cases."
        )
    evaluate = evaluate and labels_dir is not None
    inputs = _inputs(predictions_dir, labels_dir, given, plans_file, fit_on, listed)
    with complete_folder(output_dir) as draft:
        for case in fit_on:
            inputs.check(case, with_label=True)
        for case in listed:
            inputs.check(case, with_label=evaluate)
        if known:
            joint = JointGuarantees([guarantee_from_state(known["guarantee"])])
        else:
            joint = fit_guarantee(guarantee, inputs, fit_on, alpha, min_covered)
        (part,) = joint.parts
        number = len(fit_on or known["calibration_cases"])
        print(f"Guarantee {part.kind}, fitted on {number} cases: {part.promise()}.")
        if part.kind == MarginControl.kind:
            for name in part.class_names:
                print(f"  {name}: masks are grown by {part.fitted(name)['margin_mm']:g} mm")
        draft.mkdir(parents=True, exist_ok=True)
        write_guarantee(draft / FILE, joint, given | {"class_names": _all_names(given, inputs)}, known, fit_on)
        rows = apply_guarantee(joint, inputs, listed, evaluate, draft / "predictions")
        write_table(
            pd.DataFrame([{"case": row["case"], **row[GUARANTEED]["values"]} for row in rows]),
            draft / "predictions.csv",
        )
        if evaluate:
            print(write_guarantee_evaluation(draft / "evaluation", joint, inputs.class_names, rows))
    print(f"\nResults: {output_dir}")
    return joint


def _inputs(
    predictions_dir: str | Path,
    labels_dir: str | Path | None,
    given: Mapping[str, Any],
    plans_file: str | Path | None,
    fit_on: Sequence[str],
    listed: Sequence[str],
) -> GuaranteeInputs:
    kind, names, regions = given["kind"], given["class_names"], given["regions"]
    if kind == MASKS:
        return MaskInputs(predictions_dir, labels_dir, fit_on, names, regions)
    activation = given["activation"] or Activation.SOFTMAX
    folder = PredictionFolder(predictions_dir, labels_dir, kind, activation, regions, plans_file, {*fit_on, *listed})
    return ProbabilityInputs(folder, [*fit_on, *listed][0], names)


def fit_guarantee(
    name: str, inputs: GuaranteeInputs, cases: Sequence[str], alpha: float | None, min_covered: float | None
) -> JointGuarantees:
    """Fit a guarantee on cases, one at a time.

    Raises:
        UserError: there are too few cases for the level, or as `GuaranteeInputs.read`.
    """
    options: dict[str, Any] = {} if alpha is None else {"alpha": alpha}
    if min_covered is not None:
        options["min_covered"] = min_covered
    joint = JointGuarantees([FITTED[name](inputs.class_names, **options)])
    joint.check_num_cases(len(cases))
    observed = []
    for case in tqdm(cases, desc="guarantee: reading", unit="case", leave=False, disable=None):
        observed.append(joint.observe(inputs.read(case, with_label=True)[0]))
    joint.fit(observed)
    return joint


def apply_guarantee(
    joint: JointGuarantees, inputs: GuaranteeInputs, cases: Sequence[str], with_label: bool, folder: Path
) -> list[dict[str, Any]]:
    """Write the sets of cases to a folder for each of them, and return what is said of the cases.

    Raises:
        UserError: as `GuaranteeInputs.read`.
    """
    endings, rows = file_endings(inputs.class_names), []
    for case in tqdm(cases, desc="applying", unit="case", leave=False, disable=None):
        read, geometry = inputs.read(case, with_label)
        said, sets = said_of(read, joint)
        rows.append({CaseKeys.CASE.value: case, GUARANTEED: said})
        (folder / case).mkdir(parents=True, exist_ok=True)
        for name, channels in sets.items():
            for ending, voxels in zip(endings, channels, strict=True):
                image = image_like(geometry, voxels.numpy().astype(np.uint8))
                nib.save(image, folder / case / f"{case}_{name}{ending}.nii.gz")
    return rows


def write_guarantee(
    path: Path,
    joint: JointGuarantees,
    settings: Mapping[str, Any],
    known: Mapping[str, Any],
    fit_on: Sequence[str],
) -> None:
    """Write a fitted guarantee so that `guarantee_predictions` applies it again.

    Args:
        path: the file.
        joint: the guarantee.
        settings: ``kind``, ``activation``, ``regions`` and ``class_names`` of the predictions.
        known: what an earlier file said, whose cases and version stay; empty for one that was fitted now.
        fit_on: ids of the cases on which it was fitted.
    """
    content: dict[str, Any] = {
        "guarantee": joint.parts[0].state(),
        "settings": dict(settings),
        "calibration_cases": list(fit_on) or known["calibration_cases"],
        "version": known.get("version", medcalib.__version__),
    }
    write_json(path, content | {"checksum": _checksum(content)})


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the guarantee.json of an earlier call, or a kind of guarantee.")
    content = read_json(path, "fit the guarantee again")
    told = content.pop("checksum", None)
    if told is None or told != _checksum(content):
        raise UserError(f"{path} is no guarantee as it was written, so it promises nothing; fit it again.")
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_guarantee_name(name: str, kind: str) -> None:
    """Check that there is a guarantee of this name for predictions of this kind.

    Raises:
        UserError: there is none.
    """
    if name not in FITTED:
        raise UserError(
            f"There is no guarantee called {name!r} for predictions in files{suggestion(name, FITTED, list_all=True)}"
        )
    if kind not in KINDS:
        raise UserError(f"kind is {kind!r}, but must be {' or '.join(KINDS)}{suggestion(kind, KINDS)}")
    if kind == MASKS and name != MarginControl.kind:
        raise UserError(f"{name} needs probabilities, not masks; give their kind, or take {MarginControl.kind}.")


def _check_given(
    path: str, known: Mapping[str, Any], given: Mapping[str, Any], calibration_cases: str | Path | Sequence[str] | None
) -> None:
    """Check that nothing is asked for that a fitted guarantee does not do."""
    if calibration_cases is not None:
        raise UserError(f"{path} is fitted already, so calibration_cases has no use; leave it out, or fit a new one.")
    before = known["settings"] | known["guarantee"]["settings"] | {"class_names": known["settings"]["class_names"]}
    for name, value in given.items():
        if value is not None and value != before.get(name):
            raise UserError(
                f"{path} was fitted with {name} {before.get(name)}, but {value} is given; leave it out, or fit a new "
                f"one."
            )


def _all_names(given: Mapping[str, Any], inputs: GuaranteeInputs) -> list[str] | None:
    """Names of the classes as they are given, so that a fitted guarantee finds the same ones again."""
    if given["regions"] is not None or given["class_names"] is not None:
        names: list[str] | None = given["class_names"]
        return names
    is_exclusive = given["kind"] == MASKS or given["activation"] in (None, Activation.SOFTMAX)
    return [*(["background"] if is_exclusive else []), *inputs.class_names]
