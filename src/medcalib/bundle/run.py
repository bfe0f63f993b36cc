"""Run one mode of a bundle, after the trainings that it needs."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from medcalib import __version__
from medcalib.bundle.component_checks import changes_components, check_components
from medcalib.bundle.initial_weights import InitialWeights, find_initial_weights
from medcalib.bundle.layout import CONFIGS, COST, Mode
from medcalib.bundle.messages import component_message, user_message
from medcalib.bundle.opened import Bundle, SiblingTraining
from medcalib.bundle.overrides import current_ids
from medcalib.bundle.prediction_keeping import AUTO, chosen_cache, keep_predictions
from medcalib.bundle.record import begin_or_resume
from medcalib.bundle.resolve import resolved_config
from medcalib.bundle.training_on import EPOCHS, check_first_stage
from medcalib.bundle.weights_check import check_settings, check_trained
from medcalib.errors import StoppedError, UserError, suggestion
from medcalib.files.locks import locked_folder
from medcalib.files.plain_yaml import plain_yaml
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
    initial_weights: str | None = None,
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
        initial_weights: bundle, folder or file of weights with which a training begins that would begin with random
            ones; of a bundle that uses the weights of another, the training of that one.

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
            "initial weights": initial_weights,
            "options": dict(sorted((overrides or {}).items())),
        }
    )
    cache = chosen_cache(prediction_cache, opened.folder, images is not None)
    if initial_weights is not None and mode is not Mode.TRAIN:
        raise UserError(f"--initial_weights is for --mode {Mode.TRAIN}, with which a training begins, not {mode}.")
    workflow = opened.workflow(mode, overrides, seed, debug, allow_unfinished, images)
    initial = None
    if initial_weights is not None:
        own_seed = workflow.parser.get_parsed_content("seed")
        initial = first_decides(partial(find_initial_weights, initial_weights, own_seed, debug, allow_unfinished))
        if opened.starts_anew:
            workflow = opened.workflow(mode, overrides, seed, debug, allow_unfinished, images, initial.place)
    overrides = current_ids(overrides or {})
    # what a training has tried needs no second trial
    if mode is Mode.TRAIN or any(map(changes_components, overrides)):
        first_decides(lambda: check_components(workflow.parser))
    if mode is not Mode.TRAIN:
        _use_network(workflow, mode, overrides, cache)
        return
    if opened.fits_guarantee:
        first_decides(partial(_check_guarantee, workflow))
    trainings = opened.trainings_before(workflow.parser, overrides)
    for number, training in enumerate(trainings, start=1):
        print(f"{opened.name} uses the weights of {training.bundle.name} with seed {training.seed}.")
        before = _workflow_of(training, debug, initial)
        if training.is_first_stage:
            after = _workflow_of(trainings[number], debug) if number < len(trainings) else workflow
            first_decides(partial(check_first_stage, before.parser, training.overrides, after.parser))
        first_decides(partial(check_components, before.parser))
        _train_network(before, training.overrides, training, initial if training.bundle.starts_anew else None)
    if opened.trains_network:
        _train_network(workflow, overrides, initial=initial if opened.starts_anew else None)
    elif opened.makes_models:
        # the fit reads every case many times, from the memory of one process
        first_decides(lambda: _use_network(workflow, mode, overrides, cache))


def _workflow_of(training: SiblingTraining, debug: bool, initial: InitialWeights | None = None) -> ConfigWorkflow:
    bundle = training.bundle
    place = initial.place if initial is not None and bundle.starts_anew else None
    return bundle.workflow(Mode.TRAIN, training.overrides, training.seed, debug, initial_weights=place)


def _train_network(
    workflow: ConfigWorkflow,
    overrides: Mapping[str, Any],
    sibling: SiblingTraining | None = None,
    initial: InitialWeights | None = None,
) -> None:
    """Train, or go on with a training; others may need that of a sibling, too, so it waits for whoever is at it."""
    is_first_stage = sibling is not None and sibling.is_first_stage
    content = workflow.parser.get_parsed_content
    hint = "the same command resumes after the last complete epoch"

    def is_done() -> bool:
        return begin_or_resume(workflow.parser, overrides, is_first_stage, initial)

    def is_done_by_others() -> bool:
        state = training_state(content("models_dir"))
        if state is None:  # else cases are compared with those that the training saw
            _check_cases(workflow, Mode.TRAIN, "training", "validation")
            return False
        # what is finished is only read, which needs no lock
        return sibling is not None and state.is_finished(content(EPOCHS)) and is_done()

    with _one_sentence(workflow, hint):
        if first_decides(is_done_by_others):
            return
    with _output_folder(workflow, hint, waits=sibling is not None) as output_dir:
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
    """Fit a calibrator or a guarantee of a trained network, predict or evaluate."""
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


def _check_guarantee(workflow: ConfigWorkflow) -> None:
    """Refuse a training at whose end nothing could be promised."""
    with _one_sentence(workflow, "nothing was written"):
        _check_cases(workflow, Mode.TRAIN, "calibration")
        workflow.parser.get_parsed_content("guarantee_fit::check")


@contextmanager
def _one_sentence(workflow: ConfigWorkflow, hint: str) -> Iterator[None]:
    """Turn what stops a run, or keeps it from going on, into an error of one sentence if the user can mend it."""
    output_dir = _results_dir(workflow)
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
    output_dir = _results_dir(workflow)
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


def _results_dir(workflow: ConfigWorkflow) -> Path:
    """Where a run writes, which is not where the weights lie if images are made worse."""
    parser = workflow.parser
    return Path(parser.get_parsed_content("results_dir" if "results_dir" in parser else "output_dir"))


def _config_text(workflow: ConfigWorkflow) -> str:
    return plain_yaml(resolved_config(workflow.parser))
