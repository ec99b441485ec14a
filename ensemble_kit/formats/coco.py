"""Masks in COCO's JSON: reads polygons, RLE counts and compressed RLE; writes compressed RLE.

The sample is the image's `file_name` (its last part, where it is a path of another machine), the class the category's
`name`. Annotations of one image and category are united; an image without an annotation of a category has an empty mask
of it. A list of results (detectron2, mmdetection) is read with the annotation file that lists its images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ensemble_kit import strict_json
from ensemble_kit.errors import DamagedError, IncompleteError, UsageError, check_number
from ensemble_kit.formats.classes import assemble, order_classes
from ensemble_kit.formats.cocotables import (
    are_shares,
    check,
    damaged,
    declared,
    empty,
    entries,
    is_empty,
    is_panoptic,
    named,
    number_of,
    segmentation,
    tables,
    without_namesakes,
)
from ensemble_kit.formats.maskformat import Contents, MaskFormat, always
from ensemble_kit.formats.shapes import NO_PIXEL, told
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.masks.idforms import of_path
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.stream import Masks, by_sample

_RESULT = {"image_id", "category_id", "score"}


def read(
    path: Path,
    sizes: ImageSizes,
    classes: Sequence[str] | None,
    images: Path | None = None,
    score: float | None = None,
    skip_empty: bool = False,
) -> MaskSet:
    """Read a COCO file, or a list of results; `.rule` says what was left out and which categories nothing uses.

    Parameters
    ----------
    images : the COCO file that lists the images and categories of the results.
    score : the least score of a result that is read.
    skip_empty : whether annotations without a segmentation are left out.

    Raises
    ------
    UsageError
        A list of results without `images` or `score`, or a COCO file with one of them.
    DamagedError
        Not strict JSON, a doubled id or name, an annotation of an unknown image or category, or one whose shape is
        missing, malformed or of another size than its image.
    """
    value = strict_json.load(path)
    results = isinstance(value, list)
    if results or images is not None or score is not None:
        value = _with_tables(path, value, images, score)
    if not isinstance(value, dict):
        raise damaged(path, "it is not an object with images, annotations and categories")
    listing = path if images is None else images
    value, namesakes = without_namesakes(listing, value)
    samples, categories = tables(listing, value)
    own = order_classes((name for name, _ in categories.values()), classes, str(listing))
    if not samples or not own:
        item = f"{listing} has {len(samples)} images and {len(categories)} categories"
        fix = "pass a file with images and categories"
        raise IncompleteError("samples-missing", "cannot read masks: there are none", item=item, fix=fix)
    shapes = {s: sizes.of(s, declared(listing, entry), str(listing)) for s, entry in samples.values()}
    blank = {s: Runs.empty(size) for s, size in shapes.items()}  # one for all classes: there may be 80 of 5,000 images
    masks = {(s, c): blank[s] for s in shapes for c in own}
    said = Counter(f"category without annotations left out, as another is {name!r} too" for name in namesakes)
    used, shares = set(), Counter[bool]()
    for where, entry in entries(path, value, "annotations"):
        sample, _ = named(samples, entry, "image_id", where)
        name, _ = named(categories, entry, "category_id", where)
        where = f"{where}, sample {sample!r}{number_of(entry)}"  # noqa: PLW2901 - the same place, in full
        if results and not _score(entry, where) >= (score or 0):
            said[f"results below the score {score:g} left out"] += 1
        elif is_empty(entry, degenerate=skip_empty):
            if not skip_empty:
                raise empty(entry, where)
            said["annotations without a segmentation left out"] += 1
        else:
            drawn = segmentation(entry["segmentation"], shapes[sample], where, skip_empty)
            said[NO_PIXEL] += not drawn
            shares[are_shares(entry["segmentation"])] += 1
            masks[sample, name] |= drawn
            used.add(name)
            if entry.get("iscrowd"):
                said["crowds (iscrowd) that count as their class"] += 1
    if shares[True] and not shares[False]:
        what, item = "cannot read polygons", f"{path}: all coordinates of its {shares[True]} polygons are from 0 to 1"
        fix = "multiply x by the width and y by the height of each image: COCO has pixels, not shares"
        raise DamagedError("coco-invalid", what, item=item, fix=fix)
    return assemble(shapes, own, masks, told(+said, [name for name in own if name not in used]))


def _with_tables(path: Path, value: Any, images: Path | None, score: float | None) -> Any:
    """Give a list of results the images and categories of the file that it belongs to."""
    what = "cannot read a list of results"
    if not isinstance(value, list):
        item = f"{path} is not a list of results: it has its own images"
        fix = "leave --images and --score out (images=, score=)"
        raise UsageError("option-idle", "cannot use options of results", item=item, fix=fix)
    if not all(isinstance(entry, dict) for entry in value) or (images is None and not value):
        raise damaged(path, "it is not an object with images, annotations and categories, nor a list of results")
    if images is None:
        fix = "pass --images FILE, the COCO file that the results were made on (images=FILE)"
        raise UsageError("images-needed", what, item=f"{path} names neither images nor categories", fix=fix)
    if score is None:
        found = sorted(_score(entry, f"{path}, result {k}") for k, entry in enumerate(value))
        item = f"{path} has {len(found)} results" + (
            f" with scores from {found[0]:g} to {found[-1]:g}" if found else ""
        )
        fix = "pass --score P, the least score of a result that counts (score=P); 0 takes all"
        raise UsageError("score-needed", what, item=item, fix=fix)
    check_number("--score", score, "pass a number from 0 to 1", least=0, most=1)
    highest = max((_score(entry, f"{path}, result {k}") for k, entry in enumerate(value)), default=0.0)
    if score and highest > 1:
        item = f"{path} has scores up to {highest:g}, and --score is from 0 to 1"
        fix = "write scores from 0 to 1, or pass --score 0 to take all (score=0)"
        raise UsageError("score-range", what, item=item, fix=fix)
    listing = strict_json.load(images)
    if not isinstance(listing, dict):
        raise damaged(images, "it is not an object with images and categories")
    return {"images": listing.get("images"), "categories": listing.get("categories"), "annotations": value}


def _score(entry: dict[str, Any], where: str) -> float:
    value = entry.get("score")
    check(type(value) in {int, float}, where, f"its score is {str(value)[:40]!r}, which is not a number")
    return float(value)  # type: ignore[arg-type]


def write(masks: Masks, out: BinaryIO) -> None:
    """Write a COCO file: one annotation a mask that is not empty, in samples' and classes' order.

    `info` says so where an id looks like the path of another machine, which would be read as its last part.
    """
    sizes = enumerate((sample, masks.image_size(sample)) for sample in masks.samples)
    odd = any(of_path(sample) != sample for sample in masks.samples)
    out.write(b'{"info":{"ids":"verbatim"},"images":' if odd else b'{"images":')
    out.write(_list([{"id": k + 1, "file_name": name, "height": H, "width": W} for k, (name, (H, W)) in sizes]))
    out.write(b',"categories":')
    out.write(_list([{"id": k, "name": name} for k, name in enumerate(masks.classes, 1)]))
    out.write(b',"annotations":[')
    number = 0
    for image_id, (piece, sample) in enumerate(by_sample(masks), 1):
        for category_id, name in enumerate(masks.classes, 1):
            if runs := piece[sample, name]:
                number += 1
                entry = _annotation(number, image_id, category_id, runs)
                out.write((b",\n" if number > 1 else b"\n") + strict_json.dump(entry)[:-1])
    out.write(b"\n]}\n")


def _list(entries: list[dict[str, Any]]) -> bytes:
    return b"[\n" + b",\n".join(strict_json.dump(e)[:-1] for e in entries) + b"\n]"


def _annotation(number: int, image_id: int, category_id: int, runs: Runs) -> dict[str, Any]:
    rle = runs.coco()
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "iscrowd": 0,
        "area": runs.area,
        "bbox": _bbox(runs),
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
    }


def _bbox(runs: Runs) -> list[int]:
    """The box of a mask that is not empty: x, y, width, height."""
    H, W = runs.shape
    y0, y1 = int(runs.starts[0]) // W, (int(runs.ends[-1]) - 1) // W + 1
    columns = runs.transposed()
    x0, x1 = int(columns.starts[0]) // H, (int(columns.ends[-1]) - 1) // H + 1
    return [x0, y0, x1 - x0, y1 - y0]


def _sniff(contents: Contents) -> bool:
    if contents.item_keys >= _RESULT or (contents.item_keys >= {"image_id", "category_id", "segmentation"}):
        return True
    return {"images", "categories"} <= contents.keys and not is_panoptic(contents.value)


FORMAT = MaskFormat(
    "coco",
    read,
    sniff=_sniff,
    write=write,
    in_pieces=always,
    suffix=".json",
    is_folder=False,
    takes=frozenset({"images", "score", "skip_empty"}),
)
