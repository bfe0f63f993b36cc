"""Scores in a datastore of MONAI Label, in the order in which its own strategy serves them."""

import json

import pytest

from medcalib.errors import UserError
from medcalib.predictions import score_images

ORDER = {"b": 0.7, "c": 0.4, "a": 0.1}


@pytest.fixture
def studies(tmp_path):
    """As MONAI Label leaves it, with an image that is labelled already and one that nobody predicted."""
    objects = {
        name: {"image": {"ext": ".nii.gz", "info": {"ts": 7, "name": f"{name}.nii.gz"}}, "labels": {}}
        for name in ("a", "b", "c", "done", "other")
    }
    objects["done"]["labels"]["final"] = {"ext": ".nii.gz", "info": {"ts": 8, "name": "done.nii.gz"}}
    for name in objects:
        (tmp_path / f"{name}.nii.gz").touch()
    (tmp_path / "labels" / "final").mkdir(parents=True)
    (tmp_path / "labels" / "final" / "done.nii.gz").touch()
    store = {"name": "", "description": "", "images_dir": ".", "labels_dir": "labels", "objects": objects}
    (tmp_path / "datastore_v2.json").write_text(json.dumps(store))
    return tmp_path


@pytest.fixture
def predictions(tmp_path):
    """As ``medcalib run --images`` leaves it; of a file a_0000 the id is a."""
    folder = tmp_path / "out"
    folder.mkdir()
    rows = [f"{name},/scans/{name}.nii.gz,{score}" for name, score in (ORDER | {"done": 0.9, "gone": 0.5}).items()]
    (folder / "predictions.csv").write_text("\n".join(["case,image,entropy_foreground_mean", *rows, ""]))
    return folder


def test_scores_are_written_and_all_else_stays(studies, predictions):
    before = json.loads((studies / "datastore_v2.json").read_text())
    found = score_images(predictions, studies)
    assert (sorted(found.scored), found.without_score, found.missing) == (["a", "b", "c", "done"], [], ["gone"])
    after = json.loads((studies / "datastore_v2.json").read_text())
    for name, score in (ORDER | {"done": 0.9}).items():
        assert after["objects"][name]["image"]["info"].pop("epistemic_entropy") == score
    assert after == before


def test_an_image_is_known_by_its_file_and_loses_a_score_that_is_none(studies, predictions):
    (predictions / "predictions.csv").write_text("case,image,variance\nx,/scans/b.nii.gz,0.5\na,/scans/a.nii.gz,0.5\n")
    assert score_images(predictions, studies, "variance", "my_key").scored == ["b", "a"]
    (predictions / "predictions.csv").write_text("case,image,variance\nx,/scans/b.nii.gz,0.25\na,/scans/a.nii.gz,\n")
    assert score_images(predictions / "predictions.csv", studies, "variance", "my_key").without_score == ["a"]
    objects = json.loads((studies / "datastore_v2.json").read_text())["objects"]
    assert objects["b"]["image"]["info"]["my_key"] == 0.25
    assert "my_key" not in objects["a"]["image"]["info"]


def test_the_strategy_of_monai_label_serves_them_in_this_order(studies, predictions):
    """Images that it has served come last; one without a score counts as 0."""
    pytest.importorskip("monailabel")
    from monailabel.datastore.local import LocalDatastore
    from monailabel.tasks.activelearning.epistemic import Epistemic

    score_images(predictions, studies)
    store = LocalDatastore(str(studies))
    served = []
    for number in range(4):
        image = Epistemic()({"strategy": "epistemic"}, store)["id"]
        store.update_image_info(image, {"strategy": {"epistemic": {"ts": 10**9 * 4 + number}}})
        served.append(image)
    assert served == [*ORDER, "other"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("datastore_v2.json", None, "There is no .*v2.json"),
        ("datastore_v2.json", "{", "v2.json is damaged"),
        ("datastore_v2.json", "{}", "no objects"),
        ("out/predictions.csv", None, "cannot be read"),
        (
            "out/predictions.csv",
            "case,image,entropy\nx,x.nii,1\n",
            "no numbers in a column 'entropy_f.*; there is entropy",
        ),
        ("out/predictions.csv", "case,image,entropy_foreground_mean\nx,x.nii,1\n", "has none of the images"),
        ("out/predictions.csv", "name\nx\n", "has no cases"),
    ],
)
def test_bad_input(studies, predictions, file, text, message):
    (studies / file).unlink()
    if text is not None:
        (studies / file).write_text(text)
    with pytest.raises(UserError, match=message):
        score_images(predictions, studies)
