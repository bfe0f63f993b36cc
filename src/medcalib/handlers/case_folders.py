"""A folder of results that grows by whole cases, so that a run that was interrupted goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from ignite.engine import Engine, Events

from medcalib.data.case_identity import Identity, case_identities
from medcalib.errors import UserError, environment_message
from medcalib.files.folders import FolderDraft
from medcalib.files.result_tables import write_table
from medcalib.files.writing import complete_file, read_json, write_json, write_text
from medcalib.gathering import from_first, gathered
from medcalib.handlers.result_folder import PROVENANCE, ResultFolder
from medcalib.keys import CaseKeys

__all__ = ["ITK_SNAP_LABELS", "SLICER_COLORS", "TABLE", "CaseFolders"]

TABLE = "predictions.csv"
SLICER_COLORS = "labels.ctbl"
ITK_SNAP_LABELS = "labels_itksnap.txt"

# what a run writes there beside results
_BESIDE = ("configs", "cost", PROVENANCE, TABLE, SLICER_COLORS, ITK_SNAP_LABELS, "shift.json")


class CaseFolders(ResultFolder):
    """Give the folder ``<path>/<case>`` its name when the case is complete, and a table of all cases at the end.

    A case that is there is not predicted again. So everything in the folder must stem from the same provenance, and a
    case from the same image: anything else is refused before a case is predicted, and nothing is ever replaced.

    Args:
        path: the folder.
        provenance: what produces the results; written to ``provenance.json``.

    Example:
        >>> import tempfile
        >>> engine = Engine(lambda engine, batch: None)
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     cases = [{"case": "a", "image": f"{parent}/a.png"}]
        ...     for _ in range(2):
        ...         folder = CaseFolders(f"{parent}/new", provenance={"seed": 7})
        ...         print([case["case"] for case in folder.waiting(cases)])
        ...         folder.file("a/a_seg.png").touch()
        ...         folder.finish_case("a", {"flagged": False})
        ...         folder.finish()
        ...         break
        ...     print([case["case"] for case in CaseFolders(f"{parent}/new", {"seed": 7}).waiting(cases)])
        ['a']
        1 case(s) predicted, 0 were there.
        []
    """

    def __init__(self, path: str | Path, provenance: dict[str, Any] | None = None) -> None:
        super().__init__(path, provenance)
        self.path = self.path.expanduser()
        self._drafts: dict[str, FolderDraft] = {}
        self._identities: dict[str, Mapping[str, Any]] = {}
        self._num_done = self._num_there = 0

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._discard)

    def file(self, name: str) -> Path:
        """Where to write a file so that it ends up as ``<path>/<case>/<name>``; its folder exists."""
        case, _, rest = name.partition("/")
        if case not in self._drafts:
            self._drafts[case] = FolderDraft(self.path / case)
            self._drafts[case].start()
        path = self._drafts[case].folder / rest
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_beside_cases(self, name: str, text: str) -> None:
        """Write a text as ``<path>/<name>``, in place of one that is there."""
        write_text(self.path / name, text)

    def waiting(self, cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Those cases that are not there yet, in their order.

        Raises:
            UserError: the folder holds something else, predictions of another provenance, or of another image under
                the id of one of the cases.
        """
        # one process looks, for another may be so fast that a case is there when a third one looks
        waiting, identities = from_first(lambda: self._look(cases))
        self._identities = {str(one["case"]): one for one in identities}
        self._num_there = len(cases) - len(waiting)
        return waiting

    def _look(self, cases: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[Identity]]:
        self._check_provenance()
        identities = case_identities(cases)
        waiting = []
        for case, identity in zip(cases, identities, strict=True):
            folder = self.path / str(identity["case"])
            if not folder.exists():
                waiting.append(dict(case))
                continue
            before = read_json(folder / f"{folder.name}.json", f"remove {folder}, and it is predicted again")
            if before.get("image_digest") != identity["image"]:
                raise UserError(
                    f"{folder} holds the prediction of another image, {before.get('image')}, than that of case "
                    f"{folder.name} now; choose another --output_dir, or remove {folder}."
                )
        return waiting, identities

    def finish_case(self, case: str, row: Mapping[str, Any], **details: Any) -> None:
        """Give the folder of a case its name.

        Args:
            case: the id.
            row: what the table says of it, plain values by column.
            **details: what else its file ``<case>.json`` says, plain values.

        Raises:
            UserError: it cannot be written.
        """
        if not (self.path / PROVENANCE).exists():
            write_json(self.path / PROVENANCE, self.provenance)
        digest = self._identities.get(case, {}).get("image")
        # in two steps: finish reads rows as they stand there, of this run and of earlier ones
        write_json(
            self.file(f"{case}/{case}.json"),
            {"case": case, "image": row.get("image"), "image_digest": digest, "row": dict(row), **details},
        )
        self._drafts.pop(case).publish()
        self._num_done += 1

    def finish(self) -> None:
        """Write the table of all cases that are there, sorted by id, and say how many there are."""
        num_done = sum(gathered(self._num_done))
        self.is_complete = from_first(lambda: self._write_table(num_done))

    def _write_table(self, num_done: int) -> bool:
        rows = []
        for file in sorted(self.path.glob("*/*.json")):
            if file.stem == file.parent.name and not file.parent.name.startswith("."):
                content = read_json(file, f"remove {file.parent}, and it is predicted again")
                rows.append({CaseKeys.CASE.value: file.stem, **content["row"]})
        with complete_file(self.path / TABLE) as draft:
            write_table(pd.DataFrame(rows), draft)
        for text in self._told:
            print(text)
        print(f"{num_done} case(s) predicted, {self._num_there} were there.")
        return bool(rows)

    def _check_provenance(self) -> None:
        if not self.path.exists():
            return
        if not (file := self.path / PROVENANCE).exists():
            foreign = sorted(
                one.name for one in self.path.iterdir() if one.name not in _BESIDE and not one.name.startswith(".")
            )
            if foreign:
                raise UserError(
                    f"{self.path} holds {foreign[0]} and is no folder of predictions of new images; choose another "
                    f"--output_dir."
                )
            return
        before = read_json(file, "choose another --output_dir")
        now = json.loads(json.dumps(self.provenance, default=str))
        if other := [key for key in (*now, *before) if before.get(key) != now.get(key)]:
            raise UserError(
                f"{self.path} holds predictions with another {other[0]} ({_short(before.get(other[0]))}, now "
                f"{_short(now.get(other[0]))}); choose another --output_dir."
            )

    def _discard(self, _engine: Engine, error: BaseException) -> None:
        for draft in self._drafts.values():
            draft.discard()
        self._drafts = {}
        if not isinstance(error, UserError) and (told := environment_message(error, self.path)):
            raise UserError(told) from error
        raise error


def _short(value: Any, longest: int = 80) -> str:
    text = json.dumps(value)
    return text if len(text) <= longest else f"{text[:longest]}..."
