"""Write what was predicted for DICOM series as DICOM objects, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from ignite.engine import Engine, Events
from monai.handlers import from_engine
from numpy.typing import NDArray

from medcalib.errors import UserError
from medcalib.files.writing import complete_file
from medcalib.gathering import from_first
from medcalib.handlers.case_folders import CaseFolders
from medcalib.image_files.dicom_codes import DicomCode, segment_codes
from medcalib.image_files.dicom_objects import DicomMaker, MapMeaning, Segment, map_object, segmentation_object
from medcalib.image_files.dicom_series import DicomSeries
from medcalib.image_files.dicom_source import DicomSource, check_dicom_source, pydicom_and_highdicom
from medcalib.image_files.label_values import disk_values
from medcalib.image_files.unreadable import UnreadableFileError
from medcalib.keys import CaseKeys, SplitKeys, UncertaintyKeys
from medcalib.task import Task
from medcalib.visualize.overlay import class_color

__all__ = ["DicomSaver"]

_SEG, _VOLUME, _OBJECT = "seg", ".nii.gz", ".dcm"
_NAT = DicomCode("{nat}", "UCUM", "nat")
_NO_UNIT = DicomCode("1", "UCUM", "no units")
_LARGEST_VARIANCE = 0.25


class DicomSaver:
    """Write the segmentation of every case as DICOM Segmentation and its maps of uncertainty as Parametric Maps.

    ``<case>_seg.dcm``, ``<case>_entropy.dcm``, and of several members ``<case>_mutual_information.dcm`` and
    ``<case>_variance.dcm`` lie beside the NIfTI files of a `PredictionSaver`, of which they are made; attach it after
    that one. They belong to patient and study of the series, and refer to its slices. What is there is not made again.

    Args:
        folder: where the cases go.
        split: its test part names the files of each case.
        task: names of the classes, and whether they exclude each other.
        provenance: what produced the predictions, as of `medcalib.reports.collect_provenance`.
        codes: as of `medcalib.image_files.dicom_codes.segment_codes`.
        label_map: label value in NIfTI: class index, as of `PredictionSaver`.
        num_values: number of values that a segmentation can have.
        batch_transform: from ``engine.state.batch`` to the list of case ids.

    Raises:
        UserError: when the engine starts, an image is no DICOM series or lacks what other objects refer to, or pydicom
            or highdicom is not installed; and when a case is written, its slices do not belong together.

    Example:
        >>> engine, folder = Engine(lambda engine, batch: batch), CaseFolders("out")
        >>> split, task = {"test": [{"case": "a", "image": "slices"}]}, Task(["background", "organ"])
        >>> DicomSaver(folder, split, task, {"bundle": "x"}).attach(engine)
    """

    def __init__(
        self,
        folder: CaseFolders,
        split: Mapping[str, Sequence[Mapping[str, Any]]],
        task: Task,
        provenance: Mapping[str, Any],
        codes: Mapping[Any, Any] | None = None,
        label_map: Mapping[int, int] | None = None,
        num_values: int = 256,
        batch_transform: Callable = from_engine(CaseKeys.CASE),
    ) -> None:
        self.folder = folder
        self.cases = {str(case[CaseKeys.CASE]): case for case in split[SplitKeys.TEST]}
        self.maker = _maker(provenance)
        self.batch_transform = batch_transform
        # a segment for every class but a background
        first = 1 if task.exclusive else 0
        names = task.class_names[first:]
        self.segments = [
            Segment(name, codes_of_it, class_color(number))
            for number, (name, codes_of_it) in enumerate(zip(names, segment_codes(names, codes), strict=True), 1)
        ]
        self.values = disk_values(label_map, num_values)[1:]
        nats = task.max_entropy
        self.maps = [
            MapMeaning(UncertaintyKeys.ENTROPY.value, "entropy of the mean probabilities", _NAT, nats),
            MapMeaning(UncertaintyKeys.MUTUAL_INFORMATION.value, "mutual information of members", _NAT, nats),
            MapMeaning(UncertaintyKeys.VARIANCE.value, "variance of members", _NO_UNIT, _LARGEST_VARIANCE),
        ]

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.STARTED, lambda: self.check())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the objects of the batch."""
        for case in self.batch_transform(engine.state.batch):
            self._write(str(case), self.folder.file)

    def check(self) -> None:
        """Refuse images of which no objects can be made.

        Raises:
            UserError: as above.
        """
        pydicom_and_highdicom()
        for name, case in self.cases.items():
            path, series = _first_channel(case)
            if not Path(path).is_dir():
                raise UserError(
                    f"--dicom writes DICOM for images that are DICOM series, but case {name} is the file {path}; leave "
                    f"the option out, or predict the series alone into another --output_dir."
                )
            _told(name, path, check_dicom_source, path, series)

    def finish(self) -> None:
        """Write the objects that cases lack which were predicted before, such as by a run without this handler."""
        from_first(self._complete)

    def _complete(self) -> None:
        self.check()
        for case in self.cases:
            if (self.folder.path / case).is_dir():
                self._write(case, lambda name: self.folder.path / name)

    def _write(self, case: str, place_of: Callable[[str], Path]) -> None:
        """Make objects of the NIfTI files of a case, except those that are there."""
        missing = [
            (suffix, volume, target)
            for suffix in (_SEG, *(meaning.name for meaning in self.maps))
            if (volume := place_of(f"{case}/{case}_{suffix}{_VOLUME}")).exists()
            and not (target := place_of(f"{case}/{case}_{suffix}{_OBJECT}")).exists()
        ]
        if not missing:
            return
        path, uid = _first_channel(self.cases[case])
        series = _told(case, path, DicomSeries, path, uid)
        source = _told(case, path, DicomSource, series)
        for suffix, volume, target in missing:
            values = np.asarray(nib.Nifti1Image.from_filename(volume).dataobj)
            made = self._segmentation(source, values) if suffix == _SEG else self._map(source, values, suffix)
            with complete_file(target) as draft:
                made.save_as(draft)

    def _segmentation(self, source: DicomSource, values: NDArray) -> Any:
        if values.ndim == 3:
            labels = np.zeros(values.shape, np.uint16)
            for number, value in enumerate(self.values[: len(self.segments)], 1):
                labels[values == value] = number
            values = labels
        return segmentation_object(source, values, self.segments, self.maker)

    def _map(self, source: DicomSource, values: NDArray, name: str) -> Any:
        place, meaning = next((place, one) for place, one in enumerate(self.maps, 2) if one.name == name)
        return map_object(source, values, meaning, self.maker, place)


