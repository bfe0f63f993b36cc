"""Record a training in MLflow, in one run however often it is interrupted."""

from __future__ import annotations

import importlib.util
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler, from_engine

from medcalib import __version__
from medcalib.errors import UserError, plain_reason
from medcalib.files.writing import read_json, write_json

__all__ = ["MLFlowRunHandler"]

_FILE = "mlflow.json"
_FRAGMENTS = ("data", "loss", "method", "network")
_VARIABLE = "MLFLOW_TRACKING_URI"


class MLFlowRunHandler(MLFlowHandler):
    """MONAI's handler of MLflow for a training: loss, learning rate and validation metrics of every epoch.

    The run is named by bundle and seed. Its parameters are the bundle, its digest, the names of its fragments, the
    seed, the number of epochs and of batches of an epoch. The id of the run is kept in ``<output_dir>/mlflow.json``, so
    that a training that is resumed, or goes on after it was finished, goes on in the same run.

    What goes wrong as the training begins is an error. Later it is a warning, since no training is to fail of it.

    Args:
        tracking_uri: of a server, or ``sqlite:///<path>`` of a database, that is made if it is not there. MLflow has no
            store of files any more.
        bundle_root: folder of the bundle, whose ``metadata.json`` says what it is.
        output_dir: where the training writes.
        seed: of the training.
        evaluator: the engine of the validation.
        experiment_name: to which the run belongs.

    Warns:
        UserWarning: an epoch could not be recorded; once.

    Raises:
        UserError: MLflow is not installed, or the store is none or cannot be reached.

    Example:
        >>> handler = MLFlowRunHandler("sqlite:///mlruns.db", "bundles/a", "bundles/a/seed_7", 7, Engine(print))
        ... # doctest: +SKIP
        >>> handler.attach(trainer)  # doctest: +SKIP
    """

    # MONAI's handler has None there until a run begins
    cur_run: Any

    def __init__(
        self,
        tracking_uri: str | None,
        bundle_root: str | Path,
        output_dir: str | Path,
        seed: int,
        evaluator: Engine,
        experiment_name: str = "medcalib",
    ) -> None:
        if importlib.util.find_spec("mlflow") is None:
            raise UserError(
                "--mlflow::tracking_uri needs MLflow, which is not installed; pip install 'medcalib[mlflow]'."
            )
        _check_uri(tracking_uri)
        bundle = Path(bundle_root)
        about = read_json(bundle / "configs" / "metadata.json", "generate the bundle again")["medcalib"]
        fragments = {name: about["fragments"][name] for name in _FRAGMENTS if name in about["fragments"]}
        with _reachable(tracking_uri):
            super().__init__(
                tracking_uri=tracking_uri,
                iteration_log=False,
                experiment_name=str(experiment_name),
                run_name=f"{bundle.resolve().name} seed {seed}",
                experiment_param={
                    "bundle": bundle.resolve().name, "digest": about["digest"], "seed": seed, **fragments
                },
                close_on_complete=True,
            )  # fmt: skip
        self.tracking_uri = tracking_uri
        self.file = Path(output_dir) / _FILE
        self.evaluator = evaluator
        self._losses: list[float] = []
        self._validated: dict[str, float] = {}
        self._rate: dict[str, float] = {}
        self._told = False

    def attach(self, engine: Engine) -> None:
        """Register the handler on the trainer, after what validates."""
        super().attach(engine)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add_loss)
        self.evaluator.add_event_handler(Events.COMPLETED, self._keep_metrics)

    def start(self, engine: Engine) -> None:
        """Find the run of this training, or begin one."""
        with _reachable(self.tracking_uri):
            if not self.cur_run:
                self._set_experiment()
                self.cur_run = self._known_run() or self.client.create_run(
                    self.experiment.experiment_id, run_name=self.run_name, tags={"medcalib.version": __version__}
                )
                write_json(self.file, {"run_id": self.cur_run.info.run_id})
            super().start(engine)

    def epoch_completed(self, engine: Engine) -> None:
        """Record the epoch."""
        values = dict(self._validated)
        if self._losses:
            values["train_loss"] = math.fsum(self._losses) / len(self._losses)
        values |= self._rate
        with self._not_fatal():
            self._log_metrics(values, step=engine.state.epoch)

    def close(self) -> None:
        """Mark the run as finished."""
        with self._not_fatal():
            super().close()

    def _begin_epoch(self, engine: Engine) -> None:
        self._losses, self._validated = [], {}
        # before a schedule changes it for the next epoch
        groups = getattr(getattr(engine, "optimizer", None), "param_groups", None)
        self._rate = {"lr": float(groups[0]["lr"])} if groups else {}

    def _add_loss(self, engine: Engine) -> None:
        self._losses.append(float(from_engine("loss", first=True)(engine.state.output)))

    def _keep_metrics(self, engine: Engine) -> None:
        self._validated = {str(name): float(value) for name, value in engine.state.metrics.items()}

    def _known_run(self) -> Any:
        """The run in which this training was recorded before; None if there is none in this store."""
        from mlflow.exceptions import MlflowException

        if not self.file.exists():
            return None
        run_id = read_json(self.file, "remove it, and a new run of MLflow begins").get("run_id")
        try:
            run = self.client.get_run(str(run_id))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        if run.info.lifecycle_stage != "active":
            return None
        self.client.set_terminated(run.info.run_id, "RUNNING")
        return run

    @contextmanager
    def _not_fatal(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a server, a network or a database makes of it
            if not self._told:
                self._told = True
                warnings.warn(
                    f"MLflow could not be told of this training ({plain_reason(error)}); it goes on without.",
                    stacklevel=2,
                )


def _check_uri(tracking_uri: str | None) -> None:
    if not tracking_uri or "://" not in str(tracking_uri) or str(tracking_uri).startswith("file:"):
        raise UserError(
            f"--mlflow::tracking_uri is {tracking_uri!r}, but MLflow records in a server or a database; give "
            f"http://<server>, or sqlite:///mlruns.db for a file in this folder."
        )
    if os.environ.get(_VARIABLE) not in (None, "", tracking_uri):
        raise UserError(
            f"{_VARIABLE} is {os.environ[_VARIABLE]} and --mlflow::tracking_uri={tracking_uri}; unset the variable, or "
            f"give its value."
        )


@contextmanager
def _reachable(tracking_uri: str | None) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"--mlflow::tracking_uri={tracking_uri} cannot be used ({plain_reason(error)}); correct it or leave it out."
        ) from error
