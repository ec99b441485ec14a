"""The arithmetic of a controlled risk: exact against a plain search over all levels, and covering by simulation."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

import ensemble_kit as ek
from ensemble_kit.decisions.rules import parse_rule
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.spec.risk import Risk
from ensemble_kit.tuning.class_statistics import ClassStatistics
from ensemble_kit.tuning.risk import Control, counts_at

CLASSES = ("bone", "joint")


def table_of(samples: list[tuple[np.ndarray, np.ndarray]], low: int = 0, high: int = LEVELS) -> ClassStatistics:
    """Counts of pixels given by their levels and whether each is of the truth, by comparing each with each level."""
    levels, pred, tp, above, above_tp = [], [], [], [], []
    for value, true in samples:
        own = np.unique(value[(value >= low) & (value < high)])
        levels.append(own.astype(np.uint16))
        pred.append(np.array([(value >= level).sum() for level in own], np.uint32))
        tp.append(np.array([(true & (value >= level)).sum() for level in own], np.uint32))
        above.append((value >= high).sum())
        above_tp.append((true & (value >= high)).sum())
    offsets = np.cumsum([0, *map(len, levels)])
    truth = np.array([true.sum() for _, true in samples], np.int64)
    joined = (np.concatenate(levels), np.concatenate(pred), np.concatenate(tp))
    return ClassStatistics(low, high, offsets, *joined, np.array(above), np.array(above_tp), truth)


def losses_at(samples: list[tuple[np.ndarray, np.ndarray]], level: int) -> list[Fraction]:
    """The share of each sample's truth below a level, as a fraction; 0 where the truth is empty."""
    return [Fraction(int((t & (v < level)).sum()), max(int(t.sum()), 1)) for v, t in samples]


def of_groups(losses: list[Fraction], groups: list[int]) -> list[Fraction]:
    """The mean loss of each group's samples."""
    own = [[x for x, g in zip(losses, groups, strict=True) if g == k] for k in range(max(groups) + 1)]
    return [sum(xs, Fraction(0)) / len(xs) for xs in own]


def chance(risk: float, total: float, n: int) -> float:
    """Hoeffding and Bentkus, as the paper writes it (Bates et al. 2021, proposition 4)."""
    a, b = min(total / n, risk), risk
    h = (a * math.log(a / b) if a else 0.0) + ((1 - a) * math.log((1 - a) / (1 - b)) if a < 1 else 0.0)
    return float(min(math.exp(-n * h), math.e * binom.cdf(math.ceil(total), n, risk)))


def accepted(risk: Risk, groups: list[Fraction]) -> bool:
    n = len(groups)
    if risk.delta is None:  # n/(n+1) R + 1/(n+1) <= alpha
        return Fraction(n, n + 1) * sum(groups) / n + Fraction(1, n + 1) <= Fraction(str(risk.alpha))
    return chance(risk.alpha, float(sum(groups)), n) <= risk.delta


