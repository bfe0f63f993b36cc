#!/usr/bin/env python
"""Train, predict or evaluate with a bundle.

    python run_bundle.py --bundle <name or path> --mode train
    python run_bundle.py --bundle <name or path> --mode inference_pred
    python run_bundle.py --bundle <name or path> --mode inference_eval --num_bins=15

Any other option replaces an id of the configuration: --data::dataset_dir=/data/Task04_Hippocampus.
"""

from typing import Any

import fire

from medcalib.bundle.layout import Mode
from medcalib.bundle.run import run
from medcalib.cli.command_line import run_command, typed_options
from medcalib.errors import UserError


@typed_options
def main(
    bundle: str | None = None,
    mode: str | None = None,
    seed: int | None = None,
    debug: bool = False,
    allow_edited: bool = False,
    allow_unfinished: bool = False,
    **overrides: Any,
) -> None:
    """Run one mode of a bundle.

    Args:
        bundle: name of a bundle under bundles/, or its path.
        mode: train, inference_pred or inference_eval.
        seed: whole number that, with the bundle, fixes the run; 12345 when left out.
        debug: a run of seconds on a few cases, with its results in seed_<seed>_debug.
        allow_edited: run a bundle whose configs were edited after it was generated.
        allow_unfinished: predict and evaluate also with weights whose training is not finished.
        **overrides: --id::path=value replaces a value of the configuration.
    """
    if bundle is None:
        raise UserError("--bundle is missing; python generate_bundle.py --list shows the bundles there are.")
    if mode is None:
        raise UserError(f"--mode is missing; it is one of {', '.join(Mode)}.")
    run(
        bundle,
        mode,
        seed=seed,
        debug=debug,
        allow_edited=allow_edited,
        overrides=overrides,
        allow_unfinished=allow_unfinished,
    )


if __name__ == "__main__":
    run_command(fire.Fire, main, name="run_bundle.py")
