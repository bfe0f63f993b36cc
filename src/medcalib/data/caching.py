"""Cached datasets whose random transforms depend on seed, epoch and case alone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from monai.data import CacheDataset, Dataset, PersistentDataset
from monai.transforms import Compose, Randomizable
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.utils._pytree import tree_map

from medcalib import __version__
from medcalib.data.fingerprint import fingerprint
from medcalib.errors import UserError, plain_reason
from medcalib.files.image_parts import image_parts
from medcalib.files.tensors import load_tensors, save_tensors
from medcalib.files.writing import complete_file, remove_abandoned
from medcalib.seeds import derived_seed

__all__ = ["SeededCacheDataset", "SeededDataset", "SeededPersistentDataset"]

# packages besides this one by which prepared cases may differ in their last bits
PREPARING = ("monai", "nibabel", "numpy", "torch")


class SeededDataset(Dataset):
    """What makes a cached dataset of MONAI, named as the second base, seed its random transforms per epoch and case.

    What a case looks like in an epoch does not depend on the number of workers, on how long they live, on the order of
    the cases, or on what was computed before, so a resumed training sees what the uninterrupted one would have seen.

    Args:
        data: the cases.
        transform: deterministic transforms first, then random ones.
        seed: seed of the run.
        **kwargs: as of the other base.
    """

    def __init__(self, data: Sequence, transform: Any, seed: int = 0, **kwargs: Any) -> None:
        self.seed = seed
        self._epoch = torch.ones((), dtype=torch.int64)
        if isinstance(transform, Compose):
            transform = transform.flatten()  # a nested Compose would count as random and not be cached
        super().__init__(data=data, transform=transform, **kwargs)

    @property
    def epoch(self) -> int:
        """The epoch whose random numbers are drawn, counted from 1."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random numbers are drawn, also by workers that live on from epochs before."""
        if not self._epoch.is_shared():
            # without shared memory there are no workers either
            with suppress(RuntimeError):
                self._epoch.share_memory_()
        self._epoch.fill_(epoch)

    def _transform(self, index: int) -> Any:
        if isinstance(self.transform, Compose | Randomizable):
            self.transform.set_random_state(seed=derived_seed(self.seed, self.epoch, index))
        return super()._transform(index)


class SeededCacheDataset(SeededDataset, CacheDataset):
    """Keep the results of the deterministic transforms in memory, and seed the random ones per epoch and case.

    Args:
        data: the cases.
        transform: deterministic transforms first, then random ones.
        seed: seed of the run.
        **kwargs: as of `monai.data.CacheDataset`.

    Example:
        >>> from monai.transforms import RandShiftIntensity
        >>> import torch
        >>> shift = RandShiftIntensity(1.0, prob=1.0)
        >>> dataset = SeededCacheDataset([torch.zeros(1, 2, 2)], shift, seed=0, progress=False)
        >>> first = dataset[0]
        >>> bool((dataset[0] == first).all())
        True
        >>> dataset.set_epoch(2)
        >>> bool((dataset[0] == first).all())
        False
    """


