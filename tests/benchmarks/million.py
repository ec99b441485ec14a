"""Time and peak memory of a store's metadata as samples grow, and the plan of a million images worked through.

Makes stores of a tiny grid whose manifests are those of 64 writers and 29 classes, then runs every step in a process of
its own, whose peak memory is the system's own figure:

    python tests/benchmarks/million.py --samples 1000000 --at FOLDER --write docs/scale.md

It takes 12 GB of disk and half an hour. Only the first store has its chunks, one file a sample. `--plan` measures nothing
and prints the plan alone, by docs/benchmarks.json and the figures of docs/million.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]
CLASSES = tuple(f"class {k:02}" for k in range(29))
GRID, IMAGE, WRITERS, GROUP = (1, 1), (2048, 2048), 64, 16
PYTHON = 35e6
"""Peak of a process that has only imported the kit."""
STEPS: dict[str, tuple[str, Callable[[argparse.Namespace], object]]] = {}


def step(name: str, what: str) -> Callable[[Callable[[argparse.Namespace], object]], None]:
    """Register what is measured under a name."""

    def add(run: Callable[[argparse.Namespace], object]) -> None:
        STEPS[name] = what, run

    return add


def paths(options: argparse.Namespace) -> list[Path]:
    return [options.at / f"member{m}.zarr" for m in range(options.members)]


def payload(member: int, row: int) -> np.ndarray:
    """Draw a sample's finite float16 numbers, others for every sample and member."""
    drawn = hashlib.blake2b(b"%d %d" % (member, row), digest_size=2 * len(CLASSES)).digest()
    return np.frombuffer(drawn, np.uint8) & 0xBF


def make(options: argparse.Namespace, member: int) -> None:
    """Make a store as 64 writers leave it: the sink's own description, segments and chunks."""
    from ensemble_kit.logits import chunkfile, creation
    from ensemble_kit.logits.layout import ARRAY, MANIFEST, StoreSpec
    from ensemble_kit.logits.records import Record
    from ensemble_kit.logits.segments import SegmentWriter
    from ensemble_kit.spec.geometry import Placement

    root, n = paths(options)[member], options.samples
    samples = tuple(f"image_{k:08}.png" for k in range(n))
    spec = StoreSpec(root.stem, CLASSES, samples, GRID, "sigmoid", {"created": "2026-11-29T00:00:00+00:00"})
    creation.join_or_create(root, spec, overwrite=False)
    segments = [SegmentWriter(root / ARRAY / MANIFEST, spec.store) for _ in range(WRITERS)]
    array, folder = spec.array(Placement.of(GRID, IMAGE)), root / ARRAY
    for first in range(0, n, GROUP):
        segment = segments[first // GROUP % WRITERS]
        for row in range(first, min(first + GROUP, n)):
            content = payload(member, row)
            crcs = chunkfile.running_crcs(content, len(CLASSES))
            if member == 0:
                with open(folder / spec.layout.key(row), "wb", buffering=0) as file:  # noqa: PTH123 - as fast as it goes
                    file.write(content.tobytes() + crcs[-4:][::-1])
            source = hashlib.blake2b(b"%d" % row, digest_size=16).hexdigest()  # of the image, as a dump records it
            segment.append(Record(samples[row], row, array, crcs.hex(), source=source))
        segment.mark()
    for segment in segments:
        segment.close()


step("write", "write the manifest: a line a sample, from 64 writers")(lambda o: make(o, o.members - 1))


def opened(options: argparse.Namespace) -> Any:
    from ensemble_kit import LogitStore

    return LogitStore(paths(options)[0])


def ensemble(options: argparse.Namespace) -> Any:
    from ensemble_kit import Ensemble

    return Ensemble(paths(options))


step("open", "open the store")(opened)


@step("missing", "open; `.missing`, `.samples`, one `image_size`")
def _(options: argparse.Namespace) -> object:
    store = opened(options)
    return store.missing, store.image_size(store.samples[-1])


step("fingerprint", "open; its fingerprint")(lambda o: opened(o).fingerprint)
step("ensemble", "an `Ensemble` of five such stores")(ensemble)


def command(*words: object) -> None:
    """Run a command in this process, as `ensk` does."""
    from ensemble_kit.cli.app import main

    sys.argv = ["ensk", *map(str, words)]
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"exit {end.code}") from None


