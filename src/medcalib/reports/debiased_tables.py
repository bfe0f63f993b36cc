"""Tables of calibration errors less what finite numbers of voxels and cases add to them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch import Tensor

from medcalib.files.result_tables import case_table
from medcalib.functional import debiased_calibration_error
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
    pooled = statistics.pool()
    share = pooled.counts / pooled.counts.sum(-1, keepdim=True)
    gap = (pooled.sum_pred - pooled.sum_true) / pooled.counts
    squared = (share * gap.nan_to_num(0).square()).sum(-1)
    found = {
        "macro_ece_debiased": debiased_calibration_error(statistics).masked_fill(absent, np.nan),
        "micro_ece_debiased": debiased_calibration_error(statistics, unit="case").masked_fill(nowhere, np.nan),
        "micro_rmsce": _root(squared).masked_fill(nowhere, np.nan),
        "micro_rmsce_debiased": _root(debiased_calibration_error(statistics, "l2", "case")).masked_fill(
            nowhere, np.nan
        ),
    }
    rows = {"macro": binned.cases, "micro": ["dataset"]}
    return {
        name: case_table(rows[name.partition("_")[0]], binned.classes, values.numpy()) for name, values in found.items()
    }


def _root(squared: Tensor) -> Tensor:
    return squared.clamp(min=0).sqrt()
