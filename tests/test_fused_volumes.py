"""Volumes, windows and nearest axes against the oracle: values, masks and counts, in every order, mean and layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.kernels import factors
from ensemble_kit.kernels import reference as ref
from ensemble_kit.kernels import reference_volumes as oracle
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores import raster
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.fusion import Fusion, integer_weights
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.spec.label_table import is_background
from ensemble_kit.spec.mean import Mean
from ensemble_kit.tuning.contenders import RATIOS, room_of


@dataclass(frozen=True)
class Drawn:
    """A member that holds one sample's logits; of a volume it gives slices only."""

    member: str
    classes: tuple[str, ...]
    activation: Any
    logits: np.ndarray
    where: Placement

    def read(self, sample: str) -> np.ndarray:
        assert self.logits.ndim == 3, "a volume is never read whole"
        return self.logits

    def read_slab(self, sample: str, first: int, stop: int) -> np.ndarray:
        assert 0 <= first < stop <= self.logits.shape[1]
        return self.logits[:, first:stop]

    def placement(self, sample: str) -> Placement:
        return self.where


def mask(array: np.ndarray) -> Runs:
    """Encode a mask of any rank."""
    starts, ends = ref.encode(array)
    return Runs.trusted((starts, ends), array.shape)


def encoded(masks: list[np.ndarray]) -> list[tuple[Any, ...]]:
    return [same(mask(m)) for m in masks]


def same(runs: Runs) -> tuple[Any, ...]:
    """What makes two masks equal."""
    return runs.shape, runs.starts.tolist(), runs.ends.tolist()


def masks_of(found: ManyRuns, image: tuple[int, ...]) -> list[tuple[Any, ...]]:
    return [same(runs) for runs in found.masks(image)]


def seen(inputs: Inputs) -> list[oracle.Seen]:
    """The members as the oracle takes them."""
    members, out, f = inputs.members, [], inputs.fusion
    for m, member in enumerate(members):
        assert isinstance(member, Drawn)
        place, order = member.where, [member.classes.index(c) for c in inputs.classes]
        window = tuple(zip(place.covered.start, place.covered.stop, strict=True))
        weights = tuple(row[m] for row in f.original or f.weights)
        out.append(
            oracle.Seen(
                member.logits[order][:, *place.box.slices],
                int(np.prod(place.grid)),
                window,
                tuple(kind == "nearest" for kind in place.kinds),
                f.temperatures[m],
                weights,
                member.member,
            )
        )
    return out


def values_of(inputs: Inputs) -> oracle.Values:
    f, image = inputs.fusion, inputs.members[0].placement("a").image
    return oracle.fused(seen(inputs), image, inputs.activation == "softmax", f.upsample, f.mean.of_logits)


def background_of(inputs: Inputs) -> int | None:
    if inputs.activation == "sigmoid":
        return None
    return next((c for c, name in enumerate(inputs.classes) if is_background(name)), None)


def drawn_span(draw: st.DrawFn, n: int) -> tuple[int, int]:
    first = draw(st.integers(0, n - 1))
    return first, draw(st.integers(first + 1, n))