step("inspect", "`ensk inspect STORE`")(lambda o: command("inspect", paths(o)[0]))
step("verify plan", "`ensk verify STORE --dry-run`")(lambda o: command("verify", paths(o)[0], "--dry-run"))
step("verify", "`ensk verify STORE`, all of its small chunks read")(lambda o: command("verify", paths(o)[0], "-q"))
step("repair plan", "`ensk repair STORE --dry-run`, all of its small chunks read")(
    lambda o: command("repair", paths(o)[0], "--dry-run", "-q")
)


@step("resume", "resume: a writer of the finished store, `.missing`")
def _(options: argparse.Namespace) -> object:
    from ensemble_kit import LogitWriter

    samples = [f"image_{k:08}.png" for k in range(options.samples)]
    with LogitWriter(paths(options)[0], CLASSES, samples, GRID, "sigmoid") as out:
        return len(out.missing)


@step("vote", "what a vote of five does before its first sample, but for the rehearsal of its output")
def _(options: argparse.Namespace) -> object:
    from ensemble_kit.recipes.deciding import Deciding
    from ensemble_kit.recipes.members import members_of, open_ensemble
    from ensemble_kit.recipes.vote import SoftVote

    plan = SoftVote.of(open_ensemble(members_of(paths(options)), None, {}), Deciding())
    return plan.told(), plan.doubts(), plan.names()


@step("rehearsal", "the rehearsal alone: what cannot be written is refused before any work")
def _(options: argparse.Namespace) -> object:
    from ensemble_kit.formats.writing import rehearse
    from ensemble_kit.masks.alignment import Extent
    from ensemble_kit.masks.maskset import MaskSet

    names = (f"image_{k:08}.png" for k in range(options.samples))
    return rehearse(MaskSet.empty(Extent(CLASSES, dict.fromkeys(names, IMAGE))), options.at / "out.csv", None)


@step("tune", "what a tuning of five does before its first sample, near-duplicates included")
def _(options: argparse.Namespace) -> object:
    from ensemble_kit.masks.alignment import Extent
    from ensemble_kit.masks.maskset import MaskSet
    from ensemble_kit.recipes.families import near_duplicates
    from ensemble_kit.recipes.tuning import Tuning
    from ensemble_kit.spec.scoring import Measure

    e = ensemble(options)
    tuning = Tuning(e, Measure())
    tuning.warnings()
    near_duplicates(MaskSet.empty(Extent(e.classes, dict.fromkeys(e.samples, (8, 8)))))
    return None


def nothing(item: object) -> int:
    """Do no work on an item."""
    return 1


def mapped(executor: Any, options: argparse.Namespace) -> int:
    from ensemble_kit.execution.executor import Items

    return sum(executor.map(nothing, Items(range(options.samples)), "counting"))  # type: ignore[arg-type]


@step("map threads", "a map of work that does nothing over the samples: threads")
def _(options: argparse.Namespace) -> object:
    from ensemble_kit.execution.executor import Threads

    return mapped(Threads(2), options)


@step("map futures", "the same in tasks of a pool of `concurrent.futures`")
def _(options: argparse.Namespace) -> object:
    from concurrent.futures import ThreadPoolExecutor

    from ensemble_kit.execution.futures import Futures

    with ThreadPoolExecutor(2) as pool:
        return mapped(Futures(pool), options)


@step("url", "behind a URL (in memory, 20,000 samples): written one by one, opened unfinished, finished, opened")
def _(options: argparse.Namespace) -> object:
    from ensemble_kit import LogitStore, LogitWriter

    count, url = min(options.samples, 20_000), "memory://bucket/m.zarr"
    samples = [f"image_{k:08}.png" for k in range(count)]
    with LogitWriter(url, CLASSES, samples, GRID, "sigmoid") as out:
        for row, sample in enumerate(samples):
            if row == count - 1:
                assert len(LogitStore(url).missing) == 1
            out.write(sample, payload(0, row).view("<f2").reshape(-1, 1, 1), IMAGE)
    return LogitStore(url).complete


