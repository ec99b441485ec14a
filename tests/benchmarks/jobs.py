"""The jobs of the table: what is measured, on which input, against whom, and the bar."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import inputs
import numpy as np
import rivals
from measure import Bar, Row, interleaved, reader
from numpy.typing import NDArray

import ensemble_kit as ek
from ensemble_kit.decisions.connected import DropSmall, FillHoles, KeepLargest
from ensemble_kit.execution.executor import Threads
from ensemble_kit.formats import submission
from ensemble_kit.formats.dialects import PRESETS
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import overlaps
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.fusion import Fusion, integer_weights
from ensemble_kit.spec.geometry import Box, Placement
from ensemble_kit.spec.mean import PROBABILITY
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.counting import statistics_for
from ensemble_kit.tuning.exact import tune_from
from ensemble_kit.tuning.search import sizes
from ensemble_kit.tuning.search.undecided import Setting


@dataclass(frozen=True)
class Scale:
    """How large the inputs are, and how long to measure each job.

    Parameters
    ----------
    samples : different samples of the searches; of the store rows half as many.
    tag, note : stand behind the name of every job: what its input is, and what is to be known of it.
    """

    members: int = inputs.MEMBERS
    classes: int = inputs.CLASSES
    grid: int = inputs.GRID
    plane: int = inputs.PLANE
    samples: int = 8
    seconds: float = 6.0
    rivals: bool = True
    only: str = ""
    tag: str = ""
    note: str = ""


LIMITS = {
    "soft": "pixels that members leave undecided are evaluated sixteen at a time; on small grids, the calls from Python",
    "call": "a call from Python and the arrays of its result",
    "rle": "edges are found and digits written, which a read does not; a call from Python is about 5 µs of it",
    "coco": "the bits of a row are compared with the row before it",
    "hard": "edges of all members are put in order one by one, four fifths of it; a call from Python is 24 µs, and 4 a member",
    "csv": "the text of every row is made and checked, and the file is synced",
    "sizes": "every pixel of the band is joined to its neighbours, and every level of a mask is scored at every size",
    "analysis": "the best levels of every union of folds, and of every resampling, are found anew",
    "weights": "every undecided pixel is fused anew, and every level that occurs is scored",
    "search": "every sample's undecided pixels are counted by level, and every class's curve is certified",
}
"""What stands in the way where a bar is missed."""

QUICK = Scale(members=3, classes=4, grid=128, plane=512, samples=2, seconds=0.2)
FULL_SAMPLES = 160
BAND = (3277, 62260)  # 0.05 to 0.95: what tuning counts at first
Rows = Iterator["Row | None"]


class MemoryMember:
    """A member whose logits lie in memory."""

    def __init__(
        self, name: str, classes: tuple[str, ...], arrays: Mapping[str, NDArray[np.float16]],
        places: Mapping[str, Placement], activation: Any = "sigmoid",
    ) -> None:  # fmt: skip
        self.member, self.classes, self.activation = name, classes, activation
        self._arrays, self._places = arrays, places

    def read(self, sample: str) -> NDArray[np.float16]:
        return self._arrays[sample]

    def placement(self, sample: str) -> Placement:
        return self._places[sample]


def memory_ensemble(arrays: Sequence[NDArray[np.float16]], plane: int, upsample: Any) -> Inputs:
    """What `FusedSample` takes, over one sample's arrays (C, h, w) in memory: sample "x"."""
    C, *grid = arrays[0].shape
    classes = tuple(f"bone {c}" for c in range(C))
    place = Placement(tuple(grid), Box(0, 0, *grid), (plane, plane))
    members = tuple(MemoryMember(f"m{k}", classes, {"x": a}, {"x": place}) for k, a in enumerate(arrays))
    names = tuple(m.member for m in members)
    weights = integer_weights([1.0] * len(members), names)
    fusion = Fusion(PROBABILITY, upsample, names, (weights,) * C, (1.0,) * len(members))
    return Inputs(members, classes, fusion)


def in_memory(ensemble: ek.Ensemble) -> Inputs:
    """The same for a real ensemble: its members' logits are read once and kept."""
    members = [
        MemoryMember(
            m.member, m.classes, {s: m.read(s).copy() for s in ensemble.samples},
            {s: m.placement(s) for s in ensemble.samples}, m.activation,
        )
        for m in ensemble.members
    ]  # fmt: skip
    return Inputs(tuple(members), ensemble.classes, ensemble.fusion)


