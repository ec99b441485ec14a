"""T: tuning that is interrupted, fed with nothing, or asked the impossible; and the two files that it keeps."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import harness as h
import numpy as np
import pytest

import ensemble_kit as ek
import warm
from ensemble_kit.errors import DamagedError, EnskError
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.statistics import Statistics


class Case(NamedTuple):
    """A threshold set that says the impossible: which value, and words of the error."""

    id: str
    where: tuple[Any, ...]
    value: Any
    words: str


F, C, V = ("fusion",), ("classes", 0), ("validation",)
CASES = [
    Case("T02", (*C, "score"), 1e999, "too large"),
    Case("T12", ("format",), "ensk.thresholds/9", "ensk.thresholds/9"),
    # each of these once reached a kernel, which checks nothing: too few temperatures ended the process
    Case("T12", (*F, "temperatures"), [], "temperatures"),
    Case("T12", (*F, "temperatures"), [1, 1], "temperatures"),
    Case("T12", (*F, "temperatures"), [0], "temperatures"),
    Case("T12", (*F, "temperatures"), [-1], "temperatures"),
    Case("T12", (*F, "temperatures"), [1e999], "too large"),
    Case("T12", (*F, "temperatures"), [None], "NoneType"),
    Case("T12", (*F, "weights", "radius"), [65535], "65536"),
    Case("T12", (*F, "weights", "radius"), [65536.5], "whole number"),
    Case("T12", (*F, "weights", "radius"), [True], "whole number"),
    Case("T12", (*F, "weights"), {}, "weights"),
    Case("T12", (*F, "mean"), "sum", "sum"),
    Case("T12", (*F, "mean"), [1], ""),
    Case("T12", (*F, "upsample"), "nearest", "nearest"),
    Case("T12", (*F, "members", 0, "name"), 3, "is not text"),
    Case("T12", (*F, "members"), [], ""),
    Case("T12", (*C, "level"), 65536, "65536"),
    Case("T12", (*C, "level"), -1, "-1"),
    Case("T12", (*C, "level"), 3.5, "3.5"),
    Case("T12", (*C, "level"), True, "True"),
    Case("T12", (*C, "plateau"), [1], ""),
    Case("T12", (*C, "band"), ["x", 1], ""),
    Case("T12", (*C, "name"), "ulna", ""),
    Case("T12", ("metric", "eps"), -1, "eps"),
    Case("T12", ("metric", "empty"), 7, "empty"),
    Case("T12", ("metric", "objective"), "max", "objective"),
    Case("T12", (*V, "n"), "many", ""),
    Case("T12", ("search",), [1], ""),
    Case("T12", ("rules",), "fill-holes", "is not a list"),
    Case("T12", ("rules",), [3], "is not text"),
    Case("T12", ("created",), 3, "is not text"),
]
ALONE = {
    "T01": "test_an_objective_without_a_value",
    "T03": "test_threads_and_seeds_give_the_same_set",
    "T04": "test_killed_and_run_again",
    "T10": "test_too_few_samples",
    "T11": "test_interrupted",
    "T06": "test_statistics_that_were_damaged",
    "T05": "test_statistics_that_were_cut",
}
ELSEWHERE: dict[str, str] = {}
NOT_HERE = {
    "T07": "thresholds are found by exact counting: no journal and no lock; the joint search's journal has its own tests",
    "T08": "thresholds are found by exact counting: no database; the joint search's journal has its own tests",
    "T09": "there is no SQLite anywhere; statistics and sets are written whole and renamed, on any file system",
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, its truth, the set and the statistics of a tuning."""
    folder = tmp_path_factory.mktemp("tuned")
    h.make(folder / "m.zarr")
    h.masks().write(folder / "truth.csv", format="handbone")
    ran = h.ensk(*command(folder, folder / "set.json"), "--statistics", folder / "stats.npz")
    assert ran.code == 0, ran.err
    return folder


def command(folder: Path, out: Path) -> tuple[Any, ...]:
    return ("tune-thresholds", folder / "m.zarr", "--val", folder / "truth.csv", "--folds", "3", "--out", out)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.id} {c.where} {c.value!a}"[:60])
