"""The report of guarantees on cases that no network of this package predicted."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine

from medcalib.files.writing import read_json
from medcalib.guarantees import JointGuarantees
from medcalib.handlers.result_folder import ResultFolder
from medcalib.reports.guarantee_report import GuaranteeReportHandler, guarantee_text

__all__ = ["write_guarantee_evaluation"]


def write_guarantee_evaluation(
    folder: Path, guarantees: JointGuarantees, class_names: Sequence[str], cases: Sequence[Mapping[str, Any]]
) -> str:
    """Write what `GuaranteeReportHandler` writes, and return what it says.

    Args:
        folder: where the files go.
        guarantees: the fitted guarantees.
        class_names: names of the classes.
        cases: of each case its id as ``case``, and what `medcalib.transforms.guaranteed_cases.said_of` it, as
            ``guaranteed``.
    """
    engine = Engine(lambda _engine, batch: batch)
    results = ResultFolder(folder, {"guarantee": guarantees.settings()})
    results.attach(engine)
    GuaranteeReportHandler(results, guarantees, class_names).attach(engine)
    # the folder may be part of a draft, whose paths are not to be printed
    with contextlib.redirect_stdout(io.StringIO()):
        engine.run([[case] for case in cases])
    return guarantee_text(read_json(folder / "guarantees.json", "write it again"))
