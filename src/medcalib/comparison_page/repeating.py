"""Where the numbers come from, and how to get them again."""

from __future__ import annotations

from typing import Any

from medcalib.compare import Comparison
from medcalib.comparison_page.metric_words import UNKNOWN
from medcalib.comparison_page.page_tables import Cell, Table

__all__ = ["provenance_table", "version_table"]

DIGEST_LETTERS = 12
DIGESTS = {
    "bundle_digest": "Bundle digest",
    "checkpoint_digest": "Weights digest",
    "split_digest": "Split digest",
}


def provenance_table(comparison: Comparison) -> Table:
    """Folder, bundle, seed and digests of every evaluation."""
    rows = []
    for name, evaluations in comparison.evaluations.items():
        for one in evaluations:
            known = _provenance(one.summary)
            calibrator = known.get("calibrator")
            rows.append(
                [
                    Cell(name, method=name),
                    Cell(UNKNOWN if one.seed is None else str(one.seed), one.seed),
                    Cell(str(known.get("bundle", UNKNOWN))),
                    *(Cell(_short(known.get(key))) for key in DIGESTS),
                    Cell(_short(calibrator.get("digest")) if isinstance(calibrator, dict) else UNKNOWN),
                    Cell(
                        ", ".join(word for word in ("edited", "allow_unfinished", "limit_cases") if known.get(word))
                        or UNKNOWN
                    ),
                    Cell(str(one.folder)),
                ]
            )
    heads = ["Method", "Seed", "Bundle", *DIGESTS.values(), "Calibrator digest", "Mind", "Folder"]
    return Table("Evaluations that were compared; digests are shortened.", heads, rows, key="provenance")


def version_table(comparison: Comparison) -> Table | None:
    """Versions and settings of the evaluations, with the methods where they differ; None if nothing is known."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, evaluations in comparison.evaluations.items():
        for one in evaluations:
            known = _provenance(one.summary)
            settings = {
                key: known[key] for key in ("space", "num_bins", "include_background", "activation") if key in known
            }
            for key, value in {**settings, **(known.get("versions") or {})}.items():
                methods = found.setdefault(key, {}).setdefault(str(value), [])
                if name not in methods:
                    methods.append(name)
    if not found:
        return None
    rows = [
        [Cell(key.replace("_", " ")), Cell(value), Cell("all" if len(values) == 1 else ", ".join(methods))]
        for key, values in found.items()
        for value, methods in values.items()
    ]
    return Table("Versions and settings of the evaluations.", ["What", "Value", "Methods"], rows, key="versions")


def _provenance(summary: dict[str, Any] | None) -> dict[str, Any]:
    return (summary or {}).get("provenance") or {}


def _short(digest: Any) -> str:
    return str(digest)[:DIGEST_LETTERS] if digest else UNKNOWN
