"""The example in every docstring runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import ensemble_kit

MODULES = [
    m.name
    for m in pkgutil.walk_packages(ensemble_kit.__path__, "ensemble_kit.")
    if not m.name.startswith(("ensemble_kit.backends", "ensemble_kit.demo", "ensemble_kit.cli"))
    and m.name != "ensemble_kit.trainers.lightning"  # whose class is the framework's, which is not installed here
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
