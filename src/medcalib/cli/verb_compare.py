"""``medcalib compare``: which method is better, and is the difference real."""

import inspect
import json
import shlex
from typing import Any

from medcalib.errors import UserError

__all__ = ["main"]


def main(
    evaluations: dict[str, Any],
    reference: str,
    output: str,
    primary: str | None = None,
    non_inferior: dict[str, float] | None = None,
    confidence: float = 0.95,
    num_samples: int = 9999,
    seed: int = 0,
    bar: dict[str, Any] | None = None,
) -> None:
    """Compare evaluations of the same cases: differences with intervals and tests, ranks, and a report page.

    Args:
        evaluations: folders by method, such as "{baseline: folder, hard: folder}"; each is the folder of an evaluation,
            or of a bundle with one for each seed, or a list of folders, one a seed. Tables <metric>_raw.csv are enough.
        reference: the method that the others are compared with.
        output: folder of comparison.csv and index.html; an older comparison there is replaced.
        primary: the metric that answers the question; macro_ace, or top_label_ece of classified images, when left out.
        non_inferior: by how much metrics may be worse and still count as kept; "{mean_dice: 0.01}", or accuracy, when
            left out.
        confidence: of all intervals.
        num_samples: how often cases, and seeds, are drawn for the intervals.
        seed: fixes the draws.
        bar: what metrics must change from the reference, such as "{macro_ace: -10%, nll: 0}": at most so much, or at
            least where more is better.
    """
    if not isinstance(evaluations, dict):
        raise UserError(
            f'--evaluations must be folders by method, such as "{{baseline: folder, hard: folder}}", not '
            f"{evaluations!r}."
        )
    for name, folders in evaluations.items():
        if folders in (None, [], ""):
            raise UserError(f"--evaluations: no folder is given for {name}; write {{{name}: folder}}.")
        if any(one is None or isinstance(one, dict | list) for one in _entries(folders)):
            raise UserError(f"--evaluations: {name} must be a folder or a list of folders, not {folders!r}.")
    command = _command(
        evaluations=evaluations,
        reference=reference,
        output=output,
        primary=primary,
        non_inferior=non_inferior,
        confidence=confidence,
        num_samples=num_samples,
        seed=seed,
        bar=bar,
    )

    from medcalib.compare import compare, comparison_folder, comparison_text, find_evaluations, write_tables
    from medcalib.compare import read_evaluation as read
    from medcalib.comparison_page import PageContext, write_page

    with comparison_folder(output) as draft:
        given = {
            str(name): [read(found) for folder in _entries(folders) for found in find_evaluations(str(folder))]
            for name, folders in evaluations.items()
        }
        comparison = compare(
            given,
            reference,
            primary,
            non_inferior,
            num_samples=num_samples,
            confidence=confidence,
            seed=seed,
            bar=bar,
        )
        write_tables(comparison, draft)
        page = write_page(comparison, draft, PageContext(commands=[command]))
    print(comparison_text(comparison))
    print(f"\nReport: {output}/{page.name}")


def _entries(folders: Any) -> list[Any]:
    return folders if isinstance(folders, list) else [folders]


def _command(**options: Any) -> str:
    """The command that repeats this."""
    defaults = {name: one.default for name, one in inspect.signature(main).parameters.items()}
    words = [
        f"--{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in options.items()
        if value != defaults[name]
    ]
    return shlex.join(["medcalib", "compare", *words])
