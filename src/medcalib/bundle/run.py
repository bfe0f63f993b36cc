"""Run one mode of a bundle, after the trainings that it needs."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigWorkflow

from medcalib import __version__
from medcalib.bundle.component_checks import changes_components, check_components
from medcalib.bundle.layout import CONFIGS, COST, Mode
from medcalib.bundle.messages import component_message, user_message
from medcalib.bundle.opened import Bundle
from medcalib.bundle.overrides import current_ids
from medcalib.bundle.prediction_keeping import AUTO, chosen_cache, keep_predictions
from medcalib.bundle.record import EPOCHS, begin_or_resume
from medcalib.bundle.resolve import resolved_config
from medcalib.bundle.weights_check import check_settings, check_trained
from medcalib.errors import StoppedError, UserError, suggestion
from medcalib.files.locks import locked_folder
from medcalib.files.writing import complete_file, remove_abandoned, write_text
from medcalib.gathering import gathered
from medcalib.handlers.checkpoint import training_state
from medcalib.handlers.run_cost import RunCost
from medcalib.inferers.prediction_cache import PredictionCache
from medcalib.process_group import (
    PeerLostError,
    check_agreement,
    code_digest,
    first_decides,
    is_first,
    is_peer_loss,
)
from medcalib.processes import refuse_several_processes

__all__ = ["run"]

WEIGHTS_CHECK = "weights_check"
# modes that several processes can share
# weights, and cases that are done
KEPT = ("*.pt", "provenance.json")


def run(
    bundle: str,
    mode: str,
    seed: int | None = None,
    debug: bool = False,
    allow_edited: bool = False,
    overrides: Mapping[str, Any] | None = None,
    allow_unfinished: bool = False,
    images: str | None = None,
    prediction_cache: str = AUTO,
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
        images: folder, pattern, file or list of images that are predicted instead of the test cases.
        prediction_cache: where predictions of the network are kept and read from: ``auto``, ``off`` or a folder.

    Raises:
        UserError: whatever the user can mend.
    """
    refuse_several_processes()
    if mode not in list(Mode):
        raise UserError(f"--mode {mode!r} is unknown{suggestion(mode, list(Mode), list_all=True)}")
    mode = Mode(mode)
    opened = Bundle.open(bundle, allow_edited)
    check_agreement(
        {
            "code of medcalib": f"{__version__} ({code_digest()})",
            "bundle": f"{opened.name} ({opened.digest[:12]})",
            "mode": mode,
            "seed": seed,
            "--debug": debug,
            "images": images,
            "options": dict(sorted((overrides or {}).items())),
        }
    )
    cache = chosen_cache(prediction_cache, opened.folder, images is not None)
    workflow = opened.workflow(mode, overrides, seed, debug, allow_unfinished, images)
    overrides = current_ids(overrides or {})
    # what a training has tried needs no second trial
    if mode is Mode.TRAIN or any(map(changes_components, overrides)):
        first_decides(lambda: check_components(workflow.parser))
    if mode is not Mode.TRAIN:
        _use_network(workflow, mode, overrides, cache)
        return
    for training in opened.trainings_before(workflow.parser, overrides):
        print(f"{opened.name} uses the weights of {training.bundle.name} with seed {training.seed}.")
        before = training.bundle.workflow(mode, training.overrides, training.seed, debug)
        first_decides(partial(check_components, before.parser))
        _train_network(before, training.overrides, is_sibling=True, is_first_stage=training.is_first_stage)
    if opened.trains_network:
        _train_network(workflow, overrides)
    elif opened.fits_calibrator:
        # the fit reads every case many times, from the memory of one process
        first_decides(lambda: _use_network(workflow, mode, overrides, cache))


def _train_network(
    workflow: ConfigWorkflow, overrides: Mapping[str, Any], is_sibling: bool = False, is_first_stage: bool = False
) -> None:
    """Train, or go on with a training; others may need that of a sibling, too, so it waits for whoever is at it."""
    content = workflow.parser.get_parsed_content
    hint = "the same command resumes after the last complete epoch"

    def is_done() -> bool:
        return begin_or_resume(workflow.parser, overrides, is_first_stage)

    def is_done_by_others() -> bool:
        state = training_state(content("models_dir"))
        if state is None:  # else cases are compared with those that the training saw
            _check_cases(workflow, Mode.TRAIN, "training", "validation")
            return False
        # what is finished is only read, which needs no lock
        return is_sibling and state.is_finished(content(EPOCHS)) and is_done()

    with _one_sentence(workflow, hint):
        if first_decides(is_done_by_others):
            return
    with _output_folder(workflow, hint, waits=is_sibling) as output_dir:
        if first_decides(is_done):
            return
        if is_first():
            write_text(output_dir / CONFIGS / f"{Mode.TRAIN}.yaml", _config_text(workflow))
            cases = content("train::dataset::data")
            resumed = training_state(content("models_dir")) is not None
            cost = RunCost(output_dir / COST / f"{Mode.TRAIN}.json", Mode.TRAIN, len(cases), content("device"), resumed)
        workflow.initialize()
        if is_first():
            cost.attach(content("train::trainer"))
        workflow.run()
        workflow.finalize()
        if is_first():
            cost.write(finished=True)
    print(f"Results: {output_dir}")


