"""Check the data of a bundle before it is trained: every case, the first batch, and the memory that it will take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser

from medcalib.bundle.layout import Mode
from medcalib.bundle.messages import user_message
from medcalib.bundle.opened import Bundle
from medcalib.errors import StoppedError, UserError
from medcalib.files.writing import draft_path, remove, remove_abandoned

__all__ = ["DataCheck", "check_data"]

FOLDER, REPORT, PREVIEW = "data_check", "data_check.json", "first_batch.png"
RESOLUTION = 150


class DataCheck(NamedTuple):
    """What a check found.

    Attributes:
        report: all of it, plain values.
        text: the same to be read.
    """

    report: dict[str, Any]
    text: str


def check_data(
    bundle: str,
    seed: int | None = None,
    allow_edited: bool = False,
    output_dir: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> DataCheck:
    """Check the data of a bundle as its training will see them, and write a report and a picture of the first batch.

    A bundle that uses the weights of another is checked as that other one, since this is what is trained.

    Args:
        bundle: name of a bundle under ``bundles/``, or its path.
        seed: seed of the training; the bundle's own when None.
        allow_edited: accept a bundle whose configs were edited after it was generated.
        output_dir: folder of ``data_check.json`` and ``first_batch.png``, which are replaced if they exist; the folder
            ``data_check`` of the bundle when None.
        overrides: values by configuration id.

    Returns:
        What was found; the list ``report["problems"]`` is empty when the training can begin.

    Raises:
        UserError: there is nothing to check: no such bundle, id or folder of data, or no place to write to.
    """
    opened, overrides = Bundle.open(bundle, allow_edited), overrides or {}
    target = opened.folder / FOLDER if output_dir is None else Path(output_dir).expanduser()
    with _result_files(target) as draft:
        workflow = opened.workflow(Mode.TRAIN, overrides, seed)
        if not opened.trains_network:
            trainings = opened.trainings_before(workflow.parser, overrides)
            opened, seed, overrides, _ = next(one for one in trainings if not one.is_first_stage)
            workflow = opened.workflow(Mode.TRAIN, overrides, seed)
        try:
            check = _check(opened.name, workflow.parser, draft)
        except KeyboardInterrupt as stop:
            raise StoppedError.by(stop, "nothing was written") from None
        except Exception as error:
            if cause := user_message(error, target):
                raise UserError(cause) from None
            raise
    written = [str(path) for path in (target / REPORT, target / PREVIEW) if path.exists()]
    return DataCheck(check.report, f"{check.text}\n\nWritten: {', '.join(written)}")


def _check(name: str, parser: ConfigParser, draft: Path) -> DataCheck:
    from medcalib.data_check.cache_size import cache_memory, machine_memory
    from medcalib.data_check.case_checks import check_cases
    from medcalib.data_check.data_report import describe_cases, report_text
    from medcalib.data_check.data_warnings import data_warnings
    from medcalib.data_check.dry_training import make_dry
    from medcalib.data_check.first_batch import first_batch, preview
    from medcalib.data_check.training_step import training_step
    from medcalib.files.writing import write_json

    make_dry(parser)
    checked = check_cases(parser)
    cache = cache_memory(parser, checked)
    problems = list(checked.problems)
    batch = first_batch(parser, checked.usable, problems)
    step = training_step(parser, batch, problems)
    if batch is not None:
        figure = preview(parser, batch, cache and cache.spacing)
        figure.savefig(draft / PREVIEW, dpi=RESOLUTION)
    content = parser.get_parsed_content
    report = {
        "bundle": name,
        "seed": content("seed"),
        "dataset_dir": str(content("dataset_dir")),
        "task": parser.get()["data"].get("task", "segmentation"),
        "foreground_classes": list(content("task").segmented_classes),
        **describe_cases(checked, content("data::class_names"), content("data::channel_names")),
        "ignore_label": parser.get()["data"].get("ignore_label"),
        "patch_size": list(content("data::patch_size")),
        "first_batch": None if batch is None else [str(case) for case in batch["case"]],
        "memory": {
            "training_step": {"failed": step} if isinstance(step, str) else step._asdict(),
            "cache": cache and cache.as_dict(),
            "machine": machine_memory(),
        },
        "problems": problems,
    }
    report["warnings"] = [*checked.warnings, *data_warnings(report)]
    write_json(draft / REPORT, report)
    return DataCheck(report, report_text(report))


@contextmanager
def _result_files(target: Path) -> Iterator[Path]:
    """Yield a folder in which the files are made; they replace those in the target when no error occurs."""
    draft = draft_path(target / FOLDER)
    try:
        target.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target)
        draft.mkdir()
    except OSError as error:
        raise UserError(
            f"{target} cannot be written ({error.strerror}); choose another folder with --output_dir."
        ) from None
    try:
        yield draft
        has_picture = (draft / PREVIEW).exists()
        for name in (PREVIEW, REPORT) if has_picture else (REPORT,):
            (draft / name).replace(target / name)
        if not has_picture:
            # what an earlier check left must not be taken for a result of this one
            (target / PREVIEW).unlink(missing_ok=True)
    finally:
        remove(draft)
        if not any(target.iterdir()):
            target.rmdir()
