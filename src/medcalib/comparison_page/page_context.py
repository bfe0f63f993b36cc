"""What a page says besides the comparison itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from medcalib.compare import Comparison

__all__ = ["PageContext"]


@dataclass(frozen=True)
class PageContext:
    """What a page says besides the comparison itself; all of it may be left out.

    Args:
        title: of the page.
        question: what was to be found out, in the user's words.
        commands: the exact commands that repeat the results, one a line.
        sweep: id of a setting that was varied, such as ``method::skip_heads``: its value by method.
        groups: group of each method, such as the loss of its training; methods of one group share a colour.
        true_names: long description of each method.
        shifted: comparisons on images that were made worse, by kind of corruption and level.

    Example:
        >>> PageContext(question="Does the loss keep Dice?").title
        'Comparison'
    """

    title: str = "Comparison"
    question: str = ""
    commands: list[str] = field(default_factory=list)
    sweep: dict[str, dict[str, float]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    true_names: dict[str, str] = field(default_factory=dict)
    shifted: dict[tuple[str, int], Comparison] = field(default_factory=dict)
