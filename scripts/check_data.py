#!/usr/bin/env python
"""Check the data of a bundle before it is trained.

    python scripts/check_data.py --bundle <name or path> --data::dataset_dir=/data/Task04_Hippocampus

docs/checking_data.md says what is checked and what comes out.
"""

import sys
from typing import Any

import fire

from medcalib.cli.command_line import run_command, typed_options
from medcalib.errors import UserError


@typed_options
def main(
    bundle: str | None = None,
    seed: int | None = None,
    output_dir: str | None = None,
    allow_edited: bool = False,
    **overrides: Any,
) -> None:
    """Read every case of a bundle's data, and report what is there, what is wrong, and what a training will take.

    The exit code is 2 if anything is wrong, else 0.

    Args:
        bundle: name of a bundle under bundles/, or its path.
        seed: seed of the training whose first batch is drawn; 12345 when left out.
        output_dir: folder of data_check.json and first_batch.png; data_check in the bundle when left out.
        allow_edited: check a bundle whose configs were edited after it was generated.
        **overrides: --id::path=value replaces a value of the configuration, as for run_bundle.py.
    """
    if bundle is None:
        raise UserError("--bundle is missing; python generate_bundle.py --list shows the bundles there are.")

    from medcalib.data_check.check_data import check_data

    check = check_data(bundle, seed=seed, allow_edited=allow_edited, output_dir=output_dir, overrides=overrides)
    print(check.text)
    sys.exit(2 if check.report["problems"] else 0)


if __name__ == "__main__":
    run_command(fire.Fire, main, name="check_data.py")
