"""Read a study file: which bundles are compared, and by what."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medcalib.bundle.data_folds import ALL
from medcalib.bundle.fragments import FragmentKind, fragment_names, fragment_path, read_yaml
from medcalib.bundle.layout import CONFIGS, DEFAULT_SEED
from medcalib.bundle.method_names import DEFAULT_METHOD, joined_fragments, known_fragments
from medcalib.bundle.shifted_cases import CORRUPTION, LEVEL
from medcalib.bundle.templates import find_templates
from medcalib.errors import UserError, suggestion

__all__ = ["OF_LOSS_ALONE", "Study", "read_study"]

OF_LOSS_ALONE = ("num_bins",)
"""Ids that, when they are swept, reach trainings alone: errors of other bins cannot be compared."""

DEFAULT_PREDICTIONS = 4
METRICS = (
    "mean_dice", "surface_dice", "hd95", "mhd", "macro_ece", "macro_ace", "macro_mce", "micro_ece", "micro_ace",
    "micro_mce", "nll", "brier", "nll_categorical", "brier_categorical", "accuracy", "auc", "sensitivity",
    "specificity", "top_label_ece", "top_label_ace", "top_label_mce", "macro_boundary_ece", "macro_boundary_ace",
    "macro_boundary_mce", "micro_boundary_ece", "micro_boundary_ace", "micro_boundary_mce", "macro_ece_debiased",
    "micro_ece_debiased", "micro_rmsce", "micro_rmsce_debiased", "top_label_ece_debiased", "top_label_rmsce",
    "top_label_rmsce_debiased",
)  # fmt: skip

_OF_FOLDS = re.compile(r"data::(num_folds|fold(_seed)?)")
_NAME = re.compile(r"[\w][\w.-]*")
# on which cases, and where, results are computed
_SAME_FOR_ALL = re.compile(
    r"include_background|evaluation::space|limit_cases|boundary::.*|"
    r"data::((num_)?folds?(_seed)?|cases.*|evaluate|regions.*|surface_tolerance_mm.*|boundary_band_mm)"
)
# what the study itself decides
_OWN = {"seed": "seeds", "debug": "debug", "method": "methods", "loss": "losses", "network": "networks"}
_FOLDERS = (
    "output_dir", "models_dir", "weights_dir", "checkpoint", "checkpoints", "bundle_root", "calibrator_file",
    "guarantee_file",
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """What a study file asks for.

    Attributes:
        name: name of the file without its suffix.
        data: name of the data fragment.
        losses: names of loss fragments.
        methods: names of methods and calibrators, joined by ``+``.
        networks: names of network fragments; None is the default of the data.
        seeds: seeds of the runs.
        overrides: values by configuration id, of every run that knows the id.
        sweep: several values by configuration id.
        reference: what everything is compared with: a name on the report, or a mapping of what picks it out; the first
            of the grid when None.
        primary: the metric that answers the question; chosen by the comparison when None.
        non_inferior: by metric, how much it may get worse; chosen by the comparison when None.
        debug: whether these are runs of seconds.
        title: title of the report.
        question: the question that the report answers.
        predictions: of how many test cases predictions are written for the gallery; all when None.
        bar: by metric, what its change from the reference must be, as a number or in percent of the reference.
        also: network, loss and method of combinations besides the grid.
        folds: of a cross-validation, ``all`` folds that the data have, or a list of them, or in how many their cases
            are divided by chance; None without.
    """

    name: str
    data: str
    losses: tuple[str, ...]
    methods: tuple[str, ...] = (DEFAULT_METHOD,)
    networks: tuple[str | None, ...] = (None,)
    seeds: tuple[int, ...] = (DEFAULT_SEED,)
    overrides: dict[str, Any] = field(default_factory=dict)
    sweep: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    reference: str | dict[str, Any] | None = None
    primary: str | None = None
    non_inferior: dict[str, float] | None = None
    debug: bool = False
    title: str | None = None
    question: str | None = None
    predictions: int | None = DEFAULT_PREDICTIONS
    bar: dict[str, float | str] | None = None
    also: tuple[tuple[str | None, str, str], ...] = ()
    folds: str | int | tuple[int, ...] | None = None

    @property
    def combinations(self) -> list[tuple[str | None, str, str]]:
        """Network, loss and method of everything that is compared, sweep aside."""
        return [*itertools.product(self.networks, self.losses, self.methods), *self.also]

    @property
    def content(self) -> dict[str, Any]:
        """What it holds, plain as in JSON."""
        content = json.loads(json.dumps(asdict(self)))
        # a file without them keeps the digest that it had before there were these keys
        return {key: value for key, value in content.items() if value or key not in ("bar", "also", "folds")}

    @property
    def digest(self) -> str:
        """SHA-256 of what it holds, in hex; comments and the order of keys do not change it."""
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()


def read_study(path: str | Path) -> Study:
    r"""Read and check a study file.

    Args:
        path: a YAML file.

    Raises:
        UserError: the file cannot be read, or a key, a name or a value cannot be.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "short.yaml")
        ...     _ = file.write_text("data: phantom\nlosses: [baseline_ce, softl1ace_dice_ce]\nseeds: [1, 2]\n")
        ...     study = read_study(file)
        >>> study.name, study.losses, study.methods, study.seeds
        ('short', ('baseline_ce', 'softl1ace_dice_ce'), ('deterministic',), (1, 2))
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no study file {path}; write one as docs/studies.md says.")
    content = read_yaml(path)
    for key in content:
        if key not in _READERS:
            raise UserError(f"{path}: {key} is no key of a study{suggestion(str(key), _READERS, list_all=True)}")
    for key in ("data", "losses"):
        if content.get(key) in (None, []):
            raise UserError(f"{path}: {key} is missing, so the grid is empty; name at least one.")
    if not _NAME.fullmatch(path.stem):
        raise UserError(f"{path}: its name becomes that of a folder; use letters, digits and _ - . only.")
    values = {key: _READERS[key](f"{path}: {key}", value) for key, value in content.items() if value is not None}
    _check_both(path, values)
    if "also" in values:
        values["also"] = _combined(path, values)
    return Study(name=path.stem, **values)


