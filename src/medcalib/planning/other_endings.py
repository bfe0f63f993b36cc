"""Images beside those that a pattern names, which end otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medcalib.data.dataset_folders import packed_otherwise
from medcalib.data.file_patterns import checked_pattern, matching_files
from medcalib.errors import listed
from medcalib.image_files.volumes_in_files import VOLUME_ENDINGS
from medcalib.planning.dataset_source import PICTURE_ENDINGS

__all__ = ["passed_over"]


def passed_over(root: Path, image: str, labels: Sequence[str]) -> list[str]:
    """What a user should know of images that have the name of one, but another ending than the pattern.

    Args:
        root: folder of the dataset.
        image: pattern of the images.
        labels: patterns of the labels, whose files are none.

    Returns:
        A sentence, or none.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a.png", "b.png", "c.JPG", "a_mask.png"):
        ...         Path(folder, name).touch()
        ...     passed_over(Path(folder), "{case}.png", ["{case}_mask.png"])
        ['1 image beside the others ends otherwise than .png (c.JPG) and is left out; convert it, or name all alike.']
    """
    for endings in (PICTURE_ENDINGS, VOLUME_ENDINGS):
        own = next((ending for ending in sorted(endings, key=len)[::-1] if image.lower().endswith(ending)), "")
        if own:
            break
    else:
        return []
    stem, own = image[: -len(own)], image[-len(own) :]
    patterns = [checked_pattern(root, text) for text in (image, *labels)]
    others = [f"{stem}{one}" for ending in endings for one in (ending, ending.upper())]
    others = [one for one in others if one not in (*patterns, packed_otherwise(image))]
    found = sorted({path.name for one, path, _ in matching_files(root, [*patterns, *others]) if one in others})
    if not found:
        return []
    single = len(found) == 1
    number = f"{len(found)} image{'s' * (not single)} beside the others end{'s' * single} otherwise than {own}"
    mend = f"{'is' if single else 'are'} left out; convert {'it' if single else 'them'}, or name all alike"
    return [f"{number} ({listed(found, 3)}) and {mend}."]
