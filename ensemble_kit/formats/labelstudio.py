"""Masks of Label Studio's JSON export: brush strokes in its own RLE, and polygons; read only.

The sample is the image's file name: the last part of its path or URL, without the eight digits and the dash that Label
Studio puts before the names of uploaded files. Polygons are filled as pycocotools does, which its exports to COCO use.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from ensemble_kit import strict_json
from ensemble_kit.errors import DamagedError, IncompleteError, UsageError
from ensemble_kit.formats.brush import opacity
from ensemble_kit.formats.classes import assemble, order_classes
from ensemble_kit.formats.maskformat import Contents, MaskFormat
from ensemble_kit.formats.polygons import fill_coco, points_of
from ensemble_kit.formats.shapes import Labelled, together, told
from ensemble_kit.formats.sizes import ImageSizes, check_bitmap, declared_size
from ensemble_kit.masks.idforms import in_form, last_part
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs, encode
from ensemble_kit.spec.geometry import Shape

_KINDS = ("brush", "polygon", "rectangle", "ellipse", "keypoint", "vector")
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")


def read(
    path: Path, sizes: ImageSizes, classes: Sequence[str] | None, skip_empty: bool = False, paint: bool = False
) -> MaskSet:
    """Read an export; `.rule` says what was left out.

    Parameters
    ----------
    skip_empty : whether rectangles, ellipses and points, which are not masks, are left out.
    paint : whether later regions are drawn over earlier ones.

    Raises
    ------
    UsageError
        A task has annotations of several people.
    DamagedError
        Not an export, or a region that is not whole, turned or no mask.
    """
    tasks = strict_json.load(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise _damaged(path, "it is not a list of tasks")
    said: Counter[str] = Counter()
    found: dict[str, tuple[Shape, dict[str, Runs]]] = {}
    for k, task in enumerate(tasks):
        where = f"{path}, task {str(task.get('id', k))[:40]}"
        sample = _sample(task, where)
        if sample in found:
            raise _damaged(where, f"its image is called {sample!r}, as another task's is")
        size: Shape | None = None
        drawn = []
        for region, label, own in _regions(task, where):
            size = _size(region, size, own)
            kind, value = _kind(region), region["value"]
            if kind == "brush":
                drawn.append(Labelled(label, _brush(value, size, own)))
            elif kind == "polygon":
                points = points_of(value.get("points"), own, flat=False) * np.array(size[::-1]) / 100
                drawn.append(Labelled(label, fill_coco(points, size, own)))
            elif skip_empty:
                said[f"regions of the kind {kind} left out"] += 1
            else:
                what, fix = (
                    "cannot read an annotation without a mask",
                    "pass --skip-empty to leave it out (skip_empty=True)",
                )
                raise DamagedError("annotation-empty", what, item=f"{own}: it is a {kind}", fix=fix)
        size = sizes.of(sample, size, where)
        found[sample] = size, together(drawn, size, paint)
    used = dict.fromkeys(label for _, masks in found.values() for label in masks)
    if classes is None and not used:
        what, fix = "cannot read masks: no region names a class", "pass --classes FILE (classes=[…])"
        raise IncompleteError("classes-missing", what, item=str(path), fix=fix)
    names = order_classes(used, classes, str(path), complete=False)
    masks = {(s, c): own.get(c) or Runs.empty(size) for s, (size, own) in found.items() for c in names}
    return assemble(found, names, masks, told(said))


def _sample(task: dict[str, Any], where: str) -> str:
    data = task.get("data")
    texts = {key: v for key, v in data.items() if isinstance(v, str)} if isinstance(data, dict) else {}
    named = [v for v in texts.values() if in_form(_path_in(v), "name") != in_form(_path_in(v), "stem")]  # has a suffix
    some = [texts["image"]] if "image" in texts else named or list(texts.values())
    inside = _path_in(some[0]) if len(some) == 1 else ""
    name = last_part(inside)
    if not name:
        raise _damaged(where, "its data does not name one image")
    return _UPLOADED.sub("", name, count=1) if "/upload/" in inside else name


def _path_in(text: str) -> str:
    """Take the path out of a URL, or of one of Label Studio's own."""
    try:
        url = urlsplit(text)
    except ValueError:
        return text
    if not (url.scheme and url.netloc) and not text.startswith("/data/"):
        return text
    return parse_qs(url.query).get("d", [unquote(url.path)])[0]


def _regions(task: dict[str, Any], where: str) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Yield each region that has a shape, once for each of its labels, with where it stands."""
    given = task.get("annotations")
    if not isinstance(given, list) or not all(isinstance(a, dict) for a in given):
        raise _damaged(where, "it has no list of annotations")
    kept = [a for a in given if not a.get("was_cancelled")]
    if len(kept) > 1:
        item, fix = f"{where} has {len(kept)}", "keep one annotation of each task in Label Studio, and export again"
        raise UsageError("annotations-several", "cannot choose between annotations of one task", item=item, fix=fix)
    results = kept[0].get("result") if kept else []
    if not isinstance(results, list) or not all(isinstance(r, dict) for r in results):
        raise _damaged(where, "its annotation has no list of results")
    named = {
        r.get("id"): _labels(r, "labels") for r in results if r.get("type") == "labels" and type(r.get("id")) is str
    }
    for k, region in enumerate(results):
        own = f"{where}, region {str(region.get('id', k))[:40]}"
        if _kind(region) is None:
            continue
        if not isinstance(region.get("value"), dict):
            raise _damaged(own, "it has no value")
        labels = _labels(region, str(region["type"])) or named.get(region.get("id"), [])
        if not labels:
            raise _damaged(own, "it has no label")
        for label in labels:
            yield region, label, own


def _kind(region: dict[str, Any]) -> str | None:
    """Return the kind of a region's shape; None of what has none, such as a choice or a text."""
    kind = str(region.get("type")).removesuffix("labels")
    return kind if kind in _KINDS else None


def _labels(region: dict[str, Any], kind: str) -> list[str]:
    value = region.get("value")
    found = value.get(kind) if isinstance(value, dict) else None
    return [v for v in found if isinstance(v, str) and v] if isinstance(found, list) else []


def _size(region: dict[str, Any], known: Shape | None, where: str) -> Shape:
    size = declared_size(region.get("original_height"), region.get("original_width"), where)
    if region.get("image_rotation", 0) != 0 or region.get("item_index") is not None:
        raise _damaged(where, "its image is turned, or one of several of its task")
    if known is not None and size != known:
        raise _damaged(where, f"its image is {size}, and {known} in another region")
    return size


def _brush(value: dict[str, Any], size: Shape, where: str) -> Runs:
    """Decode a brush: four bytes a pixel, of which the last, the opacity, is above 0 where the brush was."""
    if value.get("format") != "rle":
        raise _damaged(where, "its brush is not in the format rle")
    try:
        return encode(opacity(value.get("rle"), check_bitmap(size, where)) > 0)
    except ValueError as error:
        raise _damaged(where, str(error)) from None


def _damaged(where: object, why: str) -> DamagedError:
    fix = "export the project again as JSON (not JSON-MIN)"
    return DamagedError(
        "label-studio-invalid", "cannot read an export of Label Studio", item=f"{where}: {why}", fix=fix
    )


def _sniff(contents: Contents) -> bool:
    return contents.item_keys >= {"data", "annotations"}


FORMAT = MaskFormat("label-studio", read, sniff=_sniff, is_folder=False, takes=frozenset({"skip_empty", "paint"}))