def measured(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Run a step in a process of its own."""
    words = [sys.executable, __file__, "--samples", options.samples, "--at", options.at, "--step", name]
    words += ["--members", options.members]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, timeout=options.timeout)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return {"step": name, **json.loads(done.stderr.strip().splitlines()[-1])}


def metadata_table(rows: list[dict[str, Any]]) -> list[str]:
    """Write what was measured."""
    out = ["| step | processor s | wall s | peak, MB |", "|---|---:|---:|---:|"]
    figures = "| {} | {:.1f} | {:.1f} | {:,.0f} |"
    return out + [figures.format(STEPS[r["step"]][0], r["cpu"], r["wall"], r["peak"] / 1e6) for r in rows]


def plan_tables(manifest: float, member: float) -> list[str]:
    """Work the plan through: a million images of 29 x 512 x 512, five members, 64 machines.

    Parameters
    ----------
    manifest : bytes of a line.
    member : peak bytes that an open store takes.
    """
    n, members, machines, classes = 1_000_000, 5, 64, 29
    sample = 2 * classes * 512 * 512 + 4
    jobs = json.loads((ROOT / "docs" / "benchmarks.json").read_text())["rows"]
    rates = {row["job"]: row["seconds"]["ours"] for row in jobs}
    hot = rates["soft vote, upsample='logits': 5 \u00d7 29 \u00d7 512\u00b2 fp16 \u2192 CSV rows at 2048\u00b2"]
    noisy = rates[
        "soft vote, upsample='logits', noisy logits: 5 \u00d7 29 \u00d7 512\u00b2 fp16 \u2192 CSV rows at 2048\u00b2"
    ]
    cold = next(v for k, v in rates.items() if k.startswith("5 stores of 29") and "public API, cold" in k)
    part = n // machines
    out = ["| codec | a sample | a member | five members | a machine of 64 |", "|---|---:|---:|---:|---:|"]
    for name, ratio in (("none", 1.0), ("lossless", 1.73), ("lossless, \u00b112", 2.65), ("lossless, \u00b18", 57.31)):
        one = sample / ratio
        sizes = f"{n * one / 1e12:.2f} TB | {members * n * one / 1e12:.1f} TB | {members * part * one / 1e12:.2f} TB"
        out.append(f"| {name} | {one / 1e6:.2f} MB | {sizes} |")
    out += [
        "",
        "| a member as | stores | chunks | manifest | to open | memory, five members open |",
        "|---|---:|---:|---:|---|---:|",
    ]
    for name, stores in (("one store", 1), ("a store for each part", machines)):
        held, lines = PYTHON + members * member / stores, n // stores * manifest
        got = f"3 GET, {lines / 1e6:,.1f} MB" + (" each" if stores > 1 else "")
        out.append(f"| {name} | {stores} | {n:,} | {n * manifest / 1e9:.2f} GB | {got} | {held / 1e6:,.0f} MB |")
    out += ["", "| on object storage, a member | PUT | GET | LIST |", "|---|---:|---:|---:|"]
    out += [
        f"| dump | {2 * n + 3:,} | | |",
        "| open, finished | | 3 | |",
        f"| open, unfinished | | {n + 3:,} | |",
        f"| vote, or a pass of a tuning | | {n:,} | |",
        f"| the last of many writers, at its end | 1 | {2 * n:,} at most | |",
        f"| resume a finished one | | 3 | {-(-(2 * n + 2) // 1000):,} |",
        f"| verify | | {n + 3:,} | {-(-(2 * n + 2) // 1000):,} |",
    ]
    out += ["", "| on each of 64 machines | by | time |", "|---|---|---:|"]
    times = [
        ("write the logits of five members, synced", "2.42 GB/s, reliability.md", members * part * sample / 2.42e9),
        ("read them from the disk, verified", "1.44 GB/s, reliability.md", members * part * sample / 1.44e9),
        ("vote, logits on the disk", f"{cold * 1e3:.1f} ms a sample, two cores", part * cold),
        ("vote, logits in memory, one core", f"{hot * 1e3:.2f} ms a sample", part * hot),
        ("the same, noisy logits", f"{noisy * 1e3:.2f} ms a sample", part * noisy),
    ]
    times += [
        (f"read them over a network of {r} GB/s", "bytes over rate", members * part * sample / r / 1e9)
        for r in (0.5, 1, 3)
    ]
    out += [f"| {what} | {by} | {seconds / 60:.1f} min |" for what, by, seconds in times]
    text = 18e6 / 300  # the CSV of docs/performance.md: 8,700 rows of 29 classes
    runs = text / 11 * 16  # a run is about 11 characters of text, and two numbers of 8 bytes in memory
    out += ["", "| the answer | a sample | a million | a part of 64 |", "|---|---:|---:|---:|"]
    for name, size in (("CSV", text), ("masks in memory, as runs", runs)):
        out.append(f"| {name} | {size / 1e3:.0f} KB | {n * size / 1e9:.0f} GB | {part * size / 1e9:.1f} GB |")
    return out


def tables(found: dict[str, Any]) -> str:
    """Write both parts of the page."""
    rows = {row["step"]: row for row in found["rows"]}
    manifest, member = (
        found["manifest bytes"] / found["samples"],
        (rows["ensemble"]["peak"] - PYTHON) / found["members"],
    )
    at = f"{found['machine']}; {found['samples']:,} samples x {len(CLASSES)} classes, {WRITERS} writers."
    plan = plan_tables(manifest, member * 1_000_000 / found["samples"])
    return "\n".join([*plan, "", at, "", *metadata_table(found["rows"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--at", type=Path, help="an empty folder, or one that this script has filled")
    parser.add_argument("--only", help="steps, by commas; others keep the figures that docs/million.json has")
    parser.add_argument("--timeout", type=int, default=900, help="seconds of a step")
    parser.add_argument("--write", type=Path, help="page whose tables are written anew")
    parser.add_argument("--record", type=Path, default=ROOT / "docs" / "million.json", help="where figures are kept")
    parser.add_argument("--plan", action="store_true", help="measure nothing, print the tables")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        run_step(options)
        return
    kept = options.record
    found = json.loads(kept.read_text()) if kept.exists() else {"rows": []}
    if not options.plan:
        found = measure(options, found)
        kept.write_text(json.dumps(found, indent=1) + "\n")
    print(text := tables(found))
    if options.write:
        page = options.write.read_text()
        before, after = page.split("<!-- million -->")[0], page.split("<!-- /million -->")[1]
        options.write.write_text(f"{before}<!-- million -->\n{text}\n<!-- /million -->{after}")


def run_step(options: argparse.Namespace) -> None:
    """Run one step in this process, and print its figures as the last line of stderr."""
    wall, cpu = time.perf_counter(), time.process_time()
    if options.step.startswith("make"):
        make(options, int(options.step.removeprefix("make")))
    else:
        STEPS[options.step][1](options)
    used = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({**used, "peak": peak}), file=sys.stderr)


def measure(options: argparse.Namespace, found: dict[str, Any]) -> dict[str, Any]:
    """Make the stores that are not there, and run the steps."""
    rows = {row["step"]: row for row in found["rows"]} if found.get("samples") == options.samples else {}
    for m, path in enumerate(paths(options)[:-1]):
        if not path.exists():
            print(measured(options, f"make{m}"), file=sys.stderr)
    for name in STEPS if options.only is None else options.only.split(","):
        if name == "write" and paths(options)[-1].exists():
            continue
        rows[name] = measured(options, name)
        print(rows[name], file=sys.stderr, flush=True)
    lines = sum(p.stat().st_size for p in (paths(options)[0] / "logits" / "manifest").glob("*.jsonl"))
    return {
        "machine": f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {date.today()}",
        "samples": options.samples,
        "members": options.members,
        "manifest bytes": lines,
        "rows": [rows[name] for name in STEPS if name in rows],
    }


if __name__ == "__main__":
    main()
