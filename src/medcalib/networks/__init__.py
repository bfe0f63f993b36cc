"""Networks and their weights."""

from medcalib.networks.weights import load_weights, weights_digest

__all__ = ["load_weights", "weights_digest"]
