"""How far members disagree: kernels against their oracle and against float64, and what `ensk fuse --uncertainty` keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.cli.app import app
from ensemble_kit.errors import EnskWarning
from ensemble_kit.kernels import disagreement as kernels
from ensemble_kit.kernels import reference as ref
from ensemble_kit.kernels import reference_disagreement as oracle
from ensemble_kit.kernels import tables
from ensemble_kit.recipes.fusing import Fusing
from ensemble_kit.scores import layouts, space
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.spec.mean import PROBABILITY
from trying import put, refused

Make = Callable[..., ek.LogitStore]
CLASSES, IMAGE, SAMPLES = ("x", "y", "z"), (40, 50), ("a.png", "b.png")
VARIANCE, BIT = 1 / (4 * 65535), 1 / 65535
"""What one step of each kind of code stands for, of classes that overlap."""


def ensk(*arguments: object) -> None:
    app([*map(str, arguments), "-q"], standalone_mode=False)


def members(make: Make, rng: np.random.Generator, grids: tuple[tuple[int, int], ...], **options: Any) -> list[Any]:
    return [
        make({s: smooth_logits(rng, (3, *grid)) for s in SAMPLES}, IMAGE, CLASSES, name=f"m{k}", **options)
        for k, grid in enumerate(grids)
    ]


def evaluated(scores: np.ndarray, weights: np.ndarray, joint: bool) -> tuple[np.ndarray, np.ndarray]:
    """Run the kernel on levels (M, C, h, w) of members of one grid, as large as the image."""
    held = np.ascontiguousarray(scores)
    count, classes, *grid = held.shape
    place = Placement.of(tuple(grid), tuple(grid))
    order = np.repeat(np.arange(classes)[:, None], count, 1)
    laid = layouts.members(list(held), [place] * count, order, np.repeat(weights[None], classes, 0))
    scoring = layouts.scoring(layouts.Recipe("scores", (1.0,) * count, PROBABILITY, False))
    solid = [place.solid] * count
    by_set = np.repeat(weights[None, None], classes, 1)
    pixels = space.of_image(solid, space.boxes(solid), by_set, np.zeros(classes, np.int64))
    most = int((np.log2(classes) if joint else 1) * 2**40)
    table = tables.entropies(not joint)
    return kernels.disagreement(0, grid[0], table, most, joint, laid, scoring, tables.exponentials()[:0], pixels)


levels = st.tuples(st.integers(1, 4), st.integers(2, 3), st.integers(1, 3), st.integers(1, 5)).flatmap(
    lambda shape: hnp.arrays(np.uint16, shape, elements=st.one_of(st.integers(0, 65535), st.sampled_from([0, 65535])))
)


@pytest.mark.parametrize("binary", [True, False])
def test_entropies(binary: bool) -> None:
    wanted = [oracle.entropy(level, binary) for level in range(65536)]
    assert np.array_equal(tables.entropies(binary), [*wanted, 0])


@given(levels, st.randoms(use_true_random=False), st.booleans())
def test_kernels_are_the_oracles(scores: np.ndarray, random: Any, joint: bool) -> None:
    parts = np.array([random.random() + 0.01 for _ in scores])
    weights = np.floor(65536 * parts / parts.sum()).astype(np.int64)
    weights[0] += 65536 - weights.sum()
    variance, information = evaluated(scores, weights, joint)
    assert np.array_equal(variance, oracle.variance(scores, weights))
    bits = oracle.information(scores, weights, not joint)
    most = int((np.log2(scores.shape[1]) if joint else 1) * 2**40)
    wanted = bits.sum(0)[None] if joint else bits
    assert np.array_equal(information, np.minimum((2 * 65535 * wanted + most) // (2 * most), 65535))


@given(levels)
def test_they_are_variance_and_mutual_information_in_floats(scores: np.ndarray) -> None:
    """Independent formulas in float64: numpy.var, and the divergences of members from their mean."""
    count = len(scores)
    weights = np.full(count, 65536 // count)
    weights[0] += 65536 - weights.sum()
    variance, information = evaluated(scores, weights, False)
    p, w = scores / 65535, (weights / 65536)[:, None, None, None]
    mean = (w * p).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ahead = np.nan_to_num(p * np.log2(p / mean)) + np.nan_to_num((1 - p) * np.log2((1 - p) / (1 - mean)))
    assert np.abs(variance * VARIANCE - (w * (p - mean) ** 2).sum(0)).max() <= 0.51 * VARIANCE
    assert np.abs(information * BIT - (w * ahead).sum(0)).max() <= 1.6 * BIT  # entropy is interpolated between levels


@given(levels, st.booleans())
def test_members_that_agree_have_none(scores: np.ndarray, joint: bool) -> None:
    alike = np.repeat(scores[:1], 3, axis=0)
    for found in evaluated(alike, np.array([21846, 21845, 21845]), joint):
        assert not found.any()


def test_opposite_certainties_disagree_most() -> None:
    scores = np.array([0, 65535], np.uint16).reshape(2, 1, 1, 1)
    for found in evaluated(np.concatenate([scores, 65535 - scores], axis=1), np.array([32768, 32768]), False):
        assert (found == 65535).all()


@pytest.mark.parametrize("mean", ["probability", "logit", "power:0.5"])
@pytest.mark.parametrize("grids", [((12, 15), (12, 15)), ((12, 15), (24, 30))], ids=["one grid", "two grids"])
def test_at_the_images_size(grids: Any, mean: str, make_store: Make, rng: np.random.Generator, tmp_path: Path) -> None:
    """Members' levels at the pixel by rules 1 and 3, whatever is averaged; classes of own weights, any number of jobs."""
    stores = members(make_store, rng, grids)
    ens = ek.Ensemble(stores, weights=[[3, 1, 1], [1, 1, 2]], mean=mean, temperatures=[1.5, 1])
    ek.fuse(ens, tmp_path / "p", format="npz", uncertainty=True)
    ek.fuse(ens, tmp_path / "plain", format="npz")
    for s in SAMPLES:
        with np.load(tmp_path / "p" / f"{s}.npz") as held, np.load(tmp_path / "plain" / f"{s}.npz") as plain:
            assert sorted(held.files) == ["classes", "mutual_information", "probabilities", "variance"]
            assert np.array_equal(held["probabilities"], plain["probabilities"])
            variance, information = held["variance"], held["mutual_information"]
        assert (variance.dtype, information.dtype, variance.shape) == (np.float32, np.float32, (3, *IMAGE))
        for c in range(3):
            at_pixel = [
                ref.level_of_q(ref.rounded(ref.interpolate(ref.q(m.read(s)[c], t), IMAGE)))
                for m, t in zip(stores, (1.5, 1.0), strict=True)
            ]
            weights = np.array(ens.fusion.weights[c])
            codes = oracle.variance(np.stack(at_pixel), weights)
            assert np.array_equal(variance[c], (codes * VARIANCE).astype(np.float32))
            bits = oracle.information(np.stack(at_pixel), weights, True) / 2**40
            assert np.abs(information[c] - bits).max() <= 0.51 * BIT
    ek.fuse(ens, tmp_path / "one", format="npz", uncertainty=True, jobs=1)
    for file in sorted((tmp_path / "p").iterdir()):
        assert file.read_bytes() == (tmp_path / "one" / file.name).read_bytes()


