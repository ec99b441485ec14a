"""Predictions none of whose classes meets the truth, and whether a shift of the labels would mend them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.metrics.shifted import shifted, unlike
from ensemble_kit.recipes.unlike import members_unlike

NAMES = ("a", "b", "c")
LABELS = np.repeat(np.arange(3), 4).reshape(3, 4)


def set_of(labels: np.ndarray) -> ek.MaskSet:
    return ek.MaskSet({("s", name): ek.encode(labels == k) for k, name in enumerate(NAMES)})


@pytest.mark.parametrize("step", [-1, 1])
def test_a_shift_by_one_is_asked_about(step: int) -> None:
    assert "labels shifted by one?" in str(unlike(set_of(LABELS + step), set_of(LABELS)))
    both = ek.MaskSet({("s", n): ek.encode((k == LABELS) | (k + 3 == LABELS)) for k, n in enumerate(NAMES)})
    assert "labels shifted by one?" in str(unlike(set_of(LABELS + step), both))


def test_a_shift_of_classes_that_overlap() -> None:
    at = np.arange(16).reshape(4, 4)
    truth = ek.MaskSet({("s", n): ek.encode((at >= 4 * k) & (at < 4 * k + 6)) for k, n in enumerate(NAMES)})
    moved = ek.MaskSet({("s", "a"): truth["s", "b"], ("s", "b"): truth["s", "c"], ("s", "c"): ek.Runs.empty((4, 4))})
    assert not truth.exclusive
    assert unlike(moved, truth) is None  # some pixels are right: neighbours overlap
    apart = ek.MaskSet({("s", "a"): ek.encode(at > 9), ("s", "b"): ek.encode(at > 8), ("s", "c"): ek.encode(at < 0)})
    wanted = ek.MaskSet({("s", "a"): ek.encode(at < 0), ("s", "b"): ek.encode(at < 0), ("s", "c"): ek.encode(at > 8)})
    assert unlike(apart, wanted) == "every class scores 0 against the truth; labels shifted by one?"


def test_what_a_shift_does_not_mend() -> None:
    assert "do the classes mean the same" in str(
        unlike(set_of(2 - LABELS[::-1] + 5 * (LABELS == 1)), set_of(LABELS + 2))
    )
    assert unlike(set_of(LABELS), set_of(LABELS)) is None
    assert unlike(set_of(LABELS + 9), set_of(LABELS)) is None  # no pixel is predicted
    assert unlike(set_of(LABELS), set_of(LABELS + 9)) is None  # no pixel is true
    assert shifted(ek.confusion(set_of(LABELS), set_of(LABELS))) is None


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    """A member whose classes are those of the truth, and one whose are the next ones."""
    out = []
    for name, labels in (("right", LABELS), ("late", LABELS - 1)):
        out.append(tmp_path / f"{name}.zarr")
        with ek.LogitWriter(out[-1], classes=NAMES, samples=["s"], grid=LABELS.shape, activation="softmax") as writer:
            logits = np.where(labels == np.arange(3)[:, None, None], 9, -9)
            writer.write("s", logits.astype(np.float32), image_size=LABELS.shape)
    return out


@pytest.mark.slow
def test_a_member_is_warned_of(stores: list[Path]) -> None:
    (told,) = members_unlike(Ensemble(stores), set_of(LABELS))
    assert told.startswith("late: every class scores 0 against the truth; labels shifted by one?")
    with pytest.warns(UserWarning, match="late: every class scores 0"):
        ek.tune_thresholds(Ensemble(stores), set_of(LABELS))
