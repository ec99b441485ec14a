"""Predictions none of whose classes meets the truth, and whether a shift of the labels would mend them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.executor import THREADS
from ensemble_kit.metrics.shifted import doubted, shifted
from ensemble_kit.recipes.doubts import doubted_members

NAMES = ("a", "b", "c")
LABELS = np.repeat(np.arange(3), 4).reshape(3, 4)


def set_of(labels: np.ndarray) -> ek.MaskSet:
    return ek.MaskSet({("s", name): ek.encode(labels == k) for k, name in enumerate(NAMES)})


@pytest.mark.parametrize("step", [-1, 1])
def test_a_shift_by_one_is_asked_about(step: int) -> None:
    assert "labels shifted by one?" in str(doubted(set_of(LABELS + step), set_of(LABELS)))
    both = ek.MaskSet({("s", n): ek.encode((k == LABELS) | (k + 3 == LABELS)) for k, n in enumerate(NAMES)})
    assert "labels shifted by one?" in str(doubted(set_of(LABELS + step), both))


def test_a_shift_of_classes_that_overlap() -> None:
    at = np.arange(16).reshape(4, 4)
    truth = ek.MaskSet({("s", n): ek.encode((at >= 4 * k) & (at < 4 * k + 6)) for k, n in enumerate(NAMES)})
    moved = ek.MaskSet({("s", "a"): truth["s", "b"], ("s", "b"): truth["s", "c"], ("s", "c"): ek.Runs.empty((4, 4))})
    assert not truth.exclusive
    assert doubted(moved, truth) is None  # some pixels are right: neighbours overlap
    apart = ek.MaskSet({("s", "a"): ek.encode(at > 9), ("s", "b"): ek.encode(at > 8), ("s", "c"): ek.encode(at < 0)})
    wanted = ek.MaskSet({("s", "a"): ek.encode(at < 0), ("s", "b"): ek.encode(at < 0), ("s", "c"): ek.encode(at > 8)})
    assert doubted(apart, wanted) == "no pixel of any class is right: labels shifted by one?"


def test_what_a_shift_does_not_mend() -> None:
    apart = set_of(np.array([[2, 2, 2, 2], [9, 9, 9, 9], [0, 0, 0, 0]]))
    assert doubted(apart, set_of(LABELS)) == "no pixel of any class is right"
    assert doubted(set_of(LABELS), set_of(LABELS)) is None
    assert doubted(set_of(LABELS + 9), set_of(LABELS)) is None  # no pixel is predicted
    assert doubted(set_of(LABELS), set_of(LABELS + 9)) is None  # no pixel is true
    assert shifted(ek.confusion(set_of(LABELS), set_of(LABELS))) is None


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    """A member whose classes are those of the truth, and one whose are the next ones."""
    out = []
    for name, labels in (("right", LABELS), ("late", (LABELS + 1) % 3)):
        out.append(tmp_path / f"{name}.zarr")
        with ek.LogitWriter(out[-1], classes=NAMES, samples=["s"], grid=LABELS.shape, activation="softmax") as writer:
            logits = np.where(labels == np.arange(3)[:, None, None], 9, -9)
            writer.write("s", logits.astype(np.float32), image_size=LABELS.shape)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("by_argmax", [True, False], ids=["argmax", "thresholds"])
def test_a_member_is_warned_of(stores: list[Path], by_argmax: bool) -> None:
    told = doubted_members(Ensemble(stores), set_of(LABELS), THREADS, by_argmax)
    (caution,) = told
    assert caution.doubt == (
        "member 'late', looked at in 1 samples: no pixel of any class is right: labels shifted by one?"
    )


def test_a_shift_is_asked_about_though_some_pixels_are_right_by_chance() -> None:
    labels = np.repeat(np.arange(3), 40).reshape(12, 10)
    late = labels + 1
    late[0, 0] = 0
    told = "labels shifted by one? 1.2% of the pixels as the classes are named, 98.8% as their neighbours in the list"
    assert doubted(set_of(late), set_of(labels)) == told
    late[:6] = labels[:6]
    assert doubted(set_of(late), set_of(labels)) is None  # most are right


def test_exchanged_classes_are_asked_about_however_small_they_are() -> None:
    labels = np.zeros((20, 20), int)
    labels[0, :8], labels[1, :6] = 1, 2
    other = labels.copy()
    other[0, :7], other[1, :5] = 2, 1
    told = "classes exchanged? 87.5% of 'b' is predicted as 'c', and 83.3% of 'c' as 'b'"
    assert doubted(set_of(other), set_of(labels)) == told
    other[0, :4] = 1
    assert doubted(set_of(other), set_of(labels)) is None  # half of a class is no sign
    other[0, :8] = 2
    other[1, :6] = 2
    assert doubted(set_of(other), set_of(labels)) is None  # one class for both is an error of the network