def _use_network(
    workflow: ConfigWorkflow, mode: Mode, overrides: Mapping[str, Any], cache: PredictionCache | None
) -> None:
    """Fit a calibrator of a trained network, predict or evaluate."""
    content = workflow.parser.get_parsed_content
    hint = "nothing was written"
    with _one_sentence(workflow, hint):
        _check_cases(workflow, mode, "calibration" if mode is Mode.TRAIN else "test")
    with _output_folder(workflow, hint) as output_dir:
        if mode is not Mode.TRAIN:
            # others begin when the first one holds the folder and has removed what earlier runs left
            gathered(None)
        check_trained(workflow.parser)
        check_settings(workflow.parser, overrides)
        if WEIGHTS_CHECK not in workflow.parser.get():
            warnings.warn(
                f"{Path(content('bundle_root')).name} was generated by an earlier version, so nobody looks whether the "
                f"training of its weights is finished, and whether its cases are new to them; generate it again.",
                stacklevel=2,
            )
        config = _config_text(workflow)
        cost = RunCost(output_dir / COST / f"{mode}.json", mode, len(content("dataset::data")), content("device"))
        workflow.initialize()
        cache = keep_predictions(workflow.parser, cache)
        workflow.run()
        workflow.finalize()
        if mode is not Mode.TRAIN and not content("result_folder").is_complete:
            raise UserError(f"No case was looked at, so nothing was written to {output_dir}.")
        cost.seconds_saved = cache.seconds_saved if cache else 0.0
        if mode is not Mode.TRAIN:
            cost.merge()
        if is_first():
            # not before, for a run that fails leaves earlier results as they are
            write_text(output_dir / CONFIGS / f"{mode}.yaml", config)
            cost.write(finished=True)
    if cache:
        print(cache)
    print(f"Results: {output_dir}")


def _check_cases(workflow: ConfigWorkflow, mode: Mode, *parts: str) -> None:
    """Refuse a run that would have nothing to do."""
    content = workflow.parser.get_parsed_content
    split = content("split")
    for part in parts:
        if not split[part]:
            raise UserError(
                f"The {part} part of the dataset {content('dataset_dir')} is empty, so there is nothing for --mode "
                f"{mode} to do; data::cases says which cases belong to it."
            )


@contextmanager
def _one_sentence(workflow: ConfigWorkflow, hint: str) -> Iterator[None]:
    """Turn what stops a run, or keeps it from going on, into an error of one sentence if the user can mend it."""
    output_dir = Path(workflow.parser.get_parsed_content("output_dir"))
    try:
        yield
    except KeyboardInterrupt as stop:
        raise StoppedError.by(stop, hint) from None
    except Exception as error:
        if is_peer_loss(error):
            raise PeerLostError(f"Another process of this run ended; {hint}.") from None
        if cause := user_message(error, output_dir) or component_message(error, workflow.parser.get()):
            raise UserError(cause) from None
        raise


@contextmanager
def _output_folder(workflow: ConfigWorkflow, hint: str, waits: bool = False) -> Iterator[Path]:
    """Make and lock the output folder; remove it if it is new and a mistake kept anything from being trained."""
    output_dir = Path(workflow.parser.get_parsed_content("output_dir"))
    if not is_first():
        with _one_sentence(workflow, hint):
            yield output_dir
        return
    with locked_folder(output_dir, waits) as made:
        try:
            with complete_file(output_dir / CONFIGS / "probe") as draft:
                draft.touch()
            (output_dir / CONFIGS / "probe").unlink(missing_ok=True)
            for folder in (output_dir, output_dir / CONFIGS, output_dir / COST):
                remove_abandoned(folder, held=True)
            with _one_sentence(workflow, hint):
                remove_abandoned(workflow.parser.get_parsed_content("models_dir"), held=True)
                yield output_dir
        except UserError:
            if made and not any(path for name in KEPT for path in output_dir.rglob(name)):
                shutil.rmtree(output_dir, ignore_errors=True)
            else:
                with suppress(OSError):  # it holds something
                    (output_dir / CONFIGS).rmdir()
            raise


class _PlainDumper(yaml.SafeDumper):
    """Writes a value out wherever it stands, instead of pointing to its first occurrence."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _config_text(workflow: ConfigWorkflow) -> str:
    return yaml.dump(resolved_config(workflow.parser), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)
