"""Scores that say how uncertain the prediction of a whole case is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys, evenly_divisible_all_gather
from torch import Tensor

from medcalib.functional.aggregation import (
    above_threshold_mean,
    foreground_mean,
    image_mean,
    mean_foreground_confidence,
    patch_maximum,
)
from medcalib.functional.agreement import aula, mean_pairwise_dice
from medcalib.functional.uncertainty import sample_mean_uncertainty
from medcalib.keys import Activation, UncertaintyKeys

__all__ = ["CLASS_SCORES", "CONFIDENCE_SCORES", "UncertaintyScoresHandler"]

MAPS = (UncertaintyKeys.ENTROPY, UncertaintyKeys.MUTUAL_INFORMATION, UncertaintyKeys.VARIANCE)

CLASS_SCORES = ("pairwise_dice", "aula", "aula_normalized")
"""Scores that have a value for every class."""

CONFIDENCE_SCORES = ("pairwise_dice", "mean_foreground_confidence")
"""Scores that are high where a prediction can be trusted; all others are high where it cannot."""


class UncertaintyScoresHandler:
    """Reduce the maps of each case to one number each, and compare the members' segmentations.

    None of the scores looks at a label. Of entropy, mutual information and variance: ``<map>_image_mean``,
    ``<map>_foreground_mean`` (predicted foreground), ``<map>_patch_maximum`` (the most uncertain cube) and
    ``<map>_above_threshold`` (the most uncertain voxels, as many as there is foreground). Of the probabilities:
    ``mean_foreground_confidence`` and ``sample_mean_uncertainty`` (predicted foreground). Of the members, per class:
    ``pairwise_dice``, and for three or more ``aula`` and ``aula_normalized`` of neighbours.

    Leaves ``engine.state.case_scores``: name -> (row, 1) or (row, class), with the rows of
    ``engine.state.binned_cases``, gathered from all ranks.

    Args:
        class_names: classes of scores per class; without the first where the background is left out.
        activation: how logits became probabilities.
        patch_size: edge length in voxels of the most uncertain cube.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        activation: Activation | str = Activation.SOFTMAX,
        patch_size: int = 10,
    ) -> None:
        self.class_names = [str(name) for name in class_names]
        self.activation = Activation(activation)
        self.patch_size = patch_size
        self._rows: list[dict[str, Tensor]] = []

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._gather)

    def _start(self, engine: Engine) -> None:
        self._rows = []
        engine.state.case_scores = None
        engine.state.case_score_classes = self.class_names

    def _update(self, engine: Engine) -> None:
        for case in engine.state.output:
            self._rows.append({name: value.reshape(-1).double().cpu() for name, value in self._scores(case)})

    def _gather(self, engine: Engine) -> None:
        names = list(self._rows[0]) if self._rows else []
        engine.state.case_scores = {
            name: evenly_divisible_all_gather(torch.stack([row[name] for row in self._rows])) for name in names
        }

    def _scores(self, case: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        plain = {key: value.as_subclass(torch.Tensor) for key, value in case.items() if isinstance(value, Tensor)}
        probs, seg = plain[CommonKeys.PRED], plain["seg"]
        foreground = seg.any(0, keepdim=True) if seg.shape[0] > 1 else seg > 0
        fraction = float(foreground.float().mean())
        for name in MAPS:
            values = plain[name]
            yield f"{name}_image_mean", image_mean(values)
            yield f"{name}_foreground_mean", foreground_mean(values, foreground)
            yield f"{name}_patch_maximum", patch_maximum(values, self.patch_size)
            yield f"{name}_above_threshold", above_threshold_mean(values, fraction)
        yield "mean_foreground_confidence", mean_foreground_confidence(probs, foreground)
        unsure = sample_mean_uncertainty(probs[None], self.activation)[0]
        yield "sample_mean_uncertainty", foreground_mean(unsure, foreground)
        if (agreement := plain.get(UncertaintyKeys.AGREEMENT)) is None or agreement.shape[-1] < 2:
            return
        agreement = agreement[-len(self.class_names) :]
        yield "pairwise_dice", mean_pairwise_dice(agreement)
        if agreement.shape[-1] > 2:
            yield "aula", aula(agreement)
            yield "aula_normalized", aula(agreement, normalized=True)
