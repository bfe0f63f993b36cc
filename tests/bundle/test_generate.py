import json
import shutil
import subprocess
import sys

import pytest
import yaml
from tests.conftest import REPOSITORY, TEMPLATES

from medcalib.bundle.compose import generate, list_fragments
from medcalib.bundle.digest import bundle_digest
from medcalib.errors import UserError

NAMES = ("phantom", "baseline_dice_ce", "deterministic")


@pytest.fixture
def templates(tmp_path):
    """A copy of the templates that a test may change."""
    return shutil.copytree(TEMPLATES, tmp_path / "templates")


def edit(path, change):
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))


def command(*arguments, cwd):
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "generate_bundle.py"), *arguments], capture_output=True, text=True, cwd=cwd
    )


def test_name_holds_fragments_and_digest(bundle):
    data, loss, method, digest = (
        bundle.name.split("_baseline_dice_ce_")[0],
        "baseline_dice_ce",
        "deterministic",
        bundle.name[-8:],
    )
    assert bundle.name == f"{data}_{loss}_{method}_{digest}"
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["medcalib"]["digest"].startswith(digest)
    assert len(metadata["medcalib"]["digest"]) == 64
    assert metadata["medcalib"]["fragments"] == {
        "data": "phantom",
        "loss": "baseline_dice_ce",
        "method": "deterministic",
        "network": "segresnet_ds",
    }
    assert bundle_digest(bundle) == metadata["medcalib"]["digest"]


def test_metadata_is_filled_from_the_fragment(bundle):
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    fragment = yaml.safe_load((TEMPLATES / "configs" / "data" / "phantom.yaml").read_text())["data"]
    image = metadata["network_data_format"]["inputs"]["image"]
    pred = metadata["network_data_format"]["outputs"]["pred"]
    assert metadata["task"] == fragment["metadata"]["task"]
    assert image["modality"] == fragment["metadata"]["modality"]
    assert image["num_channels"] == len(fragment["channel_names"])
    assert list(pred["channel_def"].values()) == fragment["class_names"]


def test_generating_again_leaves_the_bundle_untouched(bundle):
    result = bundle / "seed_1" / "models" / "model.pt"
    result.parent.mkdir(parents=True)
    result.write_text("weights")
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    again, created = generate(TEMPLATES, bundle.parent, *NAMES)
    assert (again, created) == (bundle, False)
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before


def test_comments_and_key_order_do_not_change_the_name(templates, tmp_path):
    before, _ = generate(templates, tmp_path / "a", *NAMES)
    path = templates / "configs" / "data" / "phantom.yaml"
    content = yaml.safe_load(path.read_text())
    path.write_text("# another comment\n" + yaml.safe_dump(content, sort_keys=True))
    after, _ = generate(templates, tmp_path / "b", *NAMES)
    assert after.name == before.name


def test_a_changed_value_changes_the_name(templates, tmp_path):
    before, _ = generate(templates, tmp_path / "a", *NAMES)
    edit(templates / "configs" / "data" / "phantom.yaml", lambda c: c["data"].update(max_epochs=3))
    after, _ = generate(templates, tmp_path / "a", *NAMES)
    assert after.name != before.name


def test_training_digest_ignores_inference(templates, tmp_path):
    def training(folder):
        bundle, _ = generate(templates, folder, *NAMES)
        return json.loads((bundle / "configs" / "metadata.json").read_text())["medcalib"]["training_digest"]

    before = training(tmp_path / "a")
    edit(templates / "configs" / "inference_eval.yaml", lambda c: c["evaluation"].update(space="original"))
    assert training(tmp_path / "b") == before
    edit(templates / "configs" / "train.yaml", lambda c: c["train"]["optimizer"].update(lr=0.5))
    assert training(tmp_path / "c") != before


def test_an_edited_bundle_is_not_overwritten(bundle):
    edit(bundle / "configs" / "data.yaml", lambda c: c["data"].update(max_epochs=3))
    with pytest.raises(UserError, match="were edited"):
        generate(TEMPLATES, bundle.parent, *NAMES)
    assert yaml.safe_load((bundle / "configs" / "data.yaml").read_text())["data"]["max_epochs"] == 3


