"""Margins of zeros: a crop that was padded back is refused, with the box and the window that mend it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ensemble_kit as ek
from ensemble_kit.errors import DamagedError
from ensemble_kit.logits.margins import Extent
from ensemble_kit.spec.geometry import Box


def noise(*shape: int) -> np.ndarray:
    return (np.random.default_rng(0).normal(0, 3, shape) + 0.01).astype(np.float32)


def padded(shape: tuple[int, ...], box: Box) -> np.ndarray:
    out = np.zeros(shape, np.float32)
    out[:, *box.slices] = noise(shape[0], *box.shape)
    return out


def writer(path: Path, classes: int = 2, **options: Any) -> ek.LogitWriter:
    options = {"grid": None, "activation": "sigmoid", "overwrite": True} | options
    return ek.LogitWriter(path / "m.zarr", [f"c{k}" for k in range(classes)], ["a", "b"], **options)


boxes = st.integers(2, 3).flatmap(
    lambda rank: st.tuples(*[st.tuples(st.integers(1, 7), st.integers(0, 6), st.integers(1, 7)) for _ in range(rank)])
)


@given(boxes, st.integers(1, 3), st.integers(1, 4), st.booleans())
@settings(max_examples=200, deadline=None)
def test_extents_are_what_numpy_finds(sides: Any, classes: int, step: int, equal: bool) -> None:
    shape = tuple(n for n, _, _ in sides)
    start = tuple(min(a, n - 1) for n, a, _ in sides)
    stop = tuple(min(a + size, n) for a, (n, _, size) in zip(start, sides, strict=True))
    values = padded((classes, *shape), Box(*start, *stop)).astype(np.float16)
    values += np.float16(2.0) if equal else np.float16(0)
    extent = Extent(Box.whole(shape), equal)
    if len(shape) == 2:
        extent.add(values)
    for first in range(0, shape[0], step) if len(shape) == 3 else ():
        extent.add(values[:, first : first + step], (first, 0, 0))
    says = (values != values[:1]).any(axis=0) if equal else values.any(axis=0)
    assert extent.is_blank == (not says.any())
    if says.any():
        along = [np.flatnonzero(says.any(axis=tuple(set(range(says.ndim)) - {k}))) for k in range(says.ndim)]
        assert extent.found == Box(*(int(a[0]) for a in along), *(int(a[-1]) + 1 for a in along))


IMAGES = {
    "rows and columns": (Box(3, 2, 14, 16), "rows 0 to 2 and 14 to 15, columns 0 to 1"),
    "one column": (Box(0, 0, 16, 15), "columns 15"),
    "rows": (Box(5, 0, 16, 16), "rows 0 to 4"),
}


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("box", "told"), IMAGES.values(), ids=IMAGES)
def test_a_padded_image_is_refused_and_its_fix_works(tmp_path: Path, box: Box, told: str, activation: str) -> None:
    values = padded((2, 16, 16), box)
    with writer(tmp_path, activation=activation) as out:
        with pytest.raises(DamagedError) as caught:
            out.write("a", values, (32, 48))
        assert caught.value.code == "logits-padded"
        assert told in caught.value.item
        assert f"({256 - np.prod(box.shape)} of 256 cells) are exactly 0" in caught.value.item
        window = tuple(v * s for v, s in zip(box, (2, 3, 2, 3), strict=True))
        assert f"box={tuple(box)}, window={window}" in caught.value.fix
        assert out.missing == ["a", "b"]
        out.write("a", values, (32, 48), box=box, window=window)
    inside = np.zeros((32, 48), bool)
    inside[Box(*window).slices] = True
    masks = ek.Ensemble([tmp_path / "m.zarr"], samples="common").vote()
    runs = masks["a", "c0"] if activation == "sigmoid" else masks["a", "c1"]
    assert not runs.decode()[~inside].any()  # where the network saw nothing, nothing is on


def test_every_sample_is_checked_and_a_batch_too(tmp_path: Path) -> None:
    with writer(tmp_path, grid=(8, 8)) as out:
        batch = np.stack([noise(2, 8, 8), padded((2, 8, 8), Box(0, 0, 8, 7))])
        with pytest.raises(DamagedError, match="'b': columns 7"):
            out.write(["a", "b"], batch, (8, 8))
        assert out.missing == ["b"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64], ids=lambda t: t.__name__)
def test_negative_zeros_and_numbers_that_are_0_in_fp16_are_zeros(tmp_path: Path, dtype: Any) -> None:
    values = padded((2, 8, 8), Box(0, 0, 8, 6)).astype(dtype)
    values[:, :, 6:] = -0.0 if dtype is np.float16 else -1e-12
    with writer(tmp_path) as out, pytest.raises(DamagedError, match="columns 6 to 7"):
        out.write("a", values, (8, 8))


ALLOWED = {
    "all 0": np.zeros((2, 8, 8)),
    "0 in one class alone": np.stack([padded((1, 8, 8), Box(2, 2, 6, 6))[0], noise(8, 8)]),
    "another constant": np.where(padded((2, 8, 8), Box(2, 2, 6, 6)) == 0, -20, 1.5),
    "a hole inside": np.where(noise(2, 8, 8) * (np.hypot(*np.mgrid[-4:4, -4:4]) > 2) == 0, 0, noise(2, 8, 8)),
}


@pytest.mark.parametrize("values", ALLOWED.values(), ids=ALLOWED)
def test_what_is_not_padded_is_taken(tmp_path: Path, values: np.ndarray) -> None:
    with writer(tmp_path) as out:
        out.write("b", noise(2, 8, 8), (8, 8))
        out.write("a", values, (8, 8))
        assert out.missing == []


def test_zeros_outside_of_the_box_are_taken(tmp_path: Path) -> None:
    with writer(tmp_path, grid=(8, 8)) as out:
        out.write("a", padded((2, 8, 8), Box(1, 0, 7, 8)), (6, 8), box=(1, 0, 7, 8))


def test_checked_takes_what_a_relu_put_out(tmp_path: Path) -> None:
    values = np.maximum(padded((2, 8, 8), Box(2, 2, 6, 6)), 0)
    with writer(tmp_path) as out, pytest.raises(DamagedError, match="checked=True"):
        out.write("a", values, (8, 8))
    with writer(tmp_path, checked=True) as out:
        out.write("a", values, (8, 8))


@pytest.mark.parametrize(
    ("activation", "domain"), [("sigmoid", "logits"), ("softmax", "logits"), ("softmax", "probabilities")]
)
def test_arrays_in_memory_are_refused_and_the_fix_works(activation: Any, domain: Any) -> None:
    z, other = padded((3, 8, 8), Box(2, 2, 6, 6)), noise(3, 8, 8)
    scores = np.exp(z) / np.exp(z).sum(axis=0)
    how = {"activation": activation, "domain": domain}
    arrays = [
        other if domain == "logits" else np.exp(other) / np.exp(other).sum(axis=0),
        z if domain == "logits" else scores,
    ]
    with pytest.raises(DamagedError, match="'member 1': rows 0 to 1 and 6 to 7") as caught:
        ek.vote(arrays, **how)
    assert caught.value.code == "logits-padded"
    if domain == "logits":
        off = np.where(z == 0, np.array([0 if activation == "softmax" else -20, -20, -20])[:, None, None], z)
        answer = ek.vote([off], **how)
        edge = answer[0] if activation == "softmax" else answer[:, 0]
        assert not edge.any()  # the background, or nothing
        ek.vote([z + 1e-4], **how)
    else:
        ek.vote([arrays[0], np.full_like(z, 1 / 3)], **how)  # all of it


def test_probabilities_of_0_are_off_and_of_one_half_are_padded(tmp_path: Path) -> None:
    inside = Box(2, 2, 6, 6)
    with writer(tmp_path, domain="probabilities") as out:
        values = np.zeros((2, 8, 8))
        values[:, *inside.slices] = 0.25
        out.write("a", values, (8, 8))  # of classes that overlap: off
        half = 1 / (1 + np.exp(-padded((2, 8, 8), inside)))
        with pytest.raises(DamagedError, match="rows 0 to 1 and 6 to 7") as caught:
            out.write("b", half, (8, 8))
        assert "are exactly 0.5 in all classes, a logit of 0" in caught.value.item
        assert "for probabilities" in caught.value.what and caught.value.fix.count("zeros") == 0
        assert "0 in place of these 0.5" in caught.value.fix
        out.write("b", np.where(half == 0.5, 0, half), (8, 8))
    with pytest.raises(DamagedError, match="0 in place of these values"):
        ek.vote([half], domain="probabilities")
    assert not ek.vote([np.where(half == 0.5, 0, half)], domain="probabilities")[:, :2].any()
    with writer(tmp_path, 3, activation="softmax", domain="probabilities") as out:
        scores = np.exp(padded((3, 8, 8), inside))
        with pytest.raises(DamagedError, match=r"are exactly 0\.3333 in all classes, equal in each of the 3") as caught:
            out.write("a", scores / scores.sum(axis=0), (8, 8))
        assert caught.value.code == "logits-padded"
        scores = scores / scores.sum(axis=0)
        scores[:, :2] = 0
        with pytest.raises(DamagedError, match="add up to 0") as caught:
            out.write("a", scores, (8, 8))
        assert "window=" in caught.value.fix


def slabs(values: np.ndarray, step: int) -> Any:
    return (values[:, k : k + step] for k in range(0, values.shape[1], step))


@pytest.mark.parametrize("step", [1, 3, 12])
def test_a_padded_volume_is_refused_however_it_is_cut(tmp_path: Path, step: int) -> None:
    box = Box(2, 1, 0, 9, 8, 7)
    values = padded((2, 12, 8, 8), box)
    with writer(tmp_path) as out:
        with pytest.raises(DamagedError) as caught:
            out.write_slabs("a", slabs(values, step), (12, 8, 8), (24, 8, 16))
        assert "slices 0 to 1 and 9 to 11, rows 0, columns 7 (425 of 768 cells)" in caught.value.item
        assert "box=(2, 1, 0, 9, 8, 7), window=(4, 1, 0, 18, 8, 14)" in caught.value.fix
        with pytest.raises(DamagedError, match="slices 0 to 1 and 9 to 11"):
            out.write("a", values, (24, 8, 16))
        out.write_slabs("a", slabs(values, step), (12, 8, 8), (24, 8, 16), box=box, window=(4, 1, 0, 18, 8, 14))


TILES = [(0, 0, 8, 8), (0, 4, 8, 12)]


def test_a_tile_of_zeros_and_a_tile_with_a_margin_are_refused(tmp_path: Path) -> None:
    with writer(tmp_path) as out:
        for tile, told in ((padded((2, 8, 8), Box(0, 0, 7, 8)), "rows 7"), (np.zeros((2, 8, 8)), "all 64 cells")):
            with pytest.raises(DamagedError, match=f"tile 1: {told}"):
                out.write_tiles("a", [noise(2, 8, 8), tile], TILES, (8, 12), (8, 12))
        tiles = [noise(2, 8, 8), padded((2, 8, 8), Box(0, 0, 7, 8))]
        out.write_tiles("b", tiles, TILES, (8, 12), (7, 12), (0, 0, 7, 12))  # the margin is outside of the scene
        out.write_tiles("a", [np.zeros((2, 8, 8))] * 2, TILES, (8, 12), (8, 12))  # all of it
