"""Files that hold a network with its calibrator and activation, for programs that know nothing of this package."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medcalib.errors import UserError
from medcalib.export.window import WindowNetwork

__all__ = ["ENDINGS", "predict_with_file", "write_window_file"]

ENDINGS = {"torchscript": ".ts", "onnx": ".onnx", "torch_export": ".pt2"}
"""How the names of the files of each format end."""

# where the text about the file lies inside of it
ABOUT = "medcalib.json"
_OPSET = 18


def write_window_file(network: WindowNetwork, kind: str, windows: Tensor, path: Path, about: dict[str, Any]) -> None:
    """Write a network as a file that takes any number of windows at once.

    Args:
        network: the network.
        kind: one of `ENDINGS`.
        windows: at least two windows (B, channels, ...), with which the network is traced.
        path: the file.
        about: what is known of it; TorchScript, ``torch.export`` and ONNX files hold it, too.

    Raises:
        UserError: ``onnx`` is asked for and packages for it are not installed.
    """
    text = json.dumps(about)
    with torch.no_grad(), _quiet():
        _WRITERS[kind](network, windows, path, text)


def predict_with_file(path: Path, kind: str, windows: Tensor) -> list[Tensor] | None:
    """Outputs of a file for windows; None if what runs it is not installed.

    Args:
        path: the file.
        kind: one of `ENDINGS`.
        windows: (B, channels, ...).
    """
    if kind == "onnx":
        if importlib.util.find_spec("onnxruntime") is None:
            return None
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return [torch.from_numpy(output) for output in session.run(None, {"image": windows.numpy()})]
    with torch.no_grad(), _quiet():
        model = torch.jit.load(str(path)) if kind == "torchscript" else torch.export.load(str(path)).module()
        return list(model(windows))


def _torchscript(network: WindowNetwork, windows: Tensor, path: Path, about: str) -> None:
    traced = torch.jit.trace(network, windows, check_trace=False)
    torch.jit.save(traced, str(path), _extra_files={ABOUT: about})


def _exported(network: WindowNetwork, windows: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(network, (windows,), dynamic_shapes={"image": {0: torch.export.Dim("batch")}})


def _torch_export(network: WindowNetwork, windows: Tensor, path: Path, about: str) -> None:
    torch.export.save(_exported(network, windows), str(path), extra_files={ABOUT: about})


def _onnx(network: WindowNetwork, windows: Tensor, path: Path, about: str) -> None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format onnx needs {' and '.join(missing)}; pip install 'medcalib[export]', or choose another format."
        )
    program = torch.onnx.export(
        _exported(network, windows),
        (windows,),
        dynamo=True,
        input_names=["image"],
        output_names=network.outputs,
        opset_version=_OPSET,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[ABOUT] = about
    program.save(str(path))


_WRITERS: dict[str, Callable[[WindowNetwork, Tensor, Path, str], None]] = {
    "torchscript": _torchscript,
    "torch_export": _torch_export,
    "onnx": _onnx,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters tell of themselves; what matters is checked afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
