#!/usr/bin/env python
"""Check whether trainings work on the GPU, or on the CPU where there is none.

python scripts/check_device.py [--device cuda:1]
"""

import sys

import fire

from medcalib.cli.command_line import run_command


def main(device: str | None = None) -> None:
    """Bin a small volume with every implementation there is for a device, train for one step, and say what works.

    The exit code is 2 if a training would fail, else 0.

    Args:
        device: cpu, cuda or cuda:1, for example; the first GPU, or the CPU where there is none, when left out.
    """
    from medcalib.bundle.check_device import check_device

    check = check_device(None if device is None else str(device))
    print(check.text)
    sys.exit(0 if check.works else 2)


if __name__ == "__main__":
    run_command(fire.Fire, main, name="check_device.py")
