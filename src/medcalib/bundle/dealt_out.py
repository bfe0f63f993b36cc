"""Let each of several processes see its share of the cases."""

from __future__ import annotations

from typing import Any

from monai.bundle import ConfigParser

__all__ = ["dealt_out"]

# data loaders of prediction and evaluation, and the cases of each
_LOADERS = {
    "dataloader": "@dataset::data",
    "calibration_evaluator::val_data_loader": "@calibration_dataset::data",
}


def dealt_out(parser: ConfigParser) -> dict[str, Any]:
    """What to put into the configuration of a prediction or an evaluation so that its cases are dealt out.

    Lists of cases stay complete, so that weights and cases are compared as in one process.

    Args:
        parser: the configuration, of which nothing was run yet.

    Returns:
        For each data loader that there is a `medcalib.data.dealing.DealtCases` as its sampler, by its id.

    Example:
        >>> dealt_out(ConfigParser({"dataloader": {"_target_": "monai.data.DataLoader"}}))
        {'dataloader::sampler': {'_target_': 'medcalib.data.dealing.DealtCases', 'cases': '@dataset::data'}}
    """
    return {
        f"{loader}::sampler": {"_target_": "medcalib.data.dealing.DealtCases", "cases": cases}
        for loader, cases in _LOADERS.items()
        if loader in parser
    }
