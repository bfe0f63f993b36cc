"""Bundles of the folds of a cross-validation: what sets them apart, and which belong together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medcalib.bundle.digest import config_digest
from medcalib.bundle.fragments import FragmentKind, fragment_path, read_yaml
from medcalib.bundle.layout import CONFIGS, METADATA, bundle_configs
from medcalib.errors import UserError, listed

__all__ = ["ALL", "BundleFold", "DataFold", "bundle_fold", "bundles_of_folds", "chosen_folds", "fold_settings"]

ALL = "all"
"""In the place of the number of a fold: all of them."""
_FOLD, _NUM_FOLDS = "data::fold", "data::num_folds"
# of data that do not say how many folds they have, those of published work
_USUAL = 5


class DataFold(NamedTuple):
    """One fold of a cross-validation.

    Attributes:
        number: which it is, counted from 0.
        num_folds: in how many the cases are divided by chance; None of folds that the data have.
    """

    number: int
    num_folds: int | None = None


class BundleFold(NamedTuple):
    """What a bundle is in a cross-validation.

    Attributes:
        number: its fold; None if its data have none.
        num_folds: how many there are.
        digest: that of its configs without the fold, which all bundles of a cross-validation share.
    """

    number: int | None
    num_folds: int
    digest: str


def chosen_folds(
    templates_dir: Path, data: str, fold: int | str | None = None, folds: int | None = None
) -> list[DataFold | None]:
    """The folds of which bundles are asked for.

    Args:
        templates_dir: the folder holding ``configs/``.
        data: name of a data fragment.
        fold: number of a fold, or ``all``; None if nothing was said.
        folds: in how many the cases are to be divided by chance; None to take the folds that the data have.

    Returns:
        The folds; None stands for the division of the data as it is.

    Raises:
        UserError: the data have no folds of their own, or have some although others are asked for, or lack this one.
    """
    if fold is None and folds is None:
        return [None]
    about = read_yaml(fragment_path(templates_dir / CONFIGS, FragmentKind.DATA, data)).get("data")
    about = about if isinstance(about, dict) else {}
    if folds is None:
        if "fold" not in about:
            raise UserError(
                f"The data {data} have no folds of their own; --folds 5 divides their cases in five by chance, "
                f"patients together."
            )
        number = own_num_folds(about)
    else:
        if "fold" in about:
            raise UserError(f"The data {data} have folds of their own; give --fold {ALL} instead of --folds.")
        if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
            raise UserError(f"--folds is {folds!r}; give a whole number of at least 2.")
        number = folds
    if fold in (None, ALL):
        return [DataFold(one, folds) for one in range(number)]
    if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < number:
        raise UserError(f"--fold is {fold!r}, but there are the folds 0 to {number - 1}; choose one, or {ALL}.")
    return [DataFold(fold, folds)]


def own_num_folds(data: Mapping[str, Any]) -> int:
    """How many folds data have, by what their fragment says.

    Example:
        >>> own_num_folds({"fold": 0, "num_folds": 3}), own_num_folds({"fold": 0})
        (3, 5)
    """
    cases = data.get("cases")
    cases = cases if isinstance(cases, Mapping) else {}
    for number in (data.get("num_folds"), cases.get("num_folds")):
        if isinstance(number, int):
            return number
    if isinstance(cases.get("splits"), str):
        path = Path(str(data.get("dataset_dir"))).expanduser() / Path(cases["splits"]).expanduser()
        try:
            # a list, of which each entry is a fold
            return len(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            # it lies elsewhere, or whoever reads the cases says what is wrong with it
            return _USUAL
    return _USUAL


def fold_settings(fold: DataFold | None, data: Mapping[str, Any]) -> dict[str, Any]:
    """What is put behind a data fragment so that it is that of a fold, by id; nothing for the fold that it has.

    Args:
        fold: the fold; None leaves the division as it is.
        data: the fragment below its key ``data``.

    Example:
        >>> fold_settings(DataFold(1), {"fold": 0})
        {'data::fold': 1}
        >>> sorted(fold_settings(DataFold(1, 5), {}))
        ['data::fold', 'data::fold_seed', 'data::num_folds', 'split']
    """
    if fold is None:
        return {}
    if fold.num_folds is None:
        return {} if data.get("fold") == fold.number else {_FOLD: fold.number}
    return {
        _FOLD: fold.number,
        _NUM_FOLDS: fold.num_folds,
        "data::fold_seed": 0,
        "split": {
            "_target_": "medcalib.data.split_in_folds",
            "split": "@data::cases",
            "fold": "@data::fold",
            "num_folds": "@data::num_folds",
            "seed": "@data::fold_seed",
            "calibration_cases": "@calibration_cases",
        },
    }


def bundle_fold(bundle: Path) -> BundleFold:
    """The fold of a bundle, by its configs.

    Raises:
        UserError: one of its files cannot be read, or it is no bundle.
    """
    configs = {path.stem: read_yaml(path) for path in bundle_configs(bundle / CONFIGS)}
    if not isinstance(configs.get("data", {}).get("data"), dict):
        raise UserError(f"{bundle} is no bundle, whose configs/data.yaml says what its folds are.")
    fragment = dict(configs["data"])
    own = dict(fragment["data"])
    number = fragment.pop(_FOLD, own.get("fold"))
    own.pop("fold", None)
    num_folds = fragment.get(_NUM_FOLDS, own_num_folds(fragment["data"]))
    digest = config_digest({**configs, "data": {**fragment, "data": own}})
    return BundleFold(number, num_folds, digest)


def bundles_of_folds(bundles: list[Path]) -> dict[int, Path]:
    """The bundles of a cross-validation by their folds, in order.

    Args:
        bundles: one of them, beside which the others lie, or all.

    Raises:
        UserError: a bundle is of no cross-validation, has other settings than the others, or the bundle of a fold is
            missing or there twice.
    """
    first = bundle_fold(bundles[0])
    if first.number is None:
        raise UserError(
            f"{bundles[0]} is the bundle of no fold; generate those of a cross-validation with medcalib generate "
            f"--folds 5, or of data that have folds with --fold {ALL}."
        )
    places = bundles
    if len(bundles) == 1:
        others = sorted(path.parent.parent for path in bundles[0].resolve().parent.glob(f"[!.]*/{CONFIGS}/{METADATA}"))
        begin = bundles[0].resolve().name.rpartition("_")[0]
        alike = [path for path in others if path.name.rpartition("_")[0] == begin and not path.is_symlink()]
        places = [bundles[0].parent / path.name for path in alike if bundle_fold(path).digest == first.digest]
    found: dict[int, Path] = {}
    for place in places:
        fold = bundle_fold(place)
        if fold.digest != first.digest or fold.number is None:
            raise UserError(
                f"{place} differs from {bundles[0]} in more than the fold, so that their results do not belong "
                f"together; give the bundles of one cross-validation."
            )
        if fold.number in found:
            raise UserError(f"{found[fold.number]} and {place} are of the same fold, {fold.number}; give one of them.")
        found[fold.number] = place
    if lacking := [str(number) for number in range(first.num_folds) if number not in found]:
        raise UserError(
            f"Of the folds 0 to {first.num_folds - 1} of {bundles[0].name} there is no bundle of {listed(lacking)}"
            f"{f' in {bundles[0].resolve().parent}' * (len(bundles) == 1)}; generate it with medcalib generate --fold "
            f"{lacking[0]} and the options of the others."
        )
    return dict(sorted(found.items()))
