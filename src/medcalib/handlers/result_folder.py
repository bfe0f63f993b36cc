"""A folder of results that appears only when it is complete."""

from __future__ import annotations

import filecmp
import json
import shutil
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

__all__ = ["ResultFolder"]


class ResultFolder:
    """Collect files in ``<path>.unfinished`` and rename it to ``<path>`` when the engine completes.

    Results that lie there already and stem from the same provenance are replaced; others are kept under
    ``<path>_<n>``, so that nobody's results are lost.

    Args:
        path: the folder in which the results will be looked for.
        provenance: what produces the results; written to ``provenance.json``.
    """

    def __init__(self, path: str | Path, provenance: dict[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.provenance = provenance or {}
        self._unfinished = self.path.with_name(f"{self.path.name}.unfinished")

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return idist.get_rank() == 0

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._publish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._discard)

    def file(self, name: str) -> Path:
        """Where to write a file so that it ends up as ``<path>/<name>``; its folder exists."""
        path = self._unfinished / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _start(self, _engine: Engine) -> None:
        if self.writes:
            shutil.rmtree(self._unfinished, ignore_errors=True)
            self.file("provenance.json").write_text(json.dumps(self.provenance, indent=2) + "\n", encoding="utf-8")

    def _publish(self, _engine: Engine) -> None:
        if not self.writes:
            return
        if self.path.exists():
            if self._same_provenance():
                shutil.rmtree(self.path)
            else:
                self.path.rename(self._free_name())
        self._unfinished.rename(self.path)

    def _discard(self, _engine: Engine, error: BaseException) -> None:
        if self.writes:
            shutil.rmtree(self._unfinished, ignore_errors=True)
        raise error

    def _same_provenance(self) -> bool:
        old, new = self.path / "provenance.json", self._unfinished / "provenance.json"
        return old.exists() and filecmp.cmp(old, new, shallow=False)

    def _free_name(self) -> Path:
        number = 1
        while (free := self.path.with_name(f"{self.path.name}_{number}")).exists():
            number += 1
        return free
