"""Find everything that is wrong with the files of a case, instead of stopping at the first."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from torch import Tensor

from medcalib.errors import UserError
from medcalib.image_files.label_values import no_class, value_text, whole_labels
from medcalib.keys import CaseKeys
from medcalib.transforms.checks import CheckLabeld
from medcalib.transforms.loading import LoadCased

__all__ = ["CaseInspector", "Inspection"]

# so many wrong label values of a case are listed
LISTED_VALUES = 5


class Inspection(NamedTuple):
    """What can be used of a case, and what is wrong with it.

    Attributes:
        image: (C, ...), or None if it cannot be used.
        label: checked label (1 or C, ...), or None if it cannot be used.
        problems: one sentence each, with case and file; empty if nothing is wrong.
    """

    image: MetaTensor | None
    label: Tensor | None
    problems: list[str]


class CaseInspector:
    """Load a case and collect what is wrong with it.

    A case without problems is read once. Of others every file is read by itself: what is missing, damaged, holds NaN or
    Inf, has another number of channels, axes or frames, lies elsewhere than the first channel, or holds label values
    that are no classes. A file that cannot be read or holds NaN is not compared with the others.

    Args:
        load: from the files of a case to image and label.
        check_label: what the label must hold.
        label_transforms: what makes of a label as it is stored the one that is predicted.
        preprocessing: from the files of a case to what the network is given. It has the last word on labels: transforms
            in it may change their values.
        spatial_dims: number of spatial axes that the image must have; not checked when None.
        image_checks: transforms that refuse images which cannot be preprocessed, such as empty ones.
    """

    def __init__(
        self,
        load: LoadCased,
        check_label: CheckLabeld,
        label_transforms: Sequence[Callable[[dict], Mapping]] = (),
        preprocessing: Callable[[dict], Mapping] | None = None,
        spatial_dims: int | None = None,
        image_checks: Sequence[Callable[[dict], Mapping]] = (),
    ) -> None:
        self.load = load
        self.check_label = check_label
        self.label_transforms = tuple(label_transforms)
        self.preprocessing = preprocessing
        self.spatial_dims = spatial_dims
        self.image_checks = tuple(image_checks)

    def __call__(self, case: Mapping[str, Any]) -> Inspection:
        """Inspect a case."""
        name = case.get(CaseKeys.CASE, "?")
        problems = [
            f"Case {name}: it has no {key}, which training and evaluation need."
            for key in (CaseKeys.IMAGE, CaseKeys.LABEL)
            if key not in case
        ]
        try:
            files: dict[Any, Any] = dict(case)
            loaded = self.load(files)
        except UserError as error:
            loaded, found = self._piecewise(case)
            problems += found or [str(error)]
        image, label = loaded.get(CaseKeys.IMAGE), loaded.get(CaseKeys.LABEL)
        if image is not None and self.spatial_dims not in (None, image.ndim - 1):
            problems.append(
                f"Case {name}: {case[CaseKeys.IMAGE]} has {image.ndim - 1} spatial axes, but data::patch_size lists "
                f"{self.spatial_dims}."
            )
            image = None
        if label is not None:
            try:
                label = self._checked(case, label, sound=not problems)
            except UserError as error:
                problems.append(str(error))
                label = None
        if image is not None:
            try:
                for check in self.image_checks:
                    check({CaseKeys.CASE.value: name, CaseKeys.IMAGE.value: image})
            except UserError as error:
                problems.append(str(error))
        return Inspection(image, label, problems)

    def _piecewise(self, case: Mapping[str, Any]) -> tuple[dict[Hashable, Any], list[str]]:
        """What can be loaded of image and label when not everything can, and why the rest cannot."""
        single = copy.copy(self.load)
        single.num_channels = None  # one channel at a time
        loaded: dict[Hashable, Any] = {}
        problems: list[str] = []

        def load(how: LoadCased, **files: Any) -> Mapping[Hashable, Any]:
            others: dict[Any, Any] = {
                key: value for key, value in case.items() if key not in (CaseKeys.IMAGE, CaseKeys.LABEL)
            }
            try:
                return how(others | files)
            except UserError as error:
                problems.append(str(error))
                return {}

        readable = []
        if CaseKeys.IMAGE in case:
            paths = case[CaseKeys.IMAGE]
            for path in paths if isinstance(paths, list | tuple) else [paths]:
                if load(single, image=path):
                    readable.append(path)
            for path in readable[1:]:
                load(single, image=[readable[0], path])
            if not problems and (whole := load(self.load, image=paths)):
                loaded[CaseKeys.IMAGE] = whole[CaseKeys.IMAGE]
        if CaseKeys.LABEL in case:
            path = case[CaseKeys.LABEL]
            alone: Mapping[Hashable, Any]
            try:
                alone = load(single, label=path)
            except ValueError:  # an outline, which is drawn into the picture
                alone = {CaseKeys.LABEL: None}
            if alone:
                loaded[CaseKeys.LABEL] = alone[CaseKeys.LABEL]
            if alone and readable and (both := load(single, image=readable[0], label=path)):
                loaded[CaseKeys.LABEL] = both[CaseKeys.LABEL]
        return loaded, list(dict.fromkeys(problems))

    def _checked(self, case: Mapping[str, Any], label: Tensor, sound: bool) -> Tensor:
        """The label as whole numbers.

        Raises:
            UserError: it holds something else than classes.
        """
        item: Any = {CaseKeys.CASE.value: case.get(CaseKeys.CASE, "?"), CaseKeys.LABEL.value: label}
        wrong = ""
        try:
            for transform in self.label_transforms:
                item = transform(item)
            wrong = self._wrong_values(case, item[CaseKeys.LABEL])
            return self.check_label(item)[CaseKeys.LABEL]
        except UserError as error:
            if sound and self.preprocessing is not None:
                try:
                    return self.preprocessing(dict(case))[CaseKeys.LABEL]
                except Exception:  # MONAI wraps what a transform raises; it is the label that is wrong
                    pass
            raise UserError(wrong or f"{str(error).removesuffix('.')} ({case[CaseKeys.LABEL]}).") from None

    def _wrong_values(self, case: Mapping[str, Any], label: Tensor) -> str:
        """A sentence on all values that are no classes; empty if there are none, or if channels are missing."""
        limit = self.check_label.num_values
        label = whole_labels(label)
        wrong = label[no_class(label, limit, self.check_label.ignored)]
        if not len(wrong) or len(label) != self.check_label.num_channels:
            return ""
        where, allowed = f"Case {case.get(CaseKeys.CASE, '?')}", f"only the values 0 to {limit - 1} have a meaning"
        mend = "correct the label, or map its values in data::label_map"
        if isinstance(case[CaseKeys.LABEL], Integral):
            return f"{where}: its label is {case[CaseKeys.LABEL]}, but {allowed}; {mend}."
        values, counts = torch.unique(wrong.as_subclass(Tensor), return_counts=True)
        listed = [
            f"{value_text(value)} in {count} voxel{'s' * (count > 1)}"
            for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        ]
        if len(listed) > LISTED_VALUES:
            listed[LISTED_VALUES:] = [f"{len(listed) - LISTED_VALUES} further values"]
        return f"{where}: {case[CaseKeys.LABEL]} holds {', '.join(listed)}, but {allowed}; {mend}."
