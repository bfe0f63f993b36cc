"""A dataset with a column of folds becomes a fragment of which every fold has a bundle."""

import shutil
from pathlib import Path

import pytest
import yaml
from tests.data.layouts import make_hippocampus
from tests.planning.made_datasets import as_nnunet, describe_decathlon, make_pictures

from medcalib.bundle.data_folds import bundle_fold, bundles_of_folds
from medcalib.cli.verb_generate import main as generate
from medcalib.cli.verb_new_data import main
from medcalib.data import decathlon_cases, nnunet_cases, pattern_cases
from medcalib.errors import UserError


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Everything is written below the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    task = describe_decathlon(make_hippocampus(folder / "Task04_Hippocampus")) or folder / "Task04_Hippocampus"
    as_nnunet(Path(task), folder / "Dataset004_Hippocampus", {"0": "MRI"})
    make_pictures(folder / "skin")
    return folder


def write_folds(path, names, num_folds=2):
    rows = [f"{name},{number // 2 % num_folds}" for number, name in enumerate(sorted(names))]
    path.write_text("\n".join(["case,fold", *rows]))
    return str(path)


@pytest.mark.parametrize("layout", ["decathlon", "nnunet", "images"])
def test_the_folds_of_a_table(layout, made, place, capsys):
    if layout == "images":
        shutil.copytree(made / "skin", place / "skin")
        names = [path.stem for path in (place / "skin" / "masks").iterdir()]
        table = write_folds(place / "skin" / "cases.csv", names)
        options = {"images": "skin/pictures/{case}.png", "labels": "skin/masks/{case}.png"}
        cases = pattern_cases
    else:
        root = made / ("Task04_Hippocampus" if layout == "decathlon" else "Dataset004_Hippocampus")
        names = [path.name.partition(".")[0] for path in (root / "labelsTr").iterdir()]
        table = write_folds(place / "cases.csv", names)
        options = {layout: str(root)}
        cases = decathlon_cases if layout == "decathlon" else nnunet_cases
    main(
        **options, table=table, fold_column="fold", gpu_memory=8, num_workers=0, name="own", output_dir="data_fragments"
    )
    data = yaml.safe_load(Path("data_fragments/own.yaml").read_text())["data"]
    assert (data["fold"], data["num_folds"], data["cases"]["fold"]) == (0, 2, "@data::fold")
    capsys.readouterr()
    generate("own", "baseline_dice_ce", fold="all")
    bundles = [Path(line) for line in capsys.readouterr().out.splitlines()[-2:]]
    assert list(bundles_of_folds(bundles[:1])) == [0, 1]
    tested = []
    for bundle in bundles:
        listing = {key: value for key, value in data["cases"].items() if key != "_target_"}
        listing |= {"dataset_dir": data["dataset_dir"], "fold": bundle_fold(bundle).number}
        tested += [case["case"] for case in cases(**listing)["test"]]
    assert sorted(tested) == sorted(names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold_column": "fold"}, "--fold_column needs --table"),
        ({"table": "cases.csv"}, "--table says nothing yet: name --split_column or --fold_column"),
        ({"table": "none.csv", "fold_column": "fold"}, "The table 'none.csv' does not exist"),
        ({"fold": 1}, "--fold needs folds"),
        ({"table": "cases.csv", "fold_column": "fold", "fold": 2}, "has the folds 0 to 1"),
        ({"table": "cases.csv", "fold_column": "part"}, "lacks the column 'part'"),
    ],
)
def test_mistakes_are_one_sentence_and_no_fragment(options, message, made, place):
    root = made / "Task04_Hippocampus"
    write_folds(place / "cases.csv", [path.name.partition(".")[0] for path in (root / "labelsTr").iterdir()])
    with pytest.raises(UserError, match=message):
        main(decathlon=str(root), gpu_memory=8, num_workers=0, output_dir="data_fragments", **options)
    assert not Path("data_fragments").exists()
