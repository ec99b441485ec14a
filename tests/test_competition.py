"""Rules across classes and at size: `compete`, `nested` and `least-area`, against what they say in plain NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.decisions.across import Compete, Nested
from ensemble_kit.decisions.areas import LeastArea
from ensemble_kit.decisions.argmax import Argmax
from ensemble_kit.decisions.clean import apply_rules
from ensemble_kit.decisions.rank import RankRule
from ensemble_kit.decisions.rules import parse_rule, parse_rules
from ensemble_kit.kernels import competition as kernels
from ensemble_kit.kernels import reference as ref
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.scores import competition
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.spec.mean import Mean, levels_of_probability

Make = Callable[..., ek.LogitStore]
CLASSES = ("a", "b", "c", "d")
RATIOS = (0.00001, 0.3, 0.8, 0.97, 1.0)

CASES: dict[str, dict[str, Any]] = {
    "upsample logits": {},
    "upsample scores": {"upsample": "scores"},
    "mean logit": {"mean": "logit"},
    "mean logit, upsample scores": {"mean": "logit", "upsample": "scores"},
    "power mean": {"mean": "power:0.5"},
    "geometric mean, upsample scores": {"mean": "power:0", "upsample": "scores"},
    "two grids": {"grids": [(9, 9), (16, 12)]},
    "two grids, upsample scores": {"grids": [(9, 9), (16, 12)], "upsample": "scores"},
    "softmax": {"activation": "softmax"},
    "softmax, upsample scores": {"activation": "softmax", "upsample": "scores"},
    "softmax, power mean": {"activation": "softmax", "mean": "power:0.5"},
}


def ensemble(make: Make, seed: int, grids: Any = ((9, 9), (9, 9)), activation: str = "sigmoid", **options: Any) -> Any:
    rng = np.random.default_rng(seed)
    logits = [{"s": smooth_logits(rng, (len(CLASSES), *grid), 4.0)} for grid in grids]
    stores = [make(z, (33, 40), CLASSES, activation=activation) for z in logits]
    return ek.Ensemble(stores, **options)


def chances(ens: ek.Ensemble) -> np.ndarray:
    """The oracle's probabilities of every class and pixel, as levels: uint16 (C, H, W)."""
    fused = open_sample(ens.inputs, "s")
    levels = (fused.values(0, 33) + (32768 if ens.fusion.upsample == "logits" else 0)) >> 16
    return np.floor(65535 * ens.fusion.mean.probabilities(levels) + 0.5).astype(np.uint16)


def drawn(masks: ek.MaskSet, sample: str = "s") -> np.ndarray:
    return np.stack([masks[sample, name].decode() for name in masks.classes])


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.parametrize("seed", [1, 2])
def test_compete_is_the_oracle(options: dict[str, Any], seed: int, make_store: Make) -> None:
    ens = ensemble(make_store, seed, **options)
    p = chances(ens)
    removed = 0
    for thresholds in (0.5, [0.1, 0.3, 0.45, 0.6]):
        before = drawn(ens.vote(thresholds, rules=()))
        for ratio in RATIOS:
            wanted = ref.compete(p, before, ratio)
            assert np.array_equal(drawn(ens.vote(thresholds, rules=Compete(ratio))), wanted), ratio
            removed += int((before & ~wanted).sum())
            few = before.copy()
            few[[1, 3]] = ref.compete(p[[1, 3]], before[[1, 3]], ratio)
            assert np.array_equal(drawn(ens.vote(thresholds, rules=f"compete:{ratio:.5f}@d,b")), few)
    assert removed > 100


@pytest.mark.parametrize("options", [CASES["upsample logits"], CASES["softmax"]], ids=["sigmoid", "softmax"])
def test_compete_after_rules_that_add_or_remove(options: dict[str, Any], make_store: Make) -> None:
    """Filled holes lie below the threshold, and a class that a rule emptied still competes."""
    ens = ensemble(make_store, 5, **options)
    first = ["fill-holes", "least-area:99999@a", "drop-small:9"]
    before = drawn(ens.vote(0.4, rules=first))
    assert not before[0].any()
    wanted = ref.compete(chances(ens), before, 0.9)
    assert np.array_equal(drawn(ens.vote(0.4, rules=[*first, "compete:0.9"])), wanted)
    assert (drawn(ens.vote(0.4, rules=[*first[::2], "compete:0.9@b,c,d"]))[1:] & ~wanted[1:]).any()


