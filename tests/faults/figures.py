"""Measure how reliable the kit is, and print it into docs/reliability.md.

    python tests/faults/figures.py                       everything, in the numbers that docs/reliability.md states
    python tests/faults/figures.py --only kills --kills 1000

Every section is measured anew and replaces its own part of the page; the others stay as they are. Power cuts need
root, loop devices and mkfs.ext4, and say so where they are not there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import harness as h  # noqa: E402
import peaks  # noqa: E402
import test_power_cuts  # noqa: E402
import test_rle  # noqa: E402
import test_writing  # noqa: E402

import ensemble_kit as ek  # noqa: E402
from ensemble_kit.errors import EnskError  # noqa: E402
from ensemble_kit.masks.runs import Runs  # noqa: E402

PAGE = HERE.parent.parent / "docs" / "reliability.md"
HEAD = """# Reliability

What the kit withstands, measured by `tests/faults/figures.py`, which writes this page. The faults themselves, one by
one, are the tests of `tests/faults/`; what is promised against hostile files is in [SECURITY.md](../SECURITY.md).
"""


def damage(args: argparse.Namespace) -> list[str]:
    """Bit flips, truncations, deletes, swaps and appends, over every file of a store."""
    draw = random.Random(1)
    folder = Path(tempfile.mkdtemp())
    store = h.make(folder / "m.zarr")
    whole = h.state(ek.LogitStore(store))
    files = sorted(p for p in store.rglob("*") if p.is_file())
    held = {p: p.read_bytes() for p in files}
    sizes = [len(held[p]) for p in files]

    def restore() -> None:
        for path, raw in held.items():
            if not path.is_file() or path.read_bytes() != raw:
                path.write_bytes(raw)

    def flip() -> None:
        path = draw.choices(files, sizes)[0]
        raw = bytearray(held[path])
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(raw))

    def cut() -> None:
        path = draw.choice([p for p in files if held[p]])
        path.write_bytes(held[path][: draw.randrange(len(held[path]))])

    def other() -> None:
        kind, (a, b) = draw.randrange(3), draw.sample(files, 2)
        if kind == 0:
            a.unlink()
        elif kind == 1:
            a.write_bytes(held[b])
            b.write_bytes(held[a])
        else:
            a.write_bytes(held[a] + draw.randbytes(draw.randint(1, 200)))

    rows = []
    for name, count, act in (("bit flips", args.flips, flip), ("truncations", args.truncations, cut),
                             ("deletes, swaps, appends", args.others, other)):  # fmt: skip
        ends, named = Counter[str](), 0
        for _ in range(count):
            act()
            end, by_name = h.told(store, whole)
            ends[end] += 1
            named += by_name
            restore()
        detected, idle, wrong = ends["detected"], ends["no effect"], ends["wrong"]
        rows.append(f"| {name} | {count:,} | {detected:,} | {idle:,} | {wrong} | {named / count:.1%} |")
    shutil.rmtree(folder)
    return [
        f"A store of 6 samples, {len(files)} files.",
        "",
        "| damage | tries | detected | no effect | wrong | item named |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


@contextmanager
def forked(path: Path, count: int) -> Iterator[tuple[int, TextIO]]:
    """Write what is missing in a forked process, which says each sample once it is acknowledged: 0.3 s less than a start."""
    mine, its = os.pipe()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            with ek.LogitWriter(path, h.CLASSES, [f"s{k:03}" for k in range(count)], h.GRID, member="m") as out:
                for name in out.missing:
                    h.write(out, name, h.value(int(name[1:])))
                    os.write(its, f"{name}\n".encode())
            os._exit(0)
        os._exit(1)
    os.close(its)
    with os.fdopen(mine) as said:
        yield pid, said
    os.waitpid(pid, 0)


def finish(path: Path, count: int) -> None:
    """Write what is missing to the end."""
    with forked(path, count) as (_, said):
        said.read()
    assert ek.LogitStore(path).complete


SAMPLES = 60
"""Of a store whose writer is killed."""


def kills(args: argparse.Namespace) -> list[str]:
    """SIGKILL a writer at random points, resume it, kill it again."""
    draw, acknowledged, lost, damaged, stores, unequal = random.Random(2), 0, 0, 0, 0, 0
    folder, done = Path(tempfile.mkdtemp()), 0
    while done < args.kills:
        path, said = folder / f"{stores}.zarr", list[str]()
        stores += 1
        while done < args.kills and not (path.exists() and ek.LogitStore(path).complete):
            if draw.random() < 0.05:  # while it starts
                with test_writing.writer(path, SAMPLES) as process:
                    assert process.stdout is not None
                    time.sleep(0.5 * draw.random())
                    process.send_signal(signal.SIGKILL)
                    said += process.stdout.read().split()
            else:
                with forked(path, SAMPLES) as (pid, out):
                    said += [out.readline().strip() for _ in range(draw.randrange(1, SAMPLES // 5))]
                    time.sleep(0.01 * draw.random())
                    os.kill(pid, signal.SIGKILL)
                    said += out.read().split()
            said = [s for s in said if s]
            done += 1
            if path.exists():
                opened = ek.LogitStore(path)
                lost += len(set(said) & set(opened.missing))
                damaged += len(opened.verify().damaged)
            else:
                lost += len(said)
        acknowledged += len(said)
        if not (path.exists() and ek.LogitStore(path).complete):
            finish(path, SAMPLES)
        opened = ek.LogitStore(path)
        unequal += sum(not np.array_equal(h.read(opened, s), h.value(k)) for k, s in enumerate(opened.samples))
        shutil.rmtree(path)
    shutil.rmtree(folder)
    return [
        f"{done:,} kills (SIGKILL) of a writer of {SAMPLES} samples at random moments, over {stores} stores, each resumed and",
        f"killed again until it was complete. Acknowledged samples: {acknowledged:,}; lost: {lost}; damaged: {damaged};",
        f"samples that differ from an uninterrupted run at the end: {unequal}.",
    ]


def cuts(args: argparse.Namespace) -> list[str]:
    """Cut the power of an ext4 disk under a writer."""
    if not h.ROOT or shutil.which("mkfs.ext4") is None or not Path("/dev/loop-control").exists():
        return ["Not run: it needs root, loop devices and mkfs.ext4."]
    draw, synced, lost, damaged, unequal = random.Random(3), 0, 0, 0, 0
    for _ in range(args.cuts):
        folder = Path(tempfile.mkdtemp())
        with test_power_cuts.disk(folder) as (image, point):
            path, ids = point / "m.zarr", [f"s{k:03}" for k in range(40)]
            out = ek.LogitWriter(path, h.CLASSES, ids, h.GRID, member="m")
            flushed, end = draw.randint(0, 30), draw.randint(30, 39)
            for k in range(end):
                h.write(out, ids[k], h.value(k))
                if k + 1 == flushed:
                    out.flush()
            safe = max(flushed, flushed + 16 * ((end - flushed) // 16))  # a full group is synced by itself
            time.sleep(draw.choice([0, 0, 0.2, 1.0, 2.0]))
            for after in test_power_cuts.cut(image, folder):
                opened = ek.LogitStore(after / "m.zarr")
                synced += safe
                lost += len(set(ids[:safe]) & set(opened.missing))
                damaged += len(opened.verify().damaged)
                finish(after / "m.zarr", 40)
                done = ek.LogitStore(after / "m.zarr")
                unequal += sum(not np.array_equal(h.read(done, s), h.value(k)) for k, s in enumerate(done.samples))
            out.close()
        shutil.rmtree(folder)
    return [
        f"{args.cuts} power cuts. Samples that were synced: {synced:,}; lost: {lost}; damaged: {damaged}; different: {unequal}.",
    ]


ROUND = """
import sys; sys.path.insert(0, {here!r})
import forms
from ensemble_kit.logits.writer import LogitWriter
form = forms.use({form!r})
rank, rounds, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
ids = [f"s{{k:02}}" for k in range(16)]
for r in range(rounds):
    with LogitWriter(f"{{folder}}/{{r}}.zarr", forms.CLASSES, ids, form.grid, member="m") as out:
        for k in (2 * rank, 2 * rank + 1, (2 * rank + 2) % 16):
            form.write(out, ids[k], form.value(k + r))
