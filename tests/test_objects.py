"""Connected components of masks, and unions of rows, against pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from ensemble_kit.errors import DamagedError
from ensemble_kit.masks.objects import components, united
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs, encode

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))


@given(masks)
def test_components_are_those_of_scipy_with_eight_neighbours(mask):
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    found = components(encode(mask))
    assert [part.text() for part in found] == [encode(labels == k + 1).text() for k in range(count)]


def test_a_run_that_goes_round_a_rows_end_stays_one_run():
    whole = Runs([1], [7], (2, 4))
    (part,) = components(whole)
    assert part == whole


@given(st.data())
def test_united_rows_are_the_or_of_their_pixels(data):
    shapes = data.draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3))
    owners = data.draw(st.lists(st.integers(0, len(shapes) - 1), max_size=6))
    rows = [data.draw(hnp.arrays(bool, shapes[k])) for k in owners]
    made, told = united(ManyRuns.of([encode(row) for row in rows]), owners, [h * w for h, w in shapes])
    counts = [sum((r.astype(int) for r, k in zip(rows, owners, strict=True) if k == m), np.zeros(s, int))
              for m, s in enumerate(shapes)]  # fmt: skip
    assert [runs for k, s in enumerate(shapes) for runs in [made.mask(k, s)]] == [encode(c > 0) for c in counts]
    twice = sum(int((c - (c > 0)).sum()) for c in counts)
    assert (f"overlap, by {twice} pixel" in told) == (twice > 0)
    assert told.startswith(f"{sum(map(np.any, rows))} object")


def test_images_that_no_64_bits_number_together():
    with pytest.raises(DamagedError, match="pixels in all images together"):
        united(ManyRuns.of([]), [], [2**60] * 4)
