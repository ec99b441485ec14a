"""Dice and IoU under every convention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[ek.MaskSet, ek.MaskSet]:
    def draw() -> ek.MaskSet:
        return ek.MaskSet(
            {(s, c): ek.encode((rng.random((6, 7)) < 0.3) & (rng.random() < 0.6)) for s in "abcd" for c in ("x", "y")}
        )

    return draw(), draw()


@pytest.mark.parametrize("empty", [1, 0, "skip"])
@pytest.mark.parametrize("eps", [0.0, 1e-4, 1.0])
def test_against_numpy(pair: tuple[ek.MaskSet, ek.MaskSet], empty: Any, eps: float) -> None:
    a, b = pair
    for metric in (ek.dice, ek.iou):
        got = metric(a, b, eps=eps, empty=empty)
        values = []
        for key in b:
            p, t = a[key].decode(), b[key].decode()
            tp, union = (p & t).sum(), (p | t).sum()
            top, foot = (2 * tp, p.sum() + t.sum()) if metric is ek.dice else (tp, union)
            if union == 0:
                values.append(math.nan if empty == "skip" else empty)
            else:
                values.append((top + eps) / (foot + eps))
        assert got.mean == pytest.approx(np.nanmean(values), abs=1e-15)
        table = got.table()
        assert list(table.columns) == ["sample", "class", "tp", "pred", "truth", "value"]
        assert np.allclose(table["value"], values, equal_nan=True)
        assert got.per_class["x"] == pytest.approx(np.nanmean(table[table["class"] == "x"]["value"]))
        sums = table.groupby("class")[["tp", "pred", "truth"]].sum()
        pooled = 2 * sums.tp if metric is ek.dice else sums.tp
        foot = sums.pred + sums.truth - (0 if metric is ek.dice else sums.tp)
        assert got.pooled == pytest.approx(((pooled + eps) / (foot + eps)).mean())


def test_join_is_by_name(pair: tuple[ek.MaskSet, ek.MaskSet]) -> None:
    a, b = pair
    shuffled = ek.MaskSet({key: a[key] for key in sorted(a, reverse=True)})
    assert ek.dice(shuffled, b).mean == ek.dice(a, b).mean
    assert ek.dice(shuffled, b).per_class == ek.dice(a, b).per_class


def test_all_skipped_is_nan() -> None:
    empty = ek.MaskSet({("a", "x"): ek.Runs.empty((2, 2))})
    assert math.isnan(ek.dice(empty, empty, empty="skip").mean)
    assert ek.dice(empty, empty).mean == 1
    assert ek.dice(empty, empty, empty=0, eps=1).mean == 0  # the value for empty goes before eps


def test_refused(pair: tuple[ek.MaskSet, ek.MaskSet]) -> None:
    a, _ = pair
    part = ek.MaskSet({key: a[key] for key in a if key[0] != "b"})
    with pytest.raises(ek.IncompleteError, match="the prediction lacks samples that the truth has: 1 of 4: 'b'"):
        ek.dice(part, a)
    with pytest.raises(ek.MismatchError, match="the prediction has samples that the truth lacks"):
        ek.dice(a, part)
    with pytest.raises(ek.UsageError, match="empty"):
        ek.dice(a, a, empty=2)  # type: ignore[arg-type]
    with pytest.raises(ek.UsageError, match="eps"):
        ek.dice(a, a, eps=-1)
