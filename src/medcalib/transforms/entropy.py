"""Maps of uncertainty from probabilities."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep

from medcalib.functional.uncertainty import entropy
from medcalib.keys import Activation

__all__ = ["Entropyd"]


class Entropyd(MapTransform):
    """Add the entropy of probabilities, in nats.

    Args:
        keys: keys of probabilities (C, ...).
        names: keys under which the entropies (1, ...) are added.
        activation: ``softmax`` for exclusive classes: at most ln C; ``sigmoid``: the sum over the channels, each a
            binary problem.

    Example:
        >>> import torch
        >>> Entropyd("pred", "entropy")({"pred": torch.full((2, 1, 1), 0.5)})["entropy"]
        tensor([[[0.6931]]])
    """

    def __init__(
        self, keys: KeysCollection, names: KeysCollection, activation: Activation | str = Activation.SOFTMAX
    ) -> None:
        super().__init__(keys)
        self.names = ensure_tuple_rep(names, len(self.keys))
        self.activation = Activation(activation)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with the maps added."""
        result = dict(data)
        for key, name in self.key_iterator(result, self.names):
            result[name] = entropy(result[key][None], self.activation)[0]
        return result
