"""Say what the images of a training are like, for those that are predicted later."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from medcalib.errors import UserError, plain_reason
from medcalib.image_files.image_traits import grid_traits, image_traits, ranges_of_traits
from medcalib.keys import CaseKeys
from medcalib.transforms.loading import LoadCased

__all__ = ["traits_of_training"]

# so many headers are read, and so many images whole, fewer of large ones: half a minute's reading at most
MOST_HEADERS = 100
MOST_IMAGES = 10
MOST_VALUES = 200_000_000
_FILES = (CaseKeys.CASE, CaseKeys.IMAGE, CaseKeys.CROP, CaseKeys.FRAME)


def traits_of_training(
    cases: Sequence[Mapping[Any, Any]], load: LoadCased, channel_names: Sequence[str]
) -> dict[str, Any] | None:
    """Ranges of size and spacing over the headers of evenly spaced images, and of intensities over few of them.

    Args:
        cases: those of the training.
        load: from the files of a case to the image as it is stored.
        channel_names: one name for each channel.

    Returns:
        As of `medcalib.image_files.image_traits.ranges_of_traits`, with ``channel_names``; None if it cannot be found
        out, since no training may fail of it.

    Warns:
        UserWarning: it cannot be found out, and why.
    """
    kept: list[dict[Any, Any]] = [{key.value: case[key] for key in _FILES if key in case} for case in cases]
    try:
        traits: list[dict[str, list]] = []
        grids = [load.image_grid(case) for case in _spaced(kept, MOST_HEADERS)]
        for grid in grids:
            traits.append(grid_traits(grid.shape, grid.affine))
        largest = max(prod(grid.shape) for grid in grids) * len(channel_names)
        for case in _spaced(kept, min(MOST_IMAGES, max(1, MOST_VALUES // largest))):
            image = load(case)[CaseKeys.IMAGE]
            traits.append(image_traits(image.as_tensor().numpy(), image.affine.numpy() if image.ndim == 4 else None))
        return {**ranges_of_traits(traits), "channel_names": [str(name) for name in channel_names]}
    except UserError:  # which the training says itself when it gets there
        return None
    except Exception as error:  # whatever a dataset, or a loader of one's own, makes of it
        warnings.warn(
            f"What the images of this training are like is not recorded ({plain_reason(error)}), so nobody will look "
            f"whether new images are like them.",
            stacklevel=2,
        )
        return None


def _spaced(cases: list[dict[Any, Any]], most: int) -> list[dict[Any, Any]]:
    """At most so many of the cases, evenly spaced."""
    return cases[:: -(-len(cases) // most)]
