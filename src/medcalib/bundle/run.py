"""Run one mode of a bundle."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from medcalib.bundle.fragments import suggestion
from medcalib.bundle.layout import CONFIGS, Mode
from medcalib.bundle.record import EPOCHS, begin_or_resume
from medcalib.bundle.siblings import check_chain, fits_calibrator, trainings_before, trains_network
from medcalib.bundle.trained_weights import check_settings, check_trained
from medcalib.bundle.workflow import bundle_settings, find_bundle, open_workflow, user_message
from medcalib.errors import StoppedError, UserError
from medcalib.files import complete_file, remove_abandoned, write_text
from medcalib.locks import locked_folder
from medcalib.processes import refuse_several_processes

__all__ = ["run"]


def run(
    bundle: str,
    mode: str,
    seed: int | None = None,
    debug: bool = False,
    allow_edited: bool = False,
    overrides: Mapping[str, Any] | None = None,
    allow_unfinished: bool = False,
) -> None:
    """Train, predict or evaluate with a bundle.

    Args:
        bundle: name of a bundle under ``bundles/``, or its path.
        mode: ``train``, ``inference_pred`` or ``inference_eval``.
        seed: fixes the run together with the bundle; the bundle's own when None.
        debug: a run of seconds on a few cases, in its own output folder.
        allow_edited: accept a bundle whose configs were edited after it was generated.
        overrides: values by configuration id.
        allow_unfinished: predict and evaluate with the weights of a training that is not finished, too.

    Raises:
        UserError: whatever the user can mend.
    """
    refuse_several_processes()
    folder = find_bundle(bundle)
    try:
        mode = Mode(mode)
    except ValueError:
        raise UserError(f"--mode {mode!r} is unknown{suggestion(mode, list(Mode), list_all=True)}") from None
    check_chain(folder)
    settings = bundle_settings(folder, seed, allow_edited) | {"allow_unfinished": allow_unfinished}
    overrides = dict(overrides or {})
    if mode is Mode.TRAIN:
        _train_siblings(folder, settings | overrides, debug, allow_edited)
        if not trains_network(folder) and not fits_calibrator(folder):
            return
    _run(folder, mode, settings, overrides, debug)


def _train_siblings(folder: Path, settings: Mapping[str, Any], debug: bool, allow_edited: bool) -> None:
    """Train what a bundle builds on; others may need it, too, so this waits for whoever trains it."""
    for sibling in trainings_before(folder, settings, debug):
        print(f"{folder.name} uses the weights of {sibling.bundle.name} with seed {sibling.seed}.")
        own = bundle_settings(sibling.bundle, sibling.seed, allow_edited)
        _train_siblings(sibling.bundle, own | sibling.overrides, debug, allow_edited)
        if trains_network(sibling.bundle) or fits_calibrator(sibling.bundle):
            _run(sibling.bundle, Mode.TRAIN, own, sibling.overrides, debug, waits=True)


def _run(
    folder: Path,
    mode: Mode,
    settings: dict[str, Any],
    overrides: Mapping[str, Any],
    debug: bool,
    waits: bool = False,
) -> None:
    from medcalib.bundle.component_checks import check_components
    from medcalib.bundle.resolve import resolved_config

    workflow = open_workflow(folder, mode, settings, overrides, debug)
    check_components(workflow.parser)
    output_dir = Path(workflow.parser.get_parsed_content("output_dir"))
    trains = mode is Mode.TRAIN and trains_network(folder)
    hint = "the same command resumes after the last complete epoch" if trains else "nothing was written"
    with _one_sentence(workflow, output_dir, hint):
        state = _training_state(workflow) if trains else None
        if state is None:  # else cases are compared with those that the training saw
            _check_cases(workflow, mode, trains)
        # what is finished is only read, which needs no lock
        elif (
            waits
            and state.is_finished(workflow.parser.get_parsed_content(EPOCHS))
            and begin_or_resume(workflow, folder, overrides, debug)
        ):
            return
    with _output_folder(output_dir, waits), _one_sentence(workflow, output_dir, hint):
        remove_abandoned(workflow.parser.get_parsed_content("models_dir"), held=True)
        if not trains:
            check_trained(workflow, folder, debug)
            check_settings(workflow, overrides)
        elif begin_or_resume(workflow, folder, overrides, debug):
            return
        config = yaml.dump(resolved_config(workflow.parser), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)
        if trains:
            write_text(output_dir / CONFIGS / f"{mode}.yaml", config)
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        if mode is not Mode.TRAIN and not workflow.parser.get_parsed_content("result_folder").is_complete:
            raise UserError(f"No case was looked at, so nothing was written to {output_dir}.")
        # not before, for a run that fails leaves earlier results as they are; of a training epochs are left
        if not trains:
            write_text(output_dir / CONFIGS / f"{mode}.yaml", config)
    print(f"Results: {output_dir}")


@contextmanager
def _one_sentence(workflow: Any, output_dir: Path, hint: str) -> Iterator[None]:
    """Turn what stops a run, or keeps it from going on, into an error of one sentence if the user can mend it."""
    from medcalib.bundle.component_checks import component_message

    try:
        yield
    except KeyboardInterrupt as stop:
        raise StoppedError.by(stop, hint) from None
    except Exception as error:
        if cause := user_message(error, output_dir) or component_message(error, workflow.parser.get()):
            raise UserError(cause) from None
        raise


@contextmanager
def _output_folder(output_dir: Path, waits: bool) -> Iterator[None]:
    """Make and lock the output folder; remove it if it is new and a mistake kept anything from being trained."""
    with locked_folder(output_dir, waits) as made:
        try:
            with complete_file(output_dir / CONFIGS / "probe") as draft:
                draft.touch()
            (output_dir / CONFIGS / "probe").unlink(missing_ok=True)
            for folder in (output_dir, output_dir / CONFIGS):
                remove_abandoned(folder, held=True)
            yield
        except UserError:
            if made and not any(output_dir.rglob("*.pt")):
                shutil.rmtree(output_dir, ignore_errors=True)
            raise


def _check_cases(workflow: Any, mode: Mode, trains: bool) -> None:
    """Refuse a run that would have nothing to do."""
    content = workflow.parser.get_parsed_content
    trained_on = ["training", "validation"] if trains else ["calibration"]
    split = content("split")
    for part in trained_on if mode is Mode.TRAIN else ["test"]:
        if not split[part]:
            raise UserError(
                f"The {part} part of the dataset {content('dataset_dir')} is empty, so there is nothing for --mode "
                f"{mode} to do; data::cases says which cases belong to it."
            )


def _training_state(workflow: Any) -> Any:
    from medcalib.handlers.checkpoint import training_state

    return training_state(workflow.parser.get_parsed_content("models_dir"))


class _PlainDumper(yaml.SafeDumper):
    """Writes a value out wherever it stands, instead of pointing to its first occurrence."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