@st.composite
def drawn_inputs(draw: st.DrawFn, activation: str, rank: int, windows: bool = True) -> Inputs:
    """Members of one sample "a", with grids, boxes, windows and kinds of axes of their own, or all alike."""
    upsample, mean = draw(st.sampled_from(("logits", "scores"))), draw(st.sampled_from(("probability", "logit")))
    classes, count = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    image = tuple(draw(st.integers(1, n)) for n in (7, 9, draw(st.sampled_from((40, 40, 150))))[-rank:])
    alike, rng = draw(st.booleans()), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = (draw(st.sampled_from(("background", "a"))), "b", "c", "d")[:classes]
    members: list[Drawn] = []
    for k in range(count):
        grid = tuple(draw(st.integers(1, n)) for n in (5, 6, 8)[-rank:])
        spans = [drawn_span(draw, n) for n in grid]
        box = tuple(a for a, _ in spans) + tuple(b for _, b in spans) if draw(st.booleans()) else None
        window = None
        if windows and draw(st.booleans()):
            spans = [drawn_span(draw, n) for n in image]
            window = tuple(a for a, _ in spans) + tuple(b for _, b in spans)
        axes = draw(st.sampled_from((None, *[tuple(rng.choice(["linear", "nearest"], rank).tolist())])))
        where = Placement.of(grid, image, box, window, axes)
        if alike and members:
            where = members[0].where
        z = smooth_logits(rng, (classes, int(np.prod(where.grid[:-1])), where.grid[-1]), draw(st.sampled_from([1, 9])))
        z = z.reshape(classes, *where.grid)
        own = names if activation == "softmax" else tuple(rng.permutation(names).tolist())
        members.append(Drawn(f"m{k}", own, activation, np.ascontiguousarray(z), where))
    temperatures = tuple(draw(st.sampled_from([1.0, 0.3, 2.5])) for _ in members)
    own_names = tuple(m.member for m in members)
    rows = tuple(tuple(row) for row in rng.choice([0.5, 1, 0.1234567, 3], (classes, count)).tolist())
    weights = tuple(integer_weights(row, own_names) for row in rows)
    fusion = Fusion(Mean.of(mean), upsample, own_names, weights, temperatures, rows)
    return Inputs(tuple(members), names, fusion)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [2, 3], ids=["image", "volume"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@given(st.data())
def test_values_masks_and_counts_are_the_oracles(activation: str, rank: int, data: st.DataObject) -> None:
    inputs = data.draw(drawn_inputs(activation, rank))
    scores, found = FusedSample(inputs, "a"), values_of(inputs)
    C, image, levels, say = len(inputs.classes), scores.image, found.levels, found.say
    background = background_of(inputs)
    nobody, values = ~say.any(axis=0), found.values.copy()
    if background is not None:
        values[background, nobody], levels[background, nobody] = 65535 << 16, 65535
        say[background, nobody] = True
    assert np.array_equal(scores.values(0, scores.rows).reshape(C, *image), values)
    row = data.draw(st.integers(0, scores.rows))
    assert np.array_equal(scores.values(row, scores.rows), values.reshape(C, scores.rows, -1)[:, row:])
    factors = data.draw(st.lists(st.sampled_from([65536, 512, 70000, 8388608]), min_size=C, max_size=C))
    of_logits = inputs.fusion.mean.of_logits
    label = oracle.winners(found, factors, of_logits, background)
    assert masks_of(scores.winners(factors), image) == encoded([label == c for c in range(C)])
    least = int(data.draw(st.sampled_from([1, 32768, 65535, 65536])))
    if not (of_logits and activation == "softmax"):
        chosen = np.take_along_axis(levels, np.maximum(label, 0)[None], 0)[0]
        kept = np.where(chosen < least, -1, label)
        assert masks_of(scores.winners(factors, least), image) == encoded([kept == c for c in range(C)])
    wanted = {c: int(data.draw(st.sampled_from([0, 1, 30000, 65535, int(levels[c].max()), 65536]))) for c in range(C)}
    expected = encoded([say[c] & (levels[c] >= t) for c, t in wanted.items()])
    assert masks_of(scores.decide(wanted), image) == expected
    cuts = data.draw(st.lists(st.sampled_from([0, 20000, 32768, 65536]), min_size=C, max_size=C))
    able = say & (levels >= np.array(cuts).reshape(C, *[1] * rank))
    label = np.where(able.any(0), np.where(able, values, -1).argmax(0), -1)
    assert masks_of(scores.claims(cuts), image) == encoded([label == c for c in range(C)])
    truth = np.random.default_rng(C).random((C, *image)) < 0.4
    band = low, high = data.draw(st.sampled_from([(0, 65536), (1, 65535), (20000, 40000)]))
    counted = scores.counts(dict.fromkeys(range(C), band), [mask(t) for t in truth])
    for c in range(C):
        pixels, hits = ref.level_counts(levels[c][say[c]].astype(np.uint16), truth[c][say[c]])
        pixels, hits = np.append(pixels, 0), np.append(hits, 0)
        occur = low + np.flatnonzero(-np.diff(pixels[low : high + 1]))
        got = counted.of(c)
        assert np.array_equal(got[0], occur)
        assert np.array_equal(got[1], pixels[occur])
        assert np.array_equal(got[2], hits[occur])
        assert got[3:] == (pixels[high], hits[high])
    positions, own = scores.pixels(0, mask(truth[0]))
    assert np.array_equal(positions, np.flatnonzero(truth[0]))
    assert np.array_equal(own, levels[0].reshape(-1)[positions])


@pytest.mark.parametrize("rank", [2, 3], ids=["image", "volume"])
@given(st.data())
def test_pixels_that_factors_cannot_change_are_counted(rank: int, data: st.DataObject) -> None:
    inputs = data.draw(drawn_inputs("softmax", rank))
    if data.draw(st.booleans()):  # one window, or none, of all members
        window = next((m.where.window for m in inputs.members if m.where.window), None)  # type: ignore[attr-defined]
        inputs = replace(
            inputs, members=tuple(replace(m, where=replace(m.where, window=window)) for m in inputs.members)
        )  # type: ignore[type-var]
    scores, C = open_sample(inputs, "a"), len(inputs.classes)
    found, background = values_of(inputs), background_of(inputs)
    truth = np.random.default_rng(C).integers(0, C + 2, scores.image)  # C: no class; C + 1: void
    ratio = data.draw(st.sampled_from(RATIOS))
    masks, void = ManyRuns.of([mask(truth == c) for c in range(C)]), mask(truth == C + 1)
    decided, whole = np.zeros((C + 1, C), np.int64), np.zeros((C + 1, C), np.int64)
    if not found.say.any(axis=0).all() and background is None:
        with pytest.raises(ek.MismatchError, match="window"):
            list(scores.open_values(masks, void, ratio, decided))
        return
    values = np.maximum(found.values, 0)
    if background is not None:
        values[background, ~found.say.any(axis=0)] = 65535 << 16
    parts = list(scores.open_values(masks, void, ratio, decided))
    room, out = room_of(ratio, inputs.fusion.mean.of_logits), []
    own = np.concatenate([v for v, _ in parts], axis=1), np.concatenate([t for _, t in parts])
    kept = truth.reshape(-1) <= C
    every = values.reshape(C, -1)[:, kept], truth.reshape(-1)[kept].astype(np.uint16)
    for (v, t), counts in ((own, decided), (every, whole)):
        doubt = np.zeros((room.shifts.size - 1, C, C), np.int32)
        far = np.zeros((*doubt.shape, 2), np.int32)
        got = factors.gather(v.astype(np.int64), t, room, counts, far, doubt)
        out.append((*got, counts, far, doubt))
    assert all(np.array_equal(a, b) for a, b in zip(*out, strict=True))


@pytest.mark.parametrize("rank", [2, 3], ids=["image", "volume"])
@given(st.data())
def test_a_window_that_all_members_share_is_decided_as_an_image_of_its_own(rank: int, data: st.DataObject) -> None:
    inputs = data.draw(drawn_inputs(data.draw(st.sampled_from(("softmax", "sigmoid"))), rank))
    window = next((m.where.window for m in inputs.members if m.where.window), None)  # type: ignore[attr-defined]
    inputs = replace(inputs, members=tuple(replace(m, where=replace(m.where, window=window)) for m in inputs.members))  # type: ignore[type-var]
    fast, exact, C = open_sample(inputs, "a"), FusedSample(inputs, "a"), len(inputs.classes)
    factors = data.draw(st.lists(st.sampled_from([65536, 512, 8388608]), min_size=C, max_size=C))
    for least in (None, 40000, 65535, 65536):
        assert masks_of(fast.winners(factors, least), fast.image) == masks_of(exact.winners(factors, least), fast.image)
    cuts = data.draw(st.lists(st.sampled_from([0, 1, 32768, 65535, 65536]), min_size=C, max_size=C))
    assert masks_of(fast.claims(cuts), fast.image) == masks_of(exact.claims(cuts), fast.image)
    own = dict(zip(data.draw(st.permutations(range(C))), cuts, strict=True))
    assert masks_of(fast.decide(own), fast.image) == masks_of(exact.decide(own), fast.image)
    truth = [mask(t) for t in np.random.default_rng(C).random((C, *fast.image)) < 0.4]
    bands = {c: data.draw(st.sampled_from([(0, 65536), (1, 65535), (20000, 40000)])) for c in own}
    one, other = fast.counts(bands, truth), exact.counts(bands, truth)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    for a, b in zip(fast.pixels_of(range(C), truth), exact.pixels_of(range(C), truth), strict=True):
        assert np.array_equal(a, b)


@given(st.data())
def test_one_slice_at_a_time_gives_the_same_masks(data: st.DataObject) -> None:
    inputs = data.draw(drawn_inputs("softmax", 3))
    factors = [65536] * len(inputs.classes)
    whole = FusedSample(inputs, "a")
    expected = masks_of(whole.winners(factors), whole.image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raster, "ROOM", data.draw(st.integers(0, 4000)))
        assert masks_of(FusedSample(inputs, "a").winners(factors), whole.image) == expected


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@given(st.data())
def test_an_image_is_a_volume_of_one_slice(activation: str, data: st.DataObject) -> None:
    inputs = data.draw(drawn_inputs(activation, 2))
    solid = tuple(replace(m, logits=m.logits[:, None], where=m.where.solid) for m in inputs.members)  # type: ignore[type-var]
    image, volume = open_sample(inputs, "a"), open_sample(replace(inputs, members=solid), "a")
    assert volume.image == (1, *image.image)
    assert np.array_equal(image.values(0, image.rows), volume.values(0, volume.rows))
    levels = dict.fromkeys(range(len(inputs.classes)), 30000)
    for one, other in zip(image.decide(levels), volume.decide(levels), strict=True):
        assert np.array_equal(one, other)


@given(st.data())
def test_the_fast_ways_of_whole_images_are_the_exact_one(data: st.DataObject) -> None:
    inputs = data.draw(drawn_inputs(data.draw(st.sampled_from(("softmax", "sigmoid"))), 2, windows=False))
    plain = replace(inputs, members=tuple(replace(m, where=replace(m.where, axes=())) for m in inputs.members))  # type: ignore[type-var]
    fast, exact = open_sample(plain, "a"), FusedSample(plain, "a")
    assert type(fast) is not FusedSample
    factors = [65536 + 9 * k for k in range(len(inputs.classes))]
    assert masks_of(fast.winners(factors), fast.image) == masks_of(exact.winners(factors), fast.image)
    inside = (slice(None), *max((m.where for m in plain.members), key=lambda p: np.prod(p.grid)).box.slices)  # type: ignore[attr-defined]
    assert np.array_equal(fast.levels()[inside], exact.levels()[inside])


def test_the_order_of_members_changes_nothing() -> None:
    rng = np.random.default_rng(5)
    image, members = (6, 20, 24), []
    for k, (grid, window) in enumerate([((3, 8, 9), None), ((4, 5, 6), (1, 2, 3, 5, 20, 20)), ((6, 9, 7), None)]):
        z = rng.normal(0, 3, (3, *grid)).astype(np.float16)
        members.append(Drawn(f"m{k}", ("background", "b", "c"), "softmax", z, Placement.of(grid, image, None, window)))
    found = []
    for order in ((0, 1, 2), (2, 0, 1)):
        own = tuple(members[k] for k in order)
        names, shares = tuple(m.member for m in own), [(1.0, 0.3, 2.0)[k] for k in order]
        rows = (tuple(shares),) * 3
        for upsample in ("logits", "scores"):
            fusion = Fusion(Mean(), upsample, names, (integer_weights(shares, names),) * 3, (1.0,) * 3, rows)  # type: ignore[arg-type]
            scores = open_sample(Inputs(own, members[0].classes, fusion), "a")
            found.append(masks_of(scores.winners([65536] * 3), image))
    assert found[0] == found[2]
    assert found[1] == found[3]


def test_members_of_images_and_of_volumes_are_refused_together() -> None:
    z = np.zeros((1, 2, 2), np.float16)
    members = (
        Drawn("flat", ("a",), "sigmoid", z, Placement.of((2, 2), (4, 4))),
        Drawn("deep", ("a",), "sigmoid", z[:, None], Placement.of((1, 2, 2), (3, 4, 4))),
    )
    fusion = Fusion(Mean(), "logits", ("flat", "deep"), ((32768, 32768),), (1.0, 1.0))
    with pytest.raises(ek.MismatchError, match=r"images with volumes: .*4 x 4 in 'flat', 3 x 4 x 4 in 'deep'"):
        open_sample(Inputs(members, ("a",), fusion), "x")
