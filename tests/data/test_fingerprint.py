"""A fingerprint is the same for what is equal, anywhere, and another for whatever changes a result."""

import functools
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambdad, Orientationd, Spacingd
from tests.conftest import REPOSITORY

from medcalib.data.fingerprint import fingerprint
from medcalib.keys import CaseKeys
from medcalib.transforms import CheckLabeld, LoadCased, Regionsd


def transforms(pixdim=(1.0, 1.0, 2.0), mode="bilinear", label_map=None, names=("background", "kidney")):
    return [
        LoadCased(num_channels=1, label_map=label_map),
        Orientationd(["image", "label"], axcodes="RAS", labels=None),
        Spacingd(["image", "label"], pixdim=list(pixdim), mode=[mode, "nearest"]),
        CheckLabeld("label", list(names)),
    ]


class Holder:
    def __init__(self, value):
        self.value = value


def double(values):
    return values * 2


OTHERS = [
    transforms(),
    transforms()[::-1],
    transforms(pixdim=(1.0, 1.0, 2.5)),
    transforms(mode="nearest"),
    transforms(label_map={4: 3}),
    transforms(label_map={3: 4}),
    transforms(names=("background", "kidney", "cyst")),
    [Regionsd("label", {"a": [1], "b": [2]}, num_classes=3)],
    [Regionsd("label", {"b": [2], "a": [1]}, num_classes=3)],  # the order of regions is that of the channels
    [Lambdad("image", double)],
    [Lambdad("image", lambda values: values * 2)], [Lambdad("image", lambda values: values * 3)],
    [Lambdad("image", functools.partial(np.multiply, 2))],
    [Lambdad("image", functools.partial(np.multiply, 3))],
    *(Holder(value) for value in (1, 1.0, True, "1", None, [1], (1,), {1}, {1: 1}, b"1", Path("1"), re.compile("1"))),
    *(Holder(np.array([1, 2], dtype)) for dtype in ("int32", "int64", "float32")),
    *(Holder(torch.tensor([1, 2], dtype=dtype)) for dtype in (torch.int32, torch.bfloat16)),
    Holder(torch.tensor([[1, 2]], dtype=torch.int32)), Holder(torch.float32), Holder(CaseKeys.LABEL), Holder(Path),
]  # fmt: skip


def test_others_differ():
    assert len({fingerprint(value) for value in OTHERS}) == len(OTHERS)


def test_instances_do_not_matter():
    """`pickle` writes a text that is the same object as another only once."""
    text, twin = "bilinear", "".join(["bi", "linear"])
    one, other = Holder([text, text]), Holder([text, twin])
    assert pickle.dumps(one) != pickle.dumps(other)
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(transforms()) == fingerprint(pickle.loads(pickle.dumps(transforms())))


@pytest.mark.slow
def test_processes_do_not_matter():
    """Sets of texts have another order in each."""
    value = "[*transforms(), {'set': set('abcdefgh')}]"
    code = f"from tests.data.test_fingerprint import *; print(fingerprint({value}))"
    found = {fingerprint([*transforms(), {"set": set("abcdefgh")}])}
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY)}
        found.add(subprocess.check_output([sys.executable, "-c", code], text=True, env=environment).strip())
    assert len(found) == 1


def test_a_changed_class_is_seen(tmp_path, monkeypatch):
    """Also where it is the class from which that of the object inherits."""
    found = set()
    for number, body in enumerate(("return 1", "return 2")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "own_base.py").write_text(f"class Base:\n    def __call__(self, data):\n        {body}\n")
        (folder / "own_transform.py").write_text("from own_base import Base\nclass Own(Base):\n    pass\n")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            for name in ("own_base", "own_transform"):
                patch.delitem(sys.modules, name, raising=False)
            from own_transform import Own

            found.add(fingerprint(Own()))
    for name in ("own_base", "own_transform"):
        sys.modules.pop(name)
    assert len(found) == 2


def test_random_numbers_that_were_drawn_do_not_matter():
    """A `Compose` has a generator even where nothing in it is random."""
    assert fingerprint(Compose(transforms())) == fingerprint(Compose(transforms()))


def test_an_object_that_holds_itself():
    one, other = Holder(1), Holder(2)
    for holder in (one, other):
        holder.itself = holder
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize("value", [eval("lambda values: values"), threading.Lock()], ids=["expression", "lock"])
def test_what_cannot_be_described_is_refused(value):
    with pytest.raises(TypeError):
        fingerprint([Holder(value)])
