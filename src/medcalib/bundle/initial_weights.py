"""Begin a training with the weights of another: where they lie, whether they fit, and which cases they have seen."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from medcalib.bundle.checkpoint_paths import BEST_MODEL, output_name
from medcalib.bundle.component_checks import made_part
from medcalib.bundle.opened import Bundle
from medcalib.bundle.resolve import plain_config
from medcalib.bundle.training_on import planned
from medcalib.data.case_identity import Identity, case_identities, file_digest, named_alike, shared_cases
from medcalib.errors import UserError, listed
from medcalib.handlers.checkpoint import training_state
from medcalib.handlers.training_record import TrainingRecord, read_record
from medcalib.networks.weight_transfer import read_weights, transfer
from medcalib.networks.weights import weights_digest

__all__ = ["InitialWeights", "check_begun_with", "find_initial_weights", "origin_of_weights", "seen_cases"]

_MODELS = "models"
_SEED = re.compile(r"seed_\d+")


@dataclass(frozen=True)
class InitialWeights:
    """The weights with which a training is to begin.

    Attributes:
        given: as the user named them.
        path: their file; None if there is none, which does not matter to a training that has begun.
        problem: what is wrong where there is no file.
        bundle: name of the bundle that was named; None of a file.
    """

    given: str
    path: Path | None
    problem: str = ""
    bundle: str | None = None

    @property
    def place(self) -> str:
        """Their file, or where there is none what was named."""
        return self.given if self.path is None else str(self.path)

    @property
    def file(self) -> Path:
        """Their file.

        Raises:
            UserError: there is none.
        """
        if self.path is None:
            raise UserError(self.problem)
        return self.path


def find_initial_weights(given: str, seed: int, debug: bool = False, allow_unfinished: bool = False) -> InitialWeights:
    """Find the file of weights that a user names.

    Args:
        given: a file, a folder with ``models/model.pt`` or ``model.pt``, such as that of a seed or of an exported
            bundle, or a bundle by its name or folder. Of this the training with the same seed is taken, of a run of
            seconds first, if this is one; or else the only one that there is.
        seed: seed of the run.
        debug: whether this is a run of seconds.
        allow_unfinished: take the weights of a training of a bundle that is not finished, too.
    """
    path = Path(given).expanduser()
    if path.is_file():
        return InitialWeights(given, path)
    for file in (path / _MODELS / BEST_MODEL, path / BEST_MODEL):
        if file.is_file():
            return InitialWeights(given, file)
    if path.suffix in (".pt", ".pth", ".ckpt") or ("/" in given and not path.exists()):
        return InitialWeights(given, None, f"--initial_weights {given} does not exist; name a file or a bundle.")
    try:
        bundle = Bundle.open(given)
        while not bundle.trains_network and bundle.sibling is not None:
            bundle = bundle.sibling
    except UserError as error:
        return InitialWeights(given, None, f"--initial_weights: {str(error)[:1].lower()}{str(error)[1:]}")
    names = [output_name(seed, debug), output_name(seed)]
    trained = sorted(file.parent.parent.name for file in bundle.folder.glob(f"seed_*/{_MODELS}/{BEST_MODEL}"))
    seeds = [name for name in trained if _SEED.fullmatch(name)]
    found = next((name for name in names if name in trained), seeds[0] if len(seeds) == 1 else None)
    if found is None:
        told = f"is trained with {listed(seeds)}" if seeds else "is not trained"
        remedy = f"name one of them, such as {bundle.folder / seeds[0]}" if seeds else "train it first"
        return InitialWeights(given, None, f"--initial_weights: {bundle.name} {told}, not with seed {seed}; {remedy}.")
    folder = bundle.folder / found / _MODELS
    state = training_state(folder)
    wanted = None if state is None else planned(state, read_record(folder))
    if state is not None and wanted is not None and state.epochs < wanted and not allow_unfinished:
        return InitialWeights(
            given,
            None,
            f"--initial_weights: the training in {folder} has finished {state.epochs} of {wanted} epochs; finish it, "
            f"or name {folder / BEST_MODEL}, the best weights so far.",
        )
    return InitialWeights(given, folder / BEST_MODEL, bundle=bundle.name)


def origin_of_weights(initial: InitialWeights, parser: ConfigParser) -> dict[str, Any]:
    """What is recorded of the weights with which a training is to begin, after it was checked that it may.

    Args:
        initial: the weights.
        parser: configuration of the training, of which nothing was run yet.

    Returns:
        How they were named, the bundle, end of the path and digests of the file, what of the network begins anew, and
        the cases that they have seen, None where nobody recorded them.

    Raises:
        UserError: they do not fit, or have seen cases on which this training is to be tested or calibrated.
    """
    path = initial.file
    config = plain_config(parser)
    if config.get("network", {}).get("weights") is not None:
        raise UserError("--initial_weights and --network::weights are both given; leave one of them out.")
    state = read_weights(path)
    trial = ConfigParser(copy.deepcopy(config))
    network = made_part(trial, "method_network")
    taken = transfer(network, state, len(trial.get_parsed_content("data::class_names")), path)
    record = read_record(path.parent)
    cases = None if record is None else seen_cases(record)
    _check_new(cases, parser.get_parsed_content("split"), path)
    print(f"Beginning with the weights of {path}: {taken}.")
    return {
        "given": initial.given,
        "bundle": initial.bundle,
        "file": "/".join(path.absolute().parts[-4:]),
        "file_digest": file_digest(path),
        "weights_digest": weights_digest(state),
        "replaced": taken.replaced,
        "left_out": taken.left_out,
        "cases": cases,
    }


def check_begun_with(before: TrainingRecord, initial: InitialWeights | None, output_dir: Path) -> None:
    """Refuse to go on with a training that began with other weights than are named now.

    The file needs not be there any more.

    Raises:
        UserError: it did.
    """
    origin = before.starts_from or {}
    given = origin.get("given")
    if initial is None and given is None:
        return
    if given is None:
        raise UserError(
            f"The training in {output_dir} began without --initial_weights; leave the option out to go on with it, or "
            f"start another training with another --seed or --output_dir."
        )
    if initial is None:
        raise UserError(
            f"The training in {output_dir} began with --initial_weights={given}; go on with this option, or start "
            f"another training with another --seed or --output_dir."
        )
    if initial.path is None:
        same = initial.given == given
    else:
        same = file_digest(initial.path) == origin["file_digest"] or (
            weights_digest(read_weights(initial.path)) == origin["weights_digest"]
        )
    if not same:
        what = f"those that are there now ({initial.path})" if initial.given == given else f"{initial.given}"
        raise UserError(
            f"The training in {output_dir} began with --initial_weights={given}, with other weights than {what}; go on "
            f"with the former, or start another training with another --seed or --output_dir."
        )


def seen_cases(record: TrainingRecord) -> dict[str, list[Identity]]:
    """The cases that weights have seen, by part: those of their training, and of that from which it began."""
    earlier = (record.starts_from or {}).get("cases") or {}
    return {part: [*cases, *(one for one in earlier.get(part, []) if one not in cases)]
            for part, cases in record.cases.items()}  # fmt: skip


def _check_new(
    seen: Mapping[str, Sequence[Identity]] | None, split: Mapping[str, Sequence[Mapping[str, Any]]], path: Path
) -> None:
    """Refuse weights that have seen cases which are to be new to them."""
    if seen is None:
        warnings.warn(
            f"{path.parent} does not say on which cases the weights of {path.name} were trained, so nobody can tell "
            f"whether the test cases are new to them.",
            stacklevel=2,
        )
        return
    for part, cases, how, verb in (
        ("test", seen["training"], "trained on", "evaluated"),
        ("test", seen["validation"], "used to choose the epoch", "evaluated"),
        ("calibration", seen["training"], "trained on", "calibrated on"),
        ("validation", seen["training"], "trained on", "used to choose the epoch"),
    ):
        identities = case_identities(split[part])
        alike = set(named_alike(identities, cases))
        shared = [case for case in shared_cases(identities, cases) if case not in alike]
        if shared:
            raise UserError(
                f"{len(shared)} of the {len(identities)} {part} cases were {how} in the training of {path}: "
                f"{listed(shared)}; cases that are {verb} must be new, so divide the cases as there, or begin with "
                f"other weights."
            )
        if alike and part == "test":
            warnings.warn(
                f"{len(alike)} of the {len(identities)} test cases have the same ids, but other files, than cases that "
                f"were {how} in the training of {path}: {listed(sorted(alike))}; if they are not other patients, the "
                f"weights know them.",
                stacklevel=2,
            )
