"""The jobs of the table: what is measured, on which input, against whom, and the bar."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import inputs
import numpy as np
import rivals
from measure import Row, interleaved, reader
from numpy.typing import NDArray

import ensemble_kit as ek
from ensemble_kit.fused import FusedSample
from ensemble_kit.runs import overlaps, texts
from ensemble_kit.scores import Fusion, integer_weights
from ensemble_kit.spec import Box, Placement


@dataclass(frozen=True)
class Scale:
    """How large the inputs are, and how long to measure each job."""

    members: int = inputs.MEMBERS
    classes: int = inputs.CLASSES
    grid: int = inputs.GRID
    plane: int = inputs.PLANE
    samples: int = 8
    seconds: float = 6.0
    rivals: bool = True
    only: str = ""


QUICK = Scale(members=3, classes=4, grid=128, plane=512, samples=2, seconds=0.2)
FULL_SAMPLES = 160


class MemoryMember:
    """A member whose logits lie in memory."""

    def __init__(self, name: str, arrays: dict[str, NDArray[np.float16]], plane: tuple[int, int]) -> None:
        self.member, self._arrays = name, arrays
        first = next(iter(arrays.values()))
        self.classes = tuple(f"bone {c}" for c in range(first.shape[0]))
        self._place = Placement(first.shape[1:], Box(0, 0, *first.shape[1:]), plane)

    def read(self, sample: str) -> NDArray[np.float16]:
        return self._arrays[sample]

    def placement(self, sample: str) -> Placement:
        return self._place


def memory_ensemble(arrays: list[NDArray[np.float16]], plane: int, upsample: str) -> Any:
    """What `FusedSample` needs of an ensemble, over arrays (C, h, w) in memory."""
    members = tuple(MemoryMember(f"m{k}", {"x": a}, (plane, plane)) for k, a in enumerate(arrays))
    names = tuple(m.member for m in members)
    weights = integer_weights([1.0] * len(members), names)
    fusion = Fusion("probability", upsample, names, (weights,) * len(members[0].classes), (1.0,) * len(members))
    return SimpleNamespace(fusion=fusion, members=members, classes=members[0].classes, activation="sigmoid")


def table(scale: Scale, only: str = "", keep_going: bool = False) -> Iterator[Row]:
    """Measure every job whose name holds `only`; with `keep_going`, a job that fails ends only its own group."""
    scale = replace(scale, only=only)
    for group in (soft_votes, rle, hard_votes, csv_files, thresholds):
        try:
            yield from (row for row in group(scale) if row is not None)
        except Exception:
            if not keep_going:
                raise


def _measured(scale: Scale, ours: Callable[[], Any], others: dict[str, Callable[[], Any]], **row: Any) -> Row | None:
    read = row.pop("read", None)
    per = row.pop("per", 1.0)
    if scale.only not in row["job"]:
        return None
    jobs = {"ours": ours, **({"R": reader(read)} if read is not None else {}), **(others if scale.rivals else {})}
    seconds = {name: s / per for name, s in interleaved(jobs, scale.seconds).items()}
    return Row(
        seconds=seconds,
        rivals=[name for name in others if name in seconds],
        read_bytes=sum(a.nbytes for a in read) if read is not None else 0,
        **row,
    )


# --- soft votes ----------------------------------------------------------------------------------------------


def soft_votes(scale: Scale) -> Iterator[Row | None]:
    for noisy in (False, True):
        yield from _soft_votes(scale, noisy)


def _soft_votes(scale: Scale, noisy: bool) -> Iterator[Row | None]:
    arrays = inputs.bone_logits(scale.members, scale.classes, scale.grid, noisy=noisy)
    text = rivals.rlemasklib_text if rivals.optional("rlemasklib") else rivals.tuned_text
    for upsample, bar in (("scores", "≤ 1.6 R, ≥ 50 × torch"), ("logits", "≤ 2.6 R, ≥ 150 × torch")):
        ensemble = memory_ensemble(arrays, scale.plane, upsample)
        levels = dict.fromkeys(range(scale.classes), 32768)

        def ours(ensemble: Any = ensemble, upsample: Any = upsample, levels: dict[int, int] = levels) -> str:
            masks = FusedSample(ensemble, "x", upsample).decide(levels)
            rows = texts(list(masks.values()))
            return "".join(f"x,{name},{text}\n" for name, text in zip(ensemble.classes, rows, strict=True))

        others = {} if noisy else rivals.soft_rivals(arrays, scale.plane, upsample, text)
        yield _measured(
            scale,
            ours,
            others,
            read=arrays,
            job=f"soft vote, upsample={upsample!r}{', noisy logits' if noisy else ''}: "
            f"{scale.members} × {scale.classes} × {scale.grid}² fp16 → CSV rows at {scale.plane}²",
            unit="a sample",
            bar="" if noisy else bar,
        )


# --- RLE -----------------------------------------------------------------------------------------------------


def rle(scale: Scale) -> Iterator[Row | None]:
    count = scale.classes  # enough masks to be cold in every cache
    masks = inputs.bone_masks(count, scale.plane)
    columns = [np.asfortranarray(m).view(np.uint8) for m in masks]
    size = f"{scale.plane}²"
    others: dict[str, Any] = {
        "NumPy, tuned": rivals.scaled(lambda: [rivals.tuned_text(m) for m in masks[:4]], count / 4),
        "the notebooks' snippet": rivals.scaled(lambda: [rivals.classic_text(m) for m in masks[:2]], count / 2),
    }
    if rivals.optional("rlemasklib"):
        others["rlemasklib + NumPy"] = lambda: [rivals.rlemasklib_text(m) for m in masks]
    yield _measured(
        scale, lambda: [ek.encode(m).text() for m in masks], others, read=masks, per=count,
        job=f"RLE text from a byte mask of {size}, memory-cold", unit="a mask", bar="≤ 1.1 R",
    )  # fmt: skip
    yield from _coco(scale, masks, columns, size)

    runs = [ek.encode(m) for m in masks]
    written, plane = [r.text() for r in runs], (scale.plane, scale.plane)
    yield _measured(
        scale, lambda: [ek.Runs.parse(t, plane) for t in written],
        {
            "the notebooks' loop, to a mask": lambda: [rivals.notebook_parse(t, plane) for t in written],
            "NumPy, to runs": lambda: [rivals.numpy_parse(t) for t in written],
        },
        per=count, job="text → runs", unit="a mask", bar="≤ 5 µs",
    )  # fmt: skip
    moved = runs[1:] + runs[:1]
    pairs = list(zip(runs, moved, strict=True))
    others = {"NumPy": rivals.scaled(lambda: [(a & b).sum() for a, b in pairwise(masks[:3])], count / 2)}
    if rivals.optional("rlemasklib"):
        coded = [rivals.optional("rlemasklib").RLEMask.from_array(m.T) for m in masks]
        others["rlemasklib"] = lambda: [a.iou(b) for a, b in zip(coded, coded[1:] + coded[:1], strict=True)]
    if rivals.optional("pycocotools"):
        coco = [r.coco() for r in runs]
        iou = rivals.optional("pycocotools.mask").iou
        others["pycocotools"] = lambda: [iou([a], [b], [0]) for a, b in zip(coco, coco[1:] + coco[:1], strict=True)]
    areas = [r.area for r in runs]

    def dice() -> NDArray[np.float64]:
        both = overlaps([a for a, _ in pairs], [b for _, b in pairs])
        return 2 * both / (np.array(areas) + np.array(areas[1:] + areas[:1]))

    yield _measured(scale, dice, others, per=count, job="Dice of a pair of runs", unit="a pair", bar="≤ 3 µs")


def _coco(scale: Scale, masks: list[Any], columns: list[Any], size: str) -> Iterator[Row | None]:
    libraries: dict[str, Any] = {}
    for name, module in (
        ("pycocotools", "pycocotools.mask"),
        ("faster-coco-eval", "faster_coco_eval.core.mask"),
        ("hotcoco", "hotcoco.mask"),
    ):
        if rivals.optional(module):
            libraries[name] = rivals.optional(module).encode
    for order, given, bar in (
        ("C", masks, "≥ 1.4 × the fastest rival"),
        ("F", columns, "at par with the fastest rival"),
    ):
        few = 4 if order == "C" else len(given)  # C-ordered input costs these libraries a transposition
        part = [m.view(np.uint8) for m in given[:few]]
        others = {
            name: rivals.scaled(
                lambda encode=encode, part=part: [encode(np.asfortranarray(m)) for m in part], len(given) / few
            )
            for name, encode in libraries.items()
        }
        if rivals.optional("rlemasklib"):
            make = rivals.optional("rlemasklib").RLEMask.from_array
            others["rlemasklib"] = lambda make=make, given=given: [make(m).to_dict() for m in given]
        yield _measured(
            scale, lambda given=given: [ek.encode(m).coco() for m in given], others, read=[m.T if order == "F" else m for m in given],
            per=len(given), job=f"COCO RLE of a byte mask of {size}, {order} order", unit="a mask", bar=bar,
        )  # fmt: skip


# --- hard votes, files ---------------------------------------------------------------------------------------


def hard_votes(scale: Scale) -> Iterator[Row | None]:
    for members, bar in ((3, 1.0), (5, 1.2), (9, 2.0), (15, 2.5)):
        masks = inputs.run_edges(members, scale.classes, scale.plane)
        sets = [ek.MaskSet({("x", f"bone {c}"): ek.encode(m) for c, m in enumerate(row)}) for row in masks]
        yield _measured(
            scale, lambda sets=sets: ek.hard_vote(sets), rivals.hard_rivals(masks) if scale.rivals else {},
            per=scale.classes, job=f"hard vote of {members} members, {scale.classes} classes in one call",
            unit="a class", bar=f"≥ {bar} × rlemasklib",
        )  # fmt: skip


def csv_files(scale: Scale) -> Iterator[Row | None]:
    rows = 300 if scale.plane == inputs.PLANE else 5
    masks = [ek.encode(m) for m in inputs.bone_masks(scale.classes, scale.plane)]
    whole = ek.MaskSet({(f"image{k:04}.png", f"bone {c}"): m for k in range(rows) for c, m in enumerate(masks)})
    size = (scale.plane, scale.plane)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "out.csv")

        def pandas() -> None:
            import pandas as pd

            texts = [" ".join(map(str, np.stack([m.starts + 1, m.ends - m.starts], 1).reshape(-1).tolist()))
                     for m in whole.values()]  # fmt: skip
            keys = list(whole)
            pd.DataFrame({"image_name": [k[0] for k in keys], "class": [k[1] for k in keys], "rle": texts}).to_csv(
                Path(folder, "pandas.csv"), index=False
            )

        whole.write(path, "handbone")
        megabytes = path.stat().st_size / 1e6
        yield _measured(
            scale, lambda: whole.write(path, "handbone"), {"pandas": pandas},
            job=f"runs → CSV file of {megabytes:.0f} MB, durable", unit="a file", bar="≤ 30 ms",
        )  # fmt: skip
        paths = [Path(folder, f"m{k}.csv") for k in range(5)]
        for p in paths:
            whole.write(p, "handbone")

        def vote() -> None:
            ek.hard_vote([ek.read_masks(p, "handbone", image_size=size) for p in paths]).write(path, "handbone")

        yield _measured(
            scale, vote, {}, job=f"five CSVs of {megabytes:.0f} MB → voted CSV, {len(whole)} rows", unit="a vote", bar="≤ 0.5 s",
        )  # fmt: skip


# --- thresholds ----------------------------------------------------------------------------------------------


def thresholds(scale: Scale) -> Iterator[Row | None]:
    total = FULL_SAMPLES if scale.plane == inputs.PLANE else 4
    logits = [inputs.bone_logits(1, scale.classes, scale.grid, seed=k)[0] for k in range(scale.samples)]
    for plane, bar in ((scale.grid, "≤ 0.3 s"), (scale.plane, "≤ 2.5 s")):
        with tempfile.TemporaryDirectory() as folder:
            ensemble, truth = _tuning_case(Path(folder), logits, plane, total)
            others: dict[str, Any] = {}
            if plane == scale.grid and scale.rivals:
                from ensemble_kit.kernels import tables

                levels = np.stack([tables.fp16_levels(1.0)[z.view(np.uint16)] for z in logits])
                names = truth.samples[: scale.samples]
                drawn = np.stack([[truth[s, c].decode() for c in truth.classes] for s in names])
                factor = total / len(names)
                others["NumPy, one trial"] = rivals.scaled(rivals.threshold_trial(levels, drawn), factor)
                study = rivals.optuna_study(levels[:2], drawn[:2], 5)
                if study is not None:
                    others["Optuna, 200 trials"] = rivals.scaled(study, 40 * total / 2)
                curve = rivals.sklearn_curve(levels[:1], drawn[:1])
                if curve is not None:
                    others["sklearn, pooled, all thresholds"] = rivals.scaled(curve, scale.classes * total)
            yield _measured(
                scale,
                lambda e=ensemble, t=truth: ek.tune_thresholds(e, t, jobs=1).score,
                others,
                read=None,
                job=f"best of all 65,536 thresholds × {scale.classes} classes × {total} samples at {plane}²",
                unit="a search",
                bar=bar,
                note=f"{scale.samples} different samples, each {total // scale.samples} times",
            )


def _tuning_case(folder: Path, logits: list[NDArray[np.float16]], plane: int, total: int) -> tuple[Any, Any]:
    """An ensemble of one member whose logits are kept in memory, and truth that differs from it at boundaries."""
    classes = [f"bone {c}" for c in range(logits[0].shape[0])]
    names = [f"s{k}" for k in range(total)]
    with ek.LogitWriter(folder / "m.zarr", classes=classes, samples=names, grid=(8, 8)) as out:
        for name in names:  # the store names the samples; what is read is kept in memory
            out.write(name, np.full((len(classes), 8, 8), -9, np.float16), image_size=(plane, plane))
    ensemble = ek.Ensemble([folder / "m.zarr"], upsample="scores")
    grid = logits[0].shape[1:]
    place = Placement(grid, Box(0, 0, *grid), (plane, plane))

    class Kept:
        def __init__(self, store: Any) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        def placement(self, sample: str) -> Placement:
            return place

        def read(self, sample: str) -> NDArray[np.float16]:
            return logits[int(sample[1:]) % len(logits)]

    ensemble.members = tuple(Kept(m) for m in ensemble.members)
    truth = {}
    for k in range(len(logits)):
        decided = ensemble.fused(names[k]).decide(dict.fromkeys(range(len(classes)), 26000))
        for c, runs in decided.items():
            moved = ek.encode(np.roll(runs.decode(), (k + c) % 3 - 1, axis=1))
            truth.update({(name, classes[c]): moved for name in names[k :: len(logits)]})
    return ensemble, ek.MaskSet({(s, c): truth[s, c] for s in names for c in classes})