TABLES = {
    "bench": ("soft", "rle", "rules", "hard", "csv", "thresholds", "weights", "stored", "genuine", "hands", "first"),
    "exclusive": ("argmax", "factors"),
    "volumes": ("volumes", "tuning"),
    "components": ("components",),
}
"""The groups of each table."""


def measure(
    scale: Scale,
    names: Sequence[str],
    keep_going: bool = False,
    usgra: Path | None = None,
    softmax: Sequence[Path] = (),
) -> Iterator[Row]:
    """Measure the jobs of some groups; with `keep_going`, a job that fails ends only its own group."""
    import argmax
    import factors
    import first_call
    import genuine
    import solid_rules
    import stored
    import volume_tuning
    import volume_votes

    full = scale.plane == inputs.PLANE
    groups: dict[str, Callable[[Scale], Rows]] = {
        "soft": soft_votes,
        "argmax": lambda scale: argmax.rows(scale, softmax),
        "factors": factors.rows,
        "volumes": volume_votes.rows,
        "tuning": volume_tuning.rows,
        "components": solid_rules.rows,
        "rle": rle,
        "rules": rules,
        "hard": hard_votes,
        "csv": csv_files,
        "thresholds": thresholds,
        "weights": weights,
        "stored": stored.rows,
        "genuine": lambda scale: genuine.rows(scale, usgra),
        "hands": genuine.hand_rows,
        "first": lambda scale: first_call.first_calls(scale.only, repeats=5 if full else 1, soft=full),
    }
    for name in names:
        try:
            yield from (row for row in groups[name](scale) if row is not None)
        except Exception:
            if not keep_going:
                raise


def measured(
    scale: Scale,
    job: str,
    ours: Callable[[], Any],
    others: Mapping[str, Callable[[], Any]],
    unit: str,
    bars: Sequence[Bar] = (),
    limit: str = "",
    read: Sequence[NDArray[Any]] | None = None,
    reading: Callable[[], Any] | None = None,
    read_bytes: float = 0,
    per: float = 1.0,
    note: str = "",
    clock: str = "CPU",
) -> Row | None:
    """Measure one row, unless its name does not hold what is looked for.

    Parameters
    ----------
    read : the input, which R reads; or `reading` and `read_bytes`, where R is a job of its own.
    per : units of work in one call of any candidate; bars and seconds are of one unit.
    """
    job += scale.tag
    if scale.only not in job:
        return None
    if read is not None:
        reading, read_bytes = reader(read), sum(a.nbytes for a in read)
    jobs = {"ours": ours, **({"R": reading} if reading else {}), **(others if scale.rivals else {})}
    timer = time.perf_counter if clock == "wall" else time.process_time
    seconds = {name: s / per for name, s in interleaved(jobs, scale.seconds, clock=timer).items()}
    reference = not scale.tag  # seconds are promised of the reference case only, and nothing of a quick run
    return Row(
        job,
        unit,
        seconds,
        tuple(b for b in bars if scale.plane == inputs.PLANE and (reference or b.kind != "seconds")),
        limit,
        read_bytes * getattr(reading, "factor", 1.0) / per,
        note or scale.note,
        [name for name in others if name in seconds],
        clock,
    )


# --- soft votes ----------------------------------------------------------------------------------------------


