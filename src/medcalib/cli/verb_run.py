"""``medcalib run``: train, predict and evaluate."""

from typing import Any

from medcalib.bundle.layout import Mode
from medcalib.cli.failures import in_several
from medcalib.cli.launcher import check_number, launch, quiet_connections
from medcalib.errors import UserError

__all__ = ["main"]


def main(
    bundle: str | None = None,
    mode: str | None = None,
    seed: int | None = None,
    debug: bool = False,
    allow_edited: bool = False,
    allow_unfinished: bool = False,
    images: str | None = None,
    num_gpus: int | None = None,
    prediction_cache: str = "auto",
    max_epochs: int | None = None,
    initial_weights: str | None = None,
    **overrides: Any,
) -> None:
    """Train, predict or evaluate with a bundle.

    Args:
        bundle: name of a bundle under bundles/, or its path.
        mode: train, inference_pred or inference_eval.
        seed: whole number that, with the bundle, fixes the run; 12345 when left out.
        debug: a run of seconds on a few cases, with its results in seed_<seed>_debug.
        allow_edited: run a bundle whose configs were edited after it was generated.
        allow_unfinished: predict and evaluate also with weights whose training is not finished.
        images: with --mode inference_pred: a folder, a pattern in quotes, a file, or a .txt file that lists files, of
            images that are predicted instead of the test cases, into --output_dir.
        num_gpus: number of GPUs that share the run; on a machine without GPUs, of processes.
        prediction_cache: where predictions of the network are kept, so that other modes and calibrators need not repeat
            them: auto, which is .cache/predictions beside the bundle, off, or a folder.
        max_epochs: number of epochs of the training; one that has ended with fewer goes on.
        initial_weights: with --mode train: a bundle, by its name or folder, or a .pt file, with whose weights the
            training begins.
        **overrides: replaces a value of the configuration, such as --data::dataset_dir=/data/Task04_Hippocampus.
    """
    if bundle is None:
        raise UserError("--bundle is missing; medcalib generate --list shows the bundles there are.")
    if mode is None:
        raise UserError(f"--mode is missing; it is one of {', '.join(Mode)}.")

    options: dict[str, Any] = {
        "bundle": bundle,
        "mode": mode,
        "seed": seed,
        "debug": debug,
        "allow_edited": allow_edited,
        "allow_unfinished": allow_unfinished,
        "images": images,
        "prediction_cache": prediction_cache,
        "initial_weights": initial_weights,
    }
    if max_epochs is not None:
        overrides["max_epochs"] = max_epochs
    device = overrides.get("device")
    if num_gpus is not None and not in_several():
        quiet_connections()
        check_number(num_gpus, device)
        if num_gpus > 1:
            launch("medcalib.cli.rank", options | overrides, num_gpus)
            return

    from medcalib.bundle.run import run
    from medcalib.process_group import joined_group, num_processes

    with joined_group(device):
        if num_gpus not in (None, num_processes()):
            raise UserError(
                f"--num_gpus is {num_gpus}, but this is one of {num_processes()} processes already; leave it out where "
                f"torchrun starts the run."
            )
        run(**options, overrides=overrides)
