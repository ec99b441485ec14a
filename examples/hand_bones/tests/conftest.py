"""One small set of generated hands for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_bones.generator import generate


@pytest.fixture(scope="session")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve persons to train on and four to test on, at 128 pixels."""
    root = tmp_path_factory.mktemp("hands")
    generate(root, people=12, test_people=4, size=128, seed=3)
    return root