@pytest.mark.parametrize("mean", ["probability", "power:0.5"])
def test_at_ratio_1_a_pixel_stays_with_its_largest_class(mean: str, make_store: Make) -> None:
    ens = ensemble(make_store, 3, mean=mean)
    masks, p = drawn(ens.vote(0.2, rules="compete:1")), chances(ens)
    assert np.array_equal(masks, (p == p.max(0)) & drawn(ens.vote(0.2, rules=())))


def test_compete_after_the_rank_rule(make_store: Make) -> None:
    ens = ensemble(make_store, 4)
    before = drawn(ens.vote(RankRule(), rules=()))
    assert np.array_equal(drawn(ens.vote(RankRule(), rules="compete:0.7")), ref.compete(chances(ens), before, 0.7))
    for rule in ("compete:0.7", "nested@a,b"):
        with pytest.raises(ek.UsageError, match="one at most"):
            ens.vote(Argmax(), rules=rule)


def test_bands_and_floors_change_nothing(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ens = ensemble(make_store, 6)
    fused = open_sample(ens.inputs, "s")
    masks = dict(enumerate(fused.decide(dict.fromkeys(range(4), 20000)).masks(fused.image)))
    whole = competition.beaten(fused, range(4), masks)
    monkeypatch.setattr(competition, "AT_ONCE", 200)
    fresh = open_sample(ens.inputs, "s")  # nothing was decided, so that its floor is a guess
    for one, other in zip(competition.beaten(fresh, range(4), masks), whole, strict=True):
        assert one.positions.size
        for a, b in ((one.positions, other.positions), (one.levels, other.levels), (one.tops, other.tops)):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_beaten_tells_every_pixel_that_another_class_beats(options: dict[str, Any], make_store: Make) -> None:
    """What tuning counts: of the pixels from a floor on, those with a higher rival, their levels and the highest."""
    ens = ensemble(make_store, 7, **options)
    fused, p = open_sample(ens.inputs, "s"), chances(ens).reshape(4, -1)
    floors = {0: ens.level_of(0.2), 2: ens.level_of(0.05), 3: ens.level_of(0.6)}
    masks = dict(zip(floors, fused.decide(floors).masks(fused.image), strict=True))
    for c, found in zip(floors, competition.beaten(fused, [0, 2, 3], masks), strict=True):
        on, top = masks[c].decode().reshape(-1), p[[0, 2, 3]].max(0)
        assert np.array_equal(found.positions, np.flatnonzero(on & (p[c] < top)))
        assert np.array_equal(found.own, p[c][found.positions])
        assert np.array_equal(found.tops, top[found.positions])
        assert np.array_equal(levels_of_probability(ens.fusion.mean)[found.levels], found.own)
        assert np.array_equal(found.levels, fused.pixels(c, masks[c])[1][np.isin(np.flatnonzero(on), found.positions)])


@pytest.mark.parametrize("mean", ["probability", "logit", "power:0", "power:0.37"])
def test_levels_of_probability_rise_from_0_to_65535(mean: str) -> None:
    table = levels_of_probability(Mean.of(mean)).astype(np.int64)
    assert (np.diff(table) >= 0).all()
    assert table[-1] == 65535
    assert table[0] == 0
    if mean == "logit":
        assert np.array_equal(table, ref.level_of_q(np.arange(65536).astype(np.uint16)))


masks_of_three = hnp.arrays(np.bool_, st.tuples(st.just(3), st.integers(1, 7), st.integers(1, 9)))


@given(masks_of_three, st.data())
def test_contested_pixels(masks: np.ndarray, data: st.DataObject) -> None:
    wanted = data.draw(hnp.arrays(np.bool_, (2, *masks.shape[1:])))
    many, own = ManyRuns.of([*map(ek.encode, masks)]), ManyRuns.of([*map(ek.encode, wanted)])
    found = kernels.contested(*many, own.starts, own.ends, np.zeros(masks[0].size, np.uint8))
    contested = (masks.sum(0) > 1) & wanted.any(0)
    assert list(found[2]) == list(np.cumsum([0, *(len(ek.encode(m & contested)) for m in masks)]))


@given(masks_of_three)
def test_runs_of_positions(masks: np.ndarray) -> None:
    starts, ends = kernels.runs_of_positions(np.flatnonzero(masks[0]))
    assert ek.Runs.trusted((starts, ends), masks[0].shape) == ek.encode(masks[0])


# --- nested and least-area -----------------------------------------------------------------------------------


def set_of(masks: np.ndarray) -> ek.MaskSet:
    return ek.MaskSet({("s", name): ek.encode(mask) for name, mask in zip("wte", masks, strict=True)})


@given(masks_of_three)
def test_nested_regions_lie_inside_each_other(masks: np.ndarray) -> None:
    masks = masks.copy()
    masks[:, 0, 0] = True  # so that the set is none of exclusive classes
    w, t, e = masks
    assert np.array_equal(drawn(apply_rules(set_of(masks), "nested@w,t,e")), [w, w & t, w & t & e])
    assert np.array_equal(drawn(apply_rules(set_of(masks), "nested:grow@w,t,e")), [w | t | e, t | e, e])
    assert np.array_equal(drawn(apply_rules(set_of(masks), "nested@e,w")), [w & e, t, e])


@given(masks_of_three, st.integers(1, 30))
def test_least_area_empties_small_masks(masks: np.ndarray, least: int) -> None:
    masks = masks.copy()
    masks[:, 0, 0] = True
    kept = [m if m.sum() >= least else np.zeros_like(m) for m in masks]
    assert np.array_equal(drawn(apply_rules(set_of(masks), LeastArea(least))), kept)
    assert np.array_equal(drawn(apply_rules(set_of(masks), f"least-area:{least}@t"))[1], kept[1])


def test_a_share_is_the_decimal_it_is_written_as() -> None:
    assert LeastArea(min_share=0.1).least((10, 10)) == 10  # not 11, as 0.1 in binary would have it
    assert parse_rule("least-area:0.05%") == LeastArea(min_share=0.0005)
    assert LeastArea(min_share=0.0005).least((2048, 2048)) == 2098


def test_an_exclusive_mask_that_is_too_small_goes_to_its_neighbour() -> None:
    labels = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [2, 2, 0, 0]])
    masks = set_of(np.stack([labels == k for k in range(3)]))
    done = apply_rules(masks, "least-area:3@t")
    assert done.exclusive
    assert [done["s", name].area for name in "wte"] == [10, 0, 2]


