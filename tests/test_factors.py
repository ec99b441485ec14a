"""Factors: line searches against the oracle over every factor, and what tuning makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_kit.kernels import factors as kernels
from ensemble_kit.kernels import reference as ref
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.tuning.contenders import RATIOS, ContenderTable, concatenated, room_of
from ensemble_kit.tuning.linesearch import FactorSearch

Values = list[np.ndarray]


def table_of(values: Values, truth: Values, ratio: int, adds: bool = False) -> ContenderTable:
    """The table of samples given as F_c (C, n) and truth (n,), C for no class and -1 for void."""
    C, n, parts = len(values[0]), len(values), []
    decided = np.zeros((n, C + 1, C), np.int64)
    far = np.zeros((3, n, C, C), np.int32)
    for s, (v, t) in enumerate(zip(values, truth, strict=True)):
        labels = np.where(t < 0, kernels.VOID, t).astype(np.uint16)
        parts.append(kernels.gather(v, labels, room_of(ratio, adds), decided[s], *far[:, s]))
    offsets = np.cumsum([0, *(p.truth.size for p in parts)])
    names = tuple(f"s{k}" for k in range(n)), tuple(f"c{k}" for k in range(C))
    return ContenderTable(*names, None, "", adds, ratio, concatenated(parts), offsets, decided, *far)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Values, Values, list[int], bool]:
    """Scores of a few samples that lie close together, far apart, at 0 and at ties; truth with void and no class."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    C, adds = draw(st.integers(2, 5)), draw(st.booleans())
    spread, ties = draw(st.sampled_from([0.3, 2.0, 6.0])), draw(st.booleans())
    values, truth = [], []
    for _ in range(draw(st.integers(1, 3))):
        n = int(rng.integers(1, 40))
        z = rng.normal(0, spread, (C, n)) + draw(st.sampled_from([0.0, 1.0])) * np.arange(C)[:, None]
        p = np.exp(z - z.max(0))
        v = 65535 * 65536 * (1 + (z - z.max(0)) / 32 if adds else p / p.sum(0))
        v = np.clip(np.floor(v), 0, 65535 * 65536).astype(np.int64)
        if ties:
            v = v >> 28 << 28
        values.append(v)
        t = np.where(rng.random(n) < draw(st.sampled_from([0.0, 0.5, 0.9])), v.argmax(0), rng.integers(-1, C + 1, n))
        truth.append(t)
    factors = np.clip(np.floor(65536 * np.exp(rng.normal(0, 0.7, C)) + 0.5), 512, 8388608).astype(int).tolist()
    return values, truth, factors if draw(st.booleans()) else [65536] * C, adds


measures = st.builds(
    Measure,
    st.sampled_from(["mean", "pooled"]),
    st.sampled_from(["iou", "dice", "f2"]),
    st.builds(Convention, st.sampled_from([0.0, 1e-4]), st.sampled_from([0, 1, "skip"])),
)


def objective(measure: Measure) -> Callable[[np.ndarray], float]:
    """The measure of confusion matrices (samples, C + 1, C)."""

    def score(confusion: np.ndarray) -> float:
        tp, pred = np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(1)
        found = measure.of_all(tp.T, pred.T, confusion.sum(2)[:, :-1].T)
        return 1.0 if np.isnan(found) else found

    return score


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(cases(), measures, st.sampled_from(RATIOS), st.integers(0, 4))
def test_line_searches_are_the_oracle(case: Any, measure: Measure, ratio: int, c: int) -> None:
    values, truth, factors, adds = case
    c %= len(factors)
    table = table_of(values, truth, ratio, adds)
    wanted = ref.line_search(values, truth, factors, c, objective(measure), adds)
    search = FactorSearch(table, measure, factors=factors)
    found = search.search(c)
    assert found.is_certain or ratio < RATIOS[-1]
    if found.is_certain:
        assert (found.factor, found.score, found.plateau) == wanted
    else:
        assert found.score <= wanted[1]
    again = FactorSearch(table, measure, factors=search.factors)
    assert np.array_equal(again.tp, search.tp)
    assert np.array_equal(again.pred, search.pred)
    assert again.score == found.score
