"""Peak memory of prediction and evaluation of one big volume, each in a fresh process; the cost of many small cases.

    python benchmarks/bench_volumes.py [--shape 512 512 400] [--classes 16] [--sides plain:mc_dropout:inference_eval]
    python benchmarks/bench_volumes.py --many 2000

Bundles are trained and run as ``medcalib run`` does. Their network is a convolution of one voxel, a stub that costs
next to nothing and gives logits of the right size. The unit is one float32 probability volume of all classes on the
grid of the file. A run on a tiny case comes first in the same process; how far the resident memory rises above what it
is then, the baseline, is the peak.
"""

from __future__ import annotations

import argparse
import gc
import math
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from pathlib import Path

import nibabel as nib
import numpy as np
import yaml
from harness import machine, memory_of_sides, peak_memory

TEMPLATES = Path(__file__).resolve().parent.parent / "bundle_templates"
MODES = ("inference_pred", "inference_eval")
TINY = (24, 24, 24)
PATCH = 32
# coarser than the files along one axis and finer along another
SPACING = (1.25, 1.0, 0.9)
FORMS = ("plain", "resampled", "regions", "sigmoid")


def fragments(folder: Path, num_classes: int) -> dict[str, dict]:
    """Data fragments of every form, and the stub network."""
    names = ["background", *(f"organ{number}" for number in range(1, num_classes))]
    files = {"label": str(folder / "{}_label.nii.gz"), "image": str(folder / "{}.nii.gz")}

    def cases(*ids: str) -> list[dict]:
        return [{"case": name, **{key: path.format(name) for key, path in files.items()}} for name in ids]

    split = {
        "training": cases("training"),
        "validation": cases("validation"),
        "test": cases("test"),
        "calibration": cases("validation"),
    }
    orientation = {
        "_target_": "monai.transforms.Orientationd",
        "keys": ["image", "label"],
        "axcodes": "RAS",
        "labels": None,
        "allow_missing_keys": True,
    }
    spacing = {
        "_target_": "monai.transforms.Spacingd",
        "keys": ["image", "label"],
        "pixdim": list(SPACING),
        "mode": ["bilinear", "nearest"],
        "allow_missing_keys": True,
    }
    channels = {
        "_target_": "medcalib.transforms.Regionsd",
        "keys": "label",
        "regions": {name: [number] for number, name in enumerate(names)},
        "allow_missing_keys": True,
        "num_classes": num_classes,
    }
    found = {}
    for form in FORMS:
        content = {
            "dataset_dir": str(folder),
            "channel_names": ["intensity"],
            "class_names": names,
            "label_map": None,
            "cases": split,
            "preprocessing": [
                orientation,
                *([spacing] if form == "resampled" else []),
                *([channels] if form == "sigmoid" else []),
            ],
            "augmentation": [],
            "patch_size": [PATCH] * 3,
            "batch_size": 1,
            "max_epochs": 1,
            "metadata": {
                "title": form,
                "task": "none",
                "description": "blocks",
                "modality": "synthetic",
                "licence": "none",
                "source": "made",
            },
        }
        if form == "regions":
            content["regions"] = {"all": list(range(1, num_classes)), "few": [1, 2]}
            content["evaluate"] = "regions"
        found[f"data/{form}"] = {"data": content} | ({"activation": "sigmoid"} if form == "sigmoid" else {})
    found["network/stub"] = {
        "network": {"description": "one affine map of intensities per class"},
        "network_def": {
            "_target_": "bench_volumes.stub",
            "in_channels": "$len(@data::channel_names)",
            "out_channels": "$len(@data::class_names)",
        },
        "network_modules": {
            **{key: ["first"] for key in ("blocks", "deepest_blocks", "decoder_blocks", "layers")},
            **{key: ["last"] for key in ("heads", "last_layers")},
        },
    }
    return found


def stub(in_channels: int, out_channels: int) -> object:
    """A network of convolutions of one voxel."""
    from torch import nn

    return nn.Sequential(
        OrderedDict(first=nn.Conv3d(in_channels, 2, 1), last=nn.Conv3d(2, out_channels, 1)),
    )


