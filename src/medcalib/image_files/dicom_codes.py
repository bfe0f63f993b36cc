"""Codes that say in DICOM what a segment is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from medcalib.errors import UserError, suggestion

__all__ = ["TISSUE", "DicomCode", "SegmentCodes", "segment_codes"]

_EXAMPLE = "{category: [123037004, SCT, Anatomical Structure], type: [10200004, SCT, Liver]}"
_PARTS = ("category", "type")


class DicomCode(NamedTuple):
    """A coded concept: value, scheme such as SCT for SNOMED CT or DCM, and meaning for people."""

    value: str
    scheme: str
    meaning: str


class SegmentCodes(NamedTuple):
    """What kind of thing a segment is, and which one."""

    category: DicomCode
    type: DicomCode


TISSUE = DicomCode("85756007", "SCT", "Tissue")
"""Stands for both where nothing better is known."""


def segment_codes(names: Sequence[str], codes: Mapping[Any, Any] | None = None) -> list[SegmentCodes]:
    """The codes of segments.

    Args:
        names: of their classes.
        codes: by name of a class ``category`` and ``type``, each a list of value, scheme and meaning; `TISSUE` for what
            it leaves out.

    Raises:
        UserError: it names a class that does not exist, or one of the codes is no such list.

    Example:
        >>> found = segment_codes(["liver", "lesion"], {"liver": {"type": [10200004, "SCT", "Liver"]}})
        >>> [(one.category.meaning, one.type.value) for one in found]
        [('Tissue', '10200004'), ('Tissue', '85756007')]
    """
    if codes is not None and not isinstance(codes, Mapping):
        raise UserError(f"dicom_codes is {codes!r}; it holds by the name of a class {_EXAMPLE}.")
    by_name = {str(name): given for name, given in (codes or {}).items()}
    for name, given in by_name.items():
        if name not in names:
            raise UserError(f"dicom_codes names the class {name!r}{suggestion(name, names, list_all=True)}")
        if not isinstance(given, Mapping) or not set(given) <= set(_PARTS):
            raise UserError(f"dicom_codes::{name} is {given!r}; write it as {_EXAMPLE}.")
    return [
        SegmentCodes(*(_code(name, part, by_name.get(name, {}).get(part, TISSUE)) for part in _PARTS)) for name in names
    ]


def _code(name: str, part: str, given: Any) -> DicomCode:
    texts = [str(one).strip() for one in given] if isinstance(given, Sequence) and not isinstance(given, str) else []
    lengths = (16, 16, 64)
    if len(texts) != len(lengths) or not all(0 < len(text) <= most for text, most in zip(texts, lengths, strict=True)):
        raise UserError(
            f"dicom_codes::{name}::{part} is {given!r}; it is a list of value and scheme, of up to 16 characters, and "
            f"meaning, of up to 64, such as [10200004, SCT, Liver]."
        )
    return DicomCode(*texts)