def break_data(key, value=None):
    def change(content):
        if value is None:
            del content["data"][key]
        else:
            content["data"][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (break_data("patch_size"), "lacks the id data::patch_size"),
        (break_data("patch_size", 3), "data::patch_size must be a list"),
        (break_data("patchsize", [1]), "data::patchsize is unknown; did you mean patch_size"),
        (break_data("class_names", ["a", "a"]), "class_names must hold at least two different"),
        (lambda c: c["data"]["metadata"].pop("licence"), "lacks the id data::metadata::licence"),
        (lambda c: c.update(data=3), "must be a mapping"),
        (lambda c: c.update({"train::optimiser::lr": 0.1}), "override id train::optimiser::lr does not exist"),
        (lambda c: c.update({"optimizer": 0.1}), "override id optimizer does not exist"),
        (lambda c: c.update({"handlers::overlay": None}), "override id handlers::overlay .*did you mean overlays"),
        (lambda c: c.update({"handlers::overlays::cases": None}), "handlers::overlays::cases does not exist"),
        (
            lambda c: c["data"]["networks"]["segresnet_ds"].update(init_filters="1e-5"),
            "init_filters is the text '1e-5'.*write 1.0e-5",
        ),
        (
            lambda c: c["data"]["preprocessing"][0].pop("allow_missing_keys"),
            "data::preprocessing::0 .*allow_missing_keys: true",
        ),
    ],
)
def test_a_fragment_that_breaks_its_contract_is_named(templates, tmp_path, change, message):
    path = templates / "configs" / "data" / "phantom.yaml"
    edit(path, change)
    with pytest.raises(UserError, match=f"phantom.yaml.*{message}"):
        generate(templates, tmp_path / "bundles", *NAMES)
    assert not (tmp_path / "bundles").exists()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("[no, yes]", "data::class_names holds no, which YAML reads as False: write it in quotes, as 'no'"),
        ("[a, true]", "holds true, which YAML reads as True"),
        ("[001, 002]", "holds 001, which YAML reads as 1: write it in quotes, as '001'"),
        ("[1.10, 1.2]", "holds 1.10, which YAML reads as 1.1"),
        ("[a, null]", "holds null, which YAML reads as None"),
        ("[2020-01-01, b]", "holds 2020-01-01, which YAML reads as datetime.date"),
        ("[0, 1, 2]", None),
        ('["0", "1", "2"]', None),
        ('["no", "yes", "1e-5"]', None),
        ("[a, mean]", "a class cannot be called mean"),
    ],
)
def test_names_of_classes_are_those_that_are_written(templates, tmp_path, written, message):
    path = templates / "configs" / "data" / "phantom.yaml"
    path.write_text(path.read_text().replace("[background, organ, lesion]", written))
    if message is None:
        bundle, _ = generate(templates, tmp_path / "bundles", *NAMES)
        metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
        names = [name.strip(" '\"") for name in written.strip("[]").split(",")]
        assert list(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values()) == names
        return
    with pytest.raises(UserError, match=f"phantom.yaml: .*{message}"):
        generate(templates, tmp_path / "bundles", *NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:\n  max_epochs: 1\n  max_epochs: 2\n", "line 3: the key 'max_epochs' stands there twice"),
        ("data: [1\n", "not valid YAML"),
        ("- 1\n", "must hold a mapping"),
        ("loss: {}\n", "must have the top-level key 'data'"),
    ],
)
def test_a_malformed_fragment_is_named(templates, tmp_path, text, message):
    (templates / "configs" / "data" / "phantom.yaml").write_text(text)
    with pytest.raises(UserError, match=f"phantom.yaml.*{message}"):
        generate(templates, tmp_path / "bundles", *NAMES)


def test_a_fragment_may_override_shared_ids(templates, tmp_path):
    def change(content):
        content |= {
            "train::optimizer::lr": 0.01,
            "network_def::upsample_mode": "nontrainable",
            "+imports": ["$import math"],
            "handlers::overlays": None,
            "additional_metrics::nll": None,
            "train::trainer_handlers::stats": None,
            "train::trainer_handlers::garbage": {"_target_": "monai.handlers.GarbageCollector"},
        }

    edit(templates / "configs" / "data" / "phantom.yaml", change)
    assert generate(templates, tmp_path / "bundles", *NAMES)[1]


def test_the_list_names_every_fragment():
    for kind, fragments in list_fragments(TEMPLATES / "configs").items():
        on_disk = {path.stem for path in (TEMPLATES / "configs" / kind).glob("*.yaml")}
        assert set(fragments) == on_disk
        assert all(fragments.values()), f"a {kind} fragment has no description"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "fantom", "--loss", "baseline_ce"], "did you mean phantom"),
        (["--data", "phantom", "--loss", "baselin_ce"], "did you mean baseline_ce"),
        (["--data", "phantom", "--loss", "baseline_ce", "--method", "deterministc"], "did you mean deterministic?"),
        (["--data", "phantom"], "--loss is missing"),
        (["--data", "phantom", "--loss", "baseline_ce", "--bundle_dir", "x"], "did you mean bundles_dir"),
        (["--data", "phantom", "--loss", "baseline_ce", "--bundles_dir", "/proc/nowhere"], "--bundles_dir"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(tmp_path, arguments, message):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_check_resolves_every_name(tmp_path):
    done = command("--data", "phantom", "--loss", "baseline_ce", "--check", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resolves" in done.stdout


@pytest.mark.parametrize("method", ["deep_ensemble", "multi_head", "layer_ensemble"])
def test_a_calibrator_of_one_network_is_refused_for_several(method, tmp_path):
    """Before anything is written or trained; fine_tune goes with whatever returns one prediction."""
    with pytest.raises(
        UserError, match=f"fine_tune changes the network, .*, but {method} has several networks or heads"
    ):
        generate(TEMPLATES, tmp_path / "bundles", *NAMES[:2], f"{method}+fine_tune")
    assert not (tmp_path / "bundles").exists()
    generate(TEMPLATES, tmp_path / "bundles", *NAMES[:2], "mc_dropout+fine_tune")
