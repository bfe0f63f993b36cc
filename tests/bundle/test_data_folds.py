"""Bundles of folds: each has a name of its own, others keep theirs, and they find each other."""

import shutil

import pytest
from tests.conftest import TEMPLATES

from medcalib.bundle.compose import generate
from medcalib.bundle.data_folds import DataFold, bundle_fold, bundles_of_folds, chosen_folds
from medcalib.bundle.digest import bundle_digest
from medcalib.bundle.opened import Bundle
from medcalib.errors import UserError


def make(folder, data="phantom", method="deterministic", folds=None, fold=None, loss="baseline_dice_ce"):
    return [
        generate(TEMPLATES, folder, data, loss, method, None, one)[0]
        for one in chosen_folds(TEMPLATES, data, fold, folds)
    ]


def test_folds_differ_in_their_fold_alone_and_a_bundle_without_keeps_its_name(tmp_path):
    (plain,) = make(tmp_path)
    made = make(tmp_path, folds=3)
    assert len({plain.name, *(path.name for path in made)}) == 4
    assert [bundle_fold(path)[:2] for path in made] == [(0, 3), (1, 3), (2, 3)]
    assert len({bundle_fold(path).digest for path in made}) == 1
    assert bundle_fold(plain).number is None
    assert all(bundle_digest(path) == Bundle.open(path).digest for path in made)
    assert make(tmp_path, folds=3, fold=1) == [made[1]]


def test_the_fold_that_data_have_is_their_ordinary_bundle(tmp_path):
    (plain,) = make(tmp_path, "brats18")
    made = make(tmp_path, "brats18", fold="all")
    assert made[0] == plain
    assert len(made) == 5
    assert list(bundles_of_folds([plain])) == [0, 1, 2, 3, 4]


def test_bundles_that_share_weights_are_of_the_same_fold(tmp_path):
    for bundle in make(tmp_path, method="temperature_scaling", folds=2):
        sibling = tmp_path / Bundle.open(bundle).metadata["medcalib"]["weights_bundle"]
        assert bundle_fold(sibling)[:2] == bundle_fold(bundle)[:2]


def test_one_bundle_leads_to_all(tmp_path):
    made = make(tmp_path, folds=3)
    make(tmp_path, folds=2)
    make(tmp_path, folds=3, loss="baseline_ce")
    assert bundles_of_folds([made[1]]) == dict(enumerate(made))
    assert bundles_of_folds(made[::-1]) == dict(enumerate(made))
    shutil.rmtree(made[2])
    with pytest.raises(UserError, match="Of the folds 0 to 2 of .* there is no bundle of 2 in .*--fold 2"):
        bundles_of_folds([made[1]])
    with pytest.raises(UserError, match="are of the same fold, 0; give one"):
        bundles_of_folds([made[0], made[0]])
    with pytest.raises(UserError, match="differs from .* in more than the fold"):
        bundles_of_folds([made[0], make(tmp_path, folds=2)[1]])
    with pytest.raises(UserError, match="is the bundle of no fold; generate"):
        bundles_of_folds(make(tmp_path))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("phantom", {"fold": "all"}, "have no folds of their own; --folds 5"),
        ("phantom", {"fold": 0}, "have no folds of their own"),
        ("brats18", {"folds": 3}, "have folds of their own; give --fold all"),
        ("brats18", {"fold": 5}, "--fold is 5, but there are the folds 0 to 4"),
        ("phantom", {"folds": 3, "fold": 3}, "--fold is 3, but there are the folds 0 to 2"),
        ("phantom", {"folds": 1}, "--folds is 1; give a whole number of at least 2"),
        ("phantom", {"folds": "all"}, "--folds is 'all'"),
        ("phantom", {"folds": 3, "fold": "one"}, "--fold is 'one'"),
    ],
)
def test_folds_that_there_are_not_are_one_sentence(data, options, message):
    with pytest.raises(UserError, match=message):
        chosen_folds(TEMPLATES, data, **options)


def test_no_fold_is_the_division_of_the_data():
    assert chosen_folds(TEMPLATES, "phantom") == [None]
    assert chosen_folds(TEMPLATES, "phantom", folds=2) == [DataFold(0, 2), DataFold(1, 2)]
