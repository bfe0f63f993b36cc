"""A bundle that was opened: what lies in its folder, whose weights it builds on, and how it becomes a workflow."""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser, ConfigWorkflow

from medcalib.bundle.bundle_metadata import read_metadata
from medcalib.bundle.checkpoint_paths import member_seeds
from medcalib.bundle.contract import Training
from medcalib.bundle.digest import bundle_digest
from medcalib.bundle.fragments import FragmentKind
from medcalib.bundle.layout import (
    CLASSIFICATION,
    CONFIGS,
    CORRUPTION_CONFIG,
    CORRUPTION_FIGURES,
    GUARANTEED_IMAGES,
    INITIAL_WEIGHTS,
    METADATA,
    MLFLOW,
    MODE_OVERLAYS,
    MULTI_GPU,
    Mode,
    config_files,
    images_config,
)
from medcalib.bundle.overrides import (
    check_overrides,
    current_ids,
    first_stage,
    known_overrides,
    own_stage,
    shared_by_stages,
)
from medcalib.bundle.resolve import check_config, plain_config
from medcalib.bundle.shifted_cases import asks_for_corruption, check_corruption, check_takes_corruption
from medcalib.bundle.templates import find_templates
from medcalib.errors import UserError, plain_reason, suggestion
from medcalib.process_group import num_processes

__all__ = ["Bundle", "SiblingTraining"]

BUNDLES = Path("bundles")
LOGGING = "logging.conf"

# how options begin that ask for a record in MLflow
_OF_MLFLOW = "mlflow::"
# a bundle's folder, seed, weights and method are its own affair
_OWN_AFFAIRS = {"allow_unfinished", "seed", "method", "calibrator", "guarantee"}
_OWN_AFFAIRS |= {"output_dir", "models_dir", "weights_dir", "checkpoint", "checkpoints"}


