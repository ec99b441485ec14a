"""E: run-length texts. The grammar is strict, and what breaks it is named by its place."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import NamedTuple

import harness as h
import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.errors import DamagedError, EnskError, UsageError
from ensemble_kit.masks.runs import Runs

H, W = 10, 20
PLANE = (H, W)


class Case(NamedTuple):
    """A text that breaks the grammar on a plane of 10 x 20, and words that its error holds."""

    id: str
    text: str
    words: str


CASES = [
    Case("E01", "1 3 10", "odd"),
    Case("E01", "7", "odd"),
    Case("E02", "1 5 3 5", "number 3 is 3, a start inside or before the run before it"),
    Case("E03", "50 2 1 2", "number 3 is 1"),
    Case("E05", "-1 3", "byte 0"),
    Case("E05", "1 -3", "byte 2"),
    Case("E05", "0 3", "below the first pixel, 1"),
    Case("E06", "5 0", "length of zero"),
    Case("E07", "199 3", "beyond the last pixel 200 of 10 x 20"),
    Case("E07", "201 1", "10 x 20"),
    Case("E09", "1 2147483648", "10 x 20"),
    Case("E09", "4294967297 1", "10 x 20"),
    Case("E09", "1 9223372036854775807", "10 x 20"),
    Case("E09", "9223372036854775808 1", "10 x 20"),
    Case("E09", "1 18446744073709551617", "10 x 20"),
    Case("E09", "1180591620717411303424 1", "10 x 20"),
    Case("E09", "9" * 5000 + " 1", "5000 digits"),
    Case("E10", "9223372036854775800 100", "10 x 20"),
    Case("E10", "1 9223372036854775807 9223372036854775807 1", "10 x 20"),
    Case("E11", "١ ٢", "byte 0"),
    Case("E11", "1 ²", "byte 2"),
    Case("E11", "１ ２", "byte 0"),
    Case("E11", "\ud800", "byte 0"),
    Case("E13", "1\t2", "byte 1"),
    Case("E13", "1\n2", "byte 1"),
    Case("E13", "1  2", "byte 2"),
    Case("E13", " 1 2", "byte 0"),
    Case("E13", "1 2 ", "byte"),
    Case("E13", "1\u00a02", "byte 1"),
    Case("E14", "1,2,5,6", "byte 1"),
    Case("E14", "[1, 2]", "byte 0"),
    Case("E14", "1.0 2.0", "byte 1"),
    Case("E14", "1e1 2", "byte 1"),
    Case("E14", "+1 2", "byte 0"),
    Case("E14", "01 2", "leading zero"),
    Case("E14", "nan", "byte 0"),
]
ALONE = {
    "E15": "test_adjacent_runs_are_valid_and_merged",
    "E17": "test_extremes_are_exact",
    "E18": "test_sides_and_orders_are_not_mixed_up",
    "E19": "test_sides_and_orders_are_not_mixed_up",
    "E21": "test_every_array_gives_the_same_runs",
    "E22": "test_planes_without_pixels",
    "E23": "test_planes_beyond_32_bits",
    "E25": "test_hostile_coco",
    "E26": "test_hostile_coco",
    "E29": "test_fuzz_against_a_plain_grammar",
    "E30": "test_hostile_runs_do_not_reach_a_kernel",
    "E09": "test_long_texts_take_linear_time",
}
ELSEWHERE = {
    "E27": "test_formats_coco.py::test_malformed_shapes_are_named",
    "E13": "test_formats_csv.py::test_rle_faults_name_line_sample_and_class",
}
NOT_HERE: dict[str, str] = {}


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.id} {c.text[:24]!a}")
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_breaks_the_grammar_is_named(case: Case, order: str) -> None:
    with pytest.raises(DamagedError) as caught:
        Runs.parse(case.text, PLANE, order=order)  # type: ignore[arg-type]
    assert caught.value.code == "rle-invalid"
    assert case.words in caught.value.item, caught.value.item
    assert len(caught.value.item) < 250


def test_adjacent_runs_are_valid_and_merged() -> None:
    runs = Runs.parse("1 3 4 2", PLANE)
    assert (len(runs), runs.text()) == (1, "1 5")
    for blank in ("", " ", "   "):
        assert not Runs.parse(blank, PLANE)


@pytest.mark.parametrize("order", ["C", "F"])
def test_extremes_are_exact(order: str) -> None:
    full, checker = np.ones(PLANE, bool), np.indices(PLANE).sum(0) % 2 == 0
    corners = [np.zeros(PLANE, bool) for _ in range(2)]
    corners[0][0, 0] = corners[1][-1, -1] = True
    for bitmap in (full, checker, *corners, ~full):
        text = ek.encode(bitmap).text(order=order)  # type: ignore[arg-type]
        assert np.array_equal(Runs.parse(text, PLANE, order=order).decode(), bitmap)  # type: ignore[arg-type]
    assert ek.encode(full).text() == "1 200"
    assert ek.encode(corners[1]).text() == "200 1"


def test_sides_and_orders_are_not_mixed_up(tmp_path) -> None:
    bitmap = np.zeros(PLANE, bool)
    bitmap[2:7, 3:18] = True
    text = ek.encode(bitmap).text()
    assert not np.array_equal(Runs.parse(text, (W, H)).decode(), bitmap)  # same area: nothing in the text tells
    h.masks(ids=("a",)).write(tmp_path / "m.csv", format="handbone")
    h.masks(ids=("a",)).write(tmp_path / "truth.npz")
    swapped = h.ensk("score", tmp_path / "m.csv", "--val", tmp_path / "truth.npz", "--image-size", "24x32")
    h.judge(swapped, 6, "image-size-differs", "32 x 24", "24 x 32")  # a file that says its size does tell


def test_every_array_gives_the_same_runs() -> None:
    bitmap = np.random.default_rng(0).random(PLANE) > 0.6
    wanted = ek.encode(bitmap)
    readonly = bitmap.copy()
    readonly.flags.writeable = False
    wide = np.zeros((2 * H, 3 * W), bool)
    wide[::2, ::3] = bitmap
    views = [np.asfortranarray(bitmap), wide[::2, ::3], bitmap[::-1, ::-1].copy()[::-1, ::-1], readonly,
             np.asfortranarray(bitmap.astype(np.uint8) * 7), bitmap[:, ::-1].copy()[:, ::-1]]  # fmt: skip
    kinds = ["u1", "i1", ">i2", "<i4", ">u8", "<u2"]
    for array in (
        *views,
        *(bitmap.astype(k) * 3 for k in kinds),
        *(np.asfortranarray(bitmap.astype(k)) for k in kinds),
    ):
        assert ek.encode(array) == wanted


def test_planes_without_pixels() -> None:
    for shape in ((0, 5), (5, 0), (0, 0)):
        with pytest.raises(UsageError):
            ek.encode(np.zeros(shape, bool))
        with pytest.raises(UsageError):
            Runs.parse("1 2", shape)
        with pytest.raises(EnskError):
            Runs.from_coco({"size": list(shape), "counts": []})


@pytest.mark.parametrize("side", [2**16, 2**17, 2**24])
def test_planes_beyond_32_bits(side: int) -> None:
    plane, last = (side, side), side * side
    text = f"1 1 {2**31} 5 {last} 1"
    runs = Runs.parse(text, plane)
    assert runs.text() == text
    assert runs.area == 7
    assert (~runs).area == last - 7
    with pytest.raises(DamagedError):
        Runs.parse(f"{last} 2", plane)


def test_sides_whose_product_wraps() -> None:
    with pytest.raises(UsageError):
        Runs.parse("1 2", (2**32, 2**32))
    with pytest.raises(DamagedError):
        Runs.from_coco({"size": [2**32, 2**32], "counts": [2**62] * 4})


COCO = [
    {"size": [4, 5], "counts": None}, {"size": [4, 5], "counts": 3.5}, {"size": [4, 5], "counts": ["1", "19"]},
    {"size": [4, 5], "counts": [1.5, 18.5]}, {"size": [4, 5], "counts": [float("nan"), 20]},
    {"size": [4, 5], "counts": [True, 19]}, {"size": [4, 5], "counts": [-1, 21]}, {"size": [4, 5], "counts": [2**63, 20]},
    {"size": [4, 5], "counts": [2**70]}, {"size": [4, 5], "counts": [19]}, {"size": [4, 5], "counts": [21]},
    {"size": [-4, -5], "counts": [20]}, {"size": [4], "counts": [20]}, {"size": "45", "counts": [20]},
    {"size": None, "counts": [20]}, {"counts": [20]}, {"size": [4, 5]}, {"size": [4.0, 5], "counts": [20]},
    {"size": [65536, 65536], "counts": [1]}, {"size": [10**30, 1], "counts": [1]}, {"size": [4, 5], "counts": "\ud800"},
    {"size": [4, 5], "counts": b"\xff\xff"}, {"size": [4, 5], "counts": "o" * 50}, {"size": [4, 5], "counts": "0P"},
]  # fmt: skip


@pytest.mark.parametrize("rle", COCO, ids=lambda r: ascii(r)[:50])
def test_hostile_coco(rle) -> None:
    started = time.process_time()
    with pytest.raises(DamagedError) as caught:
        Runs.from_coco(rle)
    assert caught.value.code == "coco-invalid"
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("starts", "ends"),
    [([5], [3]), ([5], [5]), ([0, 0], [2, 2]), ([3, 0], [5, 2]), ([-1], [2]), ([0], [201]), ([0, 5], [3]),
     ([2**62], [2**63 - 1]), ([-(2**63)], [2**63 - 1])],
)  # fmt: skip
def test_hostile_runs_do_not_reach_a_kernel(starts: list[int], ends: list[int]) -> None:
    with pytest.raises(DamagedError):
        Runs(starts, ends, PLANE)


@pytest.mark.slow
def test_kernels_stay_inside_their_arrays() -> None:
    """The same cases with Numba's check of every index."""
    env = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_DISABLE_JIT": "0"}
    quiet = ["-q", "-p", "no:cacheprovider", "-W", "ignore:assertions not in test modules"]  # said under -O
    here = [__file__, *quiet, "-k", "grammar_is_named or extremes or hostile or plain_grammar"]
    ran = subprocess.run([sys.executable, "-m", "pytest", *here], env=env, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout[-2000:]


def strict(text: str, size: int) -> list[tuple[int, int]] | None:
    """The grammar, told plainly: half-open runs, or None."""
    if text.strip(" ") == "":
        return []
    numbers = text.split(" ")
    if len(numbers) % 2 or not all(n.isascii() and n.isdigit() and (n == "0" or n[0] != "0") for n in numbers):
        return None
    out: list[tuple[int, int]] = []
    for start, length in zip(map(int, numbers[::2]), map(int, numbers[1::2]), strict=True):
        if start < 1 or length < 1 or start - 1 + length > size or (out and start - 1 < out[-1][1]):
            return None
        if out and out[-1][1] == start - 1:
            out[-1] = (out[-1][0], start - 1 + length)
        else:
            out.append((start - 1, start - 1 + length))
    return out


def fuzzed(draw: np.random.Generator) -> str:
    """Draw a text near the border between right and wrong."""
    kind, size = draw.integers(6), H * W
    if kind == 0:
        return "".join(draw.choice(list("0123456789  -,.\t"), draw.integers(0, 14)))
    runs = np.sort(draw.choice(size + 2, 2 * draw.integers(1, 5), replace=False))
    numbers = [int(v) for s, e in zip(runs[::2], runs[1::2], strict=True) for v in (s + (kind != 1), max(e - s, 0))]
    if kind == 2:
        draw.shuffle(numbers)
    if kind == 3:
        numbers[draw.integers(len(numbers))] = int(draw.choice([0, 1, size, size + 1, 2**31, 2**63 - 1, 2**40]))
    if kind == 4:
        numbers = numbers[: draw.integers(0, len(numbers))]
    text = " ".join(map(str, numbers))
    if kind == 5 and text:
        k = draw.integers(len(text))
        text = text[:k] + str(draw.choice(["", " ", "0", "9", "x", "-", "\n", "é"])) + text[k + draw.integers(2) :]
    return text


def test_fuzz_against_a_plain_grammar() -> None:
    draw, right = np.random.default_rng(5), 0
    for _ in range(20_000):
        text = fuzzed(draw)
        wanted = strict(text, H * W)
        try:
            got: list[tuple[int, int]] | None = None
            runs = Runs.parse(text, PLANE)
            got = list(zip(runs.starts.tolist(), runs.ends.tolist(), strict=True))
        except DamagedError:
            pass
        assert got == wanted, text
        right += wanted is not None
    assert 3000 < right < 17_000


def test_long_texts_take_linear_time() -> None:
    times = []
    for count in (100_000, 1_000_000):
        text = " ".join(f"{k} 1" for k in range(1, 2 * count, 2))
        started = time.process_time()
        assert Runs.parse(text, (2000, 2000)).area == count
        times.append(time.process_time() - started)
    assert times[1] < 40 * times[0] + 0.2
    started = time.process_time()
    with pytest.raises(DamagedError):
        Runs.parse("1 " * 5_000_000 + "x", (2000, 2000))
    assert time.process_time() - started < 1
