"""Open a bundle: find it, and make of its configuration and the user's settings a workflow that is checked."""

from __future__ import annotations

import logging
import logging.config
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcalib.bundle.compose import read_metadata
from medcalib.bundle.digest import bundle_digest
from medcalib.bundle.layout import CONFIGS, METADATA, Mode, config_files
from medcalib.bundle.stages import check_first_stage, own_stage
from medcalib.errors import UserError, environment_message, plain_reason, suggestion

if TYPE_CHECKING:
    from monai.bundle import ConfigWorkflow

__all__ = ["bundle_settings", "find_bundle", "open_workflow", "unwrapped_errors", "user_message"]

LOGGING = "logging.conf"


def find_bundle(bundle: str, bundles_dir: Path = Path("bundles")) -> Path:
    """The folder of a bundle given by name or path.

    Raises:
        UserError: there is none; the message names the nearest.
    """
    for folder in (bundles_dir / bundle, Path(bundle)):
        if (folder / CONFIGS).is_dir():
            return folder
    names = [path.parent.parent.name for path in bundles_dir.glob(f"[!.]*/{CONFIGS}/{METADATA}")]
    if not names:
        raise UserError(
            f"There is no bundle {bundle!r}, and none under {bundles_dir}; generate one with medcalib generate."
        )
    raise UserError(f"There is no bundle {bundle!r}{suggestion(bundle, names, list_all=True)}")


def bundle_settings(folder: Path, seed: int | None = None, allow_edited: bool = False) -> dict[str, Any]:
    """Values by configuration id that follow from the bundle itself and from the seed.

    Args:
        folder: folder of the bundle.
        seed: fixes the run together with the bundle; the bundle's own when None.
        allow_edited: accept a bundle whose configs were edited after it was generated.

    Raises:
        UserError: the seed is no such number, or the bundle was edited.
    """
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32):
        raise UserError(f"--seed must be a whole number from 0 to 4294967295, not {seed!r}.")
    edited = bundle_digest(folder) != read_metadata(folder)["medcalib"]["digest"]
    if edited and not allow_edited:
        raise UserError(
            f"The configs of {folder} were edited since it was generated, so its name no longer says what it does; "
            f"edit the templates and generate again, or run it as it is with --allow_edited."
        )
    return {"bundle_root": str(folder), "edited": edited} | ({} if seed is None else {"seed": seed})


def open_workflow(
    folder: Path, mode: Mode, settings: Mapping[str, Any], overrides: Mapping[str, Any], debug: bool = False
) -> ConfigWorkflow:
    """The workflow of one mode of a bundle, of which nothing was run yet.

    Args:
        folder: folder of the bundle.
        mode: which of its modes.
        settings: values by configuration id, see `bundle_settings`.
        overrides: the same, from the user; those of a first stage are checked and left out.
        debug: whether this is a run of seconds.

    Raises:
        UserError: an override does not exist, or something that the configuration names.
    """
    from monai.bundle import ConfigWorkflow

    from medcalib.bundle.resolve import check_config, check_overrides, merged_config

    logging.getLogger("monai.bundle.workflows").setLevel(logging.WARNING)  # else it reports on the logging file
    files = config_files(folder / CONFIGS, mode, debug)
    config = merged_config(files)
    check_first_stage(folder, overrides, debug)
    overrides = own_stage(overrides)
    check_overrides(config, overrides)
    _check_logging(folder / CONFIGS / LOGGING)
    workflow = ConfigWorkflow(
        config_file=[str(path) for path in files],
        meta_file=str(folder / CONFIGS / METADATA),
        logging_file=str(folder / CONFIGS / LOGGING),
        workflow_type="train" if mode is Mode.TRAIN else "infer",
        **settings,
        **overrides,
    )
    check_config({key: value for key, value in workflow.parser.get().items() if key != "_meta_"}, files)
    return workflow


@contextmanager
def unwrapped_errors() -> Iterator[None]:
    """Raise the `UserError` that another exception wraps, as MONAI does with those of components, in its place."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if cause := user_message(error):
            raise UserError(cause) from None
        raise


def user_message(error: BaseException, folder: Path | None = None) -> str | None:
    """The message of a user error that another exception wraps, also one that came from a worker process.

    Args:
        error: the exception.
        folder: where results are being written; for errors of the disk that do not name a file.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        # a worker process hands over its traceback as a text
        if lines := re.findall(r"medcalib\.errors\.UserError: (.*)", str(cause)):
            return lines[-1]
        cause = cause.__cause__ or cause.__context__
    return environment_message(error, folder)


def _check_logging(path: Path) -> None:
    try:
        logging.config.fileConfig(path, disable_existing_loggers=False)
    except Exception as error:  # whatever a damaged file makes of itself
        raise UserError(
            f"{path} is missing or damaged ({plain_reason(error)}); copy it from a bundle that was generated anew."
        ) from None
