"""Time and peak memory of a store's metadata as samples grow: what a million images cost before the first logit is read.

Makes stores of tiny grids whose manifests are those of 64 writers and 29 classes, then runs every step in a process of
its own, whose peak memory is the system's own figure:

    python tests/benchmarks/million.py --samples 1000000 --at FOLDER --write docs/scale.md

Only the first store has its chunks, one file a sample; with `--url s3://…` a smaller one is made behind that URL too.
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
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]
CLASSES = tuple(f"class {k:02}" for k in range(29))
GRID, IMAGE, WRITERS, GROUP = (1, 1), (2048, 2048), 64, 16
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
    place, folder = Placement.of(GRID, IMAGE), root / ARRAY
    for first in range(0, n, GROUP):
        segment = segments[first // GROUP % WRITERS]
        for row in range(first, min(first + GROUP, n)):
            content = payload(member, row)
            crcs = chunkfile.running_crcs(content, len(CLASSES))
            if member == 0:
                with open(folder / spec.layout.key(row), "wb", buffering=0) as file:  # noqa: PTH123 - as fast as it goes
                    file.write(content.tobytes() + crcs[-4:][::-1])
            source = hashlib.blake2b(b"%d" % row, digest_size=16).hexdigest()  # of the image, as a dump records it
            segment.append(Record(samples[row], row, place, crcs.hex(), source=source))
        segment.mark()
    for segment in segments:
        segment.close()


step("write", "make the manifest: a million lines of 64 writers")(lambda o: make(o, o.members - 1))


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
step("verify", "`ensk verify STORE`, its million small chunks read")(lambda o: command("verify", paths(o)[0], "-q"))
step("repair plan", "`ensk repair STORE --dry-run`, its million small chunks read")(
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
    from ensemble_kit.recipes.vote import SoftVote, open_ensemble

    plan = SoftVote.of(open_ensemble(paths(options), None, {}), Deciding())
    return plan.told(), plan.doubts(), plan.names()


@step("rehearsal", "the rehearsal alone: a CSV of 29 million empty masks that is not kept")
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


@step("map threads", "a map of a million items that do nothing: threads")
def _(options: argparse.Namespace) -> object:
    from ensemble_kit.execution.executor import Threads

    return mapped(Threads(2), options)


@step("map futures", "the same in tasks of a pool of `concurrent.futures`")
def _(options: argparse.Namespace) -> object:
    from concurrent.futures import ThreadPoolExecutor

    from ensemble_kit.execution.futures import Futures

    with ThreadPoolExecutor(2) as pool:
        return mapped(Futures(pool), options)


def measured(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Run a step in a process of its own."""
    words = [sys.executable, __file__, "--samples", options.samples, "--at", options.at, "--step", name]
    words += ["--members", options.members]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, timeout=options.timeout)
    if done.returncode:
        return {"step": name, "error": done.stderr.strip().splitlines()[-1]}
    return {"step": name, **json.loads(done.stderr.strip().splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--at", type=Path, required=True, help="an empty folder, or one that this script has filled")
    parser.add_argument("--only", help="steps, by commas")
    parser.add_argument("--timeout", type=int, default=280)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        sys.setswitchinterval(0.005)
        before, cpu = time.perf_counter(), time.process_time()
        if options.step.startswith("make"):
            make(options, int(options.step[4:]))
        else:
            STEPS[options.step][1](options)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        used = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - before, "peak": peak}
        print(json.dumps(used), file=sys.stderr)
        return
    for m, path in enumerate(paths(options)):
        if not path.exists() and m < options.members - 1:
            print(measured(options, f"make{m}"))
    for name in STEPS if options.only is None else options.only.split(","):
        if name == "write" and paths(options)[-1].exists():
            continue
        print(measured(options, name), flush=True)


if __name__ == "__main__":
    main()
