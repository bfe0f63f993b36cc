"""What others import into their own code says how to use it."""

import importlib
import inspect
import re

import pytest

PACKAGES = ["calibrators", "functional", "guarantees", "handlers", "inferers", "losses", "metrics", "reports"]


def exported():
    for package in PACKAGES:
        module = importlib.import_module(f"medcalib.{package}")
        for name in module.__all__:
            item = getattr(module, name)
            if inspect.isclass(item) or inspect.isfunction(item):
                yield pytest.param(item, id=f"{package}.{name}")


@pytest.mark.parametrize("item", exported())
def test_has_an_example(item):
    assert ">>> " in (item.__doc__ or ""), "the docstring lacks an example"


@pytest.mark.parametrize("item", exported())
def test_says_what_its_arguments_are(item):
    names = inspect.signature(item).parameters
    text = inspect.getdoc(item)
    if not re.search(r"arguments as :class:|the same arguments", text):
        assert [name for name in names if f"{name}: " not in text and f"{name}:\n" not in text] == []
