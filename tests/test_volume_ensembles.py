"""Stores of volumes through everything: votes, hard votes, tuned thresholds and factors, and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.cli.app import app
from ensemble_kit.kernels import reference_volumes as oracle
from ensemble_kit.spec.geometry import Placement

CLASSES = ("background", "liver", "spleen")
IMAGE = (6, 18, 20)
GRIDS: tuple[tuple[tuple[int, ...], tuple[int, ...] | None, Any], ...] = (
    ((3, 9, 10), None, None),
    ((6, 8, 8), (1, 2, 3, 6, 16, 19), None),
    ((2, 12, 10), None, ("nearest", "linear", "linear")),
)
SAMPLES = ("s0", "s1", "s2", "s3", "s4", "s5")
WEIGHTS = (0.1234567, 1.0, 2.0)


def logits(seed: int, grid: tuple[int, ...], span: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Two balls in a background, and noise: (3, d, h, w)."""
    rng = np.random.default_rng(seed)
    axes = [np.linspace(a, b, n) for (a, b), n in zip(span, grid, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    liver, spleen = 4 - 8 * np.sqrt(z**2 + y**2 + x**2), 3 - 9 * np.sqrt((z - 0.4) ** 2 + (y - 0.5) ** 2 + x**2)
    out = np.stack([np.zeros_like(liver), liver, spleen])
    return (out + rng.normal(0, 0.7, out.shape)).astype(np.float16)


@pytest.fixture(params=["softmax", "sigmoid"])
def stores(request: Any, tmp_path: Path) -> list[Path]:
    made = []
    for m, (grid, window, axes) in enumerate(GRIDS):
        path = tmp_path / f"m{m}.zarr"
        with ek.LogitWriter(path, CLASSES, SAMPLES, grid=None, activation=request.param, member=f"m{m}") as out:
            for k, sample in enumerate(SAMPLES):
                edges = window or (0, 0, 0, *IMAGE)
                span = tuple((2 * edges[a] / n - 1, 2 * edges[a + 3] / n - 1) for a, n in enumerate(IMAGE))
                out.write(sample, logits(10 * k + m, grid, span), IMAGE, window=window, axes=axes)
        made.append(path)
    return made


def found(ens: ek.Ensemble, sample: str) -> oracle.Values:
    seen = []
    for member, weight in zip(ens.members, WEIGHTS, strict=True):
        place: Placement = member.placement(sample)
        window = tuple(zip(place.covered.start, place.covered.stop, strict=True))
        nearest = tuple(kind == "nearest" for kind in place.kinds)
        cells = int(np.prod(place.grid))
        seen.append(oracle.Seen(member.read(sample), cells, window, nearest, 1.0, (weight,) * 3, member.member))
    return oracle.fused(seen, IMAGE, ens.activation == "softmax", ens.fusion.upsample)


@pytest.mark.slow
@pytest.mark.parametrize("upsample", ["logits", "scores"])
def test_votes_are_the_oracles(stores: list[Path], upsample: Any) -> None:
    ens = ek.Ensemble(stores, weights=WEIGHTS, upsample=upsample)
    by_threshold, by_argmax, two = (
        ens.vote([0.5, 0.4, 0.6]),
        ens.vote(ek.Argmax({"spleen": 1.5})),
        ens.vote(0.5, jobs=2),
    )
    for sample in SAMPLES:
        own = found(ens, sample)
        label = oracle.winners(own, [65536, 65536, 98304], False, 0 if ens.activation == "softmax" else None)
        for c, name in enumerate(CLASSES):
            wanted = own.levels[c] >= ens.level_of((0.5, 0.4, 0.6)[c])
            assert np.array_equal(by_threshold[sample, name].decode(), wanted)
            assert np.array_equal(by_argmax[sample, name].decode(), label == c)
            assert np.array_equal(two[sample, name].decode(), own.levels[c] >= 32768)


@pytest.mark.slow
def test_what_a_tuning_promises_is_what_its_vote_scores(stores: list[Path]) -> None:
    ens, truth = ek.Ensemble(stores, weights=WEIGHTS), ek.Ensemble(stores[:1]).vote(ek.Argmax())
    tuned = ek.tune_thresholds(ens, truth)
    masks = ens.vote(tuned)
    if ens.activation == "softmax":
        assert tuned.decision.kind == "argmax"
        assert tuned.score == pytest.approx(ek.confusion(masks, truth).miou, abs=1e-12)
        assert tuned.score >= ek.confusion(ens.vote(), truth).miou
    else:
        assert tuned.score == pytest.approx(ek.dice(masks, truth).mean, abs=1e-12)
        assert tuned.score >= ek.dice(ens.vote(), truth).mean
    folded = ek.tune_thresholds(ens, truth, folds=3)
    assert folded.validation.crossed is not None
    path = stores[0].parent / "set.json"
    tuned.save(path)
    again = ek.ThresholdSet.load(path)
    assert again.fusion.original == tuned.fusion.original != ()  # 0.1234567 does not follow from its integer
    assert ek.Ensemble(stores).as_tuned(again).vote(again) == masks


@pytest.mark.slow
def test_a_hard_vote_counts_voxels(stores: list[Path]) -> None:
    members = [ek.Ensemble(path).vote() for path in stores]
    voted = ek.hard_vote(members)
    for sample in SAMPLES:
        for name in CLASSES:
            on = np.sum([m[sample, name].decode() for m in members], axis=0)
            assert np.array_equal(voted[sample, name].decode(), on >= 2)


@pytest.mark.slow
def test_commands_take_stores_of_volumes(stores: list[Path], tmp_path: Path, capsys: Any) -> None:
    truth = ek.Ensemble(stores[:1]).vote(ek.Argmax())
    truth.write(tmp_path / "truth.npz")
    names = [str(path) for path in stores]
    out, masks = tmp_path / "set.json", tmp_path / "masks.npz"
    for arguments in (
        ["tune-thresholds", *names, "--val", tmp_path / "truth.npz", "--folds", "3", "--out", out],
        ["vote", *names, "--thresholds", out, "--out", masks],
        ["score", masks, "--val", tmp_path / "truth.npz"],
    ):
        app([*map(str, arguments), "-q"], standalone_mode=False)
    tuned = ek.ThresholdSet.load(out)
    assert ek.read_masks(masks) == ek.Ensemble(stores).as_tuned(tuned).vote(tuned)


def test_members_of_images_and_of_volumes_are_refused_before_work(stores: list[Path], tmp_path: Path) -> None:
    activation = ek.LogitStore(stores[0]).activation
    with ek.LogitWriter(tmp_path / "flat.zarr", CLASSES, SAMPLES, grid=(4, 4), activation=activation) as out:
        for sample in SAMPLES:
            out.write(sample, np.random.default_rng(0).normal(0, 3, (3, 4, 4)).astype(np.float16), (18, 20))
    with pytest.raises(ek.MismatchError, match=r"cannot fuse images with volumes: .*'flat'") as caught:
        ek.Ensemble([tmp_path / "flat.zarr", stores[0]])
    assert caught.value.code == "ranks-differ"
