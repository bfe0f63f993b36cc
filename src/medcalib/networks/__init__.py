"""Networks and their weights."""

from medcalib.networks.classifier import ImageClassifier, load_features
from medcalib.networks.convolutions import fast_convolutions, plain_convolutions
from medcalib.networks.dropout import insert_dropout, stochastic_dropout
from medcalib.networks.ensemble import NetworkEnsemble, load_ensemble
from medcalib.networks.freezing import freeze_before_dropout
from medcalib.networks.layer_ensemble import LayerEnsemble
from medcalib.networks.multi_head import MultiHead
from medcalib.networks.reuse import reuse_deterministic
from medcalib.networks.strides import suited_strides
from medcalib.networks.weight_transfer import load_initial_weights
from medcalib.networks.weights import load_weights, weights_digest

__all__ = [
    "ImageClassifier",
    "LayerEnsemble",
    "MultiHead",
    "NetworkEnsemble",
    "fast_convolutions",
    "freeze_before_dropout",
    "insert_dropout",
    "load_ensemble",
    "load_features",
    "load_initial_weights",
    "load_weights",
    "plain_convolutions",
    "reuse_deterministic",
    "stochastic_dropout",
    "suited_strides",
    "weights_digest",
]
