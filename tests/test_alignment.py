"""Whether two sides are joined by name: any two that have samples, classes and image sizes."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

import ensemble_kit as ek
from ensemble_kit.masks.alignment import check_aligned


@dataclass
class Fake:
    """The smallest side."""

    samples: tuple[str, ...] = ("a", "b")
    classes: tuple[str, ...] = ("x", "y")
    odd: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def image_size(self, sample: str, /) -> tuple[int, ...]:
        return self.odd.get(sample, (2, 3))


def test_order_does_not_matter() -> None:
    check_aligned(Fake(), Fake(("b", "a"), ("y", "x")), ("these", "those"))
    masks = ek.MaskSet({(s, c): ek.Runs.empty((2, 3)) for s in "ba" for c in "yx"})
    check_aligned(masks, Fake(), ("these", "those"))
    check_aligned(Fake(), masks, ("these", "those"))


CASES = {
    "classes": (Fake(classes=("x",)), Fake(), 6, "classes-differ", "classes only in these: none; only in those: 'y'"),
    "samples missing": (Fake(("a",)), Fake(), 4, "samples-missing", "these lacks samples that those has: 1 of 2: 'b'"),
    "samples extra": (Fake(), Fake(("a",)), 6, "samples-differ", "these has samples that those lacks: 1 of 2: 'b'"),
    "sizes": (Fake(odd={"b": (3, 2)}), Fake(), 6, "image-size-differs", "sample 'b': 3 x 2 in these, 2 x 3 in those"),
    "volumes": (Fake(odd={"b": (4, 2, 3)}), Fake(), 6, "image-size-differs", "4 x 2 x 3 in these, 2 x 3 in those"),
}


@pytest.mark.parametrize(("a", "b", "exit_code", "code", "item"), CASES.values(), ids=list(CASES))
def test_what_differs_is_named(a: Fake, b: Fake, exit_code: int, code: str, item: str) -> None:
    with pytest.raises(ek.EnskError) as caught:
        check_aligned(a, b, ("these", "those"))
    error = caught.value
    assert (error.exit_code, error.code, error.what) == (exit_code, code, "cannot join masks")
    assert item in error.item


def test_the_caller_has_its_own_words() -> None:
    with pytest.raises(ek.IncompleteError, match="cannot compare: this lacks") as caught:
        check_aligned(Fake(("a",)), Fake(), ("this", "that"), "cannot compare", missing="truth-missing")
    assert caught.value.code == "truth-missing"
