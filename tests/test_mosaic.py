"""Tiles of a scene: weights, coverage, and blending against the oracle."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from ensemble_kit.kernels import blend, reference, reference_blend
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.fusion import Fusion, Upsample, integer_weights
from ensemble_kit.spec.geometry import Box, Placement, Shape
from ensemble_kit.spec.mean import Mean
from ensemble_kit.spec.mosaic import Mosaic, placed


@st.composite
def mosaics(draw: st.DrawFn) -> Mosaic:
    """Tiles of several sizes in any order: strips in both axes that touch or overlap, and some tiles more."""
    spans = []
    for _ in range(2):
        cuts = sorted(draw(st.sets(st.integers(1, 12), min_size=1, max_size=3)))
        edges = [0, *cuts]
        more = draw(st.lists(st.integers(0, 3), min_size=len(cuts), max_size=len(cuts)))
        spans.append([(a, min(b + m, cuts[-1])) for (a, b), m in zip(pairwise(edges), more, strict=True)])
    grid = spans[0][-1][1], spans[1][-1][1]
    boxes = {Box(y0, x0, y1, x1) for y0, y1 in spans[0] for x0, x1 in spans[1]}
    for _ in range(draw(st.integers(0, 2))):
        y0, x0 = draw(st.integers(0, grid[0] - 1)), draw(st.integers(0, grid[1] - 1))
        boxes.add(Box(y0, x0, draw(st.integers(y0 + 1, grid[0])), draw(st.integers(x0 + 1, grid[1]))))
    return Mosaic(grid, tuple(draw(st.permutations(sorted(boxes)))))


@given(mosaics())
def test_weights_are_the_oracles(mosaic: Mosaic) -> None:
    h, w = mosaic.grid
    for k, (y0, x0, y1, x1) in enumerate(mosaic.boxes):
        rows, columns = mosaic.weights(k)
        assert rows.tolist() == reference_blend.ramp(y1 - y0, y0 == 0, y1 == h)
        assert columns.tolist() == reference_blend.ramp(x1 - x0, x0 == 0, x1 == w)
        assert min(rows.min(), columns.min()) >= 1
        assert max(rows.max(), columns.max()) <= 255


@pytest.mark.parametrize(
    ("edges", "wanted"),
    [
        ((False, False), [32, 96, 159, 223, 223, 159, 96, 32]),
        ((True, False), [255, 255, 255, 255, 223, 159, 96, 32]),
        ((False, True), [32, 96, 159, 223, 255, 255, 255, 255]),
        ((True, True), [255] * 8),
    ],
    ids=["inside", "at the scene's first edge", "at its last edge", "one tile is the scene"],
)
def test_a_tile_keeps_its_weight_at_the_edge_of_the_scene(edges: tuple[bool, bool], wanted: list[int]) -> None:
    x0, w = 0 if edges[0] else 8, 24
    x1 = x0 + 8
    grid = (1, x1 if edges[1] else w)
    rest = [Box(0, a, 1, a + 8) for a in range(0, grid[1], 8) if a != x0]
    mosaic = Mosaic(grid, (Box(0, x0, 1, x1), *rest))
    assert mosaic.weights(0)[1].tolist() == wanted
    assert reference_blend.ramp(8, *edges) == wanted


@given(mosaics(), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_blending_is_the_oracles_in_any_order(mosaic: Mosaic, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tiles = [rng.integers(0, 65536, (classes, *box.shape)).astype(np.uint16) for box in mosaic.boxes]
    wanted = reference_blend.blended(tiles, mosaic.boxes, mosaic.grid)
    for order in (range(len(tiles)), reversed(range(len(tiles)))):
        total, weight = np.zeros((classes, *mosaic.grid), np.int64), np.zeros(mosaic.grid, np.int64)
        for k in order:
            blend.add_tile(tiles[k], *mosaic.weights(k), *mosaic.boxes[k].start, total, weight)
        out = np.empty((classes, *mosaic.grid), np.uint16)
        blend.put_means(total, weight, out)
        assert np.array_equal(out, wanted)


@pytest.mark.parametrize(
    ("boxes", "code", "why"),
    [
        ([(0, 0, 4, 4)], "tiles-missing", r"no tile covers the cells \(0, 4, 4, 6\) of a grid of 4 x 6"),
        ([(0, 0, 4, 3), (0, 4, 4, 6)], "tiles-missing", r"no tile covers the cells \(0, 3, 4, 4\)"),
        ([], "tiles-missing", r"no tile covers the cells \(0, 0, 4, 6\)"),
        ([(0, 0, 4, 7)], "tile-outside", r"tile 0 covers the cells \(0, 0, 4, 7\) of a grid of 4 x 6"),
        ([(-1, 0, 4, 6)], "tile-outside", r"\(-1, 0, 4, 6\)"),
        ([(0, 0, 4, 6), (0, 0, 4, 6)], "tile-twice", r"two tiles have the box \(0, 0, 4, 6\)"),
    ],
    ids=["a hole at the end", "a hole between", "no tile", "beyond the grid", "before the grid", "a tile twice"],
)
def test_tiles_that_make_no_scene(boxes: list[tuple[int, ...]], code: str, why: str) -> None:
    with pytest.raises(ek.EnskError, match=why) as caught:
        Mosaic((4, 6), tuple(Box(*box) for box in boxes))
    assert caught.value.code == code


def test_a_tile_reaches_beyond_the_scene() -> None:
    box, inside = placed(-2, 3.0004, (4, 4), (10, 5), "a.tif")
    assert (tuple(box), np.arange(16).reshape(4, 4)[inside].tolist()) == ((0, 3, 2, 5), [[8, 9], [12, 13]])
    with pytest.raises(ek.MismatchError, match=r"begins at row 0\.5, column 0 of the scene\'s grid") as caught:
        placed(0.5, 0, (4, 4), (10, 5), "a.tif")
    assert caught.value.code == "tile-offset"
    with pytest.raises(ek.MismatchError, match="4 x 4 at row 10, column 0, is outside a grid of 10 x 5") as caught:
        placed(10, 0, (4, 4), (10, 5), "a.tif")
    assert caught.value.code == "tile-outside"


# --- members that saw tiles, fused


class Tiles:
    """A member that holds tiles of logits, or a whole grid."""

    def __init__(
        self, name: str, activation: str, mosaic: Mosaic | None, tiles: list[np.ndarray], image: Shape
    ) -> None:
        self.member, self.activation, self.classes = name, activation, ("a", "b", "c")
        self._mosaic, self.tiles, self._image = mosaic, tiles, image

    def mosaic(self, sample: str) -> Mosaic | None:
        return self._mosaic

    def read_tile(self, sample: str, number: int) -> np.ndarray:
        return self.tiles[number]

    def read(self, sample: str) -> np.ndarray:
        assert self._mosaic is None
        return self.tiles[0]

    def placement(self, sample: str) -> Placement:
        grid = self.tiles[0].shape[1:] if self._mosaic is None else self._mosaic.grid
        return Placement.of(grid, self._image)

    def codes(self, encode: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The oracle's codes on the grid."""
        encoded = [encode(tile) for tile in self.tiles]
        return encoded[0] if self._mosaic is None else reference_blend.blended(encoded, self._mosaic.boxes, self._mosaic.grid)  # fmt: skip