@st.composite
def calibrations(draw: st.DrawFn) -> tuple[list[list[tuple[np.ndarray, np.ndarray]]], list[int], Risk]:
    """Pixels of a few levels, so that losses tie and meet alpha exactly, of two classes; groups; and a risk."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    alpha, delta = draw(st.sampled_from([(0.5, None), (0.25, None), (0.1, None), (0.3, 0.2), (0.5, 0.1)]))
    risk = Risk(alpha, delta, draw(st.sampled_from(["class", "all"])))
    groups = draw(st.integers(risk.least_groups, risk.least_groups + 6))
    numbers = [*range(groups), *rng.integers(0, groups, draw(st.integers(0, 4))).tolist()]
    ends = np.array([0, 1, 300, 3277, 30000, 62259, 62260, 65534, 65535])
    pixels = draw(st.integers(1, 5))

    def sample() -> tuple[np.ndarray, np.ndarray]:
        return rng.choice(ends, pixels), rng.random(pixels) < rng.choice([0, 0.5, 1])

    return [[sample() for _ in numbers] for _ in CLASSES], numbers, risk


@given(calibrations())
def test_levels_are_those_of_a_plain_search(
    drawn: tuple[list[list[tuple[np.ndarray, np.ndarray]]], list[int], Risk],
) -> None:
    classes, numbers, risk = drawn
    control, tables = Control(risk, np.array(numbers)), [table_of(samples) for samples in classes]
    found = control.levels(tables).tolist()
    breaks = sorted({0, 65535, *(int(v) for samples in classes for value, _ in samples for v in value)})
    candidates = sorted({*breaks, *(b + 1 for b in breaks if b < 65535)})  # between two of them nothing changes

    def best(own: list[list[tuple[np.ndarray, np.ndarray]]]) -> int:
        def accepts(level: int) -> bool:
            each = zip(*(losses_at(samples, level) for samples in own), strict=True)
            return accepted(risk, of_groups([max(losses) for losses in each], numbers))

        return max(level for level in candidates if accepts(level))

    assert found == ([best([samples]) for samples in classes] if risk.over == "class" else [best(classes)] * 2)
    told = control.guarantee(counts_at(tables, found), CLASSES, found)
    assert told.bound <= risk.alpha * (1 + 1e-12)
    for low, high in [(3277, 62260), (328, 65208), (0, LEVELS)]:  # as a count widens them
        narrow = dict(enumerate(table_of(samples, low, high) for samples in classes))
        sides = control.certain(narrow, [0, 1])
        assert (low == 0) <= all(below for below, _ in sides.values())
        assert (high == LEVELS) <= all(above for _, above in sides.values())
        for c, level in enumerate(found):
            assert sides[c][0] <= (level >= low) and sides[c][1] <= (level < high)
        if all(below and above for below, above in sides.values()):
            assert control.levels(list(narrow.values())).tolist() == found
    for name, samples, level in zip(CLASSES, classes, found, strict=True):
        losses = [float(x) for x in of_groups(losses_at(samples, level), numbers)]
        assert told.classes[name].risk == pytest.approx(np.mean(losses))


@pytest.mark.parametrize(
    ("alpha", "delta", "groups"),
    [(0.1, None, 9), (0.05, None, 19), (0.01, None, 99), (0.3, None, 3), (0.1, 0.1, 22), (0.05, 0.1, 45)],
)
def test_the_fewest_groups(alpha: float, delta: float | None, groups: int) -> None:
    risk = Risk(alpha, delta)
    assert risk.least_groups == groups
    assert risk.accepts(np.zeros((1, groups))).all() and not risk.accepts(np.zeros((1, groups - 1))).any()
    assert risk.bound(np.zeros((1, groups)))[0] <= alpha < risk.bound(np.zeros((1, groups - 1)))[0]


@given(st.floats(0.02, 0.98), st.floats(0.01, 0.9), st.integers(1, 200), st.data())
def test_the_bound_is_where_the_chance_is_delta(alpha: float, delta: float, n: int, data: st.DataObject) -> None:
    losses = np.array([data.draw(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=n, max_size=n))])
    risk, total = Risk(alpha, delta), float(losses.sum())
    bound = float(risk.bound(losses)[0])
    assert bound >= total / n
    assert bound > 1 - 1e-9 or chance(min(bound + 1e-9, 1 - 1e-12), total, n) <= delta * (1 + 1e-9)
    if abs(bound - alpha) > 1e-9:
        assert bool(risk.accepts(losses)[0]) == (bound <= alpha)


BAD: dict[str, dict[str, Any]] = {
    "alpha 0": {"alpha": 0},
    "alpha 1": {"alpha": 1},
    "alpha in percent": {"alpha": 10},
    "delta 1": {"alpha": 0.1, "delta": 1},
    "another risk": {"alpha": 0.1, "kind": "fpr"},
    "over samples": {"alpha": 0.1, "over": "sample"},
}


@pytest.mark.parametrize("options", BAD.values(), ids=BAD)
def test_what_is_no_risk_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ek.UsageError, match="cannot control a risk"):
        Risk(**options)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["drop-small:3", "drop-small:20%", "fill-holes", "fill-holes:2"]))
def test_monotone_rules_leave_more_of_a_larger_mask(seed: int, text: str) -> None:
    rng, rule = np.random.default_rng(seed), parse_rule(text)
    small = rng.random((9, 9)) < rng.choice([0.3, 0.5, 0.7])
    large = small | (rng.random((9, 9)) < 0.2)
    assert rule.monotone
    assert not (rule.apply(ek.encode(small)) - rule.apply(ek.encode(large)))


def test_the_largest_component_is_not_monotone() -> None:
    rule = parse_rule("keep-largest")
    small, large = ek.Runs([0, 4], [2, 5], (1, 12)), ek.Runs([0, 4], [2, 9], (1, 12))
    assert not rule.monotone and rule.apply(small) - rule.apply(large)
    assert parse_rule("gate:0.7,5").monotone  # it empties a mask or not, whatever the threshold


@pytest.mark.slow
@pytest.mark.parametrize(
    ("risk", "groups", "images"),
    [(Risk(0.1), 9, 1), (Risk(0.2), 12, 1), (Risk(0.2), 8, 3), (Risk(0.2, delta=0.2), 20, 1)],
    ids=["fewest groups", "expected", "groups of images", "high probability"],
)
def test_new_groups_miss_no_more_than_allowed(risk: Risk, groups: int, images: int) -> None:
    """Draw a population of groups, calibrate on some, and read the risk of all at the level found."""
    rng, draws, pixels = np.random.default_rng(7), 150, 6
    middles = rng.normal(1, 2, (3000, 1, 1)) + rng.normal(0, 0.5, (3000, images, 1))
    scores = 1 / (1 + np.exp(-middles - rng.normal(0, 0.5, (3000, images, pixels))))
    levels = np.floor(64 * scores).astype(np.int64) * 1000  # few, so that the tables are small
    found = []
    for _ in range(draws):
        own = levels[rng.choice(3000, groups, replace=False)].reshape(-1, pixels)
        table = table_of([(image, np.ones(pixels, bool)) for image in own])
        level = Control(risk, np.repeat(np.arange(groups), images)).levels([table])[0]
        found.append((levels < level).mean())  # the mean over a group's images, over all groups
    risks = np.array(found)
    assert risks.mean() <= risk.alpha + 2 * risks.std() / math.sqrt(draws)
    assert risks.mean() > risk.alpha / 8  # and the level is not merely low
    if risk.delta is not None:
        assert (risks > risk.alpha).mean() <= risk.delta


@pytest.mark.parametrize("seed", range(5))
def test_a_grid_of_thresholds_finds_the_level_below(seed: int) -> None:
    """The reference implementation, `get_lhat` of Angelopoulos et al., on 100 thresholds: ours, or the step below it."""
    rng, n, pixels, alpha = np.random.default_rng(seed), 40, 61, 0.1  # 61 is a prime: no sum meets alpha exactly
    levels = (65535 * rng.beta(4 * rng.random((n, 1)) + 0.5, 1, (n, pixels))).astype(np.int64)
    thresholds = np.arange(100) / 100
    losses = (levels[:, None] < np.floor(65535 * thresholds + 0.5)[:, None]).mean(2)  # (images, thresholds)
    above = (n / (n + 1)) * losses.mean(0) + 1 / (n + 1) > alpha
    grid = thresholds[above.argmax() - 1]
    ours = Control(Risk(alpha), np.arange(n)).levels([table_of([(own, np.ones(pixels, bool)) for own in levels])])[0]
    assert grid - 1e-4 <= ours / 65535 < grid + 0.01 + 1e-4
