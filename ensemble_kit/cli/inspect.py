"""`ensk inspect`: what a store, a threshold set or a mask file holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble_kit.cli.annotation_options import ImagesOption, ScoreOption, SkipEmptyOption, read_annotations
from ensemble_kit.cli.common import Common
from ensemble_kit.cli.inspect_folds import inspect_folds
from ensemble_kit.cli.label_options import FirstValueOption, LabelsOption, VoidOption, label_maps
from ensemble_kit.cli.options import (
    ClassesOption,
    ImageSizeOption,
    ReadCsvOption,
    ReadFormatOption,
    class_names,
    csv_format,
    refuse_idle,
    size_of_images,
)
from ensemble_kit.errors import UsageError

if TYPE_CHECKING:
    from ensemble_kit.cli.plain import Shown
    from ensemble_kit.formats.label_meaning import LabelMaps
    from ensemble_kit.formats.maskformat import Annotations
    from ensemble_kit.formats.registry import Format

    Found = tuple[dict[str, Any], list[Shown]]
    """Values for --json, and what is shown of them."""


def inspect(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="A logit store, a threshold set or a mask file; or two threshold sets; or stores, [NAME=]STORE, whose "
            "folds are shown for each name.",
            metavar="PATH [PATH]",
        ),
    ],
    common: Common,
    format: ReadFormatOption = None,  # noqa: A002 - the option's name
    csv: ReadCsvOption = None,
    image_size: ImageSizeOption = None,
    classes: ClassesOption = None,
    labels: LabelsOption = None,
    first_value: FirstValueOption = None,
    void: VoidOption = None,
    images: ImagesOption = None,
    score: ScoreOption = None,
    skip_empty: SkipEmptyOption = False,
    speed: Annotated[
        bool,
        typer.Option(
            "--speed",
            help="Of a store: read up to three samples, and tell the share of undecided cells, and the seconds that a "
            "vote and a tuning of all samples take, measured on these.",
        ),
    ] = False,
) -> None:
    """Show what a store, a threshold set or a mask file holds; of two sets, how they differ; of stores, their folds."""
    from ensemble_kit.logits.open import is_store
    from ensemble_kit.recipes import memory
    from ensemble_kit.recipes.members import members_of, paths_of
    from ensemble_kit.remote.copies import local

    options = read_annotations(images, score, skip_empty)
    members = members_of(paths)
    paths = paths_of(members)
    if len(paths) == 1 and not is_store(paths[0]):
        paths = [local(paths[0])]
    path = paths[0]
    masks = not is_store(path) and path.suffix != ".json"
    needed = memory.of_reading if masks else lambda p: memory.of_store(p[0])
    memory.check(common.memory, needed(paths), "inspect")
    folds = is_store(path) and (len(paths) > 1 or members[0].name is not None)
    if speed and (folds or not is_store(path)):
        refuse_idle("on sets, mask files and folds", "pass one store", speed=speed)
    if folds:
        values, shown = inspect_folds(members)
    elif len(paths) > 1:
        values, shown = _two_sets(paths)
    elif is_store(path):
        values, shown = _store(path, speed)
    elif path.suffix == ".json" and _is_set(path):
        values, shown = _set(path)
    else:
        how = _format(path, csv_format(format, csv), label_maps(labels, first_value, void), options)
        values, shown = _masks(path, how, size_of_images(image_size), class_names(classes))
    common.answer(values, *shown)


def _store(path: Path, speed: bool) -> Found:
    from ensemble_kit.logits.store import LogitStore
    from ensemble_kit.spec.affine import Geometry
    from ensemble_kit.spec.georeference import GeoReference

    store = LogitStore(path)
    missing = set(store.missing)
    held = [s for s in store.samples if s not in missing]
    values = {
        "kind": "logit store",
        "member": store.member,
        "activation": store.activation,
        "classes": list(store.classes),
        "grid": list(store.grid) if store.grid else _between([store.placement(s).grid for s in held]),
        "rank": store.rank,
        "samples": len(store.samples),
        "committed": len(held),
        "codec": store.codec + ("" if store.clamp is None else f", limited to ±{store.clamp:g}"),
        "bytes": store.stored_bytes,
        "saturated values": sum(map(store.saturated, held)),
        "image sizes": sorted("x".join(map(str, size)) for size in set(map(store.image_size, held))),
        "fingerprint": store.fingerprint,
    }
    if tiled := [len(m.boxes) for m in map(store.mosaic, held) if m is not None]:
        values["tiles"] = f"{_between([(n,) for n in tiled])}, of {len(tiled)} scenes, blended in the vote"
    if bare := [v for v in map(store.void, held) if v is not None]:
        values["no data"] = f"{sum(int((v.ends - v.starts).sum()) for v in bare)} pixels of {len(bare)} scenes"
    if scenes := [g for g in map(store.geometry, held) if isinstance(g, GeoReference)]:
        values["georeferences"] = sorted({g.as_text() for g in scenes})[:3]
    if store.rank == 3:
        known = [g for g in map(store.geometry, held) if isinstance(g, Geometry)]
        values["spacing"] = (
            f"{_between([g.spacing for g in known])} mm, of {len(known)} volumes" if known else "not known"
        )
        values["orientation"] = sorted({g.orientation for g in known})
    windows = sum(store.placement(s).window is not None for s in held)
    if windows:
        values["samples with a window"] = windows
    if "paint" in store.provenance:
        values["label maps"] = f"--paint {store.provenance['paint']}"
    if speed:
        from ensemble_kit.recipes.regime import regime

        values |= regime(store)
    return {**values, "provenance": store.provenance}, [values]


def _between(shapes: Sequence[Sequence[float]]) -> str:
    """Say between which values sizes lie, axis by axis."""
    ends = [(min(axis), max(axis)) for axis in zip(*shapes, strict=True)]
    return " x ".join(f"{a:g}" if a == b else f"{a:g} to {b:g}" for a, b in ends) if ends else "not known"


def _is_set(path: Path) -> bool:
    with path.open("rb") as file:
        return b'"ensk.thresholds/' in file.read(1 << 20)


def _set(path: Path) -> Found:
    from ensemble_kit.decisions.recorded import recorded
    from ensemble_kit.reports.report import Report
    from ensemble_kit.thresholds.guarantee import LIMITS
    from ensemble_kit.thresholds.thresholdset import ThresholdSet

    tuned = ThresholdSet.load(path)
    if tuned.factors:
        columns = ["class", "factor", "score", "at 1", "positives"]
        rows = [
            [c.name, f"{c.factor / 65536:.4g}", _score(c.score), _score(c.score_at_one), f"{c.positives}/{c.samples}"]
            for c in tuned.factors
        ]
    else:
        columns = ["class", "level", "threshold", "score", "at 0.5", "positives"]
        rows = [
            [
                c.name,
                str(c.level),
                f"{tuned.thresholds[c.name]:.4f}",
                _score(c.score),
                _score(c.score_at_half),
                f"{c.positives}/{c.samples}",
            ]
            for c in tuned.classes
        ]
    f, m = tuned.fusion, tuned.measure
    plain = "all factors 1" if tuned.factors else "0.5"
    legend = (
        f"Score: {m.legend}; {m.counted}, in-sample. At {columns[-2].removeprefix('at ')}: the same with {plain}. "
        "Positives: validation samples whose truth has the class."
    )
    head = {
        "kind": "threshold set",
        "members": [f"{m.name} ({len(m.folds)} folds)" if m.folds else m.name for m in tuned.members],
        "mean": f.mean,
        "upsample": f.upsample,
        "decision": recorded(tuned).told(),
        "objective": str(tuned.measure),
        "validation samples": tuned.validation.n,
        "score, in-sample": f"{tuned.score:.6f}",
        "created": tuned.created,
    }
    if tuned.member_classes != "same":
        head["classes of members"] = tuned.member_classes
    if tuned.rules:
        head["rules"] = ", then ".join(tuned.rules)
    if tuned.guarantee is not None:
        head |= {"guaranteed": str(tuned.guarantee), "limits": LIMITS}
    return {"kind": "threshold set", "legend": legend, **tuned.to_dict()}, [head, Report("", columns, rows, legend)]


def _score(value: float) -> str:
    """Write a score; that of a class which is not scored is NaN."""
    return "–" if math.isnan(value) else f"{value:.4f}"


def _two_sets(paths: list[Path]) -> Found:
    from ensemble_kit.thresholds.comparison import SetComparison
    from ensemble_kit.thresholds.finding import find
    from ensemble_kit.thresholds.thresholdset import ThresholdSet

    if len(paths) > 2:
        raise UsageError(
            "paths-count",
            "cannot inspect these together",
            item=f"{len(paths)} paths",
            fix="pass one path, or two threshold sets to compare",
        )
    compared = SetComparison(*(ThresholdSet.load(find(str(p))) for p in paths))
    return compared.to_dict(), [{"A": paths[0], "B": paths[1]}, compared.report()]


def _format(path: Path, given: Format | None, maps: LabelMaps, options: Annotations) -> Format | None:
    from ensemble_kit.recipes.masks import annotated, formats_for

    (how,) = annotated([path], formats_for([path], [given], maps), options)
    return how


def _masks(path: Path, how: Format | None, image_size: Any, classes: Any) -> Found:
    import numpy as np

    from ensemble_kit.formats.reading import read_masks
    from ensemble_kit.reports.report import Report

    masks = read_masks(path, format=how, image_size=image_size, classes=classes)
    indices = masks.indices(masks.samples, masks.classes)
    areas, runs = masks.packed.areas()[indices], np.diff(masks.packed.offsets)[indices]
    sums = zip(masks.classes, (areas > 0).sum(0), areas.sum(0), runs.sum(0), strict=True)
    rows = [[name, *map(str, numbers)] for name, *numbers in sums]
    values = {
        "kind": "masks",
        "samples": len(masks.samples),
        "classes": list(masks.classes),
        "image sizes": sorted("x".join(map(str, size)) for size in set(map(masks.image_size, masks.samples))),
    }
    if spacings := {own.as_text().rpartition(", first")[0] for own in masks.extent.geometry.values()}:
        values["voxels"] = sorted(spacings)
    if masks.rule is not None:
        values["read as"] = masks.rule
    values["exclusive"] = masks.exclusive
    if masks.has_void:
        values["void pixels"] = sum(masks.void(s).area for s in masks.samples)
    per_class = {r[0]: {"not empty": int(r[1]), "pixels": int(r[2]), "runs": int(r[3])} for r in rows}
    legend = "Not empty: samples that have the class. Pixels, runs: of all samples, void included where a class has it."
    table = Report("", ["class", "not empty", "pixels", "runs"], rows, legend)
    return {**values, "legend": legend, "per_class": per_class}, [values, table]
