import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader
from monai.transforms import Compose, Lambda, RandFlip, RandGaussianNoise, ToTensord
from tests.conftest import REPOSITORY, TEMPLATES
from tests.data.layouts import make_kits

from medcalib.bundle.fragments import read_yaml
from medcalib.data import caching, kits_cases
from medcalib.data.caching import SeededCacheDataset, SeededPersistentDataset
from medcalib.errors import UserError
from medcalib.seeds import derived_seed
from medcalib.transforms import CheckLabeld, LoadCased

MAKERS = {
    "memory": lambda data, transform, folder, seed: SeededCacheDataset(
        data, transform, seed=seed, progress=False, num_workers=1
    ),
    "disk": lambda data, transform, folder, seed: SeededPersistentDataset(data, transform, folder, seed=seed),
}


@pytest.fixture(params=MAKERS)
def dataset(request, tmp_path):
    """Make a dataset of either kind; one on disk in a folder of its own unless the same is named."""

    def make(seed=0, size=6, folder=None):
        calls = []
        transform = Compose(
            [
                Compose([Lambda(lambda x: calls.append(1) or x + 1)]),
                RandGaussianNoise(prob=1.0, std=1.0),
                RandFlip(prob=0.5, spatial_axis=0),
            ]
        )
        data = [torch.full((1, 3, 3), float(index)) for index in range(size)]
        folder = tmp_path / (folder or f"cache_{len(list(tmp_path.iterdir()))}")
        made = MAKERS[request.param](data, transform, folder, seed)
        made.calls = calls
        return made

    return make


def epoch(made, number, **loader):
    made.set_epoch(number)
    return torch.cat([batch.as_tensor() for batch in DataLoader(made, batch_size=1, **loader)])


def test_only_what_is_deterministic_is_cached(dataset):
    made = dataset()
    epoch(made, 1)
    epoch(made, 2)
    assert len(made.calls) == 6


def test_epochs_and_cases_differ(dataset):
    made = dataset()
    first, second = epoch(made, 1), epoch(made, 2)
    assert not torch.equal(first, second)
    noise = first - torch.arange(1.0, 7.0).reshape(6, 1, 1, 1)
    assert len({round(float(n.sum()), 4) for n in noise}) == 6


def test_an_epoch_depends_on_nothing_before(dataset):
    made, fresh = dataset(), dataset()
    epoch(made, 1)
    made[3]
    assert torch.equal(epoch(made, 2), epoch(fresh, 2))


def test_the_order_does_not_matter(dataset):
    made = dataset()
    made.set_epoch(1)
    forwards = [made[index].as_tensor() for index in range(6)]
    backwards = [made[index].as_tensor() for index in reversed(range(6))][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_workers_change_nothing(dataset):
    fresh = dataset()
    for _ in range(2):
        assert torch.equal(epoch(dataset(), 2), epoch(fresh, 2, num_workers=2, multiprocessing_context="fork"))


def test_seeds_differ(dataset):
    assert not torch.equal(epoch(dataset(seed=0), 1), epoch(dataset(seed=1), 1))


def test_derived_seeds_differ():
    seeds = {derived_seed(seed, number, index) for seed in range(5) for number in range(10) for index in range(20)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**32 for seed in seeds)
    np.random.RandomState(max(seeds))


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    return make_kits(tmp_path_factory.mktemp("kits"))


def kits_transform(augmented=True, patch=(16, 16, 8), **spacing):
    """All transforms of the fragment, made anew."""
    data = read_yaml(TEMPLATES / "configs" / "data" / "kits23.yaml")["data"] | {"patch_size": list(patch)}
    next(t for t in data["preprocessing"] if t["_target_"].endswith("Spacingd")).update(spacing)
    parser = ConfigParser({"data": data})
    content = [LoadCased(num_channels=1), *parser.get_parsed_content("data::preprocessing")]
    content.append(CheckLabeld("label", data["class_names"]))
    return Compose(content + parser.get_parsed_content("data::augmentation") * augmented)


def kits(download, folder, seed=3, **options):
    return SeededPersistentDataset(kits_cases(download)["training"], kits_transform(**options), folder, seed=seed)


def uncached(made, index, number):
    """An item as its definition says, without any dataset."""
    transform = kits_transform().flatten()
    transform.set_random_state(derived_seed(3, number, index))
    return transform(made.data[index])


def assert_same(one, other):
    if isinstance(one, list):
        for patches in zip(one, other, strict=True):
            assert_same(*patches)
        return
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, torch.Tensor | np.ndarray):
            wanted, found = torch.as_tensor(value), torch.as_tensor(other[key])
            assert wanted.dtype == found.dtype
            assert torch.equal(wanted, found), key
        else:
            assert value == other[key]


