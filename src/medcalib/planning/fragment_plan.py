"""All choices of a data fragment, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from medcalib.errors import UserError, listed
from medcalib.keys import SplitKeys
from medcalib.planning.augmentation_plan import plan_augmentation
from medcalib.planning.dataset_measures import DatasetMeasures
from medcalib.planning.dataset_source import DatasetSource
from medcalib.planning.implausible_labels import check_plausible
from medcalib.planning.intensity_plan import IntensityPlan, plan_intensities, plan_picture_intensities
from medcalib.planning.label_names import LabelPlan, check_values, labels_of_values
from medcalib.planning.mirrored_names import flip_axes
from medcalib.planning.patch_plan import NETWORK, PatchPlan, plan_patch
from medcalib.planning.step_memory import Budget
from medcalib.planning.target_spacing import sizes_at, target_spacing

__all__ = ["Choice", "FragmentPlan", "plan_fragment"]

_TRAINING_SHARE = 0.7
# of Auto3DSeg's SegResNet: so many epochs times cases, within these limits
_CASES_SEEN, _EPOCHS = 80_000, (300, 1250)
_STEPS_ON_CPU, _EPOCHS_ON_CPU = 1000, (10, 300)
_LEARNING_RATE = {True: 0.0002, False: 0.002}
_PICTURE_SIDE, _SIDE_MULTIPLE = 224, 32
# a narrow ResNet-18, the network of phantom_cells
_SMALL_CLASSIFIER = {
    "block": "basic",
    "layers": [2, 2, 2, 2],
    "widths": [16, 32, 64, 128],
    "hidden": [64],
    "dropout": 0.1,
    "frozen": False,
}
_SHARE_FOR_CACHE = 0.5


class Choice(NamedTuple):
    """A value and why it was chosen."""

    value: Any
    reason: str = ""


@dataclass(frozen=True)
class FragmentPlan:
    """What goes into a fragment.

    Attributes:
        labels: names of the classes, with the values in the files.
        channel_names: one name for each channel.
        preprocessing: transforms; each choice is a list of them.
        augmentation: likewise.
        patch_size: voxels per axis.
        flips: axes that may be flipped.
        batch_size: cases per step.
        max_epochs: epochs.
        network: name and settings of the network.
        learning_rate: of the optimizer.
        modality: of the images, in a word.
        on_disk: why prepared cases are kept on disk and not in memory; empty if they are kept in memory.
        memory: bytes of a training step as foretold; None if it was not.
        warnings: what a user should look at, one sentence each.
        surface_tolerance: mm by which surfaces may be apart; None for whole images.
    """

    labels: LabelPlan
    channel_names: tuple[str, ...]
    preprocessing: list[Choice]
    augmentation: list[Choice]
    patch_size: Choice
    flips: Choice
    batch_size: Choice
    max_epochs: Choice
    network: Choice
    learning_rate: Choice
    modality: str
    on_disk: str = ""
    memory: float | None = None
    warnings: Sequence[str] = ()
    surface_tolerance: Choice | None = None


def plan_fragment(
    source: DatasetSource, measures: DatasetMeasures, budget: Budget, machine_memory: float
) -> FragmentPlan:
    """Choose everything from what is known and what was measured.

    Args:
        source: the dataset.
        measures: of all its cases.
        budget: memory of a training step.
        machine_memory: bytes of memory of the machine that trains.

    Raises:
        UserError: files hold a label that is not listed, names and files differ in number, or the budget is too small.
    """
    names, are_given = _channels(source, measures)
    if source.classification:
        return _plan_images(source, measures, budget, names)
    check_plausible(source, measures)
    labels = source.labels or labels_of_values(measures.label_values, source.class_names, source.ignored)
    values = {
        found["case"]: (str(case["label"]), [int(value) for value in found["classes"]])
        for case, found in zip(source.cases, measures.cases, strict=True)
    }
    check_values(labels, values, source.labels_from)
    has_pictures = source.has_pictures or measures.num_axes == 2
    if source.has_pictures:
        intensities = plan_picture_intensities(measures, len(names))
    else:
        intensities = plan_intensities(measures, names, are_given)
    sizes, spacings = measures.rows("box" if intensities.crop[0] else "size"), measures.rows("spacing")
    if has_pictures:
        spacing, why_spacing, resampled = [1.0] * measures.num_axes, "", sizes.astype(np.int64)
    else:
        spacing, why_spacing = target_spacing(spacings, sizes)
        resampled = sizes_at(spacing, spacings, sizes)
    num_training = max(1, math.floor(_TRAINING_SHARE * len(source.cases)))
    patch = plan_patch(resampled, spacing, len(names), len(labels.class_names), num_training, budget)
    flips, unflipped = flip_axes([*labels.class_names, *(labels.regions or ())], measures.num_axes)
    if not budget.on_gpu and not source.has_pictures and len(flips) > 1 and 0 in flips:
        # bodies are alike on both sides, and nowhere else: a long training learns them upside down, too
        flips, unflipped = [0], [*unflipped, "from left to right alone, since a brief training has little to spare"]
    covers = bool((np.asarray(patch.patch_size) >= np.median(resampled, axis=0)).all())
    augmentation = [
        Choice(value, reason)
        for value, reason in plan_augmentation(
            patch.patch_size,
            spacing,
            len(labels.class_names),
            covers,
            flips,
            unflipped,
            source.has_pictures,
            labels.independent,
            any(set(case["classes"]) <= {"0"} for case in measures.cases),
            labels.ignored is not None,
        )
    ]
    epochs = _epochs(num_training, patch.batch_size, budget.on_gpu)
    return FragmentPlan(
        labels=labels,
        channel_names=names,
        preprocessing=_preprocessing(intensities, spacing, why_spacing, has_pictures),
        augmentation=augmentation,
        patch_size=Choice(patch.patch_size, _why_patch(patch, resampled, spacing, budget)),
        flips=Choice(flips, _why_flips(unflipped, has_pictures)),
        batch_size=Choice(patch.batch_size, patch.batch_limit),
        max_epochs=epochs,
        network=Choice({NETWORK: patch.settings}, _why_network(patch, budget)),
        learning_rate=_learning_rate(budget),
        modality=intensities.modality,
        on_disk=_on_disk(resampled, len(names), machine_memory),
        memory=patch.memory.of_batch(patch.batch_size),
        warnings=_warnings(labels, measures, resampled, patch.patch_size, source.training),
        surface_tolerance=_surface_tolerance(spacing, has_pictures),
    )


def _channels(source: DatasetSource, measures: DatasetMeasures) -> tuple[tuple[str, ...], bool]:
    """Names of the channels, and whether somebody gave them."""
    number = len(measures.cases[0]["channels"])
    if not source.channel_names:
        made_up = ("red", "green", "blue") if number == 3 and source.has_pictures else ("grey",) * (number == 1)
        if not source.has_pictures:
            made_up = ("image",) if number == 1 else ()
        return made_up or tuple(f"channel_{index}" for index in range(number)), False
    if len(source.channel_names) != number:
        raise UserError(
            f"The images have {number} channel(s), but {len(source.channel_names)} are named "
            f"({', '.join(source.channel_names)}): correct the names, or the files."
        )
    return source.channel_names, True


def _preprocessing(
    intensities: IntensityPlan, spacing: Sequence[float], why_spacing: str, has_pictures: bool
) -> list[Choice]:
    steps = [Choice(*intensities.crop)] if intensities.crop[0] else []
    if not has_pictures:
        orientation = {
            "_target_": "monai.transforms.Orientationd",
            "keys": ["image", "label"],
            "axcodes": "RAS",
            "labels": None,
            "allow_missing_keys": True,
        }
        resampling = {
            "_target_": "monai.transforms.Spacingd",
            "keys": ["image", "label"],
            "pixdim": list(spacing),
            "mode": ["bilinear", "nearest"],
            "allow_missing_keys": True,
        }
        steps.append(Choice([orientation], "axes point to the right, the front and the head, however files store them"))
        steps.append(Choice([resampling], f"voxel size in mm: {why_spacing}"))
    return [*steps, Choice(*intensities.normalise)]


def _why_patch(patch: PatchPlan, sizes: np.ndarray, spacing: Sequence[float], budget: Budget) -> str:
    median = " x ".join(f"{value:g}" for value in np.median(sizes, axis=0))
    whole = bool((np.asarray(patch.patch_size) >= np.median(sizes, axis=0)).all())
    text = f"the median case has {median} voxels after preprocessing"
    if whole:
        return f"{text}, which a patch holds; each axis is a multiple of what the network asks for"
    limit = f"{budget.option} allows" if patch.is_clipped else f"is planned for a {'GPU' if budget.on_gpu else 'CPU'}"
    shape = "of similar extent in mm along each axis, " if max(spacing) > min(spacing) else ""
    return f"{text}; the largest patch that {limit}, {shape}a multiple of what the network asks for"


def _why_network(patch: PatchPlan, budget: Budget) -> str:
    levels = len(patch.settings["blocks_down"])
    text = f"{levels} levels, so that the deepest is at least 4 voxels wide; {patch.settings['init_filters']} features "
    text += "as in Auto3DSeg" if patch.settings["init_filters"] == 32 else f"for {budget.option}"
    if "resolution" in patch.settings:
        text += "; resolution lets axes of finer or more voxels be halved first"
    if patch.settings["norm"] == "batch":
        return f"{text}; batch normalisation, with which a brief training gets further"
    return f"{text}; instance normalisation, since batches are small"


def _why_flips(unflipped: Sequence[str], has_pictures: bool) -> str:
    if unflipped:
        return "; ".join(unflipped)
    return "no class is named after a side" + (", and pictures may be seen from anywhere" if has_pictures else "")


def _epochs(num_training: int, batch_size: int, on_gpu: bool) -> Choice:
    if on_gpu:
        number = int(np.clip(math.ceil(_CASES_SEEN / num_training), *_EPOCHS))
        return Choice(
            number,
            f"80,000 patches, but between {_EPOCHS[0]} and {_EPOCHS[1]} epochs, as Auto3DSeg's SegResNet; about "
            f"{num_training} training cases",
        )
    steps = math.ceil(num_training / batch_size)
    number = int(np.clip(math.ceil(_STEPS_ON_CPU / steps), *_EPOCHS_ON_CPU))
    return Choice(number, f"about {number * steps} steps, what a CPU can do; more epochs are better")


def _learning_rate(budget: Budget) -> Choice:
    if budget.on_gpu:
        return Choice(_LEARNING_RATE[True], "that of Auto3DSeg's SegResNet")
    return Choice(_LEARNING_RATE[False], "a narrow network that is trained briefly bears large steps")


def _surface_tolerance(spacing: Sequence[float], has_pictures: bool) -> Choice:
    unit, middle = "pixel" if has_pictures else "mm", sorted(spacing)[len(spacing) // 2]
    return Choice(
        round(max(1.0, middle), 3),
        f"for the surface Dice: a voxel, 1 {unit} at least; better is how far two experts are apart, for "
        f"each class by its name, such as {{liver: 3, tumour: 1}}",
    )


def _on_disk(sizes: np.ndarray, num_channels: int, machine_memory: float) -> str:
    needed = float(sizes.prod(1).sum()) * (4 * num_channels + 1)
    if needed <= _SHARE_FOR_CACHE * machine_memory:
        return ""
    return (
        f"prepared cases take about {needed / 1e9:.0f} GB, more than half of the memory of the machine that planned "
        f"this, so they are kept on disk"
    )


def _warnings(
    labels: LabelPlan,
    measures: DatasetMeasures,
    sizes: np.ndarray,
    patch_size: Sequence[int],
    training: Collection[str],
) -> list[str]:
    found = [*_ignored_warnings(labels, measures)]
    for name, value in labels.foreground:
        having = {case["case"] for case in measures.cases if str(value) in case["classes"]}
        number = len(having)
        if number == 0:
            found.append(f"No case has the class {name}, so it cannot be learnt; remove it, or add cases.")
        elif training and not having & set(training):
            found.append(f"No training case has the class {name}, so it cannot be learnt; divide the cases otherwise.")
        elif number < len(SplitKeys) - 1:
            found.append(
                f"Only {number} case{'s' * (number > 1)} of {len(measures.cases)} ha{'ve' if number > 1 else 's'} the "
                f"class {name}, so training, validation and test cannot all have it."
            )
    smaller = int((sizes < np.asarray(patch_size)).any(1).sum())
    # where a patch holds the median case, this is as it should be
    if smaller and not (np.asarray(patch_size) >= np.median(sizes, axis=0)).all():
        found.append(f"{smaller} of {len(sizes)} cases are smaller than a patch along an axis, and are padded.")
    return found


def _ignored_warnings(labels: LabelPlan, measures: DatasetMeasures) -> Iterator[str]:
    if labels.ignored is None:
        return
    key = str(labels.ignored)
    with_it = [case for case in measures.cases if key in case["classes"]]
    if not with_it:
        yield f"No case has a voxel of the value {key}, which is to be ignored; correct it, if some should."
    if nothing := [str(case["case"]) for case in with_it if list(case["classes"]) == [key]]:
        yield (
            f"{len(nothing)} case{'s' * (len(nothing) > 1)} ({listed(nothing, 3)}) ha{'ve' if nothing[1:] else 's'} no "
            f"voxel but those to be ignored, so nothing can be learnt from {'them' if nothing[1:] else 'it'}; leave "
            f"{'them' if nothing[1:] else 'it'} out."
        )


def _plan_images(
    source: DatasetSource, measures: DatasetMeasures, budget: Budget, names: tuple[str, ...]
) -> FragmentPlan:
    """The plan of a classification of whole images."""
    sizes = measures.rows("size")
    median = np.median(sizes, axis=0)
    side = [
        max(_SIDE_MULTIPLE, min(_PICTURE_SIDE, _SIDE_MULTIPLE * math.ceil(value / _SIDE_MULTIPLE))) for value in median
    ]
    num_training = max(1, math.floor(_TRAINING_SHARE * len(source.cases)))
    intensities = (
        plan_picture_intensities(measures, len(names))
        if source.has_pictures
        else plan_intensities(measures, names, bool(source.channel_names))
    )
    resize = {
        "_target_": "monai.transforms.Resized",
        "keys": "image",
        "spatial_size": "@data::patch_size",
        "mode": "bilinear" if measures.num_axes == 2 else "trilinear",
    }
    flips, unflipped = flip_axes(source.class_names, measures.num_axes)
    augmentation = [
        Choice(
            [{"_target_": "monai.transforms.RandFlipd", "keys": "image", "prob": 0.5, "spatial_axis": axis}],
            "" if number else _why_flips(unflipped, has_pictures=True),
        )
        for number, axis in enumerate(flips)
    ]
    change = [
        {"_target_": "monai.transforms.RandScaleIntensityd", "keys": "image", "prob": 0.5, "factors": 0.1},
        {"_target_": "monai.transforms.RandShiftIntensityd", "keys": "image", "prob": 0.5, "offsets": 0.1},
    ]
    batch = min(32 if budget.on_gpu else 16, num_training)
    settings = {} if budget.on_gpu else {"resnet50": dict(_SMALL_CLASSIFIER)}
    counts = {
        name: sum(str(index) in case["classes"] for case in measures.cases)
        for index, name in enumerate(source.class_names)
    }
    return FragmentPlan(
        labels=LabelPlan(source.class_names, tuple(range(len(source.class_names)))),
        channel_names=names,
        preprocessing=[
            Choice([resize], "a batch is one tensor, so all images have one size"),
            Choice([{**one, "keys": "image"} for one in intensities.normalise[0]], intensities.normalise[1]),
        ],
        augmentation=[*augmentation, Choice(change, "light and camera vary")],
        patch_size=Choice(side, f"the median image has {' x '.join(f'{v:g}' for v in median)} pixels; 224 at the most"),
        flips=Choice(flips, _why_flips(unflipped, has_pictures=True)),
        batch_size=Choice(batch, f"what fits {budget.option}" if batch < num_training else "the training cases"),
        max_epochs=Choice(100, "usual for images of this size")
        if budget.on_gpu
        else _epochs(num_training, batch, on_gpu=False),
        network=Choice(settings, "a narrow ResNet-18, which a CPU trains" if settings else ""),
        learning_rate=Choice(0.0002 if budget.on_gpu else 0.002, "usual for AdamW and a network of this width"),
        modality=intensities.modality,
        warnings=[
            f"Only {number} image{'s' * (number != 1)} of {len(measures.cases)} ha{'ve' if number != 1 else 's'} the "
            f"class {name}."
            for name, number in counts.items()
            if number < len(SplitKeys) - 1
        ],
    )
