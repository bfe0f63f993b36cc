"""Compare evaluations that lie in folders."""

from medcalib.compare.bootstrap import BootstrapInterval, bootstrap_interval
from medcalib.compare.evaluations import Evaluation, read_evaluation
from medcalib.compare.pareto import pareto_front

__all__ = ["BootstrapInterval", "Evaluation", "bootstrap_interval", "pareto_front", "read_evaluation"]
