"""Two sides are joined by name, and what differs between them is named."""

from __future__ import annotations

import pytest

import ensemble_kit as ek
from ensemble_kit.masks.alignment import Extent, check_aligned


def side(samples: str = "ab", classes: str = "xy", **odd: tuple[int, ...]) -> Extent:
    return Extent(tuple(classes), {sample: odd.get(sample, (2, 3)) for sample in samples})


def test_order_does_not_matter() -> None:
    check_aligned(side(), side("ba", "yx"), ("these", "those"))
    masks = ek.MaskSet({(s, c): ek.Runs.empty((2, 3)) for s in "ba" for c in "yx"})
    check_aligned(masks.extent, side(), ("these", "those"))


CASES = {
    "classes": (side(classes="x"), side(), 6, "classes-differ", "classes only in these: none; only in those: 'y'"),
    "samples missing": (side("a"), side(), 4, "samples-missing", "these lacks samples that those has: 1 of 2: 'b'"),
    "samples extra": (side(), side("a"), 6, "samples-differ", "these has samples that those lacks: 1 of 2: 'b'"),
    "sizes": (side(b=(3, 2)), side(), 6, "image-size-differs", "sample 'b': 3 x 2 in these, 2 x 3 in those"),
    "volumes": (side(b=(4, 2, 3)), side(), 6, "image-size-differs", "4 x 2 x 3 in these, 2 x 3 in those"),
}


@pytest.mark.parametrize(("a", "b", "exit_code", "code", "item"), CASES.values(), ids=list(CASES))
def test_what_differs_is_named(a: Extent, b: Extent, exit_code: int, code: str, item: str) -> None:
    with pytest.raises(ek.EnskError) as caught:
        check_aligned(a, b, ("these", "those"))
    error = caught.value
    assert (error.exit_code, error.code, error.what) == (exit_code, code, "cannot join masks")
    assert item in error.item


def test_the_caller_has_its_own_words() -> None:
    with pytest.raises(ek.IncompleteError, match="cannot compare: this lacks") as caught:
        check_aligned(side("a"), side(), ("this", "that"), "cannot compare", missing="truth-missing")
    assert caught.value.code == "truth-missing"
