"""Compare evaluations that lie in folders."""

from medcalib.compare.bootstrap import BootstrapInterval, bca_intervals, bootstrap_interval
from medcalib.compare.comparison import Comparison, compare
from medcalib.compare.comparison_tables import comparison_text, write_tables
from medcalib.compare.evaluations import Evaluation, find_evaluations, read_evaluation
from medcalib.compare.fold_evaluations import evaluate_folds, seen_by_folds
from medcalib.compare.merged_folds import merge_folds
from medcalib.compare.output_folder import comparison_folder
from medcalib.compare.pareto import pareto_front
from medcalib.compare.significance import PairedTests, PercentChange, holm, paired_tests, percent_change

__all__ = [
    "BootstrapInterval",
    "Comparison",
    "Evaluation",
    "PairedTests",
    "PercentChange",
    "bca_intervals",
    "bootstrap_interval",
    "compare",
    "comparison_folder",
    "comparison_text",
    "evaluate_folds",
    "find_evaluations",
    "holm",
    "merge_folds",
    "paired_tests",
    "pareto_front",
    "percent_change",
    "read_evaluation",
    "seen_by_folds",
    "write_tables",
]
