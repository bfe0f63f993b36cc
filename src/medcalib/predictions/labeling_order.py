"""Tell MONAI Label which images to have labelled first."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from medcalib.errors import UserError, plain_reason, suggestion
from medcalib.files.writing import read_json, write_json
from medcalib.handlers.case_folders import TABLE

__all__ = ["ScoredImages", "score_images"]

_DATASTORE = "datastore_v2.json"


class ScoredImages(NamedTuple):
    """What `score_images` did, as ids of MONAI Label and of ``predictions.csv``.

    Attributes:
        scored: images whose score was written.
        without_score: those that are there, but whose score is empty, as that of a case without foreground.
        missing: predicted cases that MONAI Label does not have.
    """

    scored: list[str]
    without_score: list[str]
    missing: list[str]


def score_images(
    predictions: str | Path, studies: str | Path, score: str = "entropy_foreground_mean", key: str = "epistemic_entropy"
) -> ScoredImages:
    r"""Write the uncertainty scores of predicted images where the strategies of MONAI Label look for them.

    Its strategy ``Epistemic`` serves unlabelled images by the number ``epistemic_entropy`` in what
    ``datastore_v2.json`` says of each image, largest first among those that were not served lately, and an image
    without one as 0 (``monailabel/tasks/activelearning/epistemic.py`` and ``datastore/local.py`` of MONAI Label 0.8.5).
    Everything else in that file stays as it is. The server must not run meanwhile, since it holds the file in memory.

    Args:
        predictions: folder that ``medcalib run --images`` wrote, or its ``predictions.csv``.
        studies: the folder of images that MONAI Label serves; an image is known by the name of its file.
        score: column of the table; larger numbers come first.
        key: the name under which the strategy looks.

    Raises:
        UserError: a file is missing or damaged, the table has no such column, or none of its images is there.

    Example:
        >>> import json, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     objects = {"a": {"image": {"ext": ".nii.gz", "info": {"ts": 1, "name": "a.nii.gz"}}, "labels": {}}}
        ...     text = json.dumps({"name": "", "description": "", "objects": objects})
        ...     _ = Path(folder, "datastore_v2.json").write_text(text)
        ...     rows = "case,image,entropy_foreground_mean\na,a.nii.gz,0.25\n"
        ...     _ = Path(folder, "predictions.csv").write_text(rows)
        ...     score_images(folder, folder).scored
        ['a']
    """
    table = _table(Path(predictions))
    path = Path(studies) / _DATASTORE
    if not path.exists():
        raise UserError(
            f"There is no {path}; MONAI Label writes it when it is started with --studies {studies} for the first time."
        )
    store = read_json(path, "move it away and start MONAI Label, which writes it anew")
    objects = store.get("objects") if isinstance(store, dict) else None
    if not isinstance(objects, dict):
        raise UserError(f"{path} has no objects, so it is no datastore of MONAI Label 0.4 or newer.")
    if score not in table.select_dtypes("number") or "image" not in table:
        numbers = [str(name) for name in table.select_dtypes("number").columns]
        raise UserError(
            f"{predictions} has no numbers in a column {score!r}{suggestion(score, numbers, list_all=True)}"
        )
    by_file = {_info(entry).get("name"): id_ for id_, entry in objects.items()}
    found = ScoredImages([], [], [])
    for case, image, value in zip(table["case"], table["image"], table[score], strict=True):
        id_ = by_file.get(Path(str(image)).name, str(case))
        if id_ not in objects:
            found.missing.append(str(case))
        elif math.isfinite(value):
            _info(objects[id_])[key] = float(value)
            found.scored.append(id_)
        else:
            # a number of an earlier prediction would rank it
            _info(objects[id_]).pop(key, None)
            found.without_score.append(id_)
    if len(found.missing) == len(table):
        raise UserError(f"{path} has none of the images of {predictions}, such as {found.missing[0]}.")
    write_json(path, store)
    return found


def _table(path: Path) -> pd.DataFrame:
    path = path / TABLE if path.is_dir() else path
    try:
        table = pd.read_csv(path, dtype={"case": str})
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({plain_reason(error)}).") from None
    if "case" not in table or table.empty:
        raise UserError(f"{path} has no cases; give the folder that medcalib run --images wrote.")
    return table


def _info(entry: Any) -> dict[str, Any]:
    return entry.setdefault("image", {}).setdefault("info", {})