class SeededPersistentDataset(SeededDataset, PersistentDataset):
    """Keep the results of the deterministic transforms on disk, and seed the random ones per epoch and case.

    For datasets whose cases take long to prepare and do not fit into memory. What is on disk is used as long as the
    case, the size and time of change of its files, the transforms with the source files of their classes, and the
    versions of this package, MONAI, PyTorch, NumPy and NiBabel are the same. Any number of processes may share the
    folder, and it may be deleted at any time. A file that is damaged is made anew, with a warning. Items hold plain
    tensors, without metadata such as the affine, whether they are read from disk or not.

    This class replaces how `monai.data.PersistentDataset` (1.6) reads, writes and names files, for that one fails on a
    file cut short and returns wrong values from one with a wrong bit; an item has metadata only when it is read for the
    first time; and its ``pickle_hashing`` of equal transforms differs with which of their texts are one object, and
    does not see that the code of a transform, or a file of the case, changed.

    Args:
        data: the cases.
        transform: deterministic transforms first, then random ones, if any.
        cache_dir: folder of the prepared cases, made if missing; None for no cache.
        seed: seed of the run.

    Raises:
        UserError: the folder cannot be written, or a transform holds what cannot be described, such as a lambda of an
            expression, so that a change of it would not be seen.

    Example:
        >>> import tempfile
        >>> from monai.transforms import Compose, RandShiftIntensity, ScaleIntensity
        >>> transform = Compose([ScaleIntensity(), RandShiftIntensity(1.0, prob=1.0)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     dataset = SeededPersistentDataset([torch.eye(3)[None]], transform, folder, seed=0)
        ...     bool((dataset[0] == dataset[0]).all()), len(list(Path(folder).glob("*.pt")))
        (True, 1)
    """

    def __init__(self, data: Sequence, transform: Any, cache_dir: str | Path | None, seed: int = 0) -> None:
        folder = None if cache_dir is None else Path(cache_dir).expanduser()
        if folder is not None:
            _make_writable(folder)
        described = {} if folder is None else {"hash_func": _case_key, "hash_transform": _transform_key}
        super().__init__(data=data, transform=transform, seed=seed, cache_dir=folder, **described)

    def set_data(self, data: Sequence) -> None:
        """Replace the cases; what is on disk stays, for other processes may be using it."""
        self.data = data

    def _cachecheck(self, item_transformed: Any) -> Any:
        """The case after the deterministic transforms, from disk if it is there."""
        if self.cache_dir is None:
            return self._prepared(item_transformed)
        path = self.cache_dir / f"{self.hash_func(item_transformed).decode()}-{self.transform_hash}.pt"
        try:
            return load_tensors(path, "prepared case", "the case is prepared anew")
        except FileNotFoundError:
            pass
        except UserError as error:
            warnings.warn(str(error), stacklevel=2)
        prepared = self._prepared(item_transformed)
        _write(prepared, path)
        return prepared

    def _prepared(self, case: Any) -> Any:
        prepared = self._pre_transform(deepcopy(case))
        return tree_map(_compact, convert_to_tensor(prepared, convert_numeric=False, track_meta=False))


def _case_key(case: Any) -> bytes:
    """Fingerprint of a case, with its files where they lie and as they are now."""
    return fingerprint(tree_map(_with_file, case))[:32].encode()


def _with_file(leaf: Any) -> Any:
    """For the path of a file where that is, its size and when it changed; of an image of several, that of each."""
    if not isinstance(leaf, str | Path):
        return leaf
    try:
        path = Path(leaf).resolve()
        path.stat()
        found = [_as_now(part) for part in image_parts(path) if part.is_file()]
    except (OSError, ValueError):  # a text that is no path
        return leaf
    return found[0] if len(found) == 1 and path.is_file() else found or leaf


def _as_now(path: Path) -> list[Any]:
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]


def _transform_key(transforms: Sequence[Any]) -> bytes:
    versions = [__version__, *map(version, PREPARING)]
    try:
        return fingerprint([versions, *transforms])[:32].encode()
    except TypeError as error:
        raise UserError(
            f"Prepared cases cannot be kept on disk, since a change of the preprocessing might not be seen ({error}): "
            f"put it into a module, or set train::dataset::cache_dir and validate::dataset::cache_dir to null."
        ) from None


def _compact(leaf: Any) -> Any:
    """A tensor without the rest of a larger one of which it is a part, which would be written, too."""
    if isinstance(leaf, Tensor) and leaf.untyped_storage().nbytes() > leaf.nbytes:
        return leaf.clone()
    return leaf


def _make_writable(folder: Path) -> None:
    try:
        with complete_file(folder / "probe") as draft:
            draft.touch()
        (folder / "probe").unlink(missing_ok=True)
    except (UserError, OSError) as error:
        raise _not_writable(folder, error) from None
    remove_abandoned(folder)


def _not_writable(folder: Path, error: BaseException) -> UserError:
    return UserError(
        f"Prepared cases cannot be written to {folder} ({plain_reason(error.__cause__ or error)}); choose another "
        f"folder with --train::dataset::cache_dir, or null to prepare them in every epoch."
    )


def _write(prepared: Any, path: Path) -> None:
    try:
        save_tensors(prepared, path)
    except UserError as error:
        raise _not_writable(path.parent, error) from None