def _entries(where: str, value: Any) -> list[Any]:
    """The entries of a list that is not empty and holds none twice."""
    entries = value if isinstance(value, list) else [value]
    if not entries:
        raise UserError(f"{where} is empty, so the grid is; name at least one, or leave the key out.")
    seen: list[str] = []
    for entry in entries:
        # so that 1, 1.0 and true are told apart
        told = json.dumps(entry, default=str)
        if told in seen:
            raise UserError(f"{where} holds {entry} twice; keep one.")
        seen.append(told)
    return entries


def _fragments(kind: FragmentKind) -> Callable[[str, Any], tuple[str, ...]]:
    def read(where: str, value: Any) -> tuple[str, ...]:
        return tuple(_fragment(where, kind, entry) for entry in _entries(where, value))

    return read


def _fragment(where: str, kind: FragmentKind, name: Any) -> str:
    if not isinstance(name, str):
        raise UserError(f"{where} must hold names, not {name!r}.")
    try:
        fragment_path(find_templates() / CONFIGS, kind, name)
    except UserError:
        known = fragment_names(find_templates() / CONFIGS, kind)
        raise UserError(f"{where}: there is no {kind} {name!r}{suggestion(name, known, list_all=True)}") from None
    return name


def _data(where: str, value: Any) -> str:
    if isinstance(value, list):
        raise UserError(f"{where} must be one name, since only results on the same cases can be compared.")
    return _fragment(where, FragmentKind.DATA, value)


def _methods(where: str, value: Any) -> tuple[str, ...]:
    known = known_fragments(find_templates() / CONFIGS)
    meant: dict[str, str] = {}
    for entry in _entries(where, value):
        if not isinstance(entry, str):
            raise UserError(f"{where} must hold names, not {entry!r}.")
        try:
            full = "+".join(joined_fragments(entry, known).values())
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if full in meant:
            raise UserError(f"{where} holds the same twice, as {meant[full]} and {entry}; keep one.")
        meant[full] = entry
    return tuple(meant.values())


def _seeds(where: str, value: Any) -> tuple[int, ...]:
    seeds = _entries(where, value)
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise UserError(f"{where} must be whole numbers from 0 to 4294967295, not {seed!r}.")
    if isinstance(value, list) and len(seeds) < 2:
        raise UserError(
            f"{where} is a list of one seed, which tells nothing of the spread between seeds; list two or more, or "
            f"write seeds: {seeds[0]} for a study with one."
        )
    return tuple(seeds)


def _also(where: str, value: Any) -> tuple[dict[str, tuple[str, ...]], ...]:
    readers = {key: _READERS[several] for key, several in _PARTS.items()}
    entries = []
    for number, entry in enumerate(value if isinstance(value, list) else [value]):
        if not isinstance(entry, dict) or not entry:
            raise UserError(
                f"{where} must be a list of combinations such as {{loss: baseline_dice_ce, method: mc_dropout}}, not "
                f"{entry!r}."
            )
        for key in entry:
            if key not in readers:
                raise UserError(f"{where}: {key} is no part of a combination{suggestion(str(key), readers, True)}")
        entries.append({key: readers[key](f"{where}::{number}::{key}", names) for key, names in entry.items()})
    return tuple(entries)


def _combined(path: Path, values: Mapping[str, Any]) -> tuple[tuple[str | None, str, str], ...]:
    """What `also` adds; a part that an entry leaves out is the first of the study."""
    defaults: dict[str, Any] = {"networks": (None,), "methods": (DEFAULT_METHOD,)} | dict(values)
    grid = list(itertools.product(defaults["networks"], defaults["losses"], defaults["methods"]))
    found: list[tuple[str | None, str, str]] = []
    for entry in values["also"]:
        parts = [entry.get(key, defaults[several][:1]) for key, several in _PARTS.items()]
        for one in itertools.product(*parts):
            if one in grid or one in found:
                told = ", ".join(f"{key} {name}" for key, name in zip(_PARTS, one, strict=True) if name is not None)
                raise UserError(f"{path}: also names {told}, which is compared already; keep it once.")
            found.append(one)
    return tuple(found)


