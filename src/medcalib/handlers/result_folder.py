"""A folder of results that appears only when it is complete."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from matplotlib.figure import Figure

from medcalib.errors import UserError, environment_message
from medcalib.files.folders import FolderDraft
from medcalib.files.writing import write_json, write_text
from medcalib.gathering import from_first, gathered
from medcalib.process_group import is_first, is_peer_loss

__all__ = ["ResultFolder"]

PROVENANCE = "provenance.json"


class ResultFolder:
    """Collect files under a hidden name and give them the name ``<path>`` when the engine completes.

    Results that lie there already and stem from the same provenance are replaced; others are kept under
    ``<path>_<n>``, which is said, so that nobody's results are lost. Whether they can be replaced is found out before
    the engine begins. Where ``<path>`` is a link, the results lie where it points to.

    Several processes that share a run write to the same hidden name, each what it alone knows of its cases; the first
    one writes what all of them found, and gives the folder its name when all have completed.

    Args:
        path: the folder in which the results will be looked for.
        provenance: what produces the results; written to ``provenance.json``.

    Attributes:
        is_complete: whether the results have been written.

    Raises:
        UserError: when the engine starts, the folder cannot be written or replaced; and whenever the disk is full.

    Example:
        >>> import tempfile
        >>> engine = Engine(lambda engine, batch: None)
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     folder = ResultFolder(f"{parent}/evaluation", provenance={"seed": 7})
        ...     folder.attach(engine)
        ...     _ = engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: folder.file("dice.txt").write_text("0.9"))
        ...     _ = engine.run([0])
        ...     sorted(path.name for path in Path(parent).glob("evaluation/*"))
        ['dice.txt', 'provenance.json']
    """

    def __init__(self, path: str | Path, provenance: dict[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.provenance = provenance or {}
        self.is_complete = False
        self._draft = FolderDraft(self.path)
        self._told: list[str] = []
        self._figures: list[str] = []

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes what all processes found."""
        return is_first()

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._publish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._discard)

    def file(self, name: str) -> Path:
        """Where to write a file so that it ends up as ``<path>/<name>``; its folder exists."""
        path = self._draft.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_beside_cases(self, name: str, text: str) -> None:
        """Write a text so that it ends up as ``<path>/<name>``."""
        write_text(self.file(name), text)

    def save_figure(self, name: str, figure: Figure, formats: Sequence[str], dpi: int) -> None:
        """Write a figure in each format; its paths are printed when the results have their name."""
        # laid out once, not twice for every format
        if (layout := figure.get_layout_engine()) is not None:
            layout.execute(figure)
        figure.set_layout_engine(None)
        for suffix in formats:
            figure.savefig(self.file(f"{name}.{suffix}"), dpi=dpi)
            self._figures.append(f"{name}.{suffix}")

    def tell(self, text: str) -> None:
        """Print a text as soon as the results have their name; of several in this order, and figures last."""
        self._told.append(text)

    def _start(self, _engine: Engine) -> None:
        self._told, self._figures = [], []
        self.is_complete = False
        self._draft.discard()
        self._draft.join(from_first(self._begin))

    def _begin(self) -> Path:
        try:
            self._draft.start()
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror}); choose another folder with --output_dir."
            ) from None
        write_json(self.file(PROVENANCE), self.provenance)
        if self._same_provenance():
            self._draft.check_replaceable()
        return self._draft.folder

    def _publish(self, _engine: Engine) -> None:
        # not before all of them have written what is theirs
        self._figures = [name for of_process in gathered(self._figures) for name in of_process]
        from_first(self._give_name)
        self.is_complete = True

    def _give_name(self) -> None:
        old = self._draft.path
        nothing_to_lose = not os.path.lexists(old) or (old.is_dir() and not any(old.iterdir()))
        if nothing_to_lose or self._same_provenance():
            self._draft.replace()
        else:
            kept = self._draft.keep_old()
            if kept.is_dir():
                print(f"The earlier results in {self.path} stem from other settings or weights and are kept in {kept}.")
            else:
                print(f"The file {self.path} was in the place of a folder of results and is kept as {kept}.")
            self._draft.publish()
        for text in self._told:
            print(text)
        if self._figures:
            print("Figures:", *(self.path / name for name in sorted(self._figures)), sep="\n  ")

    def _discard(self, _engine: Engine, error: BaseException) -> None:
        # what is wrong in another process than the first must be told before the first one misses what it writes
        if self.writes or is_peer_loss(error) or not isinstance(error, Exception):
            self._draft.discard()
        if not isinstance(error, UserError) and (told := environment_message(error, self.path)):
            raise UserError(told) from error
        raise error

    def _same_provenance(self) -> bool:
        old, new = self._draft.path / PROVENANCE, self._draft.folder / PROVENANCE
        try:
            return json.loads(old.read_text(encoding="utf-8")) == json.loads(new.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
