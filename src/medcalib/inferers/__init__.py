"""Inferers that draw the members of a predictive distribution and return the logits of their mean."""

from medcalib.inferers.portable_network import PortableNetwork
from medcalib.inferers.prediction_cache import PredictionCache
from medcalib.inferers.samplers import EnsembleSampler, HeadSampler, MCDropoutSampler, TTASampler
from medcalib.inferers.sampling import SamplingInferer

__all__ = [
    "EnsembleSampler",
    "HeadSampler",
    "MCDropoutSampler",
    "PortableNetwork",
    "PredictionCache",
    "SamplingInferer",
    "TTASampler",
]