def write_case(folder: Path, name: str, shape: tuple[int, ...], num_classes: int, seed: int) -> None:
    """Write an image of blocks with some noise, and a label that is nearly its intensity; few values, to pack well."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, num_classes, [-(-size // 16) for size in shape], np.uint8)
    label = np.kron(coarse, np.ones((16,) * 3, np.uint8))[tuple(map(slice, shape))]
    image = label.astype(np.int16)
    for plane in image:
        plane += rng.random(plane.shape, np.float32) > 0.999
    affine = np.diag([-1.0, -1, 1, 1])
    for suffix, array in (("", image), ("_label", label)):
        nib.save(nib.Nifti1Image(array, affine), folder / f"{name}{suffix}.nii.gz")


def trained_bundles(root: Path, sides: list[str], num_classes: int) -> None:
    """Generate and train the bundles of all sides, on tiny cases."""
    from medcalib.bundle.compose import generate
    from medcalib.bundle.run import run

    for number, name in enumerate(("training", "validation", "test")):
        write_case(root / "tiny", name, TINY, num_classes, number)
    templates = shutil.copytree(TEMPLATES, root / "templates")
    for name, content in fragments(root / "tiny", num_classes).items():
        (templates / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    for side in sorted({side.rpartition(":")[0] for side in sides}):
        form, method = side.split(":")
        bundle = generate(templates, root / side.replace(":", "_"), form, "baseline_ce", method, "stub")[0]
        run(str(bundle), "train")


def run_side(root: Path, side: str, case: str, num_cases: int = 1) -> None:
    """Predict or evaluate the cases in a folder with a trained bundle; figures of cases belong to it."""
    from medcalib.bundle.run import run

    form, method, mode = side.split(":")
    bundle = next((root / f"{form}_{method}").glob("[!.]*"))
    label, image = root / case / "test_label.nii.gz", root / case / "test.nii.gz"
    run(
        str(bundle),
        mode,
        overrides={
            "data::cases::test": [
                {"case": f"{case}-{number}", "image": str(image), "label": str(label)} for number in range(num_cases)
            ],
            "output_dir": tempfile.mkdtemp(dir=root),
            "models_dir": str(bundle / "seed_12345" / "models"),
            "inferer::overlap": 0.25,
        },
    )


def measure_volumes(arguments: argparse.Namespace) -> None:
    """Print the peak of every side."""
    sides = arguments.sides
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        root = Path(folder)
        for part in ("tiny", "large"):
            (root / part).mkdir()
        trained_bundles(root, sides, arguments.classes)
        write_case(root / "large", "test", tuple(arguments.shape), arguments.classes, 3)
        found = {}
        size = 4 * arguments.classes * math.prod(arguments.shape)
        print(machine())
        print(
            f"one probability volume: {size / 1e6:.0f} MB\n| side | peak, MB | to one volume |\n| --- | ---: | ---: |"
        )
        for side in sides:
            found |= memory_of_sides(__file__, [side], "--folder", folder)
            print(f"| {side} | {found[side] / 1e6:.0f} | {found[side] / size:.2f} |", flush=True)


def measure_many(arguments: argparse.Namespace) -> None:
    """Print what many small cases cost, and a quarter of them."""
    sides = [f"plain:deterministic:{mode}" for mode in MODES]
    print(machine())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        (Path(folder) / "tiny").mkdir()
        trained_bundles(Path(folder), sides, arguments.classes)
        print("| side | cases | seconds | peak, MB | most open files |\n| --- | ---: | ---: | ---: | ---: |")
        for side in sides:
            for number in (arguments.many // 4, arguments.many):
                command = [sys.executable, __file__, "--folder", folder, "--side", side, "--many", str(number)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                print(f"| {side} | {number} | {done.stdout.splitlines()[-1]} |", flush=True)


def cost_of_many(root: Path, side: str, num_cases: int) -> str:
    """Seconds, peak and most open files of a run on many tiny cases."""
    most, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            most[0] = max(most[0], len(list(Path("/proc/self/fd").iterdir())))

    threading.Thread(target=watch, daemon=True).start()
    begin = time.perf_counter()
    peak = peak_memory(lambda: run_side(root, side, "tiny", num_cases))
    seconds = time.perf_counter() - begin
    done.set()
    return f"{seconds:.1f} | {peak / 1e6:.0f} | {most[0]}"


def main() -> None:
    """Print a row for each side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 400))
    parser.add_argument("--classes", type=int, default=16)
    parser.add_argument("--sides", nargs="+", default=[f"plain:deterministic:{mode}" for mode in MODES])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--many", type=int, help="measure so many small cases instead")
    parser.add_argument("--side")
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments.folder, arguments.side, "tiny")
        gc.collect()
        if arguments.many:
            print(cost_of_many(arguments.folder, arguments.side, arguments.many))
            return
        print(peak_memory(lambda: run_side(arguments.folder, arguments.side, "large")))
        return
    if arguments.many:
        measure_many(arguments)
    else:
        measure_volumes(arguments)


if __name__ == "__main__":
    main()
