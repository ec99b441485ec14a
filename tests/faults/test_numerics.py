"""N: numbers that go wrong in silence elsewhere. The same masks, bit for bit, whatever the threads and the order."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import harness as h
import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.errors import DamagedError, EnskError, UsageError


class Case(NamedTuple):
    """Something that must be refused: exit code, error code, what is named."""

    id: str
    how: str
    do: Callable[[Path], Any]
    code: int
    error: str
    named: str


def write(path: Path, array: np.ndarray, **options: Any) -> None:
    with ek.LogitWriter(path / "w.zarr", h.CLASSES, h.IDS, h.GRID, **options) as out:
        out.write(h.IDS[3], array, h.PLANE)


def holed(value: float, kind: str = "f4") -> np.ndarray:
    out = h.logits()[3].astype(kind)
    out[1, 2, 3] = value
    return out


def fuse(path: Path, **options: Any) -> ek.MaskSet:
    stores = [h.make(path / f"{k}.zarr", seed=k) for k in range(2)]
    return ek.Ensemble(stores, **options).vote(options.pop("thresholds", 0.5))


CASES = [
    Case("N02", "NaN", lambda p: write(p, holed(np.nan)), 3, "logits-nan", "'ulna'"),
    Case("N02", "NaN in fp16", lambda p: write(p, holed(np.nan, "f2")), 3, "logits-nan", "1 of 96"),
    Case("N19", "NaN at the border", lambda p: write(p, np.pad(h.logits()[3].astype("f4")[:, 1:, :], ((0, 0), (1, 0), (0, 0)),
                                                            constant_values=np.nan)), 3, "logits-nan", h.IDS[3]),
    Case("N02", "NaN probability", lambda p: write(p, holed(np.nan) * 0 + 0.5, domain="probabilities"), 3, "logits-nan", "'ulna'"),
    Case("N05", "all weights 0", lambda p: fuse(p, weights=[0, 0]), 2, "weights-invalid", "all weights are 0"),
    Case("N05", "a negative weight", lambda p: fuse(p, weights=[3, -1]), 2, "weights-invalid", "-1"),
    Case("N05", "a weight that is NaN", lambda p: fuse(p, weights=[1, float("nan")]), 2, "weights-invalid", "nan"),
    Case("N05", "an endless weight", lambda p: fuse(p, weights=[1, float("inf")]), 2, "weights-invalid", "inf"),
    Case("N05", "three weights for two", lambda p: fuse(p, weights=[1, 1, 1]), 2, "weights-invalid", "2 members"),
    Case("N26", "integers", lambda p: write(p, np.ones((2, *h.GRID), np.int16)), 2, "array-not-float", "int16"),
    Case("N26", "complex numbers", lambda p: write(p, np.ones((2, *h.GRID), np.complex64)), 2, "array-not-float", "complex64"),
]  # fmt: skip
ALONE = {
    "N01": "test_what_is_too_large_saturates_and_is_counted",
    "N03": "test_infinities_are_levels_like_any_other",
    "N06": "test_infinities_are_levels_like_any_other",
    "N07": "test_tiny_numbers_decide_as_in_exact_arithmetic",
    "N09": "test_a_pixel_at_the_threshold_is_on",
    "N10": "test_the_order_of_members_changes_no_bit",
    "N11": "test_the_order_of_members_changes_no_bit",
    "N13": "test_counts_are_64_bit",
    "N14": "test_counts_are_64_bit",
    "N15": "test_the_convention_is_in_every_report",
    "N17": "test_weights_count_as_decimals",
    "N21": "test_threads_and_processors_change_no_bit",
    "N22": "test_no_kernel_is_compiled_with_fast_math",
    "N23": "test_no_kernel_is_compiled_with_fast_math",
    "N25": "test_small_and_large_ensembles",
    "N26": "test_every_float_is_converted_once",
}
ELSEWHERE = {
    "N01": "test_ingest.py::test_saturation_is_counted_and_leaves_the_callers_memory",
    "N17": "test_scores.py::test_decimal_weights_are_exact",
    "N10": "test_scores.py::test_results_do_not_depend_on_order_or_threads",
}
NOT_HERE = {
    "N18": "no resize of ours goes through OpenCV: rule 3 is integer arithmetic of our own, tested against its oracle",
}


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.id} {c.how}")
def test_what_makes_no_sense_is_refused(tmp_path: Path, case: Case) -> None:
    with pytest.raises(EnskError) as caught:
        case.do(tmp_path)
    assert (caught.value.exit_code, caught.value.code) == (case.code, case.error)
    assert case.named in caught.value.item, caught.value.item


def test_what_is_too_large_saturates_and_is_counted(tmp_path: Path) -> None:
    array = h.logits()[3].astype("f4")
    array[0, 0, :3] = [1e6, -1e6, 65504]
    write(tmp_path, array)
    store = ek.LogitStore(tmp_path / "w.zarr")
    assert store.saturated(h.IDS[3]) == 2
    assert store.read(h.IDS[3])[0, 0, :3].tolist() == [65504, -65504, 65504]


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_infinities_are_levels_like_any_other(tmp_path: Path, activation: Any) -> None:
    """+inf of one member and -inf of another fuse to a half; nothing becomes NaN."""
    for k, sign in enumerate((1, -1)):
        array = np.full((2, *h.GRID), -9.0, np.float32)
        array[0] = sign * np.inf
        array[1, 0, 0] = sign * np.inf
        with ek.LogitWriter(tmp_path / f"{k}.zarr", h.CLASSES, ["a"], h.GRID, activation=activation) as out:
            out.write("a", array, h.PLANE)
    levels = ek.Ensemble([tmp_path / "0.zarr", tmp_path / "1.zarr"]).levels("a")
    assert levels.dtype == np.uint16
    assert abs(int(levels[0, 3, 3]) - 32768) <= (1 if activation == "sigmoid" else 32768)
    assert ek.Ensemble([tmp_path / "0.zarr"]).levels("a")[0, 3, 3] == 65535


def test_tiny_numbers_decide_as_in_exact_arithmetic(tmp_path: Path) -> None:
    values = np.array([0.0, -0.0, 6e-8, -6e-8, 5.9e-8, 1e-5, -1e-5, 2.0**-24], np.float16)
    array = np.resize(values, (2, *h.GRID))
    write(tmp_path, array)
    store = ek.LogitStore(tmp_path / "w.zarr")
    assert np.array_equal(store.read(h.IDS[3]).view("u2"), array.view("u2"))  # the sign of zero, subnormal numbers
    levels = ek.Ensemble([store], samples="common").levels(h.IDS[3])
    wanted = np.floor(65535 / (1 + np.exp(-array.astype(np.float64))) + 0.5).astype(np.uint16)
    assert np.array_equal(levels, wanted)


def test_a_pixel_at_the_threshold_is_on(tmp_path: Path) -> None:
    with ek.LogitWriter(tmp_path / "w.zarr", h.CLASSES, ["a"], (4, 4)) as out:
        out.write("a", np.full((2, 4, 4), -1.0, np.float32), (4, 4))
    ensemble = ek.Ensemble([tmp_path / "w.zarr"], upsample="scores")
    level = int(ensemble.levels("a")[0, 0, 0])
    assert ensemble.vote(level / 65535)["a", "radius"].area == 16  # at or above is on
    assert ensemble.vote((level + 1) / 65535)["a", "radius"].area == 0
    assert ensemble.vote(0.0)["a", "radius"].area == 16
    assert ensemble.vote(1.0)["a", "radius"].area == 0


@pytest.mark.parametrize("options", [{}, {"mean": "logit"}, {"upsample": "scores"}, {"weights": [5, 2, 1, 1]}], ids=str)
def test_the_order_of_members_changes_no_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    stores = [h.make(tmp_path / f"{name}.zarr", seed=k) for k, name in enumerate("dbca")]
    weights = options.pop("weights", [1, 1, 1, 1])
    seen = set()
    for order in permutations(range(4)):
        masks = ek.Ensemble([stores[k] for k in order], weights=[weights[k] for k in order], **options).vote(0.4)
        seen.add(hash(tuple(masks[key] for key in masks)))
    assert len(seen) == 1


def test_counts_are_64_bit() -> None:
    plane = (2**16, 2**16)  # 4.3e9 pixels
    full = ek.Runs([0], [2**32], plane)
    a, b = (ek.MaskSet({("a", "x"): m}) for m in (full, ek.Runs([5], [2**32], plane)))
    assert full.area == 2**32
    result = ek.dice(a, b)
    assert result.mean == (2 * (2**32 - 5)) / (2**33 - 5)
    assert ek.hard_vote([a, a, b])["a", "x"] == full


def test_the_convention_is_in_every_report(tmp_path: Path) -> None:
    h.masks(1).write(tmp_path / "a.npz")
    h.masks(2).write(tmp_path / "b.npz")
    scores = set()
    for empty, words in (("1", "both empty = 1"), ("0", "both empty = 0"), ("skip", "both empty are skipped")):
        ran = h.ensk("score", tmp_path / "a.npz", "--val", tmp_path / "b.npz", "--empty", empty)
        assert (ran.code, words in ran.out) == (0, True), ran.err
        scores.add(ran.out.splitlines()[-1])
    assert len(scores) == 3


def test_weights_count_as_decimals() -> None:
    from ensemble_kit.spec.fusion import integer_weights

    assert integer_weights([0.1, 0.1, 0.1], "abc") == integer_weights([1, 1, 1], "abc")
    assert all(sum(integer_weights(w, "abc")) == 65536 for w in ([1, 1, 1], [1e-9, 1, 1], [1e300, 1, 1], [5, 0, 0]))


VOTE = """
import sys, hashlib, ensemble_kit as ek
masks = ek.Ensemble(sys.argv[2:], mean="probability").vote(0.4, jobs=int(sys.argv[1]))
print(hashlib.sha256(b"".join(m.starts.tobytes() + m.ends.tobytes() for m in masks.values())).hexdigest())
"""


def voted(stores: list[Path], jobs: int, **env: str) -> str:
    ran = subprocess.run([sys.executable, "-c", VOTE, str(jobs), *map(str, stores)], capture_output=True, text=True,
                         env={**os.environ, **env}, timeout=600)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_threads_and_processors_change_no_bit(tmp_path: Path) -> None:
    stores = [h.make(tmp_path / f"{k}.zarr", seed=k) for k in range(3)]
    masks = [ek.Ensemble(stores).vote(0.4, jobs=jobs) for jobs in (1, 2, 5)]
    assert all(dict(m) == dict(masks[0]) for m in masks)


@pytest.mark.slow
def test_an_old_processor_changes_no_bit(tmp_path: Path) -> None:
    """Kernels compiled for a generic processor, without AVX; the cache of machine code is a fresh one."""
    stores = [h.make(tmp_path / f"{k}.zarr", seed=k) for k in range(3)]
    generic = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    seen = {voted(stores, 1), voted(stores, 3, OMP_NUM_THREADS="4"), voted(stores, 1, **generic)}
    assert len(seen) == 1


def test_no_kernel_is_compiled_with_fast_math() -> None:
    folder = Path(ek.__file__).parent / "kernels"
    for path in folder.glob("*.py"):
        text = path.read_text().split('"""', 2)[-1]
        assert "fastmath" not in text, path
        assert "parallel=" not in text, path
    assert (folder / "jit.py").read_text().count('error_model="numpy"') == (folder / "jit.py").read_text().count(
        "njit("
    )