def soft_votes(scale: Scale) -> Rows:
    for noisy in (False, True):
        arrays = inputs.bone_logits(scale.members, scale.classes, scale.grid, noisy=noisy)
        label = f"{', noisy logits' if noisy else ''}: {scale.members} × {scale.classes} × {scale.grid}² fp16"
        plane = (scale.plane, scale.plane)
        for upsample in ("scores", "logits"):
            ensemble = memory_ensemble(arrays, scale.plane, upsample)
            reads = {"scores": 2.0, "logits": 3.0} if noisy else {"scores": 1.6, "logits": 2.0}
            yield soft_vote(scale, ensemble, ["x"], upsample, plane, f"{label} → CSV rows at {scale.plane}²", reads)
    arrays = inputs.soft_logits(scale.members, scale.classes, scale.grid // 2)
    label = f", unsure members: {scale.members} × {scale.classes} × {scale.grid // 2}² fp16"
    truth = [ek.encode(mask) for mask in inputs.bone_masks(scale.classes, scale.plane)]
    for upsample in ("scores", "logits"):
        ensemble = memory_ensemble(arrays, scale.plane, upsample)
        yield soft_vote(scale, ensemble, ["x"], upsample, plane, f"{label} → CSV rows at {scale.plane}²", None)
        yield soft_counts(scale, ensemble, truth, f"upsample={upsample!r}{label} → counts at {scale.plane}²")


def soft_counts(scale: Scale, ensemble: Inputs, truth: Sequence[ek.Runs], label: str) -> Row | None:
    """Measure counting the pixels of one sample by level, in the band that tuning begins with."""
    bands = dict.fromkeys(range(len(ensemble.classes)), BAND)

    def ours() -> Any:
        return open_sample(ensemble, "x").counts(bands, truth)

    found = ours()
    begun = [k for k in range(len(bands)) if found.offsets[k] < found.offsets[k + 1]]
    undecided = sum(int(found.pred[found.offsets[k]]) - int(found.above[k]) for k in begun)
    share = undecided / (len(bands) * scale.plane**2)
    return measured(
        scale, f"one pixel by level, {label}, {share:.0%} of pixels undecided", ours, {}, "a pixel",
        (Bar("seconds", 4e-9),), LIMITS["soft"], read=[m.read("x") for m in ensemble.members], per=undecided,
    )  # fmt: skip


def soft_vote(
    scale: Scale,
    ensemble: Any,
    samples: Sequence[str],
    upsample: Any,
    plane: tuple[int, int],
    label: str,
    reads: Mapping[str, float] | None = MappingProxyType({"scores": 1.6, "logits": 2.0}),
    compared: int | None = None,
) -> Row | None:
    """Measure fusing, deciding and writing RLE texts of samples, from logits in memory.

    `reads` are the bars in R; None for members that leave so much undecided that reading is the least of it. Rivals do the
    first `compared` samples only, where they would take minutes, and their time is multiplied.
    """
    levels = dict.fromkeys(range(len(ensemble.classes)), 32768)
    places = np.arange(len(levels))[None]

    def ours() -> bytes:
        out = io.BytesIO()
        for sample in samples:
            runs = open_sample(ensemble, sample, upsample).decide(levels)
            submission.write(MaskSet.trusted({sample: plane}, ensemble.classes, runs, places), out, PRESETS["handbone"])
        return out.getvalue()

    text = rivals.rlemasklib_text if rivals.optional("rlemasklib") else rivals.tuned_text
    arrays = [[m.read(s) for m in ensemble.members] for s in samples]
    others: dict[str, Any] = {}
    if scale.rivals:
        few = [rivals.soft_rivals(a, plane, upsample, text) for a in arrays[:compared]]
        part = len(arrays) / len(few)
        others = {n: rivals.scaled(job, part * getattr(job, "factor", 1.0)) for n, job in rivals.together(few).items()}
    times = {"scores": Bar("times", 50, "torch"), "logits": Bar("times", 150, "torch, class by class")}
    bars = (times[upsample], *([Bar("reads", reads[upsample])] if reads else [Bar("times", 25, "NumPy + OpenCV")]))
    return measured(
        scale, f"soft vote, upsample={upsample!r}{label}", ours, others, "a sample", bars, LIMITS["soft"],
        read=[a for own in arrays for a in own], per=len(samples),
    )  # fmt: skip


# --- RLE -----------------------------------------------------------------------------------------------------


def rle(scale: Scale) -> Rows:
    yield from rle_of(scale, inputs.bone_masks(scale.classes, scale.plane))  # enough masks to be cold in every cache


def rle_of(scale: Scale, masks: Sequence[NDArray[np.bool_]]) -> Rows:
    """Measure encoding, parsing and comparing masks (H, W) of one size."""
    count, (H, W) = len(masks), masks[0].shape
    size = f"{H}²" if H == W else f"{H} × {W}"
    others: dict[str, Any] = {
        "NumPy, tuned": rivals.scaled(lambda: [rivals.tuned_text(m) for m in masks[:4]], count / 4),
        "the notebooks' snippet": rivals.scaled(lambda: [rivals.classic_text(m) for m in masks[:2]], count / 2),
    }
    if rivals.optional("rlemasklib"):
        others["rlemasklib + NumPy"] = lambda: [rivals.rlemasklib_text(m) for m in masks]
    yield measured(
        scale, f"RLE text from a byte mask of {size}, memory-cold", lambda: [ek.encode(m).text() for m in masks],
        others, "a mask", [Bar("reads", 1.05)], LIMITS["rle"], read=masks, per=count,
    )  # fmt: skip
    yield from _coco(scale, masks, size)

    runs = [ek.encode(m) for m in masks]
    written = [r.text() for r in runs]
    yield measured(
        scale, "text → runs", lambda: [ek.Runs.parse(t, (H, W)) for t in written],
        {
            "the notebooks' loop, to a mask": lambda: [rivals.notebook_parse(t, (H, W)) for t in written],
            "NumPy, to runs": lambda: [rivals.numpy_parse(t) for t in written],
        },
        "a mask", [Bar("seconds", 5e-6)], LIMITS["call"],
        read=[np.frombuffer(t.encode(), np.uint8) for t in written if t], per=count,
    )  # fmt: skip
    moved = runs[1:] + runs[:1]
    others = {"NumPy": rivals.scaled(lambda: [(a & b).sum() for a, b in pairwise(masks[:3])], count / 2)}
    if rivals.optional("rlemasklib"):
        coded = [rivals.optional("rlemasklib").RLEMask.from_array(m.T) for m in masks]
        others["rlemasklib"] = lambda: [a.iou(b) for a, b in zip(coded, coded[1:] + coded[:1], strict=True)]
    for name in rivals.COCO_LIBRARIES:
        if library := rivals.coco_library(name):
            others[name] = lambda iou=library.iou: [
                iou([a], [b], [0]) for a, b in zip(coco, coco[1:] + coco[:1], strict=True)
            ]
    coco = [r.coco() for r in runs]
    areas = np.array([r.area for r in runs])

    def dice() -> NDArray[np.float64]:
        return 2 * overlaps(runs, moved) / np.maximum(areas + np.roll(areas, -1), 1)

    yield measured(
        scale, "Dice of a pair of runs", dice, others, "a pair", [Bar("seconds", 3e-6), Bar("times", 1, "rlemasklib")],
        LIMITS["call"],
        read=[edge for r in runs for edge in (r.starts, r.ends)], per=count,
    )  # fmt: skip


def _coco(scale: Scale, masks: Sequence[NDArray[np.bool_]], size: str) -> Rows:
    columns = [np.asfortranarray(m).view(np.uint8) for m in masks]
    for order, given, times in (("C", masks, 1.4), ("F", columns, 1.0)):
        few = 4 if order == "C" else len(given)  # C-ordered input costs these libraries a transposition
        part = [m.view(np.uint8) for m in given[:few]]
        others: dict[str, Callable[[], Any]] = {
            name: rivals.scaled(
                lambda encode=library.encode, part=part: [encode(np.asfortranarray(m)) for m in part], len(given) / few
            )
            for name in rivals.COCO_LIBRARIES
            if (library := rivals.coco_library(name))
        }
        if rivals.optional("rlemasklib"):
            make = rivals.optional("rlemasklib").RLEMask.from_array
            others["rlemasklib"] = lambda make=make, given=given: [make(m).to_dict() for m in given]
        yield measured(
            scale, f"COCO RLE of a byte mask of {size}, {order} order",
            lambda given=given: [ek.encode(m).coco() for m in given], others, "a mask", [Bar("times", times)],
            LIMITS["coco"], read=[m.T if order == "F" else m for m in given], per=len(given),
        )  # fmt: skip


# --- rules, hard votes, files --------------------------------------------------------------------------------


def rules(scale: Scale) -> Rows:
    yield from rules_of(scale, inputs.dirty_masks(scale.classes, scale.plane))


def rules_of(scale: Scale, masks: Sequence[NDArray[np.bool_]]) -> Rows:
    """Measure the rules of post-processing on masks (H, W) that are runs already."""
    runs, (H, W) = [ek.encode(m) for m in masks], masks[0].shape
    bars = [Bar("seconds", 15e-6), Bar("times", 1, "rlemasklib")]
    for rule, others in (
        (DropSmall(100), rivals.drop_small(masks, 100)),
        (KeepLargest(), rivals.keep_largest(masks)),
        (FillHoles(), rivals.fill_holes(masks)),
    ):
        yield measured(
            scale, f"{rule} on runs of {H} × {W}", lambda rule=rule: [rule.apply(m) for m in runs], others,
            "a mask", bars, LIMITS["call"], read=[edge for r in runs for edge in (r.starts, r.ends)], per=len(runs),
        )  # fmt: skip


def hard_votes(scale: Scale) -> Rows:
    for members in (3, 5, 9, 15):
        yield hard_vote(scale, inputs.run_edges(members, scale.classes, scale.plane))


def hard_vote(scale: Scale, masks: Sequence[Sequence[NDArray[np.bool_]]]) -> Row | None:
    """Measure a majority of members' masks, which are runs already; `masks[member][class]`."""
    M, C = len(masks), len(masks[0])
    sets = [ek.MaskSet({("x", f"bone {c}"): ek.encode(m) for c, m in enumerate(row)}) for row in masks]
    bar = Bar("times", {3: 1.0, 5: 1.2, 9: 2.0, 15: 2.5}[M], "rlemasklib")
    return measured(
        scale, f"hard vote of {M} members, {C} classes in one call", lambda: ek.hard_vote(sets),
        rivals.hard_rivals(masks) if scale.rivals else {}, "a class", [bar], LIMITS["hard"],
        read=[edge for s in sets for r in s.values() for edge in (r.starts, r.ends)], per=C,
    )  # fmt: skip


def csv_files(scale: Scale) -> Rows:
    rows = 300 if scale.plane == inputs.PLANE else 5
    masks = [ek.encode(m) for m in inputs.bone_masks(scale.classes, scale.plane)]
    whole = ek.MaskSet({(f"image{k:04}.png", f"bone {c}"): m for k in range(rows) for c, m in enumerate(masks)})
    size = (scale.plane, scale.plane)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "out.csv")
        whole.write(path, "handbone")
        megabytes = path.stat().st_size / 1e6
        yield measured(
            scale, f"runs → CSV file of {megabytes:.0f} MB, durable", lambda: whole.write(path, "handbone"),
            {"pandas": rivals.pandas_csv(whole, Path(folder, "pandas.csv"))}, "a file", [Bar("seconds", 0.03)],
            LIMITS["csv"], read=[edge for r in whole.values() for edge in (r.starts, r.ends)],
        )  # fmt: skip
        paths = [Path(folder, f"m{k}.csv") for k in range(5)]
        for p in paths:
            whole.write(p, "handbone")

        def vote() -> None:
            ek.hard_vote([ek.read_masks(p, "handbone", image_size=size) for p in paths]).write(path, "handbone")

        yield measured(
            scale, f"five CSVs of {megabytes:.0f} MB → voted CSV, {len(whole)} rows", vote,
            rivals.csv_votes(paths, size, len(whole)), "a vote", [Bar("seconds", 0.5)], LIMITS["csv"],
            read=[np.fromfile(p, np.uint8) for p in paths],
        )  # fmt: skip


