"""Run one mode of a bundle."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from medcalib.bundle.fragments import suggestion
from medcalib.bundle.layout import CONFIGS, Mode
from medcalib.bundle.record import begin_or_resume
from medcalib.bundle.siblings import fits_calibrator, trainings_before, trains_network
from medcalib.bundle.trained_weights import check_settings, check_trained
from medcalib.bundle.workflow import bundle_settings, find_bundle, open_workflow, user_message
from medcalib.errors import UserError

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
    folder = find_bundle(bundle)
    try:
        mode = Mode(mode)
    except ValueError:
        raise UserError(f"--mode {mode!r} is unknown{suggestion(mode, list(Mode), list_all=True)}") from None
    settings = bundle_settings(folder, seed, allow_edited) | {"allow_unfinished": allow_unfinished}
    overrides = dict(overrides or {})
    if mode is Mode.TRAIN:
        for sibling in trainings_before(folder, settings | overrides, debug):
            print(f"{folder.name} uses the weights of {sibling.bundle.name} with seed {sibling.seed}.")
            run(str(sibling.bundle), mode, sibling.seed, debug, allow_edited, sibling.overrides)
        if not trains_network(folder) and not fits_calibrator(folder):
            return
    _run(folder, mode, settings, overrides, debug)


def _run(folder: Path, mode: Mode, settings: dict[str, Any], overrides: Mapping[str, Any], debug: bool) -> None:
    from medcalib.bundle.component_checks import check_components, component_message
    from medcalib.bundle.resolve import resolved_config

    workflow = open_workflow(folder, mode, settings, overrides, debug)
    check_components(workflow.parser)
    output_dir = Path(workflow.parser.get_parsed_content("output_dir"))
    trains = mode is Mode.TRAIN and trains_network(folder)
    with _output_folder(output_dir), _locked(output_dir):
        if not trains:
            check_trained(workflow, folder, debug)
            check_settings(workflow, overrides)
        elif begin_or_resume(workflow, folder, overrides, debug):
            return
        config = yaml.dump(resolved_config(workflow.parser), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)
        if trains:
            _write(output_dir / CONFIGS / f"{mode}.yaml", config)
        try:
            workflow.initialize()
            workflow.run()
            workflow.finalize()
        except KeyboardInterrupt:
            hint = (
                "the same command resumes after the last complete epoch"
                if mode is Mode.TRAIN
                else "nothing was written"
            )
            raise UserError(f"Interrupted; {hint}.") from None
        except Exception as error:
            if cause := user_message(error) or component_message(error, workflow.parser.get()):
                raise UserError(cause) from None
            raise
        # not before, for a run that fails leaves earlier results as they are; of a training epochs are left
        if not trains:
            _write(output_dir / CONFIGS / f"{mode}.yaml", config)
    print(f"Results: {output_dir}")


@contextmanager
def _output_folder(output_dir: Path) -> Iterator[None]:
    """Make the output folder; remove it again if it is new and the user's mistake kept anything from being trained."""
    existed = output_dir.exists()
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_dir):
            pass
    except OSError as error:
        raise UserError(
            f"{output_dir} cannot be written ({error.strerror}); choose another folder with --output_dir."
        ) from None
    try:
        yield
    except UserError:
        if not existed and not any(output_dir.rglob("*.pt")):
            shutil.rmtree(output_dir)
        raise


@contextmanager
def _locked(output_dir: Path) -> Iterator[None]:
    with (output_dir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Another run of this bundle and seed is writing to {output_dir}; wait for it or choose another --seed."
            ) from None
        yield


class _PlainDumper(yaml.SafeDumper):
    """Writes a value out wherever it stands, instead of pointing to its first occurrence."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
