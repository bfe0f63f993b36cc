import pytest
import torch
from tests.bundle.test_specification import workflow
from tests.data.layouts import make_kits

from medcalib.bundle.layout import Mode
from medcalib.bundle.run import run
from medcalib.errors import UserError
from medcalib.handlers.training_record import read_record
from medcalib.transforms import LoadCased


def test_preprocessing_is_cached_and_augmentation_is_not(trained, tiny):
    """The cache holds the result of every transform up to the last deterministic one."""
    made = workflow(trained, Mode.TRAIN, tiny)
    transforms = made.train_dataset.transform.transforms
    names = [type(transform).__name__ for transform in transforms]
    random = next(index for index, name in enumerate(names) if name.startswith("Rand"))
    assert names[:2] == ["LoadCased", "Orientationd"]
    assert names[random - 1] == "SpatialPadd"
    for dataset, number in ((made.train_dataset, 4), (made.val_dataset, 2)):
        assert len(dataset._cache) == number
        assert all(item["image"].ndim == 4 for item in dataset._cache)


class TestOnDisk:
    """Trainings of the bundle of kits23, which keeps prepared cases on disk, on three training cases and one other."""

    @pytest.fixture(scope="class")
    def bundle(self, make_bundle, tmp_path_factory):
        return make_bundle(tmp_path_factory.mktemp("kits"), data="kits23")

    @pytest.fixture
    def settings(self, tmp_path):
        return {
            "data_dir": str(tmp_path),
            "data::dataset_dir": str(make_kits(tmp_path / "kits23")),
            "network::init_filters": 4,
            "network::blocks_down": [1, 1],
            "data::patch_size": [16, 16, 8],
            "inferer::overlap": 0.0,
            "num_workers": 0,
        }

    @pytest.fixture
    def prepared(self, monkeypatch):
        """Names of the cases that were prepared, image and label; the record of a training reads images alone."""
        names = []
        load = LoadCased.__call__

        def count(self, data):
            if "label" in data:
                names.append(data["case"])
            return load(self, data)

        monkeypatch.setattr(LoadCased, "__call__", count)
        return names

    @pytest.fixture
    def train(self, bundle, settings, tmp_path):
        """Train into a folder of its own and return the last weights."""

        def run_to(name, **options):
            output = tmp_path / name
            run(str(bundle), "train", debug=True, overrides=settings | {"output_dir": str(output)} | options)
            return torch.load(output / "models" / "checkpoint.pt", weights_only=True)["network"]

        return run_to

    def test_a_second_training_prepares_nothing(self, train, prepared, tmp_path):
        """Training and validation cases are prepared once for two epochs of two trainings, with the same weights."""
        first = train("first")
        assert sorted(prepared) == sorted(set(prepared))
        assert len(prepared) == len(list((tmp_path / "cache" / "kits23").glob("*.pt"))) == 4
        assert_equal(first, train("second"))
        assert len(prepared) == 4

    def test_without_a_cache_the_weights_are_the_same(self, train, prepared, tmp_path):
        without = train("without", **{"train::dataset::cache_dir": None})
        assert len(prepared) == 8
        assert not (tmp_path / "cache").exists()
        assert_equal(without, train("cached"))

    def test_in_memory_the_weights_are_the_same(self, train):
        """The cache of all other bundles, which knows the epoch, too."""
        memory = {
            "_target_": "medcalib.data.caching.SeededCacheDataset",
            "data": "$@split['training'][:@limit_cases]",
            "transform": "@train::preprocessing",
            "seed": "@seed",
            "progress": False,
        }
        assert_equal(train("disk"), train("memory", **{"train::dataset": memory, "validate::dataset::cache_dir": None}))

    def test_a_resumed_training_may_have_another_folder(self, train, stopped_in_second_epoch, tmp_path):
        with stopped_in_second_epoch():
            train("stopped")
        resumed = train("stopped", **{"train::dataset::cache_dir": str(tmp_path / "elsewhere")})
        assert len(list((tmp_path / "elsewhere").glob("*.pt"))) == 4
        assert_equal(resumed, train("uninterrupted"))
        recorded = read_record(tmp_path / "stopped" / "models").settings
        assert not [id_ for id_ in recorded if "cache_dir" in id_]

    def test_a_folder_that_cannot_be_written(self, train, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=r"written to .*/file/x \(Not a .*--train::dataset::cache_dir") as caught:
            train("output", **{"train::dataset::cache_dir": str(tmp_path / "file" / "x")})
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "output").exists()


def assert_equal(weights, others):
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
