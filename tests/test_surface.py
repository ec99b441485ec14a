"""HD95 against MONAI, and against distances of all pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import ensemble_kit as ek
from ensemble_kit.metrics.surface import hausdorff95, surface_distances

SHAPES = st.sampled_from([(4, 5), (3, 4, 5)])
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(*[arrays.arrays(np.bool_, shape)] * 2))


def edge(mask: np.ndarray) -> np.ndarray:
    """Pixels with a neighbour outside, counted one by one."""
    padded, inside = np.pad(mask, 1), [slice(1, -1)] * mask.ndim
    whole = mask.copy()
    for axis in range(mask.ndim):
        for step in (0, 2):
            moved = [*inside]
            moved[axis] = slice(step, padded.shape[axis] - 2 + step)
            whole &= padded[tuple(moved)]
    return mask & ~whole


@given(PAIRS)
def test_it_is_that_of_all_pairs_of_pixels(pair: tuple[np.ndarray, np.ndarray]) -> None:
    spacing = np.array([2.5, 0.8, 1.1][-pair[0].ndim :])
    found = hausdorff95(ek.encode(pair[0]), ek.encode(pair[1]), spacing)
    if not (pair[0].any() and pair[1].any()):
        assert math.isnan(found)
        return
    a, b = (np.argwhere(edge(mask)) * spacing for mask in pair)
    apart = np.linalg.norm(a[:, None] - b[None], axis=2)
    assert found == pytest.approx(max(np.percentile(apart.min(axis=k), 95) for k in (0, 1)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:monai")
def test_it_is_monais() -> None:
    import torch
    from monai.metrics import compute_hausdorff_distance

    grid, spacing = np.ogrid[:20, :40, :40], (3.0, 0.7, 0.9)
    for shift in (0, 3, 7):
        one, other = (
            sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, (6, 9, 12), strict=True)) < 1
            for centre in ((10, 20, 20), (10, 20 - shift, 20 + shift))
        )
        tensors = [torch.from_numpy(mask)[None, None].float() for mask in (one, other)]
        theirs = compute_hausdorff_distance(*tensors, include_background=True, percentile=95, spacing=spacing)
        assert hausdorff95(ek.encode(one), ek.encode(other), spacing) == pytest.approx(float(theirs), rel=1e-6)


def test_void_is_in_neither() -> None:
    a, b = ek.Runs([0, 30], [3, 33], (6, 6)), ek.Runs([0], [3], (6, 6))
    masks, truth = ek.MaskSet({("s", "x"): a}), ek.MaskSet({("s", "x"): b}, void={"s": ek.Runs([30], [36], (6, 6))})
    told: list[int] = []
    assert surface_distances(masks, truth, [None], told.append).tolist() == [[0]]
    assert told == [1]
    assert surface_distances(masks, truth.without_void(), [(2, 1)])[0, 0] > 5
