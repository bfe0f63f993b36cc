"""Check that weights may be used for what a run does with them: what they saw, and whether they are finished."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from medcalib.bundle.overrides import concerns_training
from medcalib.bundle.record import lost_weights, training_command
from medcalib.bundle.training_on import EPOCHS, planned
from medcalib.bundle.used_settings import Difference, UsedSettings, differences, used_settings
from medcalib.calibrators import read_calibrator
from medcalib.data.case_identity import Identity, case_identities, named_alike, shared_cases
from medcalib.data.cases import split_digest
from medcalib.errors import UserError, listed
from medcalib.guarantees import read_guarantees
from medcalib.handlers.checkpoint import CHECKPOINT, training_state
from medcalib.handlers.training_record import TrainingRecord, read_record

__all__ = ["Purpose", "check_settings", "check_trained", "check_weights"]

# what network, preprocessing and classes depend on must be as in the training, whatever else is done with the weights
ROOTS = ("placed_network", "preprocessing", "activation", "data::class_names", "data::channel_names")
# settings that divide the cases, to say how those of a training were divided
_DIVIDES = re.compile(r"data::(num_folds|fold(_seed)?)|data::cases::(?!.*(_target_|dir|image|label)).*")


class Purpose(StrEnum):
    """What a run does with cases that the weights may have seen."""

    EVALUATE = "evaluate"
    PREDICT = "predict"
    CALIBRATE = "calibrate"


def check_trained(parser: ConfigParser) -> None:
    """Check that the weights are there which a run needs.

    Args:
        parser: configuration of the run, of which nothing was run yet.

    Raises:
        UserError: they were never trained, or they are lost.
    """
    content = parser.get_parsed_content
    missing = [Path(path) for path in content("checkpoints") if not Path(path).exists()]
    if not missing:
        return
    seed = content("seed")
    command = training_command(content("bundle_root"), None, seed, content("debug"))
    if (state := training_state(missing[0].parent)) is not None:
        if state.best_epoch in (-1, state.epochs):
            raise UserError(f"{missing[0]} is lost, but can be made again from {CHECKPOINT}: {command}")
        raise UserError(lost_weights([missing[0]], state.epochs))
    seeds = sorted({match[1] for path in missing if (match := re.search(r"seed_(\d+)", str(path)))}, key=int)
    named = f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}" if seeds else f"seed {seed}"
    raise UserError(
        f"{missing[0]} does not exist, so this bundle is not trained with {named} yet; train it first: {command}"
    )


def check_settings(parser: ConfigParser, overrides: Iterable[str]) -> None:
    """Check that network, preprocessing and classes of a run are those with which its weights were trained.

    Other settings may differ, such as windows, members and bins.

    Args:
        parser: configuration of the run, of which nothing was run yet.
        overrides: ids of the values that the user gave.

    Raises:
        UserError: one differs, or another number of epochs is asked for than was trained, or a setting of the training
            that has no effect on this run.
    """
    used = used_settings(parser, ROOTS, through_values=False)
    sources = used_settings(parser, ROOTS)
    epochs = used_settings(parser, [EPOCHS])
    of_epochs = epochs.reach(EPOCHS)
    asked = epochs.values.get(EPOCHS) if of_epochs & set(overrides) else None
    of_training = sorted(filter(concerns_training, set(overrides) - of_epochs))
    here = used_settings(parser, ("initialize", "run")).values if of_training else {}
    given = used_settings(parser, of_training, through_values=False).values
    without_effect = {id_: value for id_, value in given.items() if id_ not in here}
    for models_dir in _folders(parser.get_parsed_content("checkpoints")):
        record = read_record(models_dir)
        if record is None or record.settings is None:
            continue
        if found := differences(record.settings, used):
            raise UserError(
                f"The weights in {models_dir} were trained with {_origin(found, record.settings, sources)}; use them "
                f"with the value of the training, or train with the new one and another --seed or --output_dir."
            )
        for id_, value in without_effect.items():
            if id_ in record.settings and record.settings[id_] != value:
                raise UserError(
                    f"The weights in {models_dir} were trained with {id_}={record.settings[id_]}, not {value}, and the "
                    f"option changes nothing here; leave it out, or train with the new value and another --seed or "
                    f"--output_dir."
                )
        trained = record.settings.get(EPOCHS)
        if None not in (asked, trained) and asked != trained and not parser.get_parsed_content("allow_unfinished"):
            raise UserError(
                f"The weights in {models_dir} are those of a training of {trained} epochs, but {asked} are asked for; "
                f"leave the number out, or train with it and another --seed or --output_dir, or use them as they are "
                f"with --allow_unfinished."
            )


def check_weights(
    bundle_root: str | Path,
    checkpoints: Sequence[str | Path],
    cases: Sequence[Mapping[str, Any]],
    split: Mapping[str, Sequence[Mapping[str, Any]]] | None,
    purpose: str = Purpose.EVALUATE,
    calibrator_file: str | Path | None = None,
    allow_unfinished: bool = False,
    threshold_cases: Sequence[Mapping[str, Any]] = (),
    guarantee_file: str | Path | None = None,
) -> None:
    """Check that the training of the weights is finished, and that cases were not seen in it.

    Cases that are evaluated must not have been trained on, nor have chosen the epoch, nor have fitted the calibrator;
    cases to calibrate on, or to find thresholds on, must not have been trained on. Cases that are predicted may, with a
    warning.

    Args:
        bundle_root: folder of the bundle.
        checkpoints: files of the weights.
        cases: the cases of the run.
        split: all cases of the dataset by part; None where cases belong to no dataset.
        purpose: what happens with the cases, a `Purpose`.
        calibrator_file: file of the calibrator that is applied; none when None.
        allow_unfinished: use weights whose training is not finished, too.
        threshold_cases: cases on which thresholds for flagging are found.
        guarantee_file: file of the guarantee that is applied; none when None.

    Raises:
        UserError: a training is not finished, or cases were seen that must not have been.
    """
    identities, of_thresholds = case_identities(cases), case_identities(threshold_cases)
    for models_dir in _folders(checkpoints):
        record = read_record(models_dir)
        if not allow_unfinished:
            _check_finished(Path(bundle_root), models_dir, record)
        if record is None:
            warnings.warn(
                f"{models_dir} does not say on which cases its weights were trained, since an earlier version or "
                f"another program wrote them; nobody can tell whether the cases of this run are new to them.",
                stacklevel=2,
            )
            continue
        origin = f"in the training of {models_dir}{_divided(record)}"
        _check_unseen(identities, record.cases["training"], "trained on", origin, purpose)
        if purpose != Purpose.CALIBRATE:
            _check_unseen(identities, record.cases["validation"], "used to choose the epoch", origin, purpose)
        _check_thresholds(of_thresholds, record.cases["training"], origin)
        earlier = f"in the training from whose weights that of {models_dir} began"
        _check_origin_of(record, identities, of_thresholds, earlier, purpose)
    fits: dict[str | Path, tuple[Sequence[Identity], str]] = {}
    if calibrator_file is not None and purpose != Purpose.CALIBRATE:
        calibrator = read_calibrator(calibrator_file)
        fits[calibrator_file] = calibrator["details"].get("cases", []), calibrator["split_digest"]
    if guarantee_file is not None and purpose != Purpose.CALIBRATE:
        guarantee = read_guarantees(guarantee_file)
        fits[guarantee_file] = guarantee["cases"], guarantee["split_digest"]
    for file, (seen, of_split) in fits.items():
        _check_fit(identities, seen, file, of_split, split, purpose)


def _check_fit(
    identities: Sequence[Identity],
    seen: Sequence[Identity],
    file: str | Path,
    of_split: str,
    split: Mapping[str, Sequence[Mapping[str, Any]]] | None,
    purpose: str,
) -> None:
    """Check that cases were not used for the fit of a calibrator or a guarantee."""
    _check_unseen(identities, seen, "calibrated on", f"in the fit of {file}", purpose)
    if split is not None and of_split != split_digest(split):
        warnings.warn(
            f"{file} was fitted with another division of cases into training, validation, calibration and "
            f"test than that of this run; none of the cases of this run is known to have been used for the fit.",
            stacklevel=3,
        )


def _check_origin_of(
    record: TrainingRecord, cases: Sequence[Identity], of_thresholds: Sequence[Identity], origin: str, purpose: str
) -> None:
    """Check cases against those of the training from whose weights one began; other datasets may use the same ids."""
    seen = (record.starts_from or {}).get("cases") or {"training": [], "validation": []}
    new = [set(named_alike(part, [*seen["training"], *seen["validation"]])) for part in (cases, of_thresholds)]
    cases, of_thresholds = (
        [case for case in part if case["case"] not in of_part]
        for part, of_part in zip((cases, of_thresholds), new, strict=True)
    )
    _check_unseen(cases, seen["training"], "trained on", origin, purpose)
    if purpose != Purpose.CALIBRATE:
        _check_unseen(cases, seen["validation"], "used to choose the epoch", origin, purpose)
    _check_thresholds(of_thresholds, seen["training"], origin)


def _check_finished(bundle_root: Path, models_dir: Path, record: TrainingRecord | None) -> None:
    state = training_state(models_dir)
    if state is None:
        if record is not None:
            raise UserError(
                f"{models_dir} lacks checkpoint.pt, so nobody can tell whether its training is finished; put it "
                f"back, or use the weights as they are with --allow_unfinished."
            )
        return
    wanted = planned(state, record)
    if wanted is not None and state.epochs < wanted:
        output_dir = models_dir.resolve().parent
        # a folder of another name is that of --output_dir, which the record holds
        folder = output_dir.parent if output_dir.name.startswith("seed_") else bundle_root
        seed = re.search(r"seed_(\d+)", output_dir.name)
        command = training_command(folder, record, int(seed[1]) if seed else 0, output_dir.name.endswith("_debug"))
        raise UserError(
            f"The training in {models_dir} has finished {state.epochs} of {wanted} epochs; go on with it: {command} "
            f"- or use its weights as they are with --allow_unfinished."
        )


def _check_unseen(cases: Sequence[Identity], seen: Sequence[Identity], how: str, origin: str, purpose: str) -> None:
    shared = shared_cases(cases, seen)
    if not shared:
        return
    alike = set(named_alike(cases, seen))
    # whatever is certain comes first
    certain = [case for case in shared if case not in alike]
    number = f"{len(certain or shared)} of the {len(cases)} cases of this run"
    if certain:
        told = f"{number} were {how} {origin}: {listed(certain)}"
    else:
        told = f"{number} have other files than cases that were {how} {origin}, but the same ids: {listed(shared)}"
    if purpose == Purpose.PREDICT:
        if certain:
            remark = "their predictions say nothing about those of new cases"
        else:
            remark = "if they are not other patients, their predictions say nothing about those of new cases"
        warnings.warn(f"{told}; {remark}.", stacklevel=3)
        return
    verb = "evaluated" if purpose == Purpose.EVALUATE else "calibrated on"
    if certain:
        remedy = (
            f"cases that are {verb} must be new, so give the options that divide the cases as in the training, or "
            f"train with those of now"
        )
    else:
        remedy = (
            f"cases that are {verb} must be new, so if these are other patients, give them other ids, for example by "
            f"links of other names to their files"
        )
    raise UserError(f"{told}; {remedy}.")


def _check_thresholds(cases: Sequence[Identity], seen: Sequence[Identity], origin: str) -> None:
    if shared := shared_cases(cases, seen):
        raise UserError(
            f"{len(shared)} of the {len(cases)} calibration cases, on which thresholds for flagging are found, were "
            f"trained on {origin}: {listed(shared)}; give the options that divide the cases as in the training, or "
            f"leave the thresholds out with --quality_control::calibrate_threshold=false."
        )


def _origin(found: Sequence[Difference], before: Mapping[str, Any], sources: UsedSettings) -> Difference:
    """The setting from which differences follow, which is the one that the user knows."""
    follows = set().union(*(sources.reach(difference.id) for difference in found))
    return [*differences(before, sources, lambda id_: id_ not in follows), *found][0]


def _divided(record: TrainingRecord) -> str:
    settings = {id_: value for id_, value in (record.settings or {}).items() if _DIVIDES.fullmatch(id_)}
    plain = [f"{id_}={value}" for id_, value in settings.items() if not isinstance(value, str | list | dict)]
    return f", which had {', '.join(plain)}" if plain else ""


def _folders(checkpoints: Sequence[str | Path]) -> list[Path]:
    return list(dict.fromkeys(Path(path).parent for path in checkpoints))
