"""Which fragments a method of the command line joins: a method, a calibrator, a guarantee, each of them optional."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medcalib.bundle.fragments import FragmentKind, fragment_names
from medcalib.errors import UserError, suggestion

__all__ = ["DEFAULT_METHOD", "JOINED", "joined_fragments", "known_fragments"]

DEFAULT_METHOD = "deterministic"

JOINED = (FragmentKind.METHOD, FragmentKind.CALIBRATOR, FragmentKind.GUARANTEE)
"""What is joined by +, in this order."""


def known_fragments(configs_dir: Path) -> dict[FragmentKind, list[str]]:
    """Names of the fragments of each of `JOINED`."""
    return {kind: fragment_names(configs_dir, kind) for kind in JOINED}


def joined_fragments(joined: str, known: Mapping[FragmentKind, Sequence[str]]) -> dict[FragmentKind, str]:
    """The fragment of each kind that a method of the command line names.

    Args:
        joined: names joined by ``+``, such as ``mc_dropout+temperature_scaling+recall_control``.
        known: names of the fragments of each of `JOINED`.

    Returns:
        Names by kind, in the order of `JOINED`; without a method it is `DEFAULT_METHOD`.

    Raises:
        UserError: a name is unknown, two are of one kind, or they stand in another order.

    Example:
        >>> names = ["tta", "deterministic"], ["isotonic"], ["recall_control"]
        >>> list(joined_fragments("isotonic+recall_control", dict(zip(JOINED, names))).values())
        ['deterministic', 'isotonic', 'recall_control']
    """
    found: dict[FragmentKind, str] = {}
    for part in joined.split("+"):
        kinds = [kind for kind in JOINED if part in known[kind]]
        if not kinds:
            every = [name for kind in JOINED for name in known[kind]]
            raise UserError(
                f"There is no method, calibrator or guarantee called {part!r}{suggestion(part, every, list_all=True)}"
            )
        [kind] = kinds
        if kind in found:
            raise UserError(f"{found[kind]} and {part} are both a {kind}, of which there can be one; leave one out.")
        found[kind] = part
    ordered = {kind: found[kind] for kind in JOINED if kind in found}
    if list(ordered) != list(found):
        raise UserError(
            f"The parts of a method are joined in the order method, calibrator, guarantee; write "
            f"{'+'.join(ordered.values())} instead of {joined}."
        )
    return {FragmentKind.METHOD: DEFAULT_METHOD, **ordered}