# --- thresholds ----------------------------------------------------------------------------------------------


def thresholds(scale: Scale) -> Rows:
    total = FULL_SAMPLES if scale.plane == inputs.PLANE else 4
    logits = [inputs.bone_logits(1, scale.classes, scale.grid, seed=k)[0] for k in range(scale.samples)]
    for plane, seconds in ((scale.grid, 0.3), (scale.plane, 2.5)):
        with tempfile.TemporaryDirectory() as folder:
            ensemble, truth = _tuning_case(Path(folder), logits, plane, total)
            others: dict[str, Any] = {}
            if scale.rivals:
                from ensemble_kit.kernels import tables

                levels = np.stack([tables.fp16_levels(1.0)[z.view(np.uint16)] for z in logits])
                few = scale.samples if plane == scale.grid else 1
                drawn = np.stack([[truth[s, c].decode() for c in truth.classes] for s in truth.samples[:few]])
                others = rivals.threshold_rivals(levels[:few], drawn, total)
            yield measured(
                scale,
                f"best of all 65,536 thresholds × {scale.classes} classes × {total} samples at {plane}²",
                lambda e=ensemble, t=truth: ek.tune_thresholds(e, t, jobs=1).score,
                others,
                "a search",
                [Bar("seconds", seconds)],
                LIMITS["search"],
                reading=rivals.scaled(reader(logits), total / len(logits)),
                read_bytes=sum(z.nbytes for z in logits),
                note=f"{scale.samples} different samples, each {total // scale.samples} times",
            )
            if plane == scale.grid:
                others = rivals.size_trials(levels[:1], drawn[:1], total) if scale.rivals else {}
                yield size_row(
                    scale, ensemble, truth, others, rivals.scaled(reader(logits), total / len(logits)), logits
                )
                yield analysis(scale, ensemble, truth)


