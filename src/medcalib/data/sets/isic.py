"""Case lists of ISIC 2016, the skin lesion challenge of the International Skin Imaging Collaboration."""

from pathlib import Path

from medcalib.data.cases import Case, Split, assemble_split
from medcalib.data.dataset_folders import Download, make_case, visible
from medcalib.data.splits import set_aside

__all__ = ["isic_cases"]

_DOWNLOAD = Download(
    "the folder that holds ISBI2016_ISIC_Part1_Training_Data and the other three folders of the challenge, or to that "
    "of imgs, masks, imgs_test and masks_test",
    "the data can be had from https://challenge.isic-archive.com/data/#2016",
)
_OFFICIAL = "ISBI2016_ISIC_Part1_{}_{}"
_LAYOUTS = (
    {part: [_OFFICIAL.format(part, what) for what in ("Data", "GroundTruth")] for part in ("Training", "Test")},
    {"Training": ["imgs", "masks"], "Test": ["imgs_test", "masks_test"]},
)
_SUFFIX = ".jpg"
_MASK = "_Segmentation"


def isic_cases(dataset_dir: str | Path, validation_fraction: float = 0.1, seed: int = 0) -> Split:
    """List the images of ISIC 2016, part 1.

    Two layouts are known: the four folders of the challenge, and ``imgs``, ``masks``, ``imgs_test``, ``masks_test``.
    Images are ``ISIC_0000000.jpg``, their masks ``ISIC_0000000_Segmentation.png`` or ``ISIC_0000000.png``; cases are
    named by the images.

    Args:
        dataset_dir: folder that holds the four folders.
        validation_fraction: share of the training images that is for validation.
        seed: seed of that division.

    Returns:
        The split; the test part is that of the challenge.

    Raises:
        UserError: if the folder is missing or laid out differently, if an image has no mask or a mask no image, or if
            there are too few images.
    """
    root = _DOWNLOAD.root(dataset_dir)
    layout = next((known for known in _LAYOUTS if (root / known["Training"][0]).is_dir()), _LAYOUTS[0])
    parts = {}
    for part, (images, masks) in layout.items():
        looked_for = f"{images}/*{_SUFFIX}"
        if not visible(root / images, f"*{_SUFFIX}"):
            raise _DOWNLOAD.nothing_matched(root, looked_for)
        parts[part] = _DOWNLOAD.complete(_found(root / images, root / masks), root, looked_for)
    training, validation = set_aside(parts["Training"], validation_fraction, seed)
    return assemble_split(training, validation, parts["Test"])


def _found(images: Path, masks: Path) -> list[Case]:
    """A case for every image and every mask; a file that is missing has the path at which it was looked for."""
    mask_of = {path.stem.removesuffix(_MASK): path for path in visible(masks, "*.png")}
    names = {path.stem for path in visible(images, f"*{_SUFFIX}")} | mask_of.keys()
    return [
        make_case(name, images / f"{name}{_SUFFIX}", mask_of.get(name, masks / f"{name}{_MASK}.png")) for name in names
    ]