"""


REPLACE = """
import sys
from ensemble_kit.logits.writer import LogitWriter
LogitWriter(sys.argv[1], ["radius", "ulna"], ["x"], overwrite=True)
"""


def ranks(args: argparse.Namespace) -> list[str]:
    """Let eight processes make and fill the same stores at once; try to replace one that is written to."""
    folder = Path(tempfile.mkdtemp())
    script = ROUND.format(here=str(HERE), form=h.FORM.name)
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(r), str(args.rounds), str(folder)]) for r in range(8)
    ]
    failed = sum(p.wait() != 0 for p in running)
    lost = 0
    for r in range(args.rounds):
        opened = ek.LogitStore(folder / f"{r}.zarr")
        lost += len(opened.missing) + len(opened.verify().damaged)
        lost += sum(not np.array_equal(h.read(opened, s), h.value(k + r))
                    for k, s in enumerate(opened.samples) if s not in opened.missing)  # fmt: skip
    waits = []
    with ek.LogitWriter(folder / "w.zarr", h.CLASSES, h.IDS, h.GRID) as out:
        h.write(out, h.IDS[0], h.logits()[0])
        for _ in range(20):
            began = time.perf_counter()
            ran = subprocess.run([sys.executable, "-c", REPLACE, folder / "w.zarr"], capture_output=True, text=True)
            waits.append(time.perf_counter() - began)
            assert "LockedError" in ran.stderr
    shutil.rmtree(folder)
    return [
        f"8 processes × {args.rounds} stores: processes that failed: {failed}; samples lost or different: {lost} of {16 * args.rounds:,}.",
        f"Replacing is refused after {np.median(waits):.2f} s (median; longest {max(waits):.2f} s).",
    ]


def verdicts(lines: list[bytes], size: int) -> list[list[tuple[int, int]] | None]:
    """The grammar, told by a regular expression and plain integers: half-open runs, or None."""
    out: list[list[tuple[int, int]] | None] = []
    number = rb"(?:0|[1-9][0-9]*)"
    whole = re.compile(rb"%s %s(?: %s %s)*" % (number, number, number, number))
    for line in lines:
        if not line.strip(b" "):
            out.append([])
            continue
        if not whole.fullmatch(line):
            out.append(None)
            continue
        values, runs, last = [int(v) for v in line.split(b" ")], list[tuple[int, int]](), 0
        for start, length in zip(values[::2], values[1::2], strict=True):
            end = start - 1 + length
            if start < 1 or length < 1 or end > size or start - 1 < last:
                runs = []
                out.append(None)
                break
            if runs and runs[-1][1] == start - 1:
                runs[-1] = (runs[-1][0], end)
            else:
                runs.append((start - 1, end))
            last = end
        else:
            out.append(runs)
    return out


def texts(draw: np.random.Generator, count: int, size: int) -> list[bytes]:
    """Draw texts near the border between right and wrong: mostly sorted numbers, then one or two bytes changed."""
    pairs = draw.integers(1, 5, count)
    values = np.sort(draw.integers(1, size + 3, (count, 8)), axis=1)
    near = draw.random((count, 4)) < 0.15
    lengths = np.where(near, draw.integers(0, 4, (count, 4)), np.maximum(values[:, 1::2] - values[:, ::2], 1))
    odd = draw.random(count)
    other = list(b"0123456789 -,x\t.+\n")
    spots, bytes_ = draw.random((count, 2)), draw.choice(np.array(other, np.uint8), (count, 2))
    out = []
    for k in range(count):
        numbers = [v for i in range(pairs[k]) for v in (values[k, 2 * i], lengths[k, i])]
        if odd[k] < 0.04:
            numbers[int(spots[k, 0] * len(numbers))] = (2**31, 2**32 + 1, 2**63 - 1, 2**63, 2**70, 0)[
                int(spots[k, 1] * 6)
            ]
        elif odd[k] < 0.08:
            numbers = numbers[:-1]
        elif odd[k] < 0.12:
            numbers = numbers[::-1]
        text = bytearray(" ".join(map(str, numbers)).encode())
        if 0.3 < odd[k] < 0.75:
            at = int(spots[k, 0] * len(text))
            if odd[k] < 0.5:
                text[at] = bytes_[k, 0]
            elif odd[k] < 0.65:
                text.insert(at, bytes_[k, 0])
            else:
                del text[at]
        out.append(bytes(text))
    return out


def fuzz(args: argparse.Namespace) -> list[str]:
    """Compare verdicts and runs with an independent grammar."""
    draw, plane, right, wrong, done = np.random.default_rng(4), (10, 20), 0, 0, 0
    began = time.perf_counter()
    while done < args.fuzz:
        lines = texts(draw, min(50_000, args.fuzz - done), 200)
        for line, wanted in zip(lines, verdicts(lines, 200), strict=True):
            try:
                runs = Runs.parse(line.decode(), plane)
                got: list[tuple[int, int]] | None = list(zip(runs.starts.tolist(), runs.ends.tolist(), strict=True))
            except EnskError:
                got = None
            wrong += got != wanted
            right += wanted is not None
        done += len(lines)
    assert test_rle.strict("1 2", 200) == verdicts([b"1 2"], 200)[0]
    return [
        f"{done:,} texts near the border, {right / done:.0%} of them right, against a grammar written independently (a regular",
        f"expression and Python's integers): wrong verdicts or wrong runs: {wrong}. ({time.perf_counter() - began:.0f} s)",
    ]


def bits(_: argparse.Namespace) -> list[str]:
    """Vote in every order, with any number of threads, on other processors and in other blocks."""
    folder = Path(tempfile.mkdtemp())
    draw, seen, tries = np.random.default_rng(5), set[str](), 0
    ids = [f"s{k}" for k in range(12)]
    for m in range(4):
        with ek.LogitWriter(folder / f"{m}.zarr", h.CLASSES, ids, (32, 48)) as out:
            for s in ids:
                out.write(s, (draw.normal(size=(2, 8, 12)) * 5).repeat(4, 1).repeat(4, 2).astype("f4"), (257, 383))

    def digest(masks: Any) -> str:
        return hashlib.sha256(
            b"".join(masks[k].starts.tobytes() + masks[k].ends.tobytes() for k in sorted(masks))
        ).hexdigest()

    lines = []
    for options in ({}, {"mean": "logit"}, {"upsample": "scores"}):
        seen.clear()
        for _ in range(12):
            order = draw.permutation(4)
            ensemble = ek.Ensemble([folder / f"{m}.zarr" for m in order], weights=[m + 1 for m in order], **options)
            for jobs in (1, 2, 7):
                seen.add(digest(ensemble.vote(0.4, jobs=jobs)))
                tries += 1
        one_by_one = {k: v for s in ids for k, v in
                      ek.Ensemble([folder / f"{m}.zarr" for m in range(4)], weights=[1, 2, 3, 4], **options).vote(0.4).items()
                      if k[0] == s}  # fmt: skip
        seen.add(digest(one_by_one))
        lines.append(f"{options or 'default'}: {len(seen)}")
    shutil.rmtree(folder)
    return [
        f"{tries} votes of 4 weighted members on 12 samples of 257 × 383, in 12 orders of members, with 1, 2 and 7 threads.",
        f"Different results, for each way of fusing: {'; '.join(lines)}.",
        "(A processor without AVX: `test_an_old_processor_changes_no_bit`.)",
    ]


def memory(args: argparse.Namespace) -> list[str]:
    """Measure the peak of every command, and of a vote over many more samples."""
    found, far = list(peaks.peaks(args.samples)), list(peaks.peaks((500, 50_000), ["vote"]))
    return [
        "Every command as a process of its own, Python and Numba included, with 2 threads, on stores of 4 classes on 16 × 16, so",
        "that what grows with samples shows and nothing else. *Projected* is what a command says that it needs, before its work;",
        "with `--memory` below that it is refused, and told to pass a quarter more; *peak* was measured with just that. The runs found kernels compiled, as",
        "all but the first on a machine do. A vote or a tuning that finds none compiled, or compiles some while it projects, counts",
        "320 MB for them, and more for a search and for factors; work that tries no sample before (`fuse`, `review`, `stack`) always",
        "counts them. Where a machine has compiled a part of what a command needs, the figure can be 50 MB short once.",
        "",
        *peaks.table(found),
        "",
        "A vote that writes a CSV: "
        + "; ".join(f"{p.samples:,} samples {p.measured / 1e6:.0f} MB, projected {p.projected / 1e6:.0f} MB" for p in far)
        + ".",
        "",
        "Masks are written as they are voted, whatever the format (`--like` a file in which the rows of a sample stand apart, and",
        "a `--hard` vote with rules or a fusion, hold them all). What grows is what has to be known of each sample: its name, its",
        "record in each member's manifest and that it was verified, half a kilobyte a member. Masks that are read (`score`,",
        "`convert`, ground truth) are held, and projected by the size of their files.",
        "`tune-thresholds` counts by level, 10 bytes for each that occurs in a sample and class; beyond 128 MB counts lie in a",
        "temporary file (TMPDIR says where), while there is room for one. Only rules that are chosen from counts",
        "(`--search compete`) hold tables in memory: where those of all classes do not fit `--memory`, they pass over the stores",
        "for some classes at a time, and end with the same set.",
        "",
        "The figure of a vote, and of a tuning without a search, is within a quarter of the peak: `tests/faults/test_projections.py`",
        "runs them on a few large images, many small ones, many classes, exclusive classes, volumes and counts that lie in a file,",
        "with one thread and two, with folds and without. What remains is how many threads are at their largest at one time, and",
        "holes that the allocator keeps. A search looks at as many undecided pixels as the budget holds, and its figure is not that",
        "near: it counts three tables for the fusions whose counts it keeps, be they in a file or not. A hard vote that does not",
        "hold its mask files names them alone; it knows the rest when they are read. Bands of levels that have to be widened, which",
        "a few samples do not tell, are not projected.",
        "",
        "`dump-logits` of a network projects images and outputs, not the framework's weights and activations, which nothing",
        "outside it can tell. With `--dask` a budget of memory is refused, since other processes do the work.",
    ]  # fmt: skip


def forget(store: Path) -> None:
    """Let the system forget what it holds of a store's files: they come from the disk again."""
    os.sync()
    for path in (store / "logits").glob("c.*"):
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


