"""Run one mode of a bundle."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from medcalib.bundle.fragments import suggestion, walk
from medcalib.bundle.layout import CONFIGS, Mode
from medcalib.bundle.siblings import check_chain, fits_calibrator, trainings_before, trains_network
from medcalib.bundle.workflow import bundle_settings, find_bundle, open_workflow, user_message
from medcalib.errors import StoppedError, UserError
from medcalib.files import complete_file, read_json, remove_abandoned, write_text
from medcalib.locks import locked_folder
from medcalib.processes import refuse_several_processes

__all__ = ["run"]

_VOLATILE = re.compile(
    r"data_dir|.*::(dataset_dir|num_workers|cache_rate|cache_dir|progress)|.*::handlers::.*"
    r"|data::(metadata|tta_flip_axes|calibration_cases)(::.*)?|method::(sampler|sampler::.*|description|reference)"
)
_DECIDING = ("seed", "max_epochs", "data", "loss", "method", "network_def", "method_network", "train")


def run(
    bundle: str,
    mode: str,
    seed: int | None = None,
    debug: bool = False,
    allow_edited: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> None:
    """Train, predict or evaluate with a bundle.

    Args:
        bundle: name of a bundle under ``bundles/``, or its path.
        mode: ``train``, ``inference_pred`` or ``inference_eval``.
        seed: fixes the run together with the bundle; the bundle's own when None.
        debug: a run of seconds on a few cases, in its own output folder.
        allow_edited: accept a bundle whose configs were edited after it was generated.
        overrides: values by configuration id.

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
    settings = bundle_settings(folder, seed, allow_edited)
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
        _check_cases(workflow, mode, trains)
    # what is finished is only read, which needs no lock
    if waits and trains and _is_started(workflow):
        _check_same_training(workflow, output_dir)
        if _is_finished(workflow):
            return
    with _output_folder(output_dir, waits), _one_sentence(workflow, output_dir, hint):
        remove_abandoned(workflow.parser.get_parsed_content("models_dir"), held=True)
        if mode is not Mode.TRAIN:
            _check_trained(workflow, folder, debug)
        elif trains:
            _check_same_training(workflow, output_dir)
            if _is_finished(workflow):
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
    limit = content("limit_cases")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise UserError(f"limit_cases must be a whole number from 1 on, or null for all cases, not {limit!r}.")
    trained_on = ["training", "validation"] if trains else ["calibration"]
    split = content("split")
    for part in trained_on if mode is Mode.TRAIN else ["test"]:
        if not split[part]:
            raise UserError(
                f"The {part} part of the dataset {content('dataset_dir')} is empty, so there is nothing for --mode "
                f"{mode} to do; data::cases says which cases belong to it."
            )


def _is_started(workflow: Any) -> bool:
    return Path(workflow.parser.get_parsed_content("models_dir"), "checkpoint.pt").exists()


def _is_finished(workflow: Any) -> bool:
    from medcalib.handlers.checkpoint import finished_epochs

    models_dir = workflow.parser.get_parsed_content("models_dir")
    done, wanted = finished_epochs(models_dir), workflow.parser.get_parsed_content("train::trainer::max_epochs")
    if done < wanted:
        if done:
            print(f"Resuming after epoch {done} of {wanted}.")
        return False
    print(f"This training finished {done} of {wanted} epochs already; its weights are in {models_dir}.")
    return True


def _check_same_training(workflow: Any, output_dir: Path) -> None:
    """Refuse to resume a training with other settings than it was started with."""
    record = output_dir / "models" / "training.json"
    config = workflow.parser.get()
    deciding = {key: config[key] for key in _DECIDING}
    settings = {id_: value for id_, value in walk(deciding) if not _VOLATILE.fullmatch(id_)}
    if (output_dir / "models" / "checkpoint.pt").exists() and record.exists():
        before = read_json(record, "move the folder away and train again")
        for id_ in sorted(before.keys() | settings.keys()):
            if before.get(id_) != settings.get(id_):
                raise UserError(
                    f"The training in {output_dir} was started with {id_}={before.get(id_)}, not {settings.get(id_)}; "
                    f"go on with the old value, or start another training with another --seed or --output_dir."
                )
        return
    write_text(record, json.dumps(settings, indent=2, default=str) + "\n")


def _check_trained(workflow: Any, folder: Path, debug: bool) -> None:
    missing = [path for path in workflow.parser.get_parsed_content("checkpoints") if not Path(path).exists()]
    if missing:
        seed = workflow.parser.get_parsed_content("seed")
        seeds = sorted({match[1] for path in missing if (match := re.search(r"seed_(\d+)", path))})
        named = f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}" if seeds else f"seed {seed}"
        raise UserError(
            f"{missing[0]} does not exist, so this bundle is not trained with {named} yet; train it first: "
            f"python run_bundle.py --bundle {folder} --mode train --seed {seed}{' --debug' if debug else ''}"
        )


class _PlainDumper(yaml.SafeDumper):
    """Writes a value out wherever it stands, instead of pointing to its first occurrence."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
