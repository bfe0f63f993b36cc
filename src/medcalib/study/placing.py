"""Generate the bundles of a study where it plans them."""

from __future__ import annotations

import os
from pathlib import Path

from medcalib.bundle.compose import generate
from medcalib.bundle.templates import find_templates
from medcalib.errors import UserError
from medcalib.files.writing import write_json
from medcalib.study.planned_runs import BundlePlace, Plan

__all__ = ["SETTINGS", "place_bundles"]

SETTINGS = "settings.json"
"""In a folder whose results have settings of their own: what they are."""


def place_bundles(plan: Plan, bundles_dir: Path) -> None:
    """Generate the bundles, unless they are there, and link them to those whose weights they use.

    Raises:
        UserError: a bundle was edited, something else is in the place of one, or the folder cannot be written.
    """
    for place in plan.places.values():
        parent = place.folder.parent
        if parent != bundles_dir:
            _write_settings(parent, place.settings)
        for folder in place.weights_from:
            _link(parent / folder.name, folder)
        made, _ = generate(find_templates(), parent, **_recipe(place), fold=place.fold)
        if made != place.folder:
            raise UserError(f"{place.folder} is planned, but {made} was generated; the templates changed meanwhile.")
    for folder, settings in plan.output_folders.items():
        _write_settings(folder, settings)


def _recipe(place: BundlePlace) -> dict[str, str]:
    return {kind: place.fragments[kind] for kind in ("data", "loss", "method", "network")}


def _write_settings(folder: Path, settings: dict) -> None:
    if not (folder / SETTINGS).exists():
        write_json(folder / SETTINGS, {"overrides": settings})


def _link(link: Path, folder: Path) -> None:
    if link.exists() and link.resolve() == folder.resolve():
        return
    if os.path.lexists(link):
        raise UserError(f"{link} is in the place of a link to {folder}, whose weights are to be used; move it away.")
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        link.symlink_to(os.path.relpath(folder, link.parent), target_is_directory=True)
    except OSError as error:
        raise UserError(f"{link} cannot be written ({error.strerror}); choose another --bundles_dir.") from None