@pytest.mark.parametrize("upsample", ["logits", "scores"])
def test_exclusive_classes_share_one_information(
    upsample: Any, make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    stores = members(make_store, rng, ((12, 15), (12, 15)), activation="softmax")
    ens = ek.Ensemble(stores, upsample=upsample)
    ek.fuse(ens, tmp_path / "p", format="npz", uncertainty=True)
    for s in SAMPLES:
        with np.load(tmp_path / "p" / f"{s}.npz") as held:
            variance, information = held["variance"], held["mutual_information"]
        if upsample == "logits":
            q = [ref.exclusive_q(m.read(s)) for m in stores]
            at_pixel = [ref.shares(np.stack([ref.rounded(ref.interpolate(v, IMAGE)) for v in one])) for one in q]
        else:
            own = [ref.softmax_level(m.read(s)) for m in stores]
            at_pixel = [np.stack([ref.rounded(ref.interpolate(v, IMAGE)) for v in one]) for one in own]
        p = np.stack(at_pixel) / 65535
        with np.errstate(divide="ignore", invalid="ignore"):
            bits = np.nan_to_num(p * np.log2(p / p.mean(0))).sum((0, 1)) / 2
        assert information.shape == IMAGE
        assert np.abs(information - bits).max() <= 4 * BIT
        assert np.abs(variance - p.var(0)).max() <= 0.51 * VARIANCE


@pytest.mark.parametrize("grids", [((12, 15), (12, 15)), ((12, 15), (24, 30))], ids=["one grid", "two grids"])
@pytest.mark.parametrize("upsample", ["logits", "scores"])
def test_beside_a_store_which_stays_one(
    upsample: Any, grids: Any, make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    stores = members(make_store, rng, grids)
    ens = ek.Ensemble(stores, upsample=upsample)
    ek.fuse(ens, tmp_path / "f.zarr", uncertainty=True)
    ek.fuse(ens, tmp_path / "plain.zarr")
    finest = grids[-1]
    for s in SAMPLES:
        fused, plain = (ek.LogitStore(tmp_path / f"{name}.zarr").read(s) for name in ("f", "plain"))
        assert np.array_equal(fused, plain)
        with np.load(tmp_path / "f.uncertainty" / f"{s}.npz") as held:
            assert sorted(held.files) == ["classes", "mutual_information", "variance"]
            variance = held["variance"]
        own = [m.read(s) for m in stores]
        if len(set(grids)) == 1:
            on_grid = [ref.level(z) for z in own]
        elif upsample == "scores":
            on_grid = [np.stack([ref.rounded(ref.interpolate(v, finest)) for v in ref.level(z)]) for z in own]
        else:
            moved = [np.stack([ref.rounded(ref.interpolate(v, finest)) for v in ref.q(z)]) for z in own]
            on_grid = [ref.level_of_q(v) for v in moved]
        codes = oracle.variance(np.stack(on_grid), np.array([32768, 32768]))
        assert np.array_equal(variance, (codes * VARIANCE).astype(np.float32))
    index = json.loads((tmp_path / "f.uncertainty" / "uncertainty.json").read_text())
    assert (index["format"], index["samples"][0]["image"]) == ("ensk.uncertainty/1", list(IMAGE))
    with pytest.raises(ek.EnskError):
        ek.LogitStore(tmp_path / "f.uncertainty")


def test_outside_the_box_there_is_none(make_store: Make, rng: np.random.Generator, tmp_path: Path) -> None:
    boxes = dict.fromkeys(SAMPLES, (2, 0, 10, 15))
    stores = [
        make_store({s: smooth_logits(rng, (3, 12, 15)) for s in SAMPLES}, IMAGE, CLASSES, boxes, name=f"m{k}")
        for k in range(2)
    ]
    ek.fuse(ek.Ensemble(stores), tmp_path / "f.zarr", uncertainty=True)
    with np.load(tmp_path / "f.uncertainty" / "a.png.npz") as held:
        variance = held["variance"]
    assert variance.shape == (3, 12, 15)
    assert not variance[:, [0, 1, 10, 11]].any()
    assert variance[:, 2:10].any()


@pytest.mark.parametrize("kind", ["store", "npz"])
def test_resumed_sample_by_sample(kind: Any, make_store: Make, rng: np.random.Generator, tmp_path: Path) -> None:
    """What is there stays; an earlier store without uncertainty gets it, a folder of another fusion does not."""
    ens, out = ek.Ensemble(members(make_store, rng, ((12, 15), (12, 15)))), tmp_path / "f.zarr"
    if kind == "store":
        assert ek.fuse(ens, out).written == 2
    assert ek.fuse(ens, out, kind, uncertainty=True).written == 2
    folder = out if kind == "npz" else tmp_path / "f.uncertainty"
    whole = (folder / "b.png.npz").read_bytes()
    kept = (folder / "a.png.npz").stat().st_mtime_ns
    (folder / "b.png.npz").unlink()
    again = ek.fuse(ens, out, kind, uncertainty=True)
    assert (again.resumed, again.written) == (1, 1)
    assert (folder / "b.png.npz").read_bytes() == whole
    assert (folder / "a.png.npz").stat().st_mtime_ns == kept
    with pytest.raises(ek.MismatchError):
        ek.fuse(ens.with_fusion(weights=[2, 1]), out, kind, uncertainty=True)
    assert ek.fuse(ens.with_fusion(weights=[2, 1]), out, kind, overwrite=True, uncertainty=True).written == 2


def test_probabilities_without_it_are_not_resumed_with_it(
    make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    ens = ek.Ensemble(members(make_store, rng, ((12, 15), (12, 15))))
    ek.fuse(ens, tmp_path / "p", format="npz")
    with refused(ek.MismatchError, "fused-differs", "uncertainty is None there, True here"):
        ek.fuse(ens, tmp_path / "p", format="npz", uncertainty=True)
    with refused(ek.MismatchError, "fused-differs", "fused.weights.x is [32768, 32768] there"):
        ek.fuse(ens.with_fusion(weights=[2, 1]), tmp_path / "p", format="npz")
    with refused(ek.MismatchError, "fused-differs", "samples.b.png is {", "None here"):
        ek.fuse(ens.on(["a.png"]), tmp_path / "p", format="npz")
    put(tmp_path / "q" / "fused.json", {"samples": ["of another program"]})
    with refused(ek.MismatchError, "fused-differs", "format is None there"):
        ek.fuse(ens, tmp_path / "q", format="npz")


def test_what_an_earlier_fusion_left_beside_a_store_is_warned_of(
    make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    ens = ek.Ensemble(members(make_store, rng, ((12, 15), (12, 15))))
    done = ek.fuse(ens, tmp_path / "f.zarr", uncertainty=True)
    assert done.uncertainty == str(tmp_path / "f.uncertainty")
    assert ek.fuse(ens, tmp_path / "f.zarr").uncertainty is None
    with refused(ek.UsageError, "format-unread", "ensk fuse keeps", "numpy.load"):
        ek.read_masks(done.uncertainty)
    other = ens.with_fusion(mean="logit")
    told = "f.uncertainty is of another fusion: fused.mean is 'probability' there, 'logit' here"
    with pytest.warns(EnskWarning, match=told):
        ek.fuse(other, tmp_path / "f.zarr", overwrite=True)
    ek.fuse(other, tmp_path / "f.zarr", overwrite=True, uncertainty=True)  # the fix, to the letter
    assert not Fusing(other, tmp_path / "f.zarr").doubts()


def test_one_member_alone_is_warned_of(make_store: Make, rng: np.random.Generator, tmp_path: Path) -> None:
    stores = members(make_store, rng, ((12, 15), (12, 15)))
    with pytest.warns(EnskWarning, match="only one member weighs in every class"):
        ek.fuse(ek.Ensemble(stores[:1]), tmp_path / "p", format="npz", uncertainty=True)
    with np.load(tmp_path / "p" / "a.png.npz") as held:
        assert not held["variance"].any()
        assert not held["mutual_information"].any()
    own = ek.Ensemble(stores, weights=[[1, 1, 1], [0, 1, 1]])
    assert "the classes 'x'" in Fusing(own, tmp_path / "q", uncertainty=True).doubts()[0].doubt
    assert not Fusing(own, tmp_path / "q").doubts()


def test_a_url_has_no_place_for_it(
    make_store: Make, rng: np.random.Generator, monkeypatch: Any, tmp_path: Path
) -> None:
    members(make_store, rng, ((12, 15), (12, 15)))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ek.UsageError) as caught:
        ensk("fuse", "m0.zarr", "m1.zarr", "--out", "memory://bucket/f.zarr", "--uncertainty")
    assert caught.value.code == "uncertainty-remote"


def test_the_command(make_store: Make, rng: np.random.Generator, monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    members(make_store, rng, ((12, 15), (12, 15)))
    monkeypatch.chdir(tmp_path)
    command = ("fuse", "m0.zarr", "m1.zarr", "--uncertainty", "--json")
    ensk(*command, "--out", "f.zarr", "--dry-run")
    assert json.loads(capsys.readouterr().out)["bytes"] == 2 * 3 * 12 * 15 * (2 + 8)
    assert not Path("f.uncertainty").exists()
    ensk(*command, "--out", "f.zarr")
    assert json.loads(capsys.readouterr().out)["written"] == 2
    assert sorted(p.name for p in Path("f.uncertainty").iterdir()) == ["a.png.npz", "b.png.npz", "uncertainty.json"]
