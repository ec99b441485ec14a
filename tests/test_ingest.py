"""Arrays in: every kind of array becomes the same fp16, and what cannot be logits is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ensemble_kit.errors import DamagedError, UsageError
from ensemble_kit.logits import ingest
from ensemble_kit.logits.floats import recognise

CLASSES = ("radius", "ulna")


def take(array: object, domain: ingest.Domain = "logits", activation: str = "sigmoid") -> ingest.Logits:
    return ingest.logits(recognise(array), "img", CLASSES, domain, activation)  # type: ignore[arg-type]


def some_logits(dtype: object = np.float32) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(2, 5, 7)) * 6).astype(dtype)  # type: ignore[arg-type]


class OnlyArray:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return self.array


class OnlyDlpack:
    def __init__(self, array: object) -> None:
        self.array = array

    def __dlpack__(self, **options: object) -> object:
        return self.array.__dlpack__(**options)  # type: ignore[attr-defined]

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(
    "array",
    [
        some_logits("<f2"),
        some_logits(">f2"),
        some_logits("<f4"),
        some_logits(">f4"),
        some_logits("<f8"),
        some_logits(np.longdouble),
        np.asfortranarray(some_logits()),
        some_logits()[:, ::-1, ::-1],
        OnlyArray(some_logits()),
        OnlyDlpack(some_logits()),
        some_logits().tolist(),
    ],
    ids=["<f2", ">f2", "<f4", ">f4", "<f8", "longdouble", "fortran", "reversed", "__array__", "dlpack", "list"],
)
def test_every_array_kind(array: object) -> None:
    values = np.asarray(array.array if isinstance(array, (OnlyArray, OnlyDlpack)) else array)
    got = take(array)
    assert got.codes.dtype == np.dtype("<f2")
    assert got.codes.flags.c_contiguous
    assert got.saturated == 0
    np.testing.assert_array_equal(got.codes, values.astype("<f2"))


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("through", ["tensor", "dlpack", "grad", "strided"])
def test_torch(kind: str, through: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(some_logits()).to(getattr(torch, kind))
    wanted = tensor.to(torch.float64).numpy().astype("<f2")
    if through == "grad":
        tensor.requires_grad_()
    if through == "strided":
        tensor = tensor.transpose(1, 2).contiguous().transpose(1, 2)
    np.testing.assert_array_equal(take(OnlyDlpack(tensor) if through == "dlpack" else tensor).codes, wanted)


def test_float64_is_rounded_once() -> None:
    torch = pytest.importorskip("torch")
    tricky = np.full((2, 1, 1), 1.00048828125 + 1e-12)  # just above the midpoint of 1 and the fp16 after it
    wanted = np.float16(1.0009765625)
    assert take(tricky).codes[0, 0, 0] == wanted == take(torch.from_numpy(tricky)).codes[0, 0, 0]


@pytest.mark.parametrize("dtype", ["u1", "i4", "bool", "c8", "O", "U3"])
def test_not_floats(dtype: str) -> None:
    with pytest.raises(UsageError) as caught:
        take(np.zeros((2, 3, 3), dtype))
    assert caught.value.code == "array-not-float"
    assert "255" in caught.value.fix


def test_not_arrays() -> None:
    for thing in (object(), "text", [[1.0], [1.0, 2.0]], None):
        with pytest.raises(UsageError) as caught:
            take(thing)
        assert caught.value.code == "array-unknown"


def test_integer_tensor() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(UsageError, match=r"torch\.uint8"):
        take(torch.zeros((2, 3, 3), dtype=torch.uint8))


def test_saturation_is_counted_and_leaves_the_callers_memory() -> None:
    array = some_logits()
    array[0, 0, :4] = np.inf, -np.inf, 1e6, 65510
    array[1, 0, :2] = 65504, -65504
    before = array.copy()
    got = take(array)
    assert got.saturated == 4
    assert got.codes[0, 0, :4].tolist() == [65504, -65504, 65504, 65504]
    assert np.isfinite(got.codes).all()
    np.testing.assert_array_equal(array, before)
    half = np.array(got.codes)
    half[1, 1, 1] = np.inf
    kept = half.copy()
    assert take(half).saturated == 1
    np.testing.assert_array_equal(half, kept)
    half.flags.writeable = False
    assert take(half).codes.max() == 65504


def test_saturation_of_tensors() -> None:
    torch = pytest.importorskip("torch")
    array = some_logits()
    array[1, 2, 3], array[0, 0, 0] = 1e30, -np.inf
    for kind in (torch.float32, torch.bfloat16, torch.float64):
        got = take(torch.from_numpy(array).to(kind))
        assert got.saturated == 2
        assert got.codes[1, 2, 3] == 65504
        assert got.codes[0, 0, 0] == -65504


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("domain", ["logits", "probabilities"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_nan_is_named(sign: int, domain: ingest.Domain, dtype: str) -> None:
    array = np.abs(some_logits(dtype)) / 100
    array[1, 2, :3] = np.copysign(np.nan, sign)
    with pytest.raises(DamagedError) as caught:
        take(array, domain)
    assert caught.value.code == "logits-nan"
    assert "'img'" in caught.value.item
    assert "'ulna'" in caught.value.item
    assert "3 of" in caught.value.item


@pytest.mark.parametrize("values", [0.0, -0.0, 1.0, 0.5, 1e-9])
def test_logits_within_unit_are_refused(values: float) -> None:
    with pytest.raises(DamagedError) as caught:
        take(np.full((2, 3, 3), values, np.float32))
    assert caught.value.code == "logits-are-probabilities"
    assert "probabilities" in caught.value.fix


@pytest.mark.parametrize("outlier", [-1e-9, -0.01, 1.0000001, 2.0])
def test_one_value_outside_makes_logits(outlier: float) -> None:
    array = np.full((2, 3, 3), 0.5, np.float32)
    array[1, 1, 1] = outlier
    assert take(array).codes[1, 1, 1] == np.float16(outlier)


def test_probabilities_sigmoid() -> None:
    p = np.random.default_rng(1).random((2, 8, 8))
    p[0, 0, :2], p[1, 0, 0] = (0, 1), 1
    got = take(p, "probabilities")
    with np.errstate(divide="ignore"):
        exact = np.log(p / (1 - p))
    exact[np.isinf(exact)] = np.sign(exact[np.isinf(exact)]) * 65504
    np.testing.assert_allclose(got.codes, exact, rtol=2**-10, atol=1e-6)
    assert got.saturated == 3


def test_probabilities_softmax() -> None:
    p = np.random.default_rng(1).random((2, 8, 8)).astype(np.float32)
    p /= p.sum(axis=0)
    p[:, 0, 0] = 0, 1
    got = take(p, "probabilities", "softmax")
    assert got.codes[0, 0, 0] == -65504
    assert got.codes[1, 0, 0] == 0
    assert got.saturated == 1
    np.testing.assert_allclose(np.exp(got.codes.astype(float)), p, atol=1e-3)


@pytest.mark.parametrize("bad", [-1e-6, 1.0001, 255.0, np.inf])
def test_probabilities_outside(bad: float) -> None:
    p = np.full((2, 4, 4), 0.25)
    p[1, 2, 2] = bad
    with pytest.raises(DamagedError) as caught:
        take(p, "probabilities")
    assert caught.value.code == "probabilities-outside"
    assert "'ulna'" in caught.value.item


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(st.sampled_from(["<f2", "<f4", ">f8"]), (2, 3, 4), elements={"allow_nan": False}))
def test_any_floats_round_as_numpy_does(array: np.ndarray) -> None:
    try:
        got = take(array)
    except DamagedError:
        assert (array >= 0).all()
        assert (array <= 1).all()
        return
    with np.errstate(over="ignore"):
        wanted = np.clip(array.astype("<f2"), np.float16(-65504), np.float16(65504))
        assert got.saturated == np.count_nonzero(np.abs(array) > 65504)
    np.testing.assert_array_equal(got.codes, wanted)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f2"])
def test_numbers_below_the_normal_ones_of_fp16_round_as_numpy_does(dtype: str) -> None:
    halves = (np.arange(2200) + 0.5) / 2**24  # ties between two codes, up to beyond 2^-14, and what lies beside them
    some = np.concatenate([[0, 2.0**-14, 2.0**-14 - 2.0**-26, 5e-324, 70.0], halves, np.nextafter(halves, 1)])
    array = np.stack([np.concatenate([some, np.nextafter(halves, 0)])] * 2).astype(dtype)
    array[1] *= -1
    codes = recognise(array[:, None]).narrow().view("<u2")
    assert np.array_equal(codes[:, 0], array.astype("<f2").view("<u2"))
