"""``medcalib new-data``: write the data fragment of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medcalib.errors import UserError

if TYPE_CHECKING:
    from medcalib.planning.dataset_source import DatasetSource
    from medcalib.planning.step_memory import Budget

__all__ = ["main"]

_SOURCES = ("nnunet", "decathlon", "images")
# what only those sources read that are not described by a dataset.json
_OF_PATTERNS = ("labels", "dataset_dir", "class_column", "group", "attributes", "lists")
_OF_STRUCTURES = ("missing_structures",)
_NAMES = ("channel_names", "class_names", "ignore_label")


def main(
    nnunet: str | None = None,
    decathlon: str | None = None,
    images: str | None = None,
    labels: str | None = None,
    dataset_dir: str | None = None,
    table: str | None = None,
    class_column: str | None = None,
    group: str | None = None,
    split_column: str | None = None,
    attributes: str | None = None,
    lists: dict[str, str] | None = None,
    splits: str | None = None,
    fold: int | None = None,
    channel_names: str | None = None,
    class_names: str | None = None,
    missing_structures: str | None = None,
    ignore_label: int | None = None,
    gpu_memory: float | None = None,
    cpu: bool = False,
    name: str | None = None,
    output_dir: str | None = None,
    report_dir: str | None = None,
    num_workers: int | None = None,
    fold_column: str | None = None,
) -> None:
    """Write the data fragment of a dataset, with a reason for every choice, and a report on the data.

    All cases are read and measured; their measures are kept, so that planning again takes seconds. Nothing is
    overwritten.

    Args:
        nnunet: folder of a dataset in nnU-Net's layout, such as nnUNet_raw/Dataset004_Hippocampus.
        decathlon: folder of a task of the Medical Segmentation Decathlon, such as Task04_Hippocampus.
        images: pattern of the images, such as images/{case}.nii.gz or pictures/{case}.png; several, one for each file
            of channels, are separated by commas. {split} stands for folders such as train, val and test, {class} for
            the class of whole images.
        labels: pattern of the label files, such as labels/{case}.nii.gz; {class} stands for the structure where each
            has a file of its own.
        dataset_dir: folder below which images, labels and table lie; what their paths have in common when left out.
        table: csv with a column case and a row for each case.
        class_column: column of the table with the class, if whole images are classified.
        group: column of the table with the patient, whose cases stay in one part of the split.
        split_column: column of the table with the part of each case, training, validation, test or calibration.
        attributes: columns of the table by which results are reported, too, separated by commas.
        lists: text files with case ids by part, such as "{training: train.txt, test: test.txt}".
        splits: splits_final.json of nnU-Net; that of the dataset when left out.
        fold: which fold of it, or of fold_column, is held out; 0 when left out.
        channel_names: names of the channels, separated by commas; CT is recognised by its name.
        class_names: names of the classes in the order of their values, background first, separated by commas; of files
            of structures, those that are wanted.
        missing_structures: absent, if a structure without a file is not there, rather than unknown.
        ignore_label: value in the label files of voxels whose truth is unknown, which count nowhere, such as 255; in
            nnU-Net's dataset.json that of the label named ignore.
        gpu_memory: memory in GB of the GPU that trains; that of the first GPU when left out.
        cpu: whether a CPU trains, also where there is a GPU.
        name: name of the fragment; from the folder of the dataset when left out.
        output_dir: folder of the fragment; when left out, that of the templates in a checkout, else data_fragments in
            the current folder, where medcalib generate finds it.
        report_dir: folder of report.md, report.json and measures.json; data_reports/<name> when left out.
        num_workers: processes that measure; one for each core, four at most, when left out.
        fold_column: column of the table with the fold of each case, 0, 1, 2 and so on; beside it, split_column may say
            which cases are in no fold, test or calibration.
    """
    given = {"nnunet": nnunet, "decathlon": decathlon, "images": images}
    if len(chosen := [option for option in _SOURCES if given[option] is not None]) != 1:
        raise UserError(
            "new-data needs one of --nnunet, --decathlon and --images, which says where the data are"
            + (f", not {' and '.join(f'--{one}' for one in chosen)}." if chosen else "; --help explains them.")
        )
    if cpu and gpu_memory is not None:
        raise UserError("--cpu and --gpu_memory exclude each other; leave one out.")
    if gpu_memory is not None and not (_is_number(gpu_memory, int | float) and gpu_memory > 0):
        raise UserError(f"--gpu_memory is {gpu_memory}; give the memory in GB, such as 24.")
    for option, number in (("num_workers", num_workers), ("fold", fold), ("ignore_label", ignore_label)):
        if number is not None and not (_is_number(number, int) and number >= 0):
            raise UserError(f"--{option} is {number}; give a whole number, 0 or more.")
    if lists is not None and not (isinstance(lists, dict) and all(isinstance(file, str) for file in lists.values())):
        raise UserError(
            f'--lists must be files by part, such as "{{training: train.txt, test: test.txt}}", not {lists!r}.'
        )
    options = {
        "labels": labels,
        "dataset_dir": dataset_dir,
        "table": table,
        "class_column": class_column,
        "group": group,
        "split_column": split_column,
        "attributes": attributes,
        "lists": lists,
        "splits": splits,
        "fold": fold,
        "channel_names": channel_names,
        "class_names": class_names,
        "missing_structures": missing_structures,
        "fold_column": fold_column,
        "ignore_label": ignore_label,
    }
    if images is None:
        refused = [*_OF_PATTERNS, *_OF_STRUCTURES, *_NAMES, *(("splits",) if decathlon is not None else ())]
        if decathlon is not None and fold is not None and fold_column is None:
            raise UserError("--fold needs folds, which a task of the Decathlon has by --table and --fold_column alone.")
        for option in refused:
            if options[option] is not None:
                raise UserError(f"--{option} means nothing beside --{chosen[0]}, whose layout says it; leave it out.")

    from medcalib.planning.new_dataset import fragment_place, plan_new_dataset

    if name is not None:
        # before anything is read
        fragment_place(name, output_dir)
    source = _source(given, options)
    made = plan_new_dataset(
        source,
        _budget(gpu_memory, cpu),
        name,
        output_dir,
        report_dir,
        _workers() if num_workers is None else num_workers,
    )
    for sentence in (*made.notes, *made.plan.warnings):
        print(f"note: {sentence}")
    if made.remembered:
        print(f"{made.remembered} of {len(source.cases)} cases were measured before.")
    print(f"Report: {made.report}\n\nNext:")
    for command in made.commands:
        print(f"  {command}")
    print(f"\n{made.fragment}")


def _source(given: Mapping[str, str | None], options: Mapping[str, Any]) -> DatasetSource:
    from medcalib.planning.described_datasets import TableColumns, decathlon_source, nnunet_source
    from medcalib.planning.pattern_datasets import PatternOptions, pattern_source

    columns = TableColumns(*(options[key] for key in TableColumns._fields))
    if given["nnunet"] is not None:
        return nnunet_source(given["nnunet"], options["splits"], options["fold"], columns)
    if given["decathlon"] is not None:
        return decathlon_source(given["decathlon"], columns, options["fold"])
    known = {key: options[key] for key in PatternOptions._fields}
    known |= {key: _words(options[key]) for key in ("attributes", "channel_names", "class_names")}
    return pattern_source(_words(given["images"]), options["labels"], PatternOptions(**known))


def _budget(gpu_memory: float | None, cpu: bool) -> Budget:
    import torch

    from medcalib.data_check.cache_size import machine_memory
    from medcalib.planning.step_memory import Budget

    if gpu_memory is not None:
        return Budget.of_gpu(gpu_memory)
    if not cpu and torch.cuda.is_available():
        return Budget.of_gpu(round(torch.cuda.get_device_properties(0).total_memory / 1e9))
    # the rest is for the operating system and prepared cases
    return Budget(machine_memory() / 2, False, "--cpu")


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _workers() -> int:
    import os

    return min(4, os.cpu_count() or 1)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())
