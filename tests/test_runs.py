"""The algebra of masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from ensemble_kit import DamagedError, MismatchError, Runs, UsageError, encode
from ensemble_kit.kernels import reference
from ensemble_kit.masks.packed import ManyRuns

shapes = st.tuples(st.integers(1, 19), st.integers(1, 19))
masks = hnp.arrays(np.bool_, shapes)
pairs = shapes.flatmap(lambda shape: st.tuples(hnp.arrays(np.bool_, shape), hnp.arrays(np.bool_, shape)))


@given(masks)
def test_round_trip(mask: np.ndarray) -> None:
    runs = encode(mask)
    assert np.array_equal(runs.decode(), mask)
    assert runs.area == mask.sum()
    assert runs == Runs(runs.starts, runs.ends, runs.shape)
    assert hash(runs) == hash(Runs(runs.starts, runs.ends, runs.shape))


@given(pairs)
def test_algebra(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    x, y = encode(a), encode(b)
    assert x & y == encode(a & b)
    assert x | y == encode(a | b)
    assert x ^ y == encode(a ^ b)
    assert x - y == encode(a & ~b)
    assert ~x == encode(~a)
    assert ~~x == x
    assert ~(x & y) == ~x | ~y
    assert x.overlap(y) == (a & b).sum()


@given(masks, st.sampled_from("CF"), st.sampled_from([0, 1]), st.booleans())
def test_text(mask: np.ndarray, order: str, base: int, relative: bool) -> None:
    text = encode(mask).text(order, base, relative)
    assert text == reference.text(mask, order, base, relative)
    assert Runs.parse(text, mask.shape, order, base, relative) == encode(mask)


@given(masks)
def test_coco_is_what_pycocotools_has(mask: np.ndarray) -> None:
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode(mask).coco() == theirs
    assert Runs.from_coco(theirs) == encode(mask)
    assert Runs.from_coco({**theirs, "counts": theirs["counts"].decode()}) == encode(mask)
    assert Runs.from_coco({"size": list(mask.shape), "counts": encode(mask).coco_counts().tolist()}) == encode(mask)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 3 10", "odd"), ("1 5 3 5", "inside or before"), ("50 2 1 2", "inside or before"), ("-1 3", "byte 0"),
        ("1 0", "zero"), ("1 -2", "byte 2"), ("0 3", "below the first pixel, 1"), ("99 3", "beyond the last pixel 100"),
        ("2147483648 1", "beyond"), ("9223372036854775807 1", "beyond"), ("9223372036854775808 1", "beyond"),
        ("1" * 5000 + " 1", "5000 digits"), ("1 9223372036854775807", "beyond"), ("١ 2", "byte 0"), ("² 2", "byte 0"),
        ("1\t2", "byte 1"), ("1 2\n", "byte 3"), ("1  2", "byte 2"), (" 1 2", "byte 0"), ("1 2 ", "byte 3"),
        ("1,2", "byte 1"), ("01 2", "leading zero"), ("1 02", "leading zero"), ("+1 2", "byte 0"), ("1.0 2", "byte 1"),
        ("nan", "byte 0"), ("1 2 3 4 4 4", "inside or before"),
    ],
)  # fmt: skip
def test_grammar_is_strict(text: str, reason: str) -> None:
    with pytest.raises(DamagedError, match="cannot read an RLE text") as caught:
        Runs.parse(text, (10, 10))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("text", "relative", "named"),
    [
        ("1 2 1 1", False, "number 3 is 1, a start inside or before"), ("99 2 1 1", False, "number 3 is 1, a start inside"),
        ("1 101 1 1", False, "number 2 is 101, and its run ends beyond"),
        ("1 1 1 1 97 1", True, "number 5 is 97, beyond the last pixel 100"), ("1 1 1 97 1 1", True, "number 5 is 1, beyond"),
    ],
)  # fmt: skip
def test_the_first_fault_of_a_text_is_named(text: str, relative: bool, named: str) -> None:
    with pytest.raises(DamagedError) as caught:
        Runs.parse(text, (10, 10), relative=relative)
    assert named in str(caught.value)


@pytest.mark.parametrize("text", ["", " ", "1 100", "1 1 3 1", "1 3 4 2", "100 1"])
def test_grammar_accepts(text: str) -> None:
    assert Runs.parse(text, (10, 10)).text() == {"1 3 4 2": "1 5", " ": ""}.get(text, text)


@given(st.text("0123456789  -", max_size=24) | st.lists(st.integers(0, 30), max_size=6).map(lambda v: " ".join(map(str, v))),
       st.sampled_from("CF"), st.sampled_from([0, 1]), st.booleans())  # fmt: skip
def test_a_text_is_read_or_its_fault_is_named(text: str, order: str, base: int, relative: bool) -> None:
    wanted = reference.parse(text, 20, base, relative)
    if wanted is not None:
        assert Runs.parse(text, (4, 5), order, base, relative) == encode(wanted.reshape((4, 5), order=order))
        return
    with pytest.raises(DamagedError, match=r"number \d|byte \d|numbers, which is odd") as caught:
        Runs.parse(text, (4, 5), order, base, relative)
    assert caught.value.code == "rle-invalid"


def test_beyond_32_bits() -> None:
    shape = (1 << 17, 1 << 17)
    runs = Runs([1 << 33], [(1 << 33) + 5], shape)
    assert runs.text() == "8589934593 5"
    assert Runs.parse("8589934593 5", shape) == runs
    assert (~runs).area == (1 << 34) - 5


@pytest.mark.parametrize(
    ("starts", "ends"), [([3, 1], [4, 2]), ([1, 2], [3, 5]), ([2], [2]), ([-1], [3]), ([5], [7]), ([1], [2, 3])]
)
def test_invalid_runs_are_refused(starts: list[int], ends: list[int]) -> None:
    with pytest.raises(DamagedError, match="an image of 2 x 3"):
        Runs(starts, ends, (2, 3))


def test_adjacent_runs_become_one() -> None:
    assert Runs([0, 2], [2, 4], (2, 3)).text() == "1 4"


@pytest.mark.parametrize(
    "mask", [np.ones((2, 2)), np.ones(3, bool), np.ones((0, 3), bool), np.ones((2, 2, 1, 1), bool), np.array([["a"]])]
)
def test_encode_refuses(mask: np.ndarray) -> None:
    with pytest.raises(UsageError, match="cannot encode a mask"):
        encode(mask)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i4", np.int64, np.uint64, bool])
def test_encode_takes_any_layout(dtype: str, rng: np.random.Generator) -> None:
    mask = (rng.random((12, 18)) < 0.3).astype(dtype)
    wanted = encode(mask.astype(bool))
    assert encode(np.asfortranarray(mask)) == wanted
    assert encode(np.repeat(mask, 2, axis=1)[:, ::2]) == wanted
    assert encode(mask[::-1][::-1]) == wanted
    frozen = mask.copy()
    frozen.setflags(write=False)
    assert encode(frozen) == wanted
    if dtype is not bool:
        assert encode(-(mask.astype(np.int8))) == wanted


def test_sizes_must_agree() -> None:
    with pytest.raises(MismatchError, match="2 x 3 and 3 x 2"):
        _ = encode(np.ones((2, 3), bool)) & encode(np.ones((3, 2), bool))


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [2, 2]}, {"size": [2, 2], "counts": [1]}, {"size": [2, 2], "counts": [-1, 5]},
        {"size": [2, 2], "counts": [1.5, 2.5]}, {"size": [2, 2], "counts": None}, {"size": [-2, -2], "counts": [4]},
        {"size": [2, 2], "counts": b"\x01"}, {"size": [2, 2], "counts": "o"}, {"size": None, "counts": [4]},
        {"size": [2, 2], "counts": [2**63, 4]}, {"size": [2, 2], "counts": [float("nan")]},
        {"size": [2, 2], "counts": [2**62, 2**62, 2**62, 2**62 + 4]}, {"size": [65536, 65536], "counts": [4]},
    ],
)  # fmt: skip
def test_from_coco_refuses(rle: dict[str, object]) -> None:
    with pytest.raises(DamagedError, match="cannot read a COCO RLE"):
        Runs.from_coco(rle)


def test_comparisons_and_words() -> None:
    runs = encode([[1, 0], [0, 1]])
    assert repr(runs) == "Runs(2 runs, 2 of 2 x 2 pixels)"
    assert runs
    assert not Runs.empty((2, 2))
    assert runs != "1 1"
    assert len(runs) == 2


@pytest.mark.parametrize("starts", [[0.5], ["0"], [True], [float("nan")], [[0]], 3])
def test_runs_are_whole_numbers(starts: object) -> None:
    with pytest.raises(UsageError, match="cannot make a mask of runs"):
        Runs(starts, [2], (2, 2))


def test_arguments_of_other_kinds() -> None:
    for text in (b"1 1", None, float("nan")):
        with pytest.raises(UsageError, match="cannot use an RLE text"):
            Runs.parse(text, (2, 2))
    for shape in (4, (2,), (2, 0), (1.5, 2), ("2", "2"), None):
        with pytest.raises(UsageError, match="cannot use an image size"):
            Runs([], [], shape)


def test_many_masks_in_three_arrays() -> None:
    masks = [Runs.parse(text, (2, 4)) for text in ("1 2 5 1", "", "8 1", "1 8")]
    many = ManyRuns.of(masks)
    assert many.offsets.tolist() == [0, 2, 2, 3, 4] and many.masks((2, 4)) == masks
    halves = [ManyRuns.of(masks[:1]), ManyRuns.of(masks[1:])]
    assert [a.tolist() for a in ManyRuns.joined(halves)] == [a.tolist() for a in many]
    assert [a.tolist() for a in ManyRuns.joined([])] == [a.tolist() for a in ManyRuns.of([])] == [[], [], [0]]


def test_other_types_are_refused() -> None:
    with pytest.raises(UsageError, match="the other mask: it is of type int · fix: pass a Runs"):
        Runs.empty((2, 2)).overlap(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="of shape"):
        encode([[1, 0], [1]])