def test_a_set_that_says_the_impossible(tuned: Path, tmp_path: Path, case: Case) -> None:
    said = json.loads((tuned / "set.json").read_text())
    at: Any = said
    for key in case.where[:-1]:
        at = at[key]
    at[case.where[-1]] = case.value
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(said).replace("Infinity", "1e999"))
    ran = h.ensk("vote", tuned / "m.zarr", "--thresholds", bad, "--out", tmp_path / "o.csv")
    h.judge(ran, 3, "set-invalid", "bad.json", case.words)
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", '{"format": "ensk.thresholds/1"}', '{"a": 1, "a": 2}', "NaN", "[" * 100_000, "1" * 5000,
     '{"format": "ensk.thresholds/1", "x": 1e999}', "\ufeff{}"],
    ids=lambda t: t[:20],
)  # fmt: skip
def test_json_that_is_no_set(tuned: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    ran = h.ensk("vote", tuned / "m.zarr", "--thresholds", tmp_path / "bad.json", "--out", tmp_path / "o.csv")
    h.judge(ran, 3, "set-invalid", "bad.json")


def same(a: Statistics, b: Statistics) -> bool:
    names = ("offsets", "levels", "pred", "tp", "above", "above_tp", "truth")
    return (a.samples, a.classes, a.source) == (b.samples, b.classes, b.source) and all(
        (x.low, x.high) == (y.low, y.high) and all(np.array_equal(getattr(x, n), getattr(y, n)) for n in names)
        for x, y in zip(a.tables, b.tables, strict=True)
    )


def test_statistics_that_were_damaged(tuned: Path, tmp_path: Path) -> None:
    """Any flipped bit and any run of noise: refused, or without effect. Never another error, never other counts."""
    raw, whole, draw = (
        (tuned / "stats.npz").read_bytes(),
        Statistics.load(tuned / "stats.npz"),
        np.random.default_rng(1),
    )
    bad, refused = tmp_path / "stats.npz", 0
    for _ in range(400):
        changed = bytearray(raw)
        at = int(draw.integers(len(raw)))
        if draw.integers(2):
            changed[at] ^= 1 << int(draw.integers(8))
        else:
            changed[at : at + 20] = draw.bytes(20)
        bad.write_bytes(bytes(changed))
        try:
            assert same(Statistics.load(bad), whole)
        except DamagedError:
            refused += 1
    assert refused > 200
    bad.write_bytes(b"PK\x03\x04 no archive")
    ran = h.ensk(*command(tuned, tmp_path / "s.json"), "--statistics", bad)
    h.judge(ran, 3, "statistics-invalid", "stats.npz")
    assert bad.read_bytes() == b"PK\x03\x04 no archive"  # kept: it may be somebody's work


def test_statistics_that_were_cut(tuned: Path, tmp_path: Path) -> None:
    raw = (tuned / "stats.npz").read_bytes()
    for size in np.linspace(0, len(raw) - 1, 60).astype(int):
        (tmp_path / "stats.npz").write_bytes(raw[:size])
        with pytest.raises(EnskError):
            Statistics.load(tmp_path / "stats.npz")


def arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return {k: file[k] for k in file.files}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("offsets_0", lambda a: a[::-1].copy()), ("offsets_0", lambda a: a + 1), ("offsets_0", lambda a: a[:-1]),
        ("levels_0", lambda a: a.astype(np.int64)), ("levels_0", lambda a: a[:-1]), ("pred_0", lambda a: a.astype("f8")),
        ("tp_1", lambda a: a[:3]), ("truth_0", lambda a: a[:-1]), ("above_0", lambda a: a.reshape(1, -1)),
        ("head", lambda a: a[:-4]), ("head", lambda a: np.array([{}], object)),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)  # fmt: skip
def test_statistics_that_would_leave_their_arrays(
    tuned: Path, tmp_path: Path, name: str, change: Callable[..., Any]
) -> None:
    held = arrays(tuned / "stats.npz")
    held[name] = change(held[name])
    np.savez(tmp_path / "stats.npz", **held)
    with pytest.raises(DamagedError):
        Statistics.load(tmp_path / "stats.npz")


def test_an_objective_without_a_value(tmp_path: Path) -> None:
    """Both masks are empty everywhere and empty pairs are skipped: no threshold has a score."""
    h.make(tmp_path / "m.zarr")
    ek.MaskSet({k: ek.Runs.empty(h.PLANE) for k in h.masks()}).write(tmp_path / "truth.csv", format="handbone")
    ran = h.ensk(*command(tmp_path, tmp_path / "s.json"), "--empty", "skip", "--json")
    assert "Traceback" not in ran.err
    assert "error[bug]" not in ran.err
    if ran.code == 0:
        assert "NaN" not in (tmp_path / "s.json").read_text()
        assert all(0 <= c["level"] <= 65535 for c in json.loads(ran.out)["classes"])


def test_threads_and_seeds_give_the_same_set(tuned: Path, tmp_path: Path) -> None:
    seen = set()
    for k, extra in enumerate((("--jobs", "1"), ("--jobs", "3"), ())):
        assert h.ensk(*command(tuned, tmp_path / f"{k}.json"), *extra).code == 0
        seen.add((tmp_path / f"{k}.json").read_bytes())
    assert len(seen) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_samples(tmp_path: Path, count: int) -> None:
    with ek.LogitWriter(tmp_path / "m.zarr", h.CLASSES, h.IDS[:count], h.GRID) as out:
        for k in range(count):
            out.write(h.IDS[k], h.logits()[k], h.PLANE)
    h.masks(ids=h.IDS[:count]).write(tmp_path / "truth.csv", format="handbone")
    ran = h.ensk("tune-thresholds", tmp_path / "m.zarr", "--val", tmp_path / "truth.csv", "--out", tmp_path / "s.json")
    assert ran.code == 0, ran.err
    assert "too few to cross-validate" in ran.err
    ran = h.ensk(*command(tmp_path, tmp_path / "t.json"))
    h.judge(ran, 2, "folds-invalid", str(count))


def started(folder: Path, out: Path) -> warm.Process:
    return warm.Process("ensk", *command(folder, out))


def test_killed_and_run_again(tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "set.json"
    for wait in (0.05, 0.2, 0.5):
        process = started(tuned, out)
        time.sleep(wait)
        process.kill()
        process.communicate()
        if out.exists():
            ThresholdSet.load(out)
            out.unlink()
    assert h.ensk(*command(tuned, out)).code == 0
    assert out.read_bytes() == (tuned / "set.json").read_bytes()
    assert not h.leftovers(tmp_path)


def test_interrupted(tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "set.json"
    process = started(tuned, out)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode in {130, -2, 0}
    if process.returncode == 130:
        assert "Traceback" not in err
        assert not out.exists()