def oracle(members: list[Tiles], weights: list[int], activation: str, mean: str, upsample: str) -> np.ndarray:
    """Effective levels of every pixel, uint16 (C, H, W): blended codes, then rules 2, 3 and 9."""
    image = members[0]._image
    late, logit = upsample == "logits", mean == "logit"
    if activation == "softmax":
        codes = [m.codes(reference.exclusive_q if late or logit else reference.softmax_level) for m in members]
        if late and not logit:
            each = [np.stack([reference.rounded(reference.interpolate(c, image)) for c in own]) for own in codes]
            return reference.fuse([reference.shares(q) for q in each], weights)
    else:
        codes = [m.codes(reference.q if late or logit else reference.level) for m in members]
    if late:
        return np.stack([reference.image_from_logits(list(own), weights, image, mean) for own in zip(*codes, strict=True)])  # fmt: skip
    finest = max((c.shape[1:] for c in codes), key=lambda s: s[0] * s[1])
    if len({c.shape for c in codes}) > 1:
        codes = [np.stack([reference.rounded(reference.interpolate(c, finest)) for c in own]) for own in codes]
    return np.stack([reference.rounded(reference.interpolate(reference.fuse(list(own), weights), image)) for own in zip(*codes, strict=True)])  # fmt: skip


@given(
    st.lists(mosaics(), min_size=1, max_size=2),
    st.booleans(),
    st.sampled_from(["sigmoid", "softmax"]),
    st.sampled_from(["probability", "logit"]),
    st.sampled_from(["logits", "scores"]),
    st.integers(0, 2**32 - 1),
)
def test_members_that_saw_tiles_are_the_oracles(
    found: list[Mosaic], whole: bool, activation: str, mean: str, upsample: Upsample, seed: int
) -> None:
    rng, image = np.random.default_rng(seed), (17, 23)
    members = []
    for k, mosaic in enumerate(found):
        tiles = [(4 * rng.standard_normal((3, *box.shape))).astype(np.float16) for box in mosaic.boxes]
        members.append(Tiles(f"m{k}", activation, mosaic, tiles, image))
    if whole:  # beside a member without tiles
        tile = (4 * rng.standard_normal((3, 5, 4))).astype(np.float16)
        members.append(Tiles("whole", activation, None, [tile], image))
    weights = list(integer_weights([1.0, 2.0, 4.0][: len(members)], [m.member for m in members]))
    fusion = Fusion(Mean.of(mean), upsample, tuple(m.member for m in members), (tuple(weights),) * 3, (1.0,) * len(members))  # fmt: skip
    opened = open_sample(Inputs(tuple(members), members[0].classes, fusion), "s")
    wanted = oracle(members, weights, activation, mean, upsample)
    assert np.array_equal((opened.values(0, 17) + 32768) >> 16, wanted)
    best = opened.winners([65536] * 3)
    values = opened.values(0, 17)
    for c in range(3):
        assert np.array_equal(best.mask(c, image).decode(), values.argmax(axis=0) == c)
    if activation == "sigmoid" or mean == "probability":
        levels = opened.decide({0: 20000, 2: 40000})
        unrounded = wanted if upsample == "logits" else values >> 16
        assert np.array_equal(levels.mask(0, image).decode(), unrounded[0] >= 20000)
        assert np.array_equal(levels.mask(1, image).decode(), unrounded[2] >= 40000)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_one_tile_is_the_whole_grid(activation: str) -> None:
    tile = np.random.default_rng(0).standard_normal((3, 9, 7)).astype(np.float16)
    fusion = Fusion(Mean(), "logits", ("m",), ((65536,),) * 3, (1.0,))
    values = []
    for mosaic in (None, Mosaic((9, 7), (Box(0, 0, 9, 7),))):
        member = Tiles("m", activation, mosaic, [tile], (30, 20))
        values.append(open_sample(Inputs((member,), member.classes, fusion), "s").values(0, 30))
    assert np.array_equal(*values)
