"""Find the evaluations of the folds of a cross-validation, and which cases their trainings have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medcalib.bundle.checkpoint_paths import output_name, weights_dir
from medcalib.bundle.data_folds import bundles_of_folds
from medcalib.bundle.layout import DEFAULT_SEED
from medcalib.compare.evaluations import Evaluation, read_evaluation
from medcalib.compare.merged_folds import merge_folds
from medcalib.errors import UserError
from medcalib.handlers.training_record import read_record

__all__ = ["evaluate_folds", "seen_by_folds"]


def evaluate_folds(
    bundles: Sequence[str | Path], output: str | Path, seed: int = DEFAULT_SEED, debug: bool = False
) -> Evaluation:
    """Write the evaluation of all cases of a cross-validation, each by the fold that was not trained on it.

    Args:
        bundles: one bundle of the cross-validation, beside which the others lie, or all of them.
        output: folder of the results.
        seed: that of the trainings.
        debug: whether these were runs of seconds, on so few cases that most are evaluated in none.

    Returns:
        What was written.

    Raises:
        UserError: a bundle is missing, not trained or not evaluated; or as of `medcalib.compare.merge_folds`.
    """
    folds = bundles_of_folds([Path(bundle).expanduser() for bundle in bundles])
    found = {number: _evaluation(number, bundle, seed, debug) for number, bundle in folds.items()}
    return merge_folds(found, output, None if debug else seen_by_folds(folds, seed, debug))


def seen_by_folds(folds: Mapping[int, Path], seed: int, debug: bool = False) -> dict[int, list[str]]:
    """Ids of the cases that the training of each fold was trained on and validated on.

    Args:
        folds: the bundle of each fold.
        seed: seed of the training.
        debug: whether it was a run of seconds.

    Raises:
        UserError: there is no record of it, or it is damaged.
    """
    seen = {}
    for number, bundle in folds.items():
        models = Path(weights_dir(bundle, bundle / output_name(seed, debug) / "models", seed, debug))
        record = read_record(models)
        if record is None:
            raise UserError(
                f"{models} does not say which cases fold {number} was trained on, so nobody can tell whether its test "
                f"cases were new to it; train it: medcalib run --bundle {bundle} --mode train --seed {seed}"
            )
        seen[number] = record.case_ids
    return seen


def _evaluation(number: int, bundle: Path, seed: int, debug: bool) -> Evaluation:
    folder = bundle / output_name(seed, debug) / "evaluation"
    if not folder.is_dir():
        raise UserError(
            f"Fold {number}, {bundle}, is not evaluated with seed {seed} yet; evaluate it: medcalib run --bundle "
            f"{bundle} --mode inference_eval --seed {seed}{' --debug' * debug}"
        )
    return read_evaluation(folder)
