"""`--groups` is suggested where samples are much alike by their ids and their masks, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.recipes.families import near_duplicates
from ensemble_kit.tuning.folds import group_of

SIZE = 48


def boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Centres and half sides of `n` boxes in an image."""
    return np.concatenate([rng.uniform(12, 36, (n, 2)), rng.uniform(2, 8, (n, 2))], axis=1)


def masks(families: list[list[str]], like: float, seed: int = 0, mirror: str | None = None) -> ek.MaskSet:
    """Boxes of five classes, each sample's those of its family moved by `like`; `mirror` is mirrored."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for ids in families:
        own = boxes(rng, 5)
        for sample in ids:
            moved = own + rng.normal(0, like, own.shape) if np.isfinite(like) else boxes(rng, 5)
            for c, (y, x, h, w) in enumerate(np.clip(moved, 1, 46)):
                bitmap = np.zeros((SIZE, SIZE), bool)
                bitmap[int(y - h) : int(y + h) + 1, int(x - w) : int(x + w) + 1] = True
                bitmap = bitmap[:, ::-1] if mirror and re.search(mirror, sample) else bitmap
                drawn[sample, f"c{c}"] = ek.encode(bitmap)
    return ek.MaskSet(drawn)


IDS: dict[str, tuple[Callable[[int, int], str], int, int]] = {
    "frames of videos": (lambda f, k: f"seq{f}_{7 * k:04d}.png", 8, 10),
    "slices of volumes": (lambda f, k: f"patient{f:02d}-slice{k:03d}.npy", 8, 6),
    "folders": (lambda f, k: f"case{f}/{k}.png", 6, 6),
    "without a separator": (lambda f, k: f"vid{f}frame{k}", 6, 6),
    "sides": (lambda f, k: f"ID{f:03d}_{'LR'[k]}.png", 30, 2),
    "sides after a digit": (lambda f, k: f"ID{f:03d}{'LR'[k]}.png", 30, 2),
    "sides in words": (lambda f, k: f"hand{f}-{('left', 'right')[k]}", 30, 2),
    "sides first": (lambda f, k: f"{'LR'[k]}_person{f}.png", 30, 2),
    "number first": (lambda f, k: f"{k:03d}_scan{f}.png", 8, 6),
}


def families_of(name: str) -> list[list[str]]:
    make, families, each = IDS[name]
    return [[make(f, k) for k in range(each)] for f in range(families)]


@pytest.mark.parametrize("name", IDS)
def test_the_expression_that_is_named_makes_these_families(name) -> None:
    families = families_of(name)
    (caution,) = near_duplicates(masks(families, 0.7))
    samples = [s for ids in families for s in ids]
    said = re.search(r"--groups '(.*)', which makes (\d+) groups", caution.fix)
    assert said is not None
    groups = group_of(samples, said[1])
    assert len(set(groups)) == int(said[2]) == len(families)
    assert groups == [groups[samples.index(ids[0])] for ids in families for _ in ids]


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("seed", range(3))
def test_unrelated_masks_under_such_ids_are_no_reason(name, seed) -> None:
    assert near_duplicates(masks(families_of(name), np.inf, seed)) == []


def test_mirrored_sides_are_seen() -> None:
    (caution,) = near_duplicates(masks(families_of("sides"), 0.7, mirror="_R"))
    assert r"--groups '^(.+?)_(?:" in caution.fix


@pytest.mark.parametrize(
    "ids",
    [[f"{k:04d}.png" for k in range(40)], [f"image{k}.png" for k in range(40)], [f"{k * 7919:08x}" for k in range(40)]],
    ids=["numbers", "a word and numbers", "digests"],
)
def test_ids_without_families_say_nothing(ids) -> None:
    assert near_duplicates(masks([ids], 0.7)) == []


def test_two_videos_cannot_be_groups() -> None:
    families = [[f"video{f}_{k}.png" for k in range(12)] for f in "ab"]
    (caution,) = near_duplicates(masks(families, 0.7))
    assert "only 2 groups: pass a CSV file" in caution.fix


def test_patients_of_several_volumes_are_the_groups() -> None:
    """Volumes of a patient are alike too, so the coarser reading is the one to take."""
    rng = np.random.default_rng(1)
    families = [[f"p{f}_v{v}_{k:02d}" for v in rng.permutation(3) for k in range(4)] for f in range(6)]
    (caution,) = near_duplicates(masks(families, 0.7))
    assert "makes 6 groups of 72 samples" in caution.fix


@pytest.mark.slow
def test_a_tuning_with_folds_says_it_and_with_groups_does_not(make_store) -> None:
    truth = masks(families_of("frames of videos")[:4], 0.7)
    rng = np.random.default_rng(0)
    logits = {s: rng.normal(size=(5, 8, 8)).astype(np.float16) for s in truth.samples}
    ens = ek.Ensemble([make_store(logits, (SIZE, SIZE), truth.classes)])
    with pytest.warns(UserWarning, match="are much alike"):
        ek.tune_thresholds(ens, truth, folds=3)
    for how in ({"folds": 3, "groups": "^(.+)_"}, {}):
        import warnings

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ek.tune_thresholds(ens, truth, **how)
        assert not any("much alike" in str(w.message) for w in caught)