def analysis(scale: Scale, ensemble: ek.Ensemble, truth: ek.MaskSet) -> Row | None:
    """Measure what a tuning does when pixels are counted: certified optima, folds, and intervals by resampling."""
    folds = 5 if scale.plane == inputs.PLANE else 3
    found = statistics_for(ensemble, truth, Measure(), folds, executor=Threads(1))

    def ours() -> float:
        for table in found.tables:
            table.solved.clear()  # what an earlier call found
        return tune_from(found, ensemble, Measure(), folds, executor=Threads(1)).score

    return measured(
        scale,
        f"tuning's analysis of counts: {len(truth.classes)} classes × {len(truth.samples)} samples, {folds} folds",
        ours, {}, "an analysis", [Bar("seconds", 0.5)], LIMITS["analysis"],
        read=[a for t in found.tables for a in (t.levels, t.pred, t.tp) if a.nbytes > 8],
    )  # fmt: skip


def size_row(
    scale: Scale, ensemble: Any, truth: ek.MaskSet, others: Mapping[str, Any], reading: Callable[[], Any],
    logits: Sequence[NDArray[Any]],
) -> Row | None:  # fmt: skip
    """Measure the exact thresholds at 16 sizes of the smallest component."""
    steps = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512]
    bands, C, total = dict.fromkeys(range(len(truth.classes)), BAND), len(truth.classes), len(truth.samples)
    planes = sorted({truth.image_size(name) for name in truth.samples})
    size = " and ".join(f"{H} × {W}" for H, W in planes)
    return measured(
        scale, f"all thresholds × {len(steps)} smallest-component sizes × {C} classes × {total} samples at {size}",
        lambda: sizes.curves(ensemble, truth, bands, steps, Measure(), Threads(1)), others, "a search",
        [Bar("seconds", 3.0)], LIMITS["sizes"], reading=reading, read_bytes=sum(z.nbytes for z in logits),
    )  # fmt: skip


