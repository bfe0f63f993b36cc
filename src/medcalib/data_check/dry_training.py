"""A training whose parts can be made without filling a cache and without the files of weights."""

from __future__ import annotations

from typing import Any

from monai.bundle import ConfigParser

__all__ = ["UNCACHED", "make_dry"]

UNCACHED = "uncached_dataset"


def make_dry(parser: ConfigParser) -> None:
    """Change the configuration of a training, of which nothing was made yet.

    The id `UNCACHED` becomes the dataset of the training without its cache, which the loader then reads without worker
    processes. The network is made with neither the weights of a sibling nor those of a file.
    """
    dataset = parser.get("train::dataset")
    parser[UNCACHED] = {
        "_target_": "medcalib.data.caching.SeededCacheDataset",
        "data": dataset["data"],
        "transform": dataset["transform"],
        "seed": "@seed",
        "cache_rate": 0.0,
        "progress": False,
    }
    parser["train::dataloader::dataset"] = f"@{UNCACHED}"
    parser["train::dataloader::num_workers"] = 0
    parser["train::network"] = _before_training(parser.get("train::network"))


def _before_training(network: Any) -> Any:
    """The configuration of a network without the weights that it may begin with."""
    if not isinstance(network, dict):
        return network
    if network.get("_target_") == "medcalib.networks.load_weights":
        return _before_training(network["network"])
    if network.get("_target_") == "medcalib.networks.load_features":
        return network | {"path": None}
    return {key: _before_training(value) for key, value in network.items()}
