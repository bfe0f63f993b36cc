"""Write what guarantees say of every case: sets of voxels as masks, and a table of values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from ignite.engine import Engine, Events
from monai.handlers import from_engine
from monai.utils import CommonKeys
from numpy.typing import NDArray
from PIL import Image

from medcalib.data.dealing import merged_rows
from medcalib.errors import UserError
from medcalib.files.result_tables import write_table
from medcalib.handlers.result_folder import ResultFolder
from medcalib.image_files.grids import image_like
from medcalib.image_files.volumes_in_files import open_volume
from medcalib.keys import CaseKeys
from medcalib.task import Task
from medcalib.transforms.guaranteed_cases import GUARANTEED, SETS

__all__ = ["GuaranteedSetsHandler"]

_WHITE = 255
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")


class GuaranteedSetsHandler:
    """Write ``<case>/<case>_<set>_<class>`` for every set of voxels, and the values of all cases as a table.

    Sets of several classes overlap, so each is a mask of its own, which every viewer opens: NIfTI of 0 and 1 in the
    geometry of the input, of pictures PNG of 0 and 255. Where there is one class, its name is left out.

    Args:
        folder: where the files go.
        task: names of the classes.
        table: name of the table in the folder, one row a case; none when None.

    Raises:
        UserError: two classes would have files of the same name.

    Example:
        >>> engine, folder = Engine(lambda engine, batch: batch), ResultFolder("predictions")
        >>> for handler in (folder, GuaranteedSetsHandler(folder, Task(["background", "organ"]))):
        ...     handler.attach(engine)
    """

    def __init__(self, folder: ResultFolder, task: Task, table: str | None = "guarantees.csv") -> None:
        self.folder = folder
        self.endings = file_endings(task.foreground_classes)
        self.table = table
        self.batch_transform = from_engine([CaseKeys.CASE, CommonKeys.IMAGE])
        self._rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write_table)

    def _start(self, _engine: Engine) -> None:
        self._rows = []

    def __call__(self, engine: Engine) -> None:
        """Write the sets of the batch."""
        cases, images = self.batch_transform(engine.state.batch)
        for case, image, output in zip(cases, images, engine.state.output, strict=True):
            self._rows.append({"filename": str(case), **output[GUARANTEED]["values"]})
            self._write(str(case), image, output.get(SETS) or {})

    def _write(self, case: str, image: Any, sets: Mapping[str, Any]) -> None:
        grid = None
        for name, channels in sets.items():
            for ending, voxels in zip(self.endings, channels, strict=True):
                path = f"{case}/{case}_{name}{ending}"
                mask: NDArray = voxels.cpu().numpy().astype(np.uint8)
                if mask.ndim == 2:
                    Image.fromarray(mask.T * _WHITE).save(self.folder.file(f"{path}.png"))
                    continue
                grid = grid or open_volume(image.meta["filename_or_obj"], image.meta.get(CaseKeys.SERIES.value)).grid
                nib.save(image_like(grid, mask), self.folder.file(f"{path}.nii.gz"))

    def _write_table(self, engine: Engine) -> None:
        if self.table is None:
            return
        rows = merged_rows(self._rows, engine.state.dataloader)
        if self.folder.writes:
            write_table(pd.DataFrame(rows), self.folder.file(self.table))


def file_endings(class_names: Sequence[str]) -> list[str]:
    """How names of files end that hold one class each.

    Raises:
        UserError: two classes would have the same.

    Example:
        >>> file_endings(["organ", "big lesion"]), file_endings(["organ"])
        (['_organ', '_big_lesion'], [''])
    """
    if len(class_names) == 1:
        return [""]
    endings = [f"_{_NOT_IN_NAMES.sub('_', name)}" for name in class_names]
    if len(set(endings)) < len(endings):
        raise UserError(
            f"The classes {', '.join(class_names)} would have files of the same name; give them names that differ in "
            f"letters or digits in data::class_names or data::regions."
        )
    return endings
