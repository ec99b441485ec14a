"""One small set of generated hands for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_bones.generator import generate
from hand_bones.layout import read_layout
from hand_bones.splits import make_splits, write_splits


@pytest.fixture(scope="session")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve persons to train on and four to test on, at 128 pixels."""
    root = tmp_path_factory.mktemp("hands")
    generate(root, people=12, test_people=4, size=128, seed=3)
    return root


@pytest.fixture(scope="session")
def split_hands(hands: Path) -> Path:
    """The same with splits.csv, three folds."""
    records = read_layout(hands, "train")
    write_splits(hands / "splits.csv", records, make_splits(records, 3))
    return hands
