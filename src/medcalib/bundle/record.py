"""Begin a training and record it, or go on with one that was begun with the same settings and cases."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from medcalib.bundle.bundle_metadata import read_metadata
from medcalib.bundle.checkpoint_paths import BEST_MODEL, initial_checkpoint
from medcalib.bundle.initial_weights import InitialWeights, check_begun_with, origin_of_weights, seen_cases
from medcalib.bundle.overrides import FIRST_STAGE, says_how_to_train
from medcalib.bundle.training_images import traits_of_training
from medcalib.bundle.training_on import (
    EPOCHS,
    asks_for_more,
    check_epochs,
    check_snapshots,
    follows_from_epochs,
    keep_earlier,
    planned,
)
from medcalib.bundle.used_settings import UsedSettings, differences, used_settings
from medcalib.data.case_identity import case_identities
from medcalib.errors import UserError
from medcalib.handlers.checkpoint import TrainingState, restore_weights, training_state
from medcalib.handlers.training_record import TrainingRecord, read_record, write_record
from medcalib.networks.weights import read_checkpoint, weights_digest

__all__ = ["begin_or_resume", "lost_weights", "training_command"]

ROOTS = ("initialize", "run")
_IS_GIVEN = "given"
_STARTS_FROM_SIBLING = "medcalib.bundle.checkpoint_paths.initial_checkpoint"


def begin_or_resume(
    parser: ConfigParser,
    overrides: Mapping[str, Any],
    is_first_stage: bool = False,
    initial: InitialWeights | None = None,
) -> bool:
    """Check that a training may begin or go on, record one that begins, and say whether there is nothing left to do.

    Args:
        parser: configuration of the training, of which nothing was run yet.
        overrides: values by configuration id that the user gave.
        is_first_stage: whether it is run for another training, which has ids of its own.
        initial: weights with which it is to begin, instead of random ones or those of its sibling.

    Returns:
        Whether the training is finished already.

    Raises:
        UserError: it was begun with other settings, cases or weights, or files that it left are lost.
    """
    used = used_settings(parser, ROOTS)
    models_dir = Path(parser.get_parsed_content("models_dir"))
    wanted = parser.get_parsed_content(EPOCHS)
    state = training_state(models_dir)
    if state is None:
        if (models_dir / BEST_MODEL).exists():
            raise UserError(
                f"{models_dir} holds {BEST_MODEL}, but not checkpoint.pt, from which its training would go on, and a "
                f"new one would replace it; put checkpoint.pt back, move {models_dir} away, or choose another "
                f"--output_dir."
            )
        content = parser.get_parsed_content
        images = traits_of_training(
            content("train::dataset::data"), content("load_case"), content("data::channel_names")
        )
        record = replace(_record(parser, used, overrides), images=images)
        if initial is not None:
            record = replace(record, starts_from=origin_of_weights(initial, parser))
        write_record(models_dir, record)
        return False
    before = read_record(models_dir)
    known = planned(state, before)
    goes_on = asks_for_more(used, overrides, wanted, known)
    finished = not goes_on and state.is_finished(known or wanted)
    if before is None or before.settings is None:
        warnings.warn(
            f"The training in {models_dir} was begun without a record of its settings, by an earlier version or by "
            f"MONAI's own runner, so nobody can tell whether they were those of now.",
            stacklevel=2,
        )
    else:
        check_begun_with(before, initial, models_dir.parent)
        if not goes_on:
            check_epochs(state, known, wanted, models_dir.parent, is_first_stage)
        _check_settings(before.settings, used, models_dir.parent, finished, is_first_stage, goes_on)
        # not before, for cases are looked for where the settings say
        _check_origin(before, _record(parser, used, overrides), models_dir.parent)
        if goes_on:
            check_snapshots(before.settings, used.values, state, wanted, models_dir.parent)
    lost = restore_weights(models_dir, parser.get_parsed_content("snapshot_epochs"))
    if lost:
        raise UserError(lost_weights(lost, state.epochs))
    if finished:
        print(f"This training finished {state.epochs} of {wanted} epochs already; its weights are in {models_dir}.")
    elif goes_on:
        _go_on(models_dir, state, before, used, overrides, wanted)
    else:
        print(f"Resuming after epoch {state.epochs} of {wanted}.")
    return finished


def _go_on(
    models_dir: Path,
    state: TrainingState,
    before: TrainingRecord | None,
    used: UsedSettings,
    overrides: Mapping[str, Any],
    wanted: int,
) -> None:
    """Record that a training goes on to more epochs than it was to have, and keep what it left if it was finished."""
    told = ""
    if state.is_finished(0):
        kept = keep_earlier(models_dir, state.epochs)
        told = (
            f" What it left after {state.epochs} epochs is kept in {kept}; calibrators, predictions and evaluations of "
            f"those weights stay as they are until they are made again."
        )
    if before is not None:
        step = {"after_epoch": state.epochs, "planned": planned(state, before), "max_epochs": wanted}
        settings = None if before.settings is None else used.values
        write_record(
            models_dir,
            replace(before, settings=settings, overrides=dict(overrides), trained_on=[*before.trained_on, step]),
        )
    print(f"Going on after epoch {state.epochs} to {wanted}, as a training of {wanted} epochs would.{told}")


def _record(parser: ConfigParser, used: UsedSettings, overrides: Mapping[str, Any]) -> TrainingRecord:
    content = parser.get_parsed_content
    starts_from = None
    if _STARTS_FROM_SIBLING in used.values.values():
        folder = Path(content("bundle_root"))
        checkpoint = initial_checkpoint(folder, content("seed"), content("debug"))
        of_sibling = read_record(Path(checkpoint).parent)
        starts_from = {
            "bundle": read_metadata(folder)["medcalib"]["initial_weights_bundle"],
            "weights_digest": weights_digest(read_checkpoint(checkpoint)),
            "cases": None if of_sibling is None else seen_cases(of_sibling),
        }
    return TrainingRecord(
        cases={
            "training": case_identities(content("train::dataset::data")),
            "validation": case_identities(content("validate::dataset::data")),
        },
        settings=used.values,
        starts_from=starts_from,
        seed=content("seed"),
        debug=content("debug"),
        overrides=dict(overrides),
    )


def training_command(folder: str | Path, record: TrainingRecord | None, seed: int, debug: bool) -> str:
    """The command that begins a training, or goes on with it."""
    if record is None or record.seed is None:
        record = TrainingRecord({}, seed=seed, debug=debug)
    words = ["--bundle", str(folder), "--mode", "train", "--seed", str(record.seed)] + ["--debug"] * record.debug
    if _IS_GIVEN in (record.starts_from or {}):
        words.append(f"--initial_weights={(record.starts_from or {})[_IS_GIVEN]}")
    words += [f"--{id_}={_on_command_line(value)}" for id_, value in record.overrides.items()]
    return f"medcalib run {shlex.join(words)}"


def lost_weights(lost: list[Path], epochs: int) -> str:
    """What to say of weights that a training has left and that cannot be made from its checkpoint."""
    names = " and ".join(path.name for path in lost)
    return (
        f"{lost[0].parent} lacks {names} although {epochs} epochs of its training are finished, and checkpoint.pt "
        f"holds the weights of the last epoch only; put {names} back, or remove {lost[0].parent} and train again."
    )


def _check_settings(
    before: Mapping[str, Any],
    used: UsedSettings,
    output_dir: Path,
    finished: bool,
    is_first_stage: bool,
    goes_on: bool = False,
) -> None:
    def may_differ(id_: str) -> bool:
        # an epoch that was finished on a GPU stays what it is on a machine without
        return (finished and "device" in used.reach(id_)) or (goes_on and follows_from_epochs(used, id_))

    if found := differences(before, used, may_differ):
        prefix = FIRST_STAGE if is_first_stage and says_how_to_train(found[0].id) else ""
        raise UserError(
            f"The training in {output_dir} was started with {prefix}{found[0]}; go on with the old value, or start "
            f"another training with another --seed or --output_dir."
        )


def _check_origin(before: TrainingRecord, now: TrainingRecord, output_dir: Path) -> None:
    """Refuse other cases, and other weights to start from."""
    for part, cases in before.cases.items():
        known, present = ({str(case["case"]): case for case in listed} for listed in (cases, now.cases[part]))
        if other := sorted(known.keys() ^ present.keys()):
            raise UserError(
                f"The training in {output_dir} was started with {len(known)} {part} cases, of which there are "
                f"{len(present)} now; {other[0]} is {'not there now' if other[0] in known else 'new'}; go on with the "
                f"old files, or start another training with another --seed or --output_dir."
            )
        for case, then in known.items():
            for kind in ("image", "label"):
                if None not in (then[kind], present[case][kind]) and then[kind] != present[case][kind]:
                    raise UserError(
                        f"Case {case}: its {kind} is not what it was when the training in {output_dir} was started; go "
                        f"on with the old file, or start another training with another --seed or --output_dir."
                    )
    if _IS_GIVEN in (before.starts_from or {}):
        return
    then, present = (one.starts_from or {} for one in (before, now))
    if any(then.get(key) != present.get(key) for key in ("bundle", "weights_digest")):
        origin = (then or present)["bundle"]
        raise UserError(
            f"The training in {output_dir} was started from other weights of {origin} than those that lie there now; "
            f"put those back, or start another training with another --seed or --output_dir."
        )


def _on_command_line(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_on_command_line, value))}]"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