def _check_both(path: Path, content: Mapping[str, Any]) -> None:
    for id_ in content.get("overrides") or {}:
        if "folds" in content and _OF_FOLDS.fullmatch(id_):
            raise UserError(f"{path}: {id_} stands in overrides, but the key folds decides it; keep one.")
    for id_ in content.get("sweep") or {}:
        if id_ in (content.get("overrides") or {}) and id_ not in OF_LOSS_ALONE:
            raise UserError(f"{path}: {id_} stands in overrides and in sweep; keep one.")
    sweep, overrides = (content.get(key) or {} for key in ("sweep", "overrides"))
    if LEVEL in sweep and CORRUPTION not in sweep:
        raise UserError(f"{path}: sweep: {LEVEL} needs {CORRUPTION} there, too, a list of one or more kinds.")
    if LEVEL in overrides and CORRUPTION not in {**sweep, **overrides}:
        raise UserError(f"{path}: overrides: {LEVEL} is that of a corruption, but no {CORRUPTION} is given.")


def _ids(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where} must be a mapping of configuration ids, such as num_bins: 20, not {value!r}.")
    for id_ in value:
        if id_ in _OWN:
            raise UserError(f"{where}: {id_} is not set by id; use the key {_OWN[id_]} of the study.")
        if id_ in _FOLDERS:
            raise UserError(f"{where}: {id_} follows from the study, which keeps results apart; leave it out.")
        if not isinstance(id_, str):
            raise UserError(f"{where}: {id_!r} is no configuration id.")
    return value


def _sweep(where: str, value: Any) -> dict[str, tuple[Any, ...]]:
    for id_ in _ids(where, value):
        if _SAME_FOR_ALL.fullmatch(id_):
            raise UserError(f"{where}: results with different {id_} cannot be compared; set it in overrides, for all.")
    return {id_: tuple(_values(f"{where}::{id_}", values)) for id_, values in value.items()}


def _values(where: str, values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise UserError(f"{where} must be a list of values, not {values!r}.")
    return _entries(where, values)


def _reference(where: str, value: Any) -> str | dict[str, Any]:
    if not isinstance(value, str | dict):
        raise UserError(f"{where} must be a name, or a mapping such as {{loss: baseline_ce}}, not {value!r}.")
    return value


def _metric(where: str, value: Any) -> str:
    if value not in METRICS:
        raise UserError(f"{where}: there is no metric {value!r}{suggestion(str(value), METRICS, list_all=True)}")
    return value


def _margins(where: str, value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where} must be a mapping such as {{mean_dice: 0.01}}, not {value!r}.")
    for metric, margin in value.items():
        _metric(where, metric)
        if not isinstance(margin, int | float) or isinstance(margin, bool) or not margin > 0:
            raise UserError(f"{where}::{metric} must be a number above 0, by which it may get worse, not {margin!r}.")
    return {metric: float(margin) for metric, margin in value.items()}


def _bar(where: str, value: Any) -> dict[str, float | str]:
    from medcalib.compare.bar import demands_of

    for demand in demands_of(value, where):
        _metric(where, demand.metric)
    return dict(value)


def _switch(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{where} must be true or false, not {value!r}.")
    return value


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where} must be a text, not {value!r}; put it into quotes.")
    return value


def _predictions(where: str, value: Any) -> int | None:
    if isinstance(value, bool):
        return DEFAULT_PREDICTIONS if value else 0
    if value == "all":
        return None
    if not isinstance(value, int) or value < 0:
        raise UserError(f"{where} must be a number of cases, all, true or false, not {value!r}.")
    return value


def _folds(where: str, value: Any) -> str | int | tuple[int, ...]:
    if value == ALL:
        return ALL
    if isinstance(value, list):
        for fold in _entries(where, value):
            if not isinstance(fold, int) or isinstance(fold, bool) or fold < 0:
                raise UserError(f"{where} must list folds by their numbers from 0, not {fold!r}.")
        if len(value) < 2:
            raise UserError(f"{where} lists a single fold; list two or more, or set data::fold in overrides.")
        return tuple(sorted(value))
    if not isinstance(value, int) or isinstance(value, bool) or value < 2:
        raise UserError(
            f"{where} must be {ALL} or a list of folds that the data have, or a number of folds by chance, at least 2, "
            f"not {value!r}."
        )
    return value


# parts of a combination, by the keys that list them
_PARTS = {"network": "networks", "loss": "losses", "method": "methods"}

_READERS: dict[str, Callable[[str, Any], Any]] = {
    "data": _data,
    "losses": _fragments(FragmentKind.LOSS),
    "methods": _methods,
    "networks": _fragments(FragmentKind.NETWORK),
    "seeds": _seeds,
    "overrides": _ids,
    "sweep": _sweep,
    "reference": _reference,
    "primary": _metric,
    "non_inferior": _margins,
    "bar": _bar,
    "also": _also,
    "debug": _switch,
    "title": _text,
    "question": _text,
    "predictions": _predictions,
    "folds": _folds,
}
