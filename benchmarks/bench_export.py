"""One case predicted by a bundle, and by everything that it can be exported as.

    python benchmarks/bench_export.py [--epochs 2] [--onnx FOLDER]

A phantom case fits into one window, so every side blends the same: nothing. The files are run in processes that can
import neither medcalib nor MONAI, the ONNX file in one that cannot import torch; ``monai.bundle run`` runs the zip in a
fresh environment into which nothing but the wheel of this project is installed (other packages are those of the
environment of this script).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from harness import machine

from medcalib.bundle.compose import generate
from medcalib.bundle.run import run
from medcalib.bundle.templates import find_templates
from medcalib.data import make_phantom
from medcalib.export import export, open_trained
from medcalib.export.window import own_prediction

REPOSITORY = Path(__file__).resolve().parent.parent
SIZE = {"num_training": 8, "num_validation": 2, "num_test": 2}
WINDOW = [48, 48, 48]
REPEATS = 5
FORMATS = ("torchscript", "torch_export", "onnx")
# what a program does that has the file only; prints the median seconds of a prediction
ELSEWHERE = """
import statistics, sys, time
import numpy as np
kind, path, given, written, blocked = sys.argv[1:6]
for name in blocked.split(","):
    sys.modules[name] = None
window = np.load(given)
if kind == "onnx":
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(sys.argv[6])
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    predict = lambda: session.run(None, {"image": window})[0]
else:
    import torch
    torch.set_num_threads(int(sys.argv[6]))
    model = torch.export.load(path).module() if kind == "torch_export" else torch.jit.load(path)
    if kind == "torchscript, frozen":
        model = torch.jit.optimize_for_inference(torch.jit.freeze(model.eval()))
    image = torch.from_numpy(window)
    def predict():
        with torch.no_grad():
            return model(image)[0].numpy()
times = []
for _ in range(REPEATS + 1):
    start = time.perf_counter()
    probs = predict()
    times.append(time.perf_counter() - start)
np.save(written, probs)
print(statistics.median(times[1:]))
""".replace("REPEATS", str(REPEATS))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--onnx", help="folder with onnx, onnxscript and onnxruntime, if they are not installed")
    options = parser.parse_args()
    if options.onnx:
        sys.path.append(options.onnx)
    with tempfile.TemporaryDirectory() as folder:
        _measure(Path(folder), options.epochs, options.onnx)


def _measure(folder: Path, epochs: int, onnx: str | None) -> None:
    data = folder / "phantom"
    make_phantom(data, **SIZE)
    settings = {"data::dataset_dir": str(data), **{f"data::cases::{name}": number for name, number in SIZE.items()}}
    settings |= {"data::max_epochs": epochs, "inferer::roi_size": WINDOW}
    bundle = generate(find_templates(), folder / "bundles", "phantom", "softl1ace_dice_ce", "temperature_scaling")[0]
    for mode in ("train", "inference_pred"):
        run(str(bundle), mode, overrides=settings)
    trained = open_trained(bundle)
    case = sorted((data / "images").glob("*"))[-1]
    image = trained.content("preprocessing")({"case": "a", "image": str(case)})["image"].as_tensor()[None]
    pad = [(size - own) for size, own in zip(WINDOW, image.shape[2:], strict=True)]
    window = torch.nn.functional.pad(
        image, [side for extra in reversed(pad) for side in (extra // 2, extra - extra // 2)]
    )
    np.save(folder / "window.npy", window.numpy())
    start = time.perf_counter()
    for _ in range(REPEATS):
        own = own_prediction(trained, window).numpy()
    rows = [("bundle, in this process", 0.0, (time.perf_counter() - start) / REPEATS, "")]
    for kind in FORMATS:
        file = export(bundle, kind, output=folder / "out")
        size = f"{file.stat().st_size / 1e6:.1f} MB"
        rows.append((*_by_file(folder, kind, file, own, onnx), size))
        if kind == "torchscript":
            rows.append((*_by_file(folder, f"{kind}, frozen", file, own, onnx), size))
    rows.append(_by_zip(folder, bundle, data))
    print(f"\n{machine()}\n\n| side | largest difference | seconds | |\n| --- | ---: | ---: | --- |")
    for name, difference, seconds, remark in rows:
        print(f"| {name} | {difference:.1e} | {seconds:.3f} | {remark} |")


def _by_file(folder: Path, kind: str, file: Path, own: np.ndarray, onnx: str | None) -> tuple[str, float, float]:
    blocked = "medcalib,monai,torch" if kind == "onnx" else "medcalib,monai"
    words = [
        kind,
        str(file),
        str(folder / "window.npy"),
        str(folder / "probs.npy"),
        blocked,
        str(torch.get_num_threads()),
    ]
    variables = dict(os.environ) | ({"PYTHONPATH": onnx} if onnx else {})
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *words], check=True, capture_output=True, text=True, env=variables
    )
    difference = float(np.abs(np.load(folder / "probs.npy") - own).max())
    return f"{kind}, in a process without {blocked.replace(',', ', ')}", difference, float(done.stdout)


def _by_zip(folder: Path, bundle: Path, data: Path) -> tuple[str, float, float, str]:
    archive = export(bundle, "bundle", output=folder / "out")
    archive = archive.with_name(f"{archive.name}.zip")
    python = _environment(folder)
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder / "elsewhere")
    moved = folder / "elsewhere" / bundle.name
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(python), "-m", "monai.bundle", "run", "--config_file", "configs/inference.yaml"]
    start = time.perf_counter()
    subprocess.run([*command, "--dataset_dir", str(data)], check=True, capture_output=True, cwd=moved, env=variables)
    seconds = time.perf_counter() - start
    difference = 0.0
    for path in (bundle / "seed_12345" / "predictions").glob("*/*_prob.nii.gz"):
        other = moved / "output" / "predictions" / path.parent.name / path.name
        difference = max(difference, float(np.abs(nib.load(path).get_fdata() - nib.load(other).get_fdata()).max()))
    return "monai.bundle run of the zip, fresh environment", difference, seconds, f"all of {SIZE['num_test']} cases"


def _environment(folder: Path) -> Path:
    """Python of a new environment with the wheel of this project."""
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "src", "bundle_templates"):
        source, target = REPOSITORY / name, folder / "project" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([*pip, *build, str(folder / "project")], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "environment"], check=True)
    python = folder / "environment" / "bin" / "python"
    (packages,) = (folder / "environment").glob("lib/python*/site-packages")
    # what is linked from the environment of this script, such as this project, is not seen through it
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    return python


if __name__ == "__main__":
    main()
