"""``medcalib check``: find out before a training what would go wrong in it."""

import sys
from typing import Any

from medcalib.errors import UserError

__all__ = ["main"]


def main(
    bundle: str | None = None,
    seed: int | None = None,
    output_dir: str | None = None,
    allow_edited: bool = False,
    device_only: bool = False,
    **overrides: Any,
) -> None:
    """Check the data of a bundle before it is trained, or whether trainings work on a device.

    Of a bundle's data every case is read; the report says what is there, what is wrong, and what a training will take.
    With --device_only, a small volume is binned with every implementation there is for a device, and a small network
    trained for one step. The exit code is 2 if anything is wrong, else 0.

    Args:
        bundle: name of a bundle under bundles/, or its path.
        seed: seed of the training whose first batch is drawn; 12345 when left out.
        output_dir: folder of data_check.json and first_batch.png; data_check in the bundle when left out.
        allow_edited: check a bundle whose configs were edited after it was generated.
        device_only: check the first GPU, or the CPU where there is none, or what --device names, and no bundle.
        **overrides: replaces a value of the configuration, as for medcalib run.
    """
    if device_only:
        options = {"bundle": bundle, "seed": seed, "output_dir": output_dir, "allow_edited": allow_edited or None}
        device = overrides.pop("device", None)
        for name, value in (options | overrides).items():
            if value is not None:
                raise UserError(f"--device_only checks no bundle, so --{name} means nothing beside it; leave one out.")
        from medcalib.device_check import check_device

        checked = check_device(device)
        print(checked.text)
        sys.exit(0 if checked.works else 2)
    if bundle is None:
        raise UserError("--bundle is missing; medcalib generate --list shows the bundles there are.")
    if "debug" in overrides:
        raise UserError("medcalib check has no option --debug, since it reads every case; --limit_cases=3 reads fewer.")

    from medcalib.data_check.check_data import check_data

    check = check_data(bundle, seed=seed, allow_edited=allow_edited, output_dir=output_dir, overrides=overrides)
    print(check.text)
    sys.exit(2 if check.report["problems"] else 0)
