"""``medcalib evaluate``: evaluate every case of a cross-validation once."""

from medcalib.bundle.layout import DEFAULT_SEED
from medcalib.bundle.option_values import read_texts
from medcalib.errors import UserError

__all__ = ["main"]


def main(folds: str, output_dir: str, seed: int = DEFAULT_SEED, debug: bool = False) -> None:
    """Evaluate every case of a cross-validation once, by the fold that was not trained on it.

    Every fold was trained and evaluated before, with medcalib run --mode train and --mode inference_eval. Their
    evaluations are taken together; nothing is predicted again. The path of the results is the last line that is
    printed.

    Args:
        folds: one bundle of the cross-validation, beside which those of the other folds lie, or all of them with
            commas.
        output_dir: folder of the results, with the tables and figures of an evaluation; cases.csv says which fold a
            case is from.
        seed: seed of the trainings.
        debug: take the runs of seconds that were run with --debug.
    """
    bundles = read_texts("folds", folds) or []
    if not bundles:
        raise UserError("--folds names no bundle; give one of those that medcalib generate --folds 5 made.")

    from medcalib.compare import evaluate_folds

    evaluate_folds(bundles, output_dir, seed, debug)
    print(output_dir)
