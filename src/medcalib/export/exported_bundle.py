"""A self-contained bundle in the layout of MONAI's model zoo, as a folder and as an archive."""

from __future__ import annotations

import copy
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

import medcalib
from medcalib.bundle.bundle_metadata import read_metadata
from medcalib.bundle.layout import CONFIGS, IMAGES, METADATA, Mode
from medcalib.bundle.opened import LOGGING
from medcalib.export.card import card_head, model_card
from medcalib.export.export_place import ExportPlace
from medcalib.export.portable_config import MODEL, PortableConfig, portable_config, portable_images
from medcalib.export.trained_bundle import TrainedBundle
from medcalib.export.window import window_shape
from medcalib.files.plain_yaml import plain_yaml
from medcalib.files.tensors import save_tensors
from medcalib.files.writing import write_text
from medcalib.handlers.training_record import write_record

__all__ = ["configs_of", "export_bundle", "exported_metadata", "write_archive", "write_bundle"]

CALIBRATOR = "models/calibrator.pt"
DIAGRAM = "evaluation/reliability/dataset_diagram.png"
# of an evaluation: what thresholds and the card are read from
_EVALUATION = ("summary.json", "quality_control.json", "provenance.json", "metrics.csv")
# what the threshold of classified images is read from
_SCORES = ("cases.csv",)
_HEADER = """\
# Prediction with trained weights, made by medcalib export: run it with
#   python -m monai.bundle run --config_file configs/inference.yaml --dataset_dir <dataset>
# in the folder of the bundle, or for images of no dataset with
#   python -m monai.bundle run --config_file "['configs/inference.yaml','configs/images.yaml']" --images <folder>
"""
_IMAGES_HEADER = "# Predict images that belong to no dataset, with --images. Merged after inference.yaml.\n"
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def configs_of(trained: TrainedBundle) -> tuple[PortableConfig, PortableConfig]:
    """The configuration of a bundle that is exported, and its overlay for new images."""
    overlay = ConfigParser.load_config_file(str(trained.bundle.images_overlay))
    generated = trained.bundle.config(Mode.INFERENCE_PRED)
    config = portable_config(
        trained.config,
        {"data_dir": generated["data_dir"], "dataset_dir": _travelling(generated["data"]["dataset_dir"])},
        trained.num_networks,
        trained.provenance["calibrator"] if trained.prepared else None,
        [overlay],
    )
    return config, portable_images(overlay)


def _travelling(dataset_dir: str) -> str:
    """Where another machine has a dataset that fragments of one's own look for in a folder of this one."""
    place = Path(dataset_dir)
    return (
        f"$@data_dir + {'/' + place.name!r}"
        if place.is_absolute() or dataset_dir.startswith(("~", ".."))
        else dataset_dir
    )


def exported_metadata(trained: TrainedBundle) -> dict[str, Any]:
    """The ``metadata.json`` of a bundle that is exported: what MONAI asks for, and of which bundle it was made."""
    made = copy.deepcopy(read_metadata(trained.bundle.folder))
    image = made["network_data_format"]["inputs"]["image"]
    pred = made["network_data_format"]["outputs"]["pred"]
    image["spatial_shape"] = window_shape(trained)
    if image["is_patch_data"]:
        pred["spatial_shape"] = window_shape(trained)
    pred |= {"format": "probabilities", "value_range": [0, 1]}
    made["required_packages_version"] = {"medcalib": medcalib.__version__, **made["required_packages_version"]}
    if trained.evaluation is not None:
        made["eval_metrics"] = {
            name: value
            for name, value in trained.evaluation.items()
            if isinstance(value, float) and not isinstance(value, bool)
        }
    made["medcalib"] |= {
        "weights_bundle": None,
        "initial_weights_bundle": None,
        "exported_from": trained.bundle.name,
        "seed": trained.seed,
        "weights_digest": trained.provenance["checkpoint_digest"],
    }
    return made


def write_bundle(trained: TrainedBundle, folder: Path) -> None:
    """Write everything but the archive to a folder, which is made."""
    source = trained.bundle.folder
    for name in (CONFIGS, "models", "docs"):
        (folder / name).mkdir(parents=True)
    config, overlay = configs_of(trained)
    _write_yaml(folder / CONFIGS / "inference.yaml", config, _HEADER)
    _write_yaml(folder / CONFIGS / IMAGES, overlay, _IMAGES_HEADER)
    shutil.copyfile(source / CONFIGS / LOGGING, folder / CONFIGS / LOGGING)
    shutil.copyfile(source / "LICENSE", folder / "LICENSE")
    metadata = exported_metadata(trained)
    write_text(folder / CONFIGS / METADATA, json.dumps(metadata, indent=4) + "\n")
    save_tensors(trained.state, folder / MODEL)
    if trained.calibrator_file is not None and not trained.prepared:
        shutil.copyfile(trained.calibrator_file, folder / CALIBRATOR)
    if trained.record is not None:
        write_record(folder / "models", trained.record)
    if trained.evaluation is not None:
        names = (*_EVALUATION, *_SCORES) if trained.bundle.classifies else _EVALUATION
        for name in (*names, DIAGRAM.removeprefix("evaluation/")):
            file, target = trained.output_dir / "evaluation" / name, folder / "evaluation" / name
            if file.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
    card = model_card(trained, metadata, DIAGRAM if (folder / DIAGRAM).exists() else None)
    write_text(folder / "README.md", card_head(trained, metadata) + card)
    # where MONAI looks for it
    write_text(folder / "docs" / "README.md", card.replace(f"]({DIAGRAM})", f"](../{DIAGRAM})"))


def write_archive(folder: Path, archive: Path) -> None:
    """Write a folder as a zip archive that holds it under its name; equal folders give equal archives."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(str(Path(folder.name) / path.relative_to(folder)), _ZIP_TIME)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                file.writestr(entry, path.read_bytes())


def export_bundle(trained: TrainedBundle, output: Path) -> Path:
    """Write folder and archive, unless they are there already; the path of the folder."""
    target = output / trained.bundle.name
    with ExportPlace(target) as place:
        write_bundle(trained, place.draft)
        place.publish()
    archive = target.with_name(f"{target.name}.zip")
    with ExportPlace(archive) as place:
        write_archive(target, place.draft)
        place.publish()
    return target


def _write_yaml(path: Path, config: PortableConfig, header: str) -> None:
    write_text(path, header + plain_yaml(config, width=120))
