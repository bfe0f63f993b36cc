"""Classes and regions from the labels that a ``dataset.json`` lists, or from the values that the files hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from medcalib.errors import UserError, listed

__all__ = ["LabelPlan", "check_values", "labels_by_name", "labels_of_values"]

_BACKGROUND = "background"
_IGNORE = "ignore"


class LabelPlan(NamedTuple):
    """What label values mean.

    Attributes:
        class_names: one name per class, background first.
        values: the value in the files that stands for each class.
        regions: class indices of each region by its name, if results are reported on regions; else None.
        independent: whether classes may overlap, each an output of its own; there is no background then.
        ignored: the value of voxels whose truth is unknown; None if there is none.
    """

    class_names: tuple[str, ...]
    values: tuple[int, ...]
    regions: dict[str, list[int]] | None = None
    independent: bool = False
    ignored: int | None = None

    @property
    def label_map(self) -> dict[int, int] | None:
        """Value in the files: class index, for those that differ; None if there are none."""
        if self.independent:
            return None
        return {value: index for index, value in enumerate(self.values) if value != index} or None

    @property
    def foreground(self) -> list[tuple[str, int]]:
        """Names and values of what is to be found, without the background."""
        return list(zip(self.class_names, self.values, strict=True))[0 if self.independent else 1 :]


def labels_by_name(labels: Any, where: str) -> LabelPlan:
    """The classes of a ``dataset.json``.

    Args:
        labels: names by value, as in the Decathlon, or values by name, as in nnU-Net, where a list of values is a
            region. That of the name ``ignore`` is the label of voxels to be ignored, as in nnU-Net.
        where: the file, for messages.

    Raises:
        UserError: there is no background of value 0, a value is no whole number or has two names, or the label to be
            ignored is not the highest one.

    Example:
        >>> labels_by_name({"background": 0, "organ": 1, "lesion": 4}, "dataset.json").label_map
        {4: 2}
        >>> labels_by_name({"0": "background", "1": "organ"}, "dataset.json").class_names
        ('background', 'organ')
        >>> plan = labels_by_name({"background": 0, "whole": [1, 2], "core": [2]}, "dataset.json")
        >>> plan.class_names, plan.regions
        (('background', 'label_1', 'label_2'), {'whole': [1, 2], 'core': [2]})
    """
    if not isinstance(labels, Mapping) or not labels:
        raise UserError(f"{where} lacks labels, such as {{'background': 0, 'organ': 1}}: add them.")
    named = _values_by_name(labels, where)
    ignored = _ignored(named, where)
    regions = {name: found for name, found in named.items() if isinstance(found, list)}
    single = {name: found for name, found in named.items() if not isinstance(found, list)}
    by_value: dict[int, str] = {}
    for name, value in single.items():
        if value in by_value:
            raise UserError(f"{where} calls the value {value} both '{by_value[value]}' and '{name}': keep one name.")
        by_value[value] = name
    if 0 not in by_value:
        raise UserError(f"{where} has no label of the value 0, the background: add it, as nnU-Net and others want it.")
    for values in regions.values():
        for value in values:
            by_value.setdefault(value, f"label_{value}")
    ordered = sorted(by_value)
    names = tuple(by_value[value] for value in ordered)
    if len(ordered) < 2:
        raise UserError(f"{where} lists no label beside the background: add those that are to be learnt.")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{where} gives two values the name '{repeated[0]}': give each its own.")
    if not regions:
        return LabelPlan(names, tuple(ordered), ignored=ignored)
    index = {value: place for place, value in enumerate(ordered)}
    united = {
        name: [index[value] for value in (found if isinstance(found, list) else [found])]
        for name, found in named.items()
        if found != 0
    }
    return LabelPlan(names, tuple(ordered), united, ignored=ignored)


def _ignored(named: dict[str, int | list[int]], where: str) -> int | None:
    """Take out the label to be ignored."""
    name = next((name for name in named if name.casefold() == _IGNORE), None)
    if name is None:
        return None
    value = named.pop(name)
    others = [one for found in named.values() for one in (found if isinstance(found, list) else [found])]
    # as nnU-Net wants it
    if isinstance(value, list) or value <= max(others, default=0):
        raise UserError(
            f"{where} gives the label '{name}', whose voxels are to be ignored, the value {value}: make it a single "
            f"value above those of all classes, in dataset.json and in the files."
        )
    return value


def labels_of_values(values: Sequence[int], class_names: Sequence[str] = (), ignored: int | None = None) -> LabelPlan:
    """Classes from the values that the label files hold.

    Args:
        values: all of them, whole numbers.
        class_names: their names in the order of the values, background first; made up if empty.
        ignored: the value of voxels whose truth is unknown, which is no class.

    Raises:
        UserError: names and values differ in number, or there is one value alone.

    Example:
        >>> plan = labels_of_values([0, 255])
        >>> plan.class_names, plan.values, plan.label_map
        (('background', 'foreground'), (0, 255), {255: 1})
        >>> labels_of_values([0, 1, 2, 3], ["background", "a", "b", "never_seen"]).class_names[3]
        'never_seen'
    """
    found = sorted({0, *values} - {ignored})
    if len(found) == 1:
        raise UserError("All labels hold the value 0 alone, so there is nothing to be learnt: check --labels.")
    if class_names:
        # names of values that no file holds are known only where values count up from 0
        if len(class_names) > len(found) and found[-1] < len(class_names):
            found = list(range(len(class_names)))
        if len(class_names) != len(found):
            raise UserError(
                f"--class_names lists {len(class_names)} names, background first, but the labels hold the values "
                f"{listed([str(value) for value in found], 20)}: give each its name."
            )
        return LabelPlan(tuple(class_names), tuple(found), ignored=ignored)
    if len(found) == 2:
        return LabelPlan((_BACKGROUND, "foreground"), tuple(found), ignored=ignored)
    return LabelPlan((_BACKGROUND, *(f"class_{value}" for value in found[1:])), tuple(found), ignored=ignored)


def check_values(plan: LabelPlan, values_of_cases: Mapping[str, tuple[str, Sequence[int]]], where: str) -> None:
    """Check that files hold no label that is not listed.

    Args:
        plan: what is listed.
        values_of_cases: by case the file of its label and the values in it.
        where: what lists the labels.

    Raises:
        UserError: a file holds another value.
    """
    for case, (file, values) in values_of_cases.items():
        if unknown := sorted(set(values) - {*plan.values, plan.ignored, *([0] if plan.independent else [])}):
            raise UserError(
                f"Case {case}: {file} holds the label {', '.join(map(str, unknown))}, which {where} lacks (it lists "
                f"{', '.join(map(str, plan.values))}): add it there, or correct the file."
            )


def _values_by_name(labels: Mapping[Any, Any], where: str) -> dict[str, int | list[int]]:
    by_value = all(re.fullmatch(r"\d+", str(key)) for key in labels)
    pairs = [(name, value) for value, name in labels.items()] if by_value else list(labels.items())
    found: dict[str, int | list[int]] = {}
    for name, value in pairs:
        values = value if isinstance(value, list | tuple) else [value]
        if not values or any(not re.fullmatch(r"\d+", str(one)) for one in values):
            raise UserError(f"{where} gives the label '{name}' the value {value!r}: give a whole number, or a list.")
        if str(name) in found:
            raise UserError(f"{where} has the label '{name}' twice: give each value its own name.")
        numbers = [int(one) for one in values]
        found[str(name)] = numbers if isinstance(value, list | tuple) else numbers[0]
    return found