def files(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


class TestOnDisk:
    """The results of the transforms of kits23 on tiny cases in its layout."""

    def test_items_are_those_without_cache_and_those_from_memory(self, download, tmp_path):
        made = kits(download, tmp_path / "cache")
        memory = SeededCacheDataset(made.data, kits_transform(), seed=3, progress=False)
        without = kits(download, None)
        for number in (1, 1, 2):
            for dataset in (made, memory, without):
                dataset.set_epoch(number)
            for index in (2, 0, 1):
                wanted = uncached(made, index, number)
                for dataset in (made, memory, without):
                    assert_same(wanted, dataset[index])
        assert len(files(tmp_path / "cache")) == 3

    def test_items_are_alike_the_first_and_the_second_time(self, download, tmp_path):
        """Strides, types and keys, too."""
        made = kits(download, tmp_path / "cache", augmented=False)
        first, second = made[0], made[0]
        assert_same(first, second)
        assert {key: type(value) for key, value in first.items()} == {key: type(second[key]) for key in first}
        assert type(first["image"]) is torch.Tensor
        assert first["image"].stride() == second["image"].stride()

    def test_what_is_on_disk_is_used(self, download, tmp_path, monkeypatch):
        folder = tmp_path / "cache"
        wanted = kits(download, folder)[0]
        monkeypatch.setattr(LoadCased, "__call__", None)
        assert_same(wanted, kits(download, folder)[0])

    @pytest.mark.slow
    def test_by_another_process_too(self, download, tmp_path):
        kits(download, tmp_path / "cache")[0]
        before = files(tmp_path / "cache")
        code = f"from tests.data.test_caching import *; kits(Path('{download}'), Path('{tmp_path / 'cache'}'))[0]"
        environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(REPOSITORY)}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)
        assert files(tmp_path / "cache") == before
        assert len(before) == 1

    def test_how_the_path_is_written_does_not_matter(self, download, tmp_path, monkeypatch):
        kits(download, tmp_path)[0]
        monkeypatch.chdir(download)
        kits(Path("dataset"), tmp_path)[0]
        assert len(files(tmp_path)) == 1

    @pytest.mark.parametrize(
        "option", [{"pixdim": [1.0, 1.0, 1.5]}, {"mode": ["nearest", "nearest"]}, {"patch": (16, 16, 12)}], ids=str
    )
    def test_another_preprocessing_is_prepared_anew(self, download, tmp_path, option):
        kits(download, tmp_path)[0]
        changed = kits(download, tmp_path, augmented=False, **option)[0]
        assert_same(kits(download, None, augmented=False, **option)[0], changed)
        assert len(files(tmp_path)) == 2

    @pytest.mark.parametrize("package", ["monai", "torch"])
    def test_another_version_prepares_anew(self, download, tmp_path, monkeypatch, package):
        kits(download, tmp_path)[0]
        known = caching.version
        monkeypatch.setattr(caching, "version", lambda name: "9.9" if name == package else known(name))
        kits(download, tmp_path)[0]
        assert len(files(tmp_path)) == 2

    @pytest.mark.parametrize("key", ["image", "label"])
    def test_a_changed_file_is_prepared_anew(self, download, tmp_path, key):
        root = shutil.copytree(download, tmp_path / "kits")
        made = kits(root, tmp_path / "cache")
        made[0], made[1]
        changed, other = (Path(made.data[index][key]) for index in (0, 1))
        shutil.copyfile(other, changed.with_name("new.nii.gz")).replace(changed)
        names = {"image": "imaging", "label": "segmentation"}
        assert changed.name.startswith(names[key])
        assert_same(uncached(made, 0, 1), made[0])
        assert len(files(tmp_path / "cache")) == 3

    def test_a_file_changed_without_another_size_is_prepared_anew(self, download, tmp_path):
        root = shutil.copytree(download, tmp_path / "kits")
        made = kits(root, tmp_path / "cache")
        made[0]
        image = made.data[0]["image"]
        os.utime(image, ns=(0, os.stat(image).st_mtime_ns + 1))  # noqa: PTH116
        made[0]
        assert len(files(tmp_path / "cache")) == 2

    @pytest.mark.parametrize("changed", ["scan/slice", "scan.raw"])
    def test_a_changed_part_of_an_image_is_prepared_anew(self, changed, tmp_path):
        (tmp_path / "scan").mkdir()
        (tmp_path / "scan" / "slice").write_bytes(bytes(128) + b"DICM")
        (tmp_path / "scan.mhd").write_text("ElementDataFile = scan.raw\n")
        (tmp_path / "scan.raw").write_bytes(bytes(8))
        image = tmp_path / ("scan" if changed == "scan/slice" else "scan.mhd")
        data = [{"case": "a", "image": str(image)}]
        made = SeededPersistentDataset(
            data, Compose([ToTensord("number", allow_missing_keys=True)]), tmp_path / "cache"
        )
        for number in range(2):
            made[0]
            made[0]
            assert len(files(tmp_path / "cache")) == number + 1
            os.utime(tmp_path / changed, ns=(0, (number + 1) * 10**9))

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: b"",
            lambda content: content[: len(content) // 2],
            lambda content: content[:-1],
            lambda content: bytes(len(content)),
            lambda content: content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1])
            + content[len(content) // 2 + 1 :],
        ],
        ids=["empty", "half", "last_byte", "zeros", "one_bit"],
    )  # fmt: skip
    def test_a_damaged_file_is_prepared_anew(self, download, tmp_path, damage):
        made = kits(download, tmp_path)
        wanted = made[0]
        (path,) = tmp_path.iterdir()
        content = path.read_bytes()
        path.write_bytes(damage(content))
        with pytest.warns(UserWarning, match=f"{path.name} is not a readable prepared case"):
            assert_same(wanted, made[0])
        assert path.read_bytes() == content

    def test_a_killed_write_leaves_nothing_that_is_read(self, download, tmp_path, monkeypatch):
        made = kits(download, tmp_path)

        def killed():
            monkeypatch.setattr(os, "fsync", lambda number: os.kill(os.getpid(), signal.SIGKILL))
            made[0]

        process = multiprocessing.get_context("fork").Process(target=killed)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        (left,) = tmp_path.iterdir()
        assert left.name.startswith(".unfinished.")
        assert_same(uncached(made, 0, 1), made[0])
        kits(download, tmp_path)
        assert not left.exists()

    def test_processes_do_not_disturb_each_other(self, download, tmp_path):
        context = multiprocessing.get_context("fork")
        wanted = [uncached(kits(download, None), index, 1) for index in range(3)]
        barrier = context.Barrier(4)

        def work(start):
            made = kits(download, tmp_path)
            for repeat in range(5):
                barrier.wait(60)
                for path in tmp_path.glob("*.pt"):
                    path.unlink(missing_ok=True)
                for index in range(3):
                    index = (start + repeat + index) % 3
                    assert_same(wanted[index], made[index])

        processes = [context.Process(target=work, args=(start,)) for start in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0] * 4
        assert len(list(tmp_path.iterdir())) == 3

    def test_only_what_is_needed_is_written(self, tmp_path):
        """Not the volume of which a case is a part."""
        made = SeededPersistentDataset([torch.rand(1000, 10)], Lambda(lambda x: x[:1]), tmp_path)
        made[0]
        (path,) = tmp_path.iterdir()
        assert path.stat().st_size < 4000

    def test_other_cases_leave_what_is_on_disk(self, download, tmp_path):
        made = kits(download, tmp_path)
        made[0]
        made.set_data(made.data[1:])
        made[0]
        assert len(files(tmp_path)) == 2

    def test_a_folder_that_cannot_be_written(self, download, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=r"Prepared cases cannot be written to .*/file/cache \(Not a directory\); "):
            kits(download, tmp_path / "file" / "cache")

    def test_a_full_disk(self, download, tmp_path, monkeypatch):
        made = kits(download, tmp_path)

        def full(number):
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"\(No space left on device\); choose .* --train::dataset::cache_dir"):
            made[0]
        assert files(tmp_path) == {}

    def test_a_transform_whose_changes_would_not_be_seen(self, download, tmp_path):
        expression = Lambda(eval("lambda x: x"))
        with pytest.raises(UserError, match=r"<lambda> was not read from a file\): put it into a module"):
            SeededPersistentDataset([], expression, tmp_path)
        assert SeededPersistentDataset([1], expression, None)[0] == 1