def test_exclusive_classes_cannot_be_nested(make_store: Make) -> None:
    labels = np.array([[0, 0, 1, 1], [2, 2, 0, 0]])
    masks = set_of(np.stack([labels == k for k in range(3)]))
    with pytest.raises(ek.UsageError, match="nested@w,t"):
        apply_rules(masks, "nested@w,t")
    lone = set_of(np.stack([labels == 0, labels < 0, labels < 0]))  # exclusive only because the others are empty
    assert [apply_rules(lone, "nested:grow@e,t,w")["s", name].area for name in "wte"] == [4, 4, 4]
    ens = ensemble(make_store, 8, activation="softmax")
    nested = drawn(ens.vote(0.3, rules="nested@a,b"))
    assert (nested[1] <= nested[0]).all()


# --- texts ---------------------------------------------------------------------------------------------------

FORMS = {
    "compete:0.8": Compete(0.8),
    "compete:1@A,B,C": Compete(1, classes=("A", "B", "C")),
    "least-area:120": LeastArea(120),
    "least-area:0.05%@A": LeastArea(min_share=0.0005, classes=("A",)),
    "nested@WT,TC,ET": Nested(("WT", "TC", "ET")),
    'nested:grow@"a, b",c': Nested(("a, b", "c"), grow=True),
}


@pytest.mark.parametrize(("text", "rule"), FORMS.items(), ids=FORMS)
def test_texts_read_as_they_are_written(text: str, rule: Any) -> None:
    assert parse_rule(text) == rule
    assert str(rule) == text


@pytest.mark.parametrize(
    "text",
    ["compete", "compete:0", "compete:1.01", "compete:0.8,2", "compete:0.8@A", "compete:0.8,connectivity=4",
     "least-area", "least-area:0", "least-area:0%", "least-area:101%", "nested", "nested@A", "nested@A,A",
     "nested:shrink@A,B", "nested:grow", "compete:0.000001"],
)  # fmt: skip
def test_what_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ek.UsageError):
        parse_rules(text)


def test_scores_of_averaged_logits_do_not_compete(make_store: Make) -> None:
    ens = ensemble(make_store, 9, activation="softmax", mean="logit")
    with pytest.raises(ek.UsageError, match="--mean probability"):
        ens.vote(rules="compete:0.8")
