"""Configurations of many bundles, whose files are mostly the same: each text is read once."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from medcalib.bundle.fragments import lookup, read_yaml
from medcalib.bundle.layout import CONFIGS, Mode, config_files
from medcalib.bundle.opened import Bundle
from medcalib.bundle.overrides import own_stage
from medcalib.bundle.shifted_cases import asks_for_corruption

__all__ = ["MergedConfigs"]


class MergedConfigs:
    """Merge configurations as MONAI does.

    Args:
        debug: whether those of runs of seconds.
    """

    def __init__(self, debug: bool = False) -> None:
        self.debug = debug
        self._texts: dict[bytes, dict[str, Any]] = {}
        self._merged: dict[tuple[str, Mode, bool], dict[str, Any]] = {}

    def config(self, bundle: Bundle, mode: Mode, ids: Iterable[str] = ()) -> dict[str, Any]:
        """The merged configuration of a mode; it must not be changed.

        Args:
            bundle: the bundle.
            mode: the mode.
            ids: those that will be overridden, which bring the files that know them.
        """
        shifted = mode is not Mode.TRAIN and any(map(asks_for_corruption, ids))
        if (bundle.name, mode, shifted) not in self._merged:
            parser = ConfigParser(config={})
            files = config_files(bundle.folder / CONFIGS, mode, self.debug)
            if shifted:
                files[len(files) - self.debug : len(files) - self.debug] = bundle.corruption_overlays(mode)
            for path in files:
                for key, value in self._read(path).items():
                    merge_kv(parser, key, value)
            self._merged[bundle.name, mode, shifted] = parser.get()
        return self._merged[bundle.name, mode, shifted]

    def parser(self, bundle: Bundle, mode: Mode, overrides: Mapping[str, Any], seed: int) -> ConfigParser:
        """A parser of a mode with overrides, which are known to be possible; nothing of it was made yet."""
        parser = ConfigParser(config=copy.deepcopy(self.config(bundle, mode, overrides)))
        own = {"bundle_root": str(bundle.folder), "edited": False, "allow_unfinished": False, "seed": seed}
        parser.update({**own, **own_stage(overrides)})
        return parser

    def lacks(self, bundle: Bundle, mode: Mode, id_: str) -> bool:
        """Whether neither an id is there nor what it would belong to."""
        parent = id_.rpartition("::")[0]
        config = self.config(bundle, mode, [id_])
        return not lookup(config, id_)[0] and not (parent and lookup(config, parent)[0])

    def _read(self, path: Path) -> dict[str, Any]:
        text = path.read_bytes()
        if text not in self._texts:
            self._texts[text] = read_yaml(path)
        return copy.deepcopy(self._texts[text])
