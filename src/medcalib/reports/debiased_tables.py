"""Tables of calibration errors less what finite numbers of voxels and cases add to them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medcalib.files.result_tables import case_table
from medcalib.functional import debiased_calibration_error, debiased_errors
from medcalib.handlers.binned_cases import BinnedCases

__all__ = ["debiased_tables"]


def debiased_tables(binned: BinnedCases) -> dict[str, pd.DataFrame]:
    """Debiased calibration errors from bin statistics, beside the plain ones.

    Args:
        binned: bin statistics of the cases, each once.

    Returns:
        Tables by metric: ``macro_ece_debiased``, one row per case, of voxels that are taken to be independent;
        ``micro_ece_debiased``, pooled, with the cases as what is independent; ``micro_rmsce``, the pooled root of the
        mean squared gap, and ``micro_rmsce_debiased``, which is 0 where the gaps are smaller than those of chance.
        NaN as of the plain errors.

    Example:
        >>> import torch
        >>> from medcalib.functional import BinStatistics
        >>> parts = (torch.tensor([[[n]], [[n]]]) for n in (10, 5.0, 7.0))
        >>> tables = debiased_tables(BinnedCases(["a", "b"], ("organ",), BinStatistics(*parts)))
        >>> tables["macro_ece_debiased"].round(4).to_csv(index=False).split()
        ['filename,organ,mean', 'a,0.1889,0.1889', 'b,0.1889,0.1889']
    """
    absent, statistics = binned.absent(), binned.statistics
    nowhere = absent.all(0, keepdim=True)
    of_cases = debiased_calibration_error(statistics).masked_fill(absent, np.nan)
    tables = {"macro_ece_debiased": case_table(binned.cases, binned.classes, of_cases.numpy())}
    for name, errors in debiased_errors(statistics, "case").items():
        known = errors.masked_fill(nowhere, np.nan).numpy()
        tables[f"micro_{name}"] = case_table(["dataset"], binned.classes, known)
    return tables
