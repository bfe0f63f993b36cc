"""A training in MLflow: one run with losses and metrics by epoch, whatever interrupts it."""

import json

import pytest
import torch
from ignite.engine import Engine, Events

from medcalib.errors import UserError
from medcalib.handlers import MLFlowRunHandler

METADATA = {"medcalib": {"digest": "abc", "fragments": {"data": "phantom", "loss": "dice", "method": "tta"}}}


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "a_bundle"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    return folder


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """One database, which takes seconds to be made."""
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/runs.db"


def train(bundle, uri, epochs, first=0, stop_in=None, change=lambda handler: None, output="seed_7", experiment="x"):
    """Epochs of two iterations whose losses are 10 times the epoch and one more; every second one is validated."""
    trainer = Engine(lambda engine, batch: [{"loss": torch.tensor(10.0 * engine.state.epoch + batch)}])
    trainer.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    evaluator = Engine(lambda engine, batch: None)

    @evaluator.on(Events.EPOCH_COMPLETED)
    def score(engine):
        engine.state.metrics["mean_dice"] = trainer.state.epoch / 10

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine):
        if engine.state.epoch % 2 == 0:
            evaluator.run([0])
        trainer.optimizer.param_groups[0]["lr"] /= 2

    @trainer.on(Events.ITERATION_COMPLETED)
    def stop(engine):
        if engine.state.epoch == stop_in:
            raise KeyboardInterrupt

    handler = MLFlowRunHandler(uri, bundle, bundle / output, 7, evaluator, experiment)
    change(handler)
    handler.attach(trainer)
    trainer.load_state_dict({"epoch": first, "max_epochs": epochs, "epoch_length": 2})
    trainer.run([0, 1])


def runs(uri):
    import mlflow

    client = mlflow.MlflowClient(uri)
    found = client.search_runs(
        [client.get_experiment_by_name("x").experiment_id], order_by=["attributes.start_time ASC"]
    )
    history = {
        name: [(point.step, point.value) for point in client.get_metric_history(found[0].info.run_id, name)]
        for name in found[0].data.metrics
    }
    return found, history


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_interrupted_training_and_one_that_goes_on_are_one_run(bundle, uri):
    with pytest.raises(KeyboardInterrupt):
        train(bundle, uri, 3, stop_in=3)
    (run,), _ = runs(uri)
    assert run.info.status == "RUNNING"
    train(bundle, uri, 3, first=2)
    (run,), _ = runs(uri)
    assert run.info.status == "FINISHED"
    train(bundle, uri, 4, first=3)
    (run,), history = runs(uri)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "a_bundle seed 7"
    params = {"bundle": "a_bundle", "digest": "abc", "seed": "7", "data": "phantom", "loss": "dice", "method": "tta"}
    assert params.items() <= run.data.params.items()
    assert history["train_loss"] == [(1, 10.5), (2, 20.5), (3, 30.5), (4, 40.5)]
    assert history["mean_dice"] == [(2, 0.2), (4, 0.4)]
    assert [rate for _, rate in history["lr"]] == [1, 0.5, 1, 1]  # each of these trainings begins with 1

    # of the same name, elsewhere
    train(bundle, uri, 1, output="other")
    found, _ = runs(uri)
    assert len(found) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Versions of mlflow")
def test_a_training_does_not_fail_of_a_store_that_is_lost(bundle, uri):
    def lose(handler):
        def fail(*_arguments, **_options):
            raise ConnectionError("the server is gone")

        handler.client.log_batch = lambda *arguments, **options: (
            fail() if options.get("metrics") else type(handler.client).log_batch(handler.client, *arguments, **options)
        )

    with pytest.warns(UserWarning, match=r"told of this training \(the server is gone\); it goes on") as told:
        train(bundle, uri, 2, change=lose, experiment="lost")
    assert len([warning for warning in told if "it goes on" in str(warning.message)]) == 1


def test_a_store_that_is_none(bundle, uri, monkeypatch):
    for wrong in (None, "mlruns", "file:///tmp/mlruns"):
        with pytest.raises(UserError, match="records in a server or a database"):
            MLFlowRunHandler(wrong, bundle, bundle, 7, Engine(print))
    with pytest.raises(UserError, match="tracking_uri=sqlite:////proc/no/a.db cannot be used"):
        train(bundle, "sqlite:////proc/no/a.db", 1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI is http://elsewhere"):
        MLFlowRunHandler(uri, bundle, bundle, 7, Engine(print))


def test_mlflow_is_missing(bundle, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'medcalib\[mlflow\]'"):
        MLFlowRunHandler("sqlite:///a.db", bundle, bundle, 7, Engine(print))
