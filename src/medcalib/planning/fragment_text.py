"""Write a plan as the YAML of a data fragment, every choice with its reason."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medcalib.planning.dataset_source import DatasetSource
from medcalib.planning.fragment_plan import Choice, FragmentPlan

__all__ = ["fragment_text"]

_WIDTH = 120
_LISTED_CLASSES = 5
_UNKNOWN = "unknown; ask whoever gave you the data"
_RULES = (
    "The rules are those of the planners of nnU-Net (doi:10.1038/s41592-020-01008-z) and of MONAI's Auto3DSeg; every "
    "value may be changed, and the comments say what it was chosen for."
)


def fragment_text(name: str, source: DatasetSource, plan: FragmentPlan, budget: str) -> str:
    """The text of a data fragment.

    Args:
        name: name of the fragment.
        source: the dataset.
        plan: the choices.
        budget: how the user stated the memory.
    """
    title = source.metadata.get("name", name)
    independent = ["activation: sigmoid"] if plan.labels.independent else []
    lines = [
        *_comment(
            f"{title}: planned by medcalib new-data from {len(source.cases)} labelled cases for {budget}. {_RULES}"
        ),
        *(line for note in source.notes for line in _comment(note)),
        *independent,
        "data:",
        *_indented(_body(name, source, plan)),
    ]
    lines += ["", *_overrides(name, source, plan)]
    return "\n".join(lines) + "\n"


def _body(name: str, source: DatasetSource, plan: FragmentPlan) -> Iterator[str]:
    if source.classification:
        yield "task: classification"
    yield f"dataset_dir: {_flow(str(source.root))}"
    yield from _list("channel_names", list(plan.channel_names))
    yield from _list("class_names", list(plan.labels.class_names))
    if plan.labels.label_map:
        yield from _comment("value in the files: class index")
    yield f"label_map: {_flow(plan.labels.label_map)}"
    if plan.labels.ignored is not None:
        yield from _comment(
            "value in the files of voxels whose truth is unknown: they count neither in the training nor in results"
        )
        yield f"ignore_label: {plan.labels.ignored}"
    if plan.labels.regions:
        yield from _comment("overlapping regions: the network learns the classes, results are reported on regions")
        yield "regions:"
        for region, indices in plan.labels.regions.items():
            yield f"  {_flow(region)}: {_flow(indices)}"
        yield "evaluate: regions"
    if source.fold is not None:
        yield from _comment(
            "which fold is held out; medcalib generate --fold 1 chooses another, --fold all makes a bundle of each"
        )
        yield f"fold: {source.fold}"
        yield f"num_folds: {source.num_folds}"
    yield from _comment(source.listing_reason)
    yield "cases:"
    listing = {key: value for key, value in source.listing.items() if key != "_target_"}
    if source.fold is not None:
        listing["fold"] = "@data::fold"
    if source.classification:
        listing["class_names"] = "@data::class_names"
    yield from _indented(
        _mapping({"_target_": source.listing["_target_"], "dataset_dir": "@data::dataset_dir", **listing})
    )
    for key, choices in (("preprocessing", plan.preprocessing), ("augmentation", plan.augmentation)):
        yield f"{key}:"
        for choice in choices:
            yield from _comment(choice.reason)
            for transform in choice.value:
                yield from _item(transform)
    yield from _chosen("patch_size", plan.patch_size)
    yield from _chosen("tta_flip_axes", plan.flips)
    yield from _chosen("batch_size", plan.batch_size)
    yield from _chosen("max_epochs", plan.max_epochs)
    if plan.surface_tolerance is not None:
        yield from _chosen("surface_tolerance_mm", plan.surface_tolerance)
    if plan.network.value:
        yield "networks:"
        for network, settings in plan.network.value.items():
            yield from _indented([*_comment(plan.network.reason), f"{network}:"])
            yield from _indented(_mapping(settings), 4)
    yield "metadata:"
    yield from _indented(_mapping(_metadata(name, source, plan)))


def _metadata(name: str, source: DatasetSource, plan: FragmentPlan) -> dict[str, str]:
    about = source.metadata
    kind = "Classification" if source.classification else "Segmentation"
    names = plan.labels.class_names if source.classification else [name for name, _ in plan.labels.foreground]
    what = ", ".join(names) if len(names) <= _LISTED_CLASSES else f"{len(names)} classes"
    found = {
        "title": name,
        "task": f"{kind} of {what} in {plan.modality}",
        "description": " ".join(about.get("description", f"{len(source.cases)} labelled cases.").split()),
        "modality": plan.modality,
        "licence": about.get("licence", _UNKNOWN),
        "source": about.get("source", _UNKNOWN),
    }
    if "reference" in about:
        found["reference"] = " ".join(about["reference"].split())
    if source.has_pictures:
        first = source.cases[0]["image"]
        ending = Path(first if isinstance(first, str) else first[0]).suffix.lower().lstrip(".")
        found |= {"data_type": ending, "format": "rgb" if len(plan.channel_names) == 3 else "magnitude"}
    elif plan.modality == "CT":
        found["format"] = "hounsfield"
    return found


def _overrides(name: str, source: DatasetSource, plan: FragmentPlan) -> Iterator[str]:
    yield from _comment(plan.learning_rate.reason)
    yield f"train::optimizer::lr: {_flow(plan.learning_rate.value)}"
    if source.has_pictures:
        yield from _comment("images are pictures")
        yield "load_case::_target_: medcalib.transforms.LoadPictured"
    if plan.on_disk:
        yield from _comment(f"{plan.on_disk}; the folder may be deleted at any time, null prepares every case anew")
        for part, data in (("train", "training"), ("validate", "validation")):
            yield f"{part}::dataset:"
            yield "  _target_: medcalib.data.caching.SeededPersistentDataset"
            yield f"  data: \"$@split['{data}'][:@limit_cases]\""
            yield f'  transform: "@{part}::preprocessing"'
            if part == "train":
                yield '  seed: "@seed"'
                yield f"  cache_dir: \"$@data_dir + '/cache/{name}'\""
            else:
                yield '  cache_dir: "@train::dataset::cache_dir"'
        yield "num_workers: 4"


def _chosen(key: str, choice: Choice) -> Iterator[str]:
    yield from _comment(choice.reason)
    yield f"{key}: {_flow(choice.value)}"


def _item(transform: Mapping[str, Any]) -> Iterator[str]:
    for number, line in enumerate(_mapping(transform)):
        yield ("- " if number == 0 else "  ") + line


def _mapping(content: Mapping[str, Any]) -> Iterator[str]:
    for key, value in content.items():
        yield f"{_flow(key)}: {_flow(value)}"


def _list(key: str, values: Sequence[Any]) -> Iterator[str]:
    """On one line, if there is room."""
    line = f"{key}: {_flow(values)}"
    if len(line) + 2 <= _WIDTH:
        yield line
        return
    yield f"{key}:"
    for value in values:
        yield f"- {_flow(value)}"


def _flow(value: Any) -> str:
    """A value on one line, in quotes where YAML would make something else of a text."""
    if isinstance(value, str) and value.startswith(("@", "$", "%")):
        return yaml.safe_dump(value, default_style='"', width=10**9, allow_unicode=True).strip()
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9, allow_unicode=True)
    return text.strip().removesuffix("...").strip()


def _comment(text: str) -> Iterator[str]:
    sentence = text[:1].upper() + text[1:] if text.endswith(".") else text
    # room for the indentation below data
    yield from textwrap.wrap(sentence, _WIDTH - 6, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _indented(lines: Iterator[str] | Sequence[str], by: int = 2) -> Iterator[str]:
    for line in lines:
        yield " " * by + line if line else line