@pytest.mark.parametrize(("members", "classes", "samples"), [(1, 1, 1), (1, 300, 1), (9, 2, 2), (2, 257, 1)])
def test_small_and_large_ensembles(tmp_path: Path, members: int, classes: int, samples: int) -> None:
    names, ids = [f"c{k}" for k in range(classes)], [f"i{k}" for k in range(samples)]
    draw = np.random.default_rng(0)
    for m in range(members):
        with ek.LogitWriter(tmp_path / f"{m}.zarr", names, ids, (3, 2)) as out:
            for name in ids:
                out.write(name, draw.normal(size=(classes, 3, 2)) * 4, (7, 5))
    masks = ek.Ensemble([tmp_path / f"{m}.zarr" for m in range(members)]).vote(0.5)
    assert len(masks) == classes * samples
    masks.write(tmp_path / "o.csv", format="handbone")
    assert dict(ek.read_masks(tmp_path / "o.csv", image_size=(7, 5))) == dict(masks)


def test_every_float_is_converted_once(tmp_path: Path) -> None:
    values = h.logits()[3].astype("f8") * 1.00001
    for k, kind in enumerate(("<f8", ">f8", "<f4", ">f4", "<f2", ">f2")):
        array = values.astype(kind)
        with ek.LogitWriter(tmp_path / f"{k}.zarr", h.CLASSES, ["a"], h.GRID) as out:
            out.write("a", array, h.PLANE)
        assert np.array_equal(ek.LogitStore(tmp_path / f"{k}.zarr").read("a"), array.astype("<f2"))


def test_thresholds_that_are_none(tmp_path: Path) -> None:
    store = h.make(tmp_path / "m.zarr")
    for bad in (float("nan"), -0.1, 1.1, "0.5x", True, [0.5], {"radius": 0.5}):
        with pytest.raises((UsageError, DamagedError, EnskError)):
            ek.Ensemble([store]).vote(bad)
