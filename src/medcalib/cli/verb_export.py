"""``medcalib export``: a trained bundle for others."""

from typing import Any

from medcalib.errors import UserError

__all__ = ["main"]


def main(
    bundle: str | None = None,
    format: str | None = None,  # noqa: A002
    seed: int | None = None,
    output: str | None = None,
    allow_edited: bool = False,
    debug: bool = False,
    **overrides: Any,
) -> None:
    """Write a trained bundle in a form that works elsewhere: as a bundle, or as one file for other programs.

    The path of what was written is the last line that is printed.

    Args:
        bundle: name of a bundle under bundles/, or its path.
        format: bundle for a folder and a zip that run with MONAI and this package alone, torchscript, onnx or
            torch_export for a file from an image window to calibrated probabilities.
        seed: seed of the training whose weights are taken; 12345 when left out.
        output: folder to write to; export in the folder of the seed when left out.
        allow_edited: export a bundle whose configs were edited after it was generated.
        debug: take the weights of a run with --debug, to see whether an export works; they are worth nothing.
        **overrides: replaces a value of the configuration, such as --inferer::overlap=0.25; options of the training are
            known.
    """
    if bundle is None:
        raise UserError("--bundle is missing; medcalib generate --list shows the bundles there are.")
    if format is None:
        raise UserError("--format is missing; it is bundle, torchscript, onnx or torch_export.")

    from medcalib.export import export

    print(export(bundle, format, seed, output, overrides, allow_edited, debug))