def _maker(provenance: Mapping[str, Any]) -> DicomMaker:
    calibrator = provenance.get("calibrator") or {}
    settings = {
        "bundle_digest": provenance.get("bundle_digest"),
        "weights_digest": provenance.get("checkpoint_digest"),
        "calibrator": " ".join(str(calibrator[key]) for key in ("kind", "digest") if key in calibrator) or None,
        "seed": provenance.get("seed"),
    }
    return DicomMaker(
        str(provenance.get("bundle", "")),
        str((provenance.get("versions") or {}).get("medcalib", "unknown")),
        str(provenance.get("checkpoint_digest") or ""),
        {name: value for name, value in settings.items() if value is not None},
    )


def _first_channel(case: Mapping[str, Any]) -> tuple[str, str | None]:
    """Path of the first channel of an image, and which series of its folder it is."""
    first = [
        value if isinstance(value, str | Path | None) else value[0]
        for value in (case[CaseKeys.IMAGE], case.get(CaseKeys.SERIES))
    ]
    return str(first[0]), str(first[1]) if first[1] else None


def _told(case: str, path: str, how: Callable, *arguments: Any) -> Any:
    try:
        return how(*arguments)
    except UnreadableFileError as error:
        raise UserError(f"Case {case}: {path} {error}.") from None
