"""MaskSet: void pixels go with their samples."""

from __future__ import annotations

import pickle

import pytest

import ensemble_kit as ek
from ensemble_kit.decisions.clean import apply_rules

SIZE = (2, 3)


def two_samples(**options: object) -> ek.MaskSet:
    return ek.MaskSet({(s, "x"): ek.Runs([0], [2], SIZE) for s in "ab"}, **options)  # type: ignore[arg-type]


def test_void_goes_with_its_sample() -> None:
    masks = two_samples(void={"b": ek.Runs([3], [5], SIZE), "a": ek.Runs.empty(SIZE)})
    assert (masks.void("a"), masks.void("b")) == (ek.Runs.empty(SIZE), ek.Runs([3], [5], SIZE))
    assert masks.has_void
    assert masks.arranged(["b"], ["x"]).void("b").area == 2
    assert not masks.arranged(["a"], ["x"]).has_void
    assert apply_rules(masks, "drop-small:1").void("b").area == 2
    assert pickle.loads(pickle.dumps(masks)).void("b").area == 2
    assert not two_samples().has_void


@pytest.mark.parametrize(
    ("void", "code"),
    [
        ({"c": ek.Runs.empty(SIZE)}, "masks-invalid"),
        ({"a": [0, 1]}, "masks-invalid"),
        ({"a": ek.Runs.empty((3, 3))}, "mask-size-differs"),
    ],
    ids=["unknown sample", "no runs", "another size"],
)
def test_void_that_fits_no_sample_is_refused(void: object, code: str) -> None:
    with pytest.raises(ek.EnskError) as error:
        two_samples(void=void)
    assert error.value.code == code
