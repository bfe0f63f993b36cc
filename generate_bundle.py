#!/usr/bin/env python
"""Compose one data, one loss and one method fragment into a MONAI bundle.

python generate_bundle.py --data phantom --loss baseline_dice_ce --method deterministic
python generate_bundle.py --list
"""

from pathlib import Path
from typing import Any

import fire

from medcalib.bundle.compose import DEFAULT_METHOD, generate, list_fragments
from medcalib.cli.command_line import run_command, typed_options
from medcalib.errors import UserError, suggestion

TEMPLATES = Path(__file__).resolve().parent / "bundle_templates"


@typed_options
def main(
    data: str | None = None,
    loss: str | None = None,
    method: str = DEFAULT_METHOD,
    bundles_dir: str = "bundles",
    list: bool = False,  # noqa: A002
    check: bool = False,
    **unknown: Any,
) -> None:
    """Generate a bundle and print its path as the last line.

    Args:
        data: name of a data fragment, such as phantom.
        loss: name of a loss fragment, such as baseline_dice_ce.
        method: name of a method or a calibrator, or both joined by +; deterministic when left out.
        bundles_dir: folder in which bundles lie.
        list: print what exists instead.
        check: also resolve every _target_ and $import with MONAI (takes some seconds).
        **unknown: options that do not exist are an error.
    """
    if unknown:
        name = next(iter(unknown))
        known = ["data", "loss", "method", "bundles_dir", "list", "check"]
        raise UserError(f"generate_bundle.py has no option --{name}{suggestion(name, known)}")
    if list:
        _print_list(Path(bundles_dir))
        return
    for option, value in (("data", data), ("loss", loss)):
        if value is None:
            raise UserError(f"--{option} is missing; python generate_bundle.py --list shows what there is.")
    bundle, created = generate(TEMPLATES, Path(bundles_dir), data, loss, method)
    if check:
        from medcalib.bundle.resolve import check_bundle

        check_bundle(bundle)
        print("Every _target_ and $import resolves.")
    print("Generated the bundle" if created else "The bundle exists already and was left untouched:")
    print(bundle)


def _print_list(bundles_dir: Path) -> None:
    for kind, fragments in list_fragments(TEMPLATES / "configs").items():
        print(f"{kind}:")
        width = max(map(len, fragments), default=0)
        for name, description in fragments.items():
            print(f"  {name:<{width}}  {description}".rstrip())
    bundles = sorted(path.parent.parent for path in bundles_dir.glob("[!.]*/configs/metadata.json"))
    print(f"bundles in {bundles_dir}:")
    for bundle in bundles:
        print(f"  {bundle.name}")


if __name__ == "__main__":
    run_command(fire.Fire, main, name="generate_bundle.py")