def _tuning_case(folder: Path, logits: list[NDArray[np.float16]], plane: int, total: int) -> tuple[Any, Any]:
    """An ensemble of one member whose logits are kept in memory, and truth that differs from it at boundaries."""
    classes = [f"bone {c}" for c in range(logits[0].shape[0])]
    names = [f"s{k}" for k in range(total)]
    with ek.LogitWriter(folder / "m.zarr", classes=classes, samples=names, grid=(8, 8)) as out:
        for name in names:  # the store names the samples; what is read is kept in memory
            out.write(name, np.full((len(classes), 8, 8), -9, np.float16), image_size=(plane, plane))
    grid = logits[0].shape[1:]
    place = Placement(grid, Box(0, 0, *grid), (plane, plane))

    class Kept(ek.LogitStore):
        def placement(self, sample: str) -> Placement:
            return place

        def read(self, sample: str, out: Any = None) -> NDArray[np.float16]:
            return logits[int(sample[1:]) % len(logits)]

    ensemble = ek.Ensemble([Kept(folder / "m.zarr")], upsample="scores")
    truth = {}
    for k in range(len(logits)):
        fused = ensemble.sample(names[k])
        decided = fused.decide(dict.fromkeys(range(len(classes)), 26000))
        for c, runs in enumerate(decided.masks(fused.image)):
            moved = ek.encode(np.roll(runs.decode(), (k + c) % 3 - 1, axis=1))
            truth.update({(name, classes[c]): moved for name in names[k :: len(logits)]})
    return ensemble, ek.MaskSet({(s, c): truth[s, c] for s in names for c in classes})


def weights(scale: Scale) -> Rows:
    """Measure one trial of member weights with every threshold at its optimum; see trials.py for the case."""
    import trials

    rng, pixels = np.random.default_rng(0), 1165 if scale.plane == inputs.PLANE else 100
    table = trials.drawn(pixels, rng)

    def trial() -> None:
        setting = Setting(tuple(rng.random(trials.MEMBERS)), PROBABILITY, (1.0,) * trials.MEMBERS)
        table.try_setting(setting, Measure(), jobs=1)

    planes, truth = trials.planes(rng)
    yield measured(
        scale,
        f"one trial of member weights, thresholds profiled out: {trials.SAMPLES} samples × {trials.CLASSES} classes × "
        f"{trials.MEMBERS} members",
        trial,
        {
            "NumPy, one vector of thresholds": rivals.scaled(
                lambda: trials.plain(planes, truth, rng.random(trials.MEMBERS)), trials.SAMPLES
            )
        },
        "a trial",
        [Bar("seconds", 0.12)],
        LIMITS["weights"],
        read=[c.values for c in table.classes],
        note=f"{pixels:,} undecided pixels a mask",
    )
