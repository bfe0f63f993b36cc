"""What is said of predictions of images that have no label."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.handlers import from_engine
from monai.utils import CommonKeys, MetaKeys
from torch import Tensor

from medcalib.functional.class_sizes import class_volumes
from medcalib.handlers.case_folders import CaseFolders
from medcalib.handlers.image_predictions import image_uncertainties
from medcalib.handlers.training_record import read_record
from medcalib.image_files.image_traits import image_traits, unlike_others
from medcalib.keys import MEMBER_MAPS, CaseKeys, SplitKeys
from medcalib.reports.flagging_rule import Flag, FlaggingRule
from medcalib.reports.shift_check import ShiftCheck
from medcalib.task import Task
from medcalib.transforms.guaranteed_cases import GUARANTEED
from medcalib.transforms.scores import CONFIDENCE_SCORES, SCORES

__all__ = ["NewClassifiedImagesHandler", "NewImagesHandler"]

_MM3_PER_ML = 1000.0


class NewImagesHandler:
    """End a case of `medcalib.handlers.CaseFolders`, with its row of ``predictions.csv``.

    Columns: ``image``, its files; of every class but a background ``<class>_ml``, the volume of the exported
    segmentation, ``<class>_expected_ml``, ``<class>_low_ml`` and ``<class>_high_ml`` of
    `medcalib.functional.class_volumes`, of pictures in pixels with the ending ``_pixels``; in bundles with a guarantee
    what it says of the case, with the beginning ``guaranteed_``, and ``shift_p`` of `ShiftCheck`; every score of
    `medcalib.handlers.UncertaintyScoresHandler`, mean over classes; ``flagged`` and ``reason`` of `FlaggingRule`, or of
    a guarantee on the cases that pass; ``warning``, in what the image is far from those of the training. Attach it
    last.

    Args:
        folder: where the cases go.
        split: its test part names the files of each case.
        load: from the files of a case to the image as it is stored.
        task: names of the classes.
        rule: flags cases.
        models_dirs: folders of the weights, beside which the training recorded what its images are like.
        confidence: of the interval of volumes.
        shift_check: compares cases with those of a guarantee; none in bundles without one.

    Warns:
        UserWarning: an image is far from those of the training; no training recorded what they are like.

    Example:
        >>> engine, folder, provenance = Engine(lambda engine, batch: batch), CaseFolders("out"), {}
        >>> split, rule = {"test": [{"case": "a", "image": "a.nii.gz"}]}, FlaggingRule("evaluation", provenance)
        >>> task = Task(["background", "organ"])
        >>> NewImagesHandler(folder, split, dict, task, rule, models_dirs=["models"]).attach(engine)
    """

    def __init__(
        self,
        folder: CaseFolders,
        split: Mapping[str, Sequence[Mapping[str, Any]]],
        load: Callable[[dict], Mapping],
        task: Task,
        rule: FlaggingRule,
        models_dirs: Sequence[str | Path],
        confidence: float = 0.95,
        shift_check: ShiftCheck | None = None,
    ) -> None:
        self.folder = folder
        self.files = {str(case[CaseKeys.CASE]): dict(case) for case in split[SplitKeys.TEST]}
        self.load = load
        self.task = task
        self.rule = rule
        self.models_dirs = [Path(path) for path in models_dirs]
        self.confidence = confidence
        self.shift_check = shift_check
        self.batch_transform = from_engine(CaseKeys.CASE)
        self._ranges: list[Mapping[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _start(self, _engine: Engine) -> None:
        records = [read_record(folder) for folder in self.models_dirs]
        self._ranges = [record.images for record in records if record is not None and record.images]
        if not self._ranges and self.folder.writes:
            warnings.warn(
                f"{self.models_dirs[0]} does not say what the images of the training are like, since an earlier "
                f"version wrote it, or MONAI's own runner; nobody looks whether new images are like them.",
                stacklevel=2,
            )

    def __call__(self, engine: Engine) -> None:
        """Write the rows of the batch."""
        for case, output in zip(self.batch_transform(engine.state.batch), engine.state.output, strict=True):
            details = {"scores": output[GUARANTEED]["scores"]} if GUARANTEED in output else {}
            self.folder.finish_case(str(case), self._row(str(case), output), **details)

    def _row(self, case: str, output: Mapping[str, Any]) -> dict[str, Any]:
        files = self.files[case][CaseKeys.IMAGE]
        kept = (CaseKeys.CASE, CaseKeys.IMAGE, CaseKeys.SERIES)
        image = self.load({key: value for key, value in self.files[case].items() if key in kept})[CaseKeys.IMAGE]
        scores = self._scores(output)
        guaranteed = output.get(GUARANTEED, {}).get("values", {})
        flag = _flag_of(guaranteed) or self.rule.flag(scores)
        warning = self._warning(case, image)
        return {
            "image": "; ".join(map(str, [files] if isinstance(files, str) else files)),
            **self._results(output, image),
            **{f"guaranteed_{name}": value for name, value in guaranteed.items()},
            **self._shift(output),
            **{name: None if np.isnan(value) else value for name, value in scores.items()},
            "flagged": flag.flagged,
            "reason": flag.reason,
            "warning": warning,
        }

    def _shift(self, output: Mapping[str, Any]) -> dict[str, float | None]:
        if self.shift_check is None:
            return {}
        return {"shift_p": self.shift_check.case_p_value(output[GUARANTEED]["scores"])}

    def _scores(self, output: Mapping[str, Any]) -> dict[str, float]:
        return {name: float(values.nanmean()) for name, values in output[SCORES].items()}

    def _results(self, output: Mapping[str, Any], image: Any) -> dict[str, Any]:
        """Volumes by class."""
        probs = output[CommonKeys.PRED].as_subclass(Tensor)
        seg = output["seg"].as_subclass(Tensor)
        factor, unit = 1.0, "pixels"
        if image.ndim == 4:
            affine = np.asarray(image.meta[MetaKeys.ORIGINAL_AFFINE], dtype=float)
            factor, unit = abs(np.linalg.det(affine[:3, :3])) / _MM3_PER_ML, "ml"
        sizes = class_volumes(probs, self.confidence)
        row: dict[str, Any] = {}
        for channel, name in enumerate(self.task.class_names):
            if self.task.exclusive and channel == 0:
                continue
            chosen = seg == channel if self.task.exclusive else seg[channel] != 0
            row[f"{name}_{unit}"] = float(torch.count_nonzero(chosen)) * factor
            row[f"{name}_expected_{unit}"] = float(sizes.expected[channel]) * factor
            row[f"{name}_low_{unit}"] = float(sizes.low[channel]) * factor
            row[f"{name}_high_{unit}"] = float(sizes.high[channel]) * factor
        return row

    def _warning(self, case: str, image: Any) -> str:
        affine = image.affine.numpy() if image.ndim == 4 else None
        traits = image_traits(image.as_tensor().numpy(), affine)
        names = [str(index) for index in range(len(image))]
        found = [unlike_others(traits, ranges, ranges.get("channel_names", names)) for ranges in self._ranges]
        if not found or not all(found):
            return ""
        told = ", ".join(found[0])
        warnings.warn(f"Case {case} is unlike the images of the training: {told}.", stacklevel=2)
        return told


def _flag_of(guaranteed: Mapping[str, Any]) -> Flag | None:
    """What a guarantee on the cases that pass says; None without one."""
    if "send_to_human" not in guaranteed:
        return None
    sent, score = guaranteed["send_to_human"], guaranteed["score"]
    if score is None:
        return Flag(True, "no score lets any case pass at the level of the guarantee")
    if guaranteed["score_value"] != guaranteed["score_value"]:
        return Flag(True, f"{score} is not known, so the guarantee lets the case not pass")
    side = "above" if score in CONFIDENCE_SCORES else "below"
    side = f"not {side}" if sent else side
    return Flag(sent, f"{score} {guaranteed['score_value']:.4g} is {side} the threshold of the guarantee")


class NewClassifiedImagesHandler(NewImagesHandler):
    """`NewImagesHandler` of images that are classified as a whole.

    Columns: ``image``; ``predicted``, the name of the class of the largest probability, ``confidence``, that
    probability, and ``probability_<class>`` of every class; the uncertainties of `medcalib.handlers.ImagePredictions`;
    ``flagged``, ``reason`` and ``warning``.

    Args:
        folder: where the cases go.
        split: its test part names the files of each case.
        load: from the files of a case to the image as it is stored.
        task: names of the classes.
        rule: flags cases.
        models_dirs: folders of the weights.
        confidence: of no use here.
        shift_check: compares cases with those of a guarantee.

    Example:
        >>> engine, folder, provenance = Engine(lambda engine, batch: batch), CaseFolders("out"), {}
        >>> split, rule = {"test": [{"case": "a", "image": "a.png"}]}, FlaggingRule("evaluation", provenance)
        >>> task = Task(["healthy", "ill"])
        >>> NewClassifiedImagesHandler(folder, split, dict, task, rule, models_dirs=["models"]).attach(engine)
    """

    def _scores(self, output: Mapping[str, Any]) -> dict[str, float]:
        plain = {str(key): value.as_subclass(Tensor)[None].cpu() for key, value in output.items() if key in MEMBER_MAPS}
        probabilities = output[CommonKeys.PRED].as_subclass(Tensor)[None].cpu().float()
        return {name: float(value) for name, value in image_uncertainties(probabilities, self.task, plain).items()}

    def _results(self, output: Mapping[str, Any], image: Any) -> dict[str, Any]:
        probabilities = output[CommonKeys.PRED].as_subclass(Tensor).cpu().float().tolist()
        confidence = max(probabilities)
        return {
            "predicted": self.task.class_names[probabilities.index(confidence)],
            "confidence": confidence,
            **{f"probability_{name}": p for name, p in zip(self.task.class_names, probabilities, strict=True)},
        }
