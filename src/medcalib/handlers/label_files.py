"""Write what viewers need to show labels by name, in the colours of this package's figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import nibabel as nib
from ignite.engine import Engine, Events
from monai.handlers import from_engine

from medcalib.handlers.case_folders import ITK_SNAP_LABELS, SLICER_COLORS
from medcalib.handlers.result_folder import ResultFolder
from medcalib.image_files.label_descriptions import NamedLabel, itk_snap_labels, slicer_colors, slicer_segmentation
from medcalib.image_files.label_values import disk_values
from medcalib.keys import CaseKeys
from medcalib.task import Task
from medcalib.visualize.overlay import class_color

__all__ = ["LabelFilesHandler", "named_labels"]


# of voxels of unknown truth
_GREY = (0.5, 0.5, 0.5)


def named_labels(
    task: Task, label_map: Mapping[int, int] | None = None, ignore_label: int | None = None
) -> list[NamedLabel]:
    """The labels of an exported segmentation, with the colours in which figures show them.

    Args:
        task: names of the classes, and whether they exclude each other.
        label_map: label value on disk: class index, for those that differ.
        ignore_label: label value on disk of voxels of unknown truth, which the dataset's own labels have.

    Example:
        >>> [(label.value, label.name) for label in named_labels(Task(["background", "organ"]), {5: 1})]
        [(0, 'background'), (5, 'organ')]
    """
    names = [*task.class_names] if task.exclusive else ["background", *task.class_names]
    # labels that overlap have a channel each
    overlap = not task.exclusive and task.num_classes > 1
    values = range(len(names)) if overlap else disk_values(label_map, len(names))
    colors = (None, *(class_color(number) for number in range(1, len(names))))
    named = [NamedLabel(int(value), name, color) for value, name, color in zip(values, names, colors, strict=True)]
    return named if ignore_label is None else [*named, NamedLabel(ignore_label, "to be ignored", _GREY)]


class LabelFilesHandler:
    """Write ``labels.ctbl`` for 3D Slicer and ``labels_itksnap.txt`` for ITK-SNAP beside the cases.

    Where labels overlap, a segmentation has a channel of 0 and 1 for each, so there are no values to name: only a
    segmentation of Slicer has the names then.

    Args:
        folder: where they go.
        task: names of the classes, and whether they exclude each other.
        label_map: label value on disk: class index, for those that differ.
        seg_nrrd: whether to write ``<case>/<case>.seg.nrrd`` for Slicer, too, of every volume, from
            ``<case>/<case>_seg.nii.gz``; `PredictionSaver` must be attached before.
        ignore_label: label value on disk of voxels of unknown truth, which the tables name, too.
        batch_transform: from ``engine.state.batch`` to the list of case ids.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> engine = Engine(lambda engine, batch: batch)
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     folder = ResultFolder(f"{parent}/predictions")
        ...     for handler in (folder, LabelFilesHandler(folder, Task(["background", "organ"]))):
        ...         handler.attach(engine)
        ...     _ = engine.run([[{"case": "a"}]])
        ...     sorted(path.name for path in Path(parent).glob("predictions/labels*"))
        ['labels.ctbl', 'labels_itksnap.txt']
    """

    def __init__(
        self,
        folder: ResultFolder,
        task: Task,
        label_map: Mapping[int, int] | None = None,
        seg_nrrd: bool = False,
        batch_transform: Callable = from_engine(CaseKeys.CASE),
        ignore_label: int | None = None,
    ) -> None:
        self.folder = folder
        self.labels = named_labels(task, label_map)
        self._named = named_labels(task, label_map, ignore_label)
        self.seg_nrrd = seg_nrrd
        self.batch_transform = batch_transform
        self._overlap = not task.exclusive and task.num_classes > 1

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        if self.seg_nrrd:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        if not self._overlap:
            # with the first case, for a run that is interrupted leaves those that are done
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=1), self._write_tables)

    def __call__(self, engine: Engine) -> None:
        """Write the segmentations of the batch."""
        for case in self.batch_transform(engine.state.batch):
            segmentation = self.folder.file(f"{case}/{case}_seg.nii.gz")
            if segmentation.exists():
                slicer_segmentation(
                    self.folder.file(f"{case}/{case}.seg.nrrd"),
                    cast(nib.Nifti1Image, nib.load(segmentation)),
                    self.labels,
                )

    def _write_tables(self, _engine: Engine) -> None:
        if self.folder.writes:
            self.folder.write_beside_cases(SLICER_COLORS, slicer_colors(self._named))
            self.folder.write_beside_cases(ITK_SNAP_LABELS, itk_snap_labels(self._named))