class SiblingTraining(NamedTuple):
    """A training of another bundle that must be finished first.

    Attributes:
        bundle: the other bundle.
        seed: seed of the training.
        overrides: those of the user's overrides that this bundle knows, by their ids there.
        is_first_stage: whether another training starts from its weights, so that it has options of its own.
    """

    bundle: Bundle
    seed: int
    overrides: dict[str, Any]
    is_first_stage: bool


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        folder: where it lies.
        metadata: its ``metadata.json``.
        allow_edited: whether configs may have been edited since they were generated, those of siblings, too.
    """

    folder: Path
    metadata: dict[str, Any]
    allow_edited: bool = False

    @classmethod
    def open(cls, bundle: str | Path, allow_edited: bool = False) -> Bundle:
        """Find a bundle by its name under ``bundles/`` or by its path, and read what it is.

        Raises:
            UserError: there is none, and the message names the nearest; it is damaged, was edited, or uses the weights
                of a bundle that in the end uses its own.
        """
        folder = _find(str(bundle))
        opened = cls(folder, read_metadata(folder), allow_edited)
        if origin := opened.metadata["medcalib"].get("exported_from"):
            raise UserError(
                f"{folder} was exported from {origin}; run it in its folder with python -m monai.bundle run "
                f"--config_file configs/inference.yaml, or name the bundle {origin}."
            )
        opened._check_chain()
        if opened.edited and not allow_edited:
            raise UserError(
                f"The configs of {folder} were edited since it was generated, so its name no longer says what it does; "
                f"edit the templates and generate again, or run it as it is with --allow_edited."
            )
        return opened

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.folder.resolve().name

    @property
    def fragments(self) -> dict[str, str]:
        """Names of the fragments of which it is composed, by kind."""
        return self.metadata["medcalib"]["fragments"]

    @property
    def digest(self) -> str:
        """SHA-256 of the configs that were generated, in hex."""
        return self.metadata["medcalib"]["digest"]

    @cached_property
    def edited(self) -> bool:
        """Whether its configs were edited since they were generated."""
        return bundle_digest(self.folder) != self.digest

    @property
    def trains_network(self) -> bool:
        """Whether its training trains a network of its own, instead of using that of its sibling."""
        return self.metadata["medcalib"]["weights_bundle"] is None

    @property
    def fits_calibrator(self) -> bool:
        """Whether its training fits a calibrator."""
        return (self.folder / CONFIGS / f"{FragmentKind.CALIBRATOR}.yaml").exists()

    @property
    def fits_guarantee(self) -> bool:
        """Whether its training fits a guarantee."""
        return (self.folder / CONFIGS / f"{FragmentKind.GUARANTEE}.yaml").exists()

    @property
    def makes_models(self) -> bool:
        """Whether its training leaves something of its own: weights, a calibrator or a guarantee."""
        return self.trains_network or self.fits_calibrator or self.fits_guarantee

    @property
    def classifies(self) -> bool:
        """Whether it classifies whole images."""
        return (self.folder / CONFIGS / f"{CLASSIFICATION}.yaml").exists()

    @property
    def starts_anew(self) -> bool:
        """Whether its training trains a network of its own from random weights, unless others are given."""
        return self.trains_network and not self.starts_from_sibling

    @property
    def starts_from_sibling(self) -> bool:
        """Whether its training starts from the weights of its sibling, so that there are two stages."""
        return self.trains_network and self.metadata["medcalib"]["initial_weights_bundle"] is not None

    @cached_property
    def sibling(self) -> Bundle | None:
        """The bundle whose weights it uses or starts from; None if there is none, or if it is not there."""
        name = _builds_on(self.metadata)
        folder = self.folder.resolve().parent / str(name)
        return Bundle.open(folder, self.allow_edited) if name and (folder / CONFIGS).is_dir() else None

    def config(self, mode: Mode, debug: bool = False) -> dict[str, Any]:
        """The merged configuration of one mode."""
        return ConfigParser.load_config_files([str(path) for path in self._files(mode, debug)])

    def check(self) -> None:
        """Check that all exists that the configuration of any mode names.

        Raises:
            UserError: as of `check_config`.
        """
        for mode in Mode:
            check_config(self.config(mode), self._files(mode))

    def workflow(
        self,
        mode: Mode,
        overrides: Mapping[str, Any] | None = None,
        seed: int | None = None,
        debug: bool = False,
        allow_unfinished: bool = False,
        images: str | None = None,
        initial_weights: str | Path | None = None,
    ) -> ConfigWorkflow:
        """The workflow of one mode with the user's overrides, which are checked here; nothing of it was run yet.

        Args:
            mode: which of the modes.
            overrides: values by configuration id, as they were typed; those of a first stage are checked and left out.
            seed: fixes the run together with the bundle; the bundle's own when None.
            debug: whether this is a run of seconds.
            allow_unfinished: use weights of a training that is not finished, too.
            images: which images are predicted, instead of the test cases of the dataset.
            initial_weights: file of the weights with which a training begins, instead of random ones.

        Raises:
            UserError: an override does not exist or has a value that cannot be, or something that the configuration
                names does not exist.
        """
        if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32):
            raise UserError(f"--seed must be a whole number from 0 to 4294967295, not {seed!r}.")
        settings: dict[str, Any] = {
            "bundle_root": str(self.folder),
            "edited": self.edited,
            "allow_unfinished": allow_unfinished,
        }
        # else it reports on the logging file, and on a file of images that an older bundle lacks
        logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)
        _check_logging(self.folder / CONFIGS / LOGGING)
        if images is not None:
            settings["images"] = images
        if initial_weights is not None:
            settings["initial_weights"] = str(initial_weights)
        current = current_ids(overrides or {})
        check_corruption(current, mode, images is not None)
        is_shifted = mode is not Mode.TRAIN and images is None and any(map(asks_for_corruption, current))
        if is_shifted:
            check_takes_corruption(self.config(mode, debug), self.name)
        files = self._files(
            mode,
            debug,
            shifted=is_shifted,
            images=images is not None,
            initial_weights=initial_weights is not None,
            mlflow=any(id_.startswith(_OF_MLFLOW) for id_ in current),
        )
        workflow = ConfigWorkflow(
            config_file=[str(path) for path in files],
            meta_file=str(self.folder / CONFIGS / METADATA),
            logging_file=str(self.folder / CONFIGS / LOGGING),
            workflow_type="train" if mode is Mode.TRAIN else "infer",
            **settings | ({} if seed is None else {"seed": seed}),
        )
        if images is not None:
            _check_no_cases(overrides or {})
            self._check_overlay(workflow.parser, current)
        check_overrides(
            plain_config(workflow.parser),
            overrides or {},
            self._first_stage(debug) if first_stage(current) else None,
            self._elsewhere(mode, debug, images is not None),
        )
        workflow.parser.update(own_stage(current))
        check_config(plain_config(workflow.parser), files)
        return workflow

    def trainings_before(self, parser: ConfigParser, overrides: Mapping[str, Any]) -> list[SiblingTraining]:
        """The trainings whose weights its training uses or starts from, in the order in which they are to be run.

        Args:
            parser: configuration of its training, with the overrides.
            overrides: values by configuration id that the user gave.

        Raises:
            UserError: a sibling was removed.
        """
        content = parser.get_parsed_content
        seeds = [content("seed")]
        if parser.get("method::training") == Training.DETERMINISTIC:
            num_networks = content("method::num_networks") if "method::num_networks" in parser else 1
            seeds = member_seeds(content("seed"), num_networks)
        return self._trainings_before(seeds, current_ids(overrides), content("debug"))

    def _trainings_before(
        self, seeds: Iterable[int], overrides: Mapping[str, Any], debug: bool
    ) -> list[SiblingTraining]:
        sibling = self.sibling
        if sibling is None:
            if name := _builds_on(self.metadata):
                fragments = " ".join(f"--{kind} {fragment}" for kind, fragment in self.fragments.items())
                raise UserError(
                    f"{self.name} uses the weights of {name}, which is not there; make it again: "
                    f"medcalib generate {fragments}"
                )
            return []
        if self.starts_from_sibling:
            for_both, for_first = shared_by_stages(overrides), first_stage(overrides)
        else:
            for_both = own_stage(overrides)
            for_first = {id_: value for id_, value in overrides.items() if id_ not in for_both}
        own_affairs = _OWN_AFFAIRS - ({"method"} if self._has_method_of(sibling) else set())
        for_both = {id_: value for id_, value in for_both.items() if id_.partition("::")[0] not in own_affairs}
        known = known_overrides(sibling.config(Mode.TRAIN, debug), for_both) | for_first
        # which no configuration has unless it is asked for
        known |= {id_: value for id_, value in overrides.items() if id_.startswith(_OF_MLFLOW)}
        trainings = []
        for seed in seeds:
            trainings += sibling._trainings_before([seed], known, debug)
            if sibling.trains_network:
                trainings.append(SiblingTraining(sibling, seed, known, self.starts_from_sibling))
        return trainings

    def _has_method_of(self, sibling: Bundle) -> bool:
        """Whether it only joins something to the method of its sibling, so that both have its settings."""
        method, plus, _ = self.fragments["method"].partition("+")
        return bool(plus) and method == sibling.fragments["method"]

    def _files(
        self,
        mode: Mode,
        debug: bool = False,
        images: bool = False,
        initial_weights: bool = False,
        mlflow: bool = False,
        shifted: bool = False,
    ) -> list[Path]:
        files = config_files(self.folder / CONFIGS, mode, debug)
        for overlay in () if self.classifies else MODE_OVERLAYS.get(mode, ()):
            if not (self.folder / CONFIGS / overlay).exists():
                # a bundle of an earlier version
                after = [path.stem for path in files].index(mode) + 1
                files.insert(after, find_templates() / CONFIGS / overlay)
        if shifted:
            files[len(files) - debug : len(files) - debug] = self.corruption_overlays(mode)
        if initial_weights:
            files.insert(len(files) - debug, self._own_or(find_templates() / CONFIGS / INITIAL_WEIGHTS))
        if mlflow:
            if mode is not Mode.TRAIN:
                raise UserError(f"--{_OF_MLFLOW}... records a training, so leave it out of --mode {mode}.")
            files.insert(len(files) - debug, self._own_or(find_templates() / CONFIGS / MLFLOW))
        if num_processes() > 1:
            files.insert(len(files) - debug, self._own_or(find_templates() / CONFIGS / MULTI_GPU))
        if images:
            if mode is not Mode.INFERENCE_PRED:
                raise UserError(f"--images are predicted, so it goes with --mode {Mode.INFERENCE_PRED}, not {mode}.")
            files.append(self.images_overlay)
            if self.fits_guarantee:
                files.append(self._own_or(images_config(find_templates(), self.classifies, GUARANTEED_IMAGES)))
        return files

    @property
    def images_overlay(self) -> Path:
        """The file that is merged last to predict images of no dataset."""
        return self._own_or(images_config(find_templates(), self.classifies))

    def corruption_overlays(self, mode: Mode) -> list[Path]:
        """The files that are merged, before that of debug runs, to make images of test cases worse."""
        figures = mode is Mode.INFERENCE_PRED and not self.classifies
        names = [CORRUPTION_CONFIG, *([CORRUPTION_FIGURES] if figures else [])]
        return [self._own_or(find_templates() / CONFIGS / name) for name in names]

    def _elsewhere(self, mode: Mode, debug: bool, images: bool) -> Iterator[tuple[str, dict[str, Any]]]:
        """Configurations of the other modes, and of new images where none are predicted, by what asks for them."""
        yield from ((other, self.config(other, debug)) for other in Mode if other is not mode)
        if not images:
            yield f"{Mode.INFERENCE_PRED} --images", ConfigParser.load_config_file(str(self.images_overlay))

    def _check_overlay(self, parser: ConfigParser, overrides: Mapping[str, Any]) -> None:
        """Refuse what only the overlay of this version knows if the bundle has one of an earlier version."""
        template = images_config(find_templates(), self.classifies)
        if self.images_overlay == template:
            return
        newer = set(ConfigParser.load_config_file(str(template))) - set(parser.get())
        for id_ in overrides:
            if id_.partition("::")[0] in newer:
                raise UserError(
                    f"{self.images_overlay} was written by an earlier version, which has no --{id_}; remove that file, "
                    f"and the one of this version is used."
                )

    def _own_or(self, template: Path) -> Path:
        """A file that no digest is taken of; that of this version where the bundle is of an earlier one without it."""
        own = self.folder / CONFIGS / template.name
        return own if own.exists() else template

    def _first_stage(self, debug: bool) -> dict[str, Any] | None:
        """Configuration of the training from whose weights this one, or that of a sibling, starts; None without one."""
        second: Bundle | None = self
        while second is not None and not second.starts_from_sibling:
            second = second.sibling
        if second is None:
            return None
        # that it is not there is said where it is needed
        return second.sibling.config(Mode.TRAIN, debug) if second.sibling else {}

    def _check_chain(self) -> None:
        """Refuse a bundle whose weights are those of another that in the end uses this bundle's."""
        seen, metadata = [self.name], self.metadata
        while name := _builds_on(metadata):
            if name in seen:
                raise UserError(
                    f"{self.folder.resolve().parent / seen[-1] / CONFIGS / METADATA} names {name} as the bundle whose "
                    f"weights are used, which leads back to {'itself' if name == seen[-1] else name}; generate the "
                    f"bundle again in another folder."
                )
            seen.append(name)
            folder = self.folder.resolve().parent / name
            if not (folder / CONFIGS).is_dir():
                return
            metadata = read_metadata(folder)