@contextmanager
def clock(times: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    times.append(time.perf_counter() - began)


def speed(args: argparse.Namespace) -> list[str]:
    """Durable dump against plain zarr; verified against unverified reading."""
    import zarr

    folder = Path(tempfile.mkdtemp(dir=args.disk))
    count, shape = 64, (29, 256, 256)
    draw = np.random.default_rng(6)
    array = (draw.normal(size=(29, 32, 32)).repeat(8, 1).repeat(8, 2) * 4 + draw.normal(size=shape) / 16).astype(
        np.float16
    )
    ids, classes = [f"s{k}" for k in range(count)], [f"c{k}" for k in range(shape[0])]
    ours, theirs = list[float](), list[float]()
    for turn in range(args.turns):
        with clock(ours), ek.LogitWriter(folder / f"o{turn}.zarr", classes, ids, shape[1:]) as out:
            for s in ids:
                out.write(s, array, shape[1:])
        with clock(theirs):
            target = zarr.create_array(folder / f"t{turn}.zarr", shape=(count, *shape), chunks=(1, *shape), dtype="float16",
                                       compressors=None, fill_value=float("nan"), config={"write_empty_chunks": True})  # fmt: skip
            for k in range(count):
                target[k] = array
        shutil.rmtree(folder / f"t{turn}.zarr")
        if turn:
            shutil.rmtree(folder / f"o{turn}.zarr")
        os.sync()
    size = count * array.nbytes / 1e9
    a, b = min(ours), min(theirs)
    lines = [
        f"{count} samples of 29 × 256 × 256 ({size:.2f} GB). Writing: best of {args.turns} turns. Reading and voting: median of {8 * args.turns} turns",
        "of process time, verified and unverified by turns, one thread. Timings of a shared machine move by tens of percent.",
        "",
        "| | ours | compared with | |",
        "|---|---|---|---|",
        f"| durable dump (everything synced) | {size / a:.2f} GB/s | plain zarr, nothing synced: {size / b:.2f} GB/s | {b / a:.0%} |",
    ]
    with ek.LogitWriter(folder / "small.zarr", classes, ids, shape[1:], codec="lossless") as out:
        for s in ids:
            out.write(s, array, (512, 512))
    buffer = np.empty(shape, np.float16)

    def read(store: ek.LogitStore) -> None:
        for s in ids:
            store.read(s, buffer)

    def vote(store: ek.LogitStore) -> None:
        ek.Ensemble([store], upsample="scores").vote(0.5, jobs=1)

    plain, small = folder / "o0.zarr", folder / "small.zarr"
    for name, path, work, cold in (
        ("read from the disk", plain, read, True),
        ("read from memory", plain, read, False),
        ("vote, from memory", plain, vote, False),
        ("read from memory, `--codec lossless`", small, read, False),
        ("read from the disk, `--codec lossless`", small, read, True),
    ):
        first, second = [], []
        known = ek.LogitStore(path)
        work(known)
        for _ in range(8 * args.turns):
            for times, store in ((first, ek.LogitStore(path)), (second, known)):
                if cold:
                    forget(path)
                began = time.perf_counter() if cold else time.process_time()  # from the disk it is waiting that counts
                work(store)
                times.append((time.perf_counter() if cold else time.process_time()) - began)
        e, f = (float(np.median(t)) for t in (first, second))
        lines.append(
            f"| verified {name} | {size / e:.2f} GB/s | the same files again: {size / f:.2f} GB/s | {e / f - 1:+.0%} time |"
        )
    shutil.rmtree(folder)
    return [
        *lines,
        "",
        "A store that is open verifies a file once: as long as it is unchanged, reading it again is the unverified read.",
        "`--codec lossless` is verified at every read, since a checksum comes before every decoder. From memory an",
        "unverified read is one copy, at 20 GB/s; a checksum is a second look at bytes that lie in the second-level cache by",
        "then, at 60 GB/s where the processor multiplies without carry on 512 bits. That third is the limit: 10 % would take a",
        "checksum of 200 GB/s, and a thread that checks one block while the next is copied costs the same processor time.",
    ]


def gates(_: argparse.Namespace) -> list[str]:
    """Branch coverage and mutation testing, as the last `make coverage` and `make mutation` found them."""
    root = PAGE.parent.parent
    ran = subprocess.run(
        [sys.executable, "-m", "coverage", "json", "-q", "-o", "-"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    covered, mutated = json.loads(ran.stdout), json.loads((root / ".mutation.json").read_text())
    files, total = covered["files"], covered["totals"]
    share = {name: told["summary"]["percent_covered"] for name, told in files.items()}
    least = min(share, key=lambda name: share[name])
    return [
        f"Branches that tests take in the {len(files)} files of store, masks, votes, threshold sets and formats:",
        (
            f"{total['covered_branches']:,} of {total['num_branches']:,}, {total['percent_branches_covered']:.1f} %; lines and branches together "
            f"{total['percent_covered']:.1f} %,"
        ),
        f"least in {Path(least).name} ({share[least]:.0f} %). Processes that tests start and kill are not counted; kernels are",
        "machine code, and each has its oracle.",
        "",
        "| source | mutants | not noticed | of these without a stated reason |",
        "|---|---|---|---|",
        *(
            f"| {name}.py | {m['mutants']} | {m['survivors']} | {m['survivors'] - m['explained']} |"
            for name, m in mutated.items()
        ),
        "",
        "`make coverage`, `make mutation`; `make test-optimized` runs the suite under `python -O`, where its own assertions hold.",
    ]


SECTIONS: dict[str, tuple[str, Callable[[argparse.Namespace], list[str]], str]] = {
    "damage": ("Damaged files", damage, "--flips {flips} --truncations {truncations} --others {others}"),
    "kills": ("Kills", kills, "--kills {kills}"),
    "cuts": ("Power cuts", cuts, "--cuts {cuts}"),
    "ranks": ("Many processes", ranks, "--rounds {rounds}"),
    "fuzz": ("Run-length texts", fuzz, "--fuzz {fuzz}"),
    "bits": ("The same to the last bit", bits, ""),
    "memory": ("Memory", memory, "--samples {sizes}"),
    "speed": ("What safety costs", speed, "--turns {turns}"),
    "gates": ("How the tests are tested", gates, ""),
}


BY_FORM = {"damage", "kills", "cuts", "ranks"}
"""Sections that are measured in every format of stores."""


COMMON = {
    "damage": """
Flips by size, everything else by file: descriptions, the manifest, the copy of the description, the lock, chunks. *No effect*
is damage after which every sample, every name and every number is as before: white space, what zarr alone reads, the lock,
lines behind the last mark. *Wrong* would be damage that is neither detected nor without effect.
""",
    "cuts": """
An ext4 disk in a file, whose bytes are copied 0 to 2 s after the last write and mounted again. (zarr alone, measured once, not
by this script: a cut 40 s after a clean exit left 64 of 64 chunks empty.)
""",
    "ranks": """
8 processes make and fill stores all at once, every second sample by two of them; then one tries to replace a store that another
writes to, 20 times, start of Python included.
""",
}
"""What is said once of a section that every format has."""


KINDS = {
    "one grid": "One grid (`ensk.logits/1`)",
    "grids": "Images of a grid each (`ensk.logits/2`)",
    "volumes": "Volumes of two slabs (`ensk.logits/2`)",
    "scenes": "Scenes of two tiles (`ensk.logits/2`)",
}


def measured(key: str, args: argparse.Namespace, held: str, command: str) -> Iterator[str]:
    """Measure a section in some formats; what the page holds of the others stays."""
    pieces = re.split(r"^\*\*(.+)\*\*$", held, flags=re.MULTILINE)[1:]
    blocks = {kind: block.strip() for kind, block in zip(pieces[::2], pieces[1::2], strict=True)}
    for name in args.form:
        h.use(name)
        blocks[KINDS[name]] = "\n".join([*SECTIONS[key][1](args), "", command.replace("` ·", f" --form '{name}'` ·")])
    h.use("one grid")
    if key in COMMON:
        yield COMMON[key].rstrip()
    for kind in filter(blocks.__contains__, KINDS.values()):
        yield from ("", f"**{kind}**", "", blocks[kind])


def machine() -> str:
    """Say what was measured on, in a word."""
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{len(os.sched_getaffinity(0))} cores, {gigabytes:.0f} GB, Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=SECTIONS, action="append")
    for name, count in (("flips", 10_000), ("truncations", 2_000), ("others", 500), ("kills", 1_000), ("cuts", 100),
                        ("rounds", 100), ("fuzz", 10_000_000), ("turns", 3)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--samples", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--form", choices=h.FORMS, nargs="+", default=list(h.FORMS), help="formats of stores")
    parser.add_argument("--disk", help="folder for the timings")
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    text = PAGE.read_text() if PAGE.exists() else HEAD
    parts = {p.splitlines()[0]: p for p in re.split(r"^## ", text, flags=re.MULTILINE)[1:]}
    for key in args.only or SECTIONS:
        title, measure, options = SECTIONS[key]
        given = options.format(**vars(args), sizes=" ".join(map(str, args.samples)))
        command = f"`python tests/faults/figures.py --only {key}{' ' + given if given else ''}` · {machine()}"
        own = (
            ["", *measure(args), "", command]
            if key not in BY_FORM
            else measured(key, args, parts.get(title, ""), command)
        )
        parts[title] = "\n".join([title, *own, "", ""])
        print(f"## {parts[title]}", flush=True)
        PAGE.parent.mkdir(exist_ok=True)
        order = [t for t, _, _ in SECTIONS.values() if t in parts]
        PAGE.write_text("\n".join([HEAD, *(f"## {parts[t].strip()}\n" for t in order)]))


if __name__ == "__main__":
    main()