def _check_no_cases(overrides: Mapping[str, Any]) -> None:
    """Refuse to say which cases of a dataset are taken where images are predicted that belong to none."""
    for id_ in overrides:
        if id_.startswith("data::cases"):
            raise UserError(
                f"--{id_} says which cases of the dataset are taken, but --images belong to none; leave it out."
            )


def _builds_on(metadata: Mapping[str, Any]) -> str | None:
    own = metadata["medcalib"]
    return own["weights_bundle"] or own["initial_weights_bundle"]


def _find(bundle: str) -> Path:
    for folder in (BUNDLES / bundle, Path(bundle)):
        if (folder / CONFIGS).is_dir():
            return folder
    names = [path.parent.parent.name for path in BUNDLES.glob(f"[!.]*/{CONFIGS}/{METADATA}")]
    if not names:
        raise UserError(
            f"There is no bundle {bundle!r}, and none under {BUNDLES}; generate one with medcalib generate."
        )
    raise UserError(f"There is no bundle {bundle!r}{suggestion(bundle, names, list_all=True)}")


def _check_logging(path: Path) -> None:
    try:
        logging.config.fileConfig(path, disable_existing_loggers=False)
    except Exception as error:  # whatever a damaged file makes of itself
        raise UserError(
            f"{path} is missing or damaged ({plain_reason(error)}); copy it from a bundle that was generated anew."
        ) from None
