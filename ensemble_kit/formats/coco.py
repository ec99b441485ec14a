"""Masks in COCO's JSON: reads polygons, RLE counts and compressed RLE; writes compressed RLE.

The sample is the image's `file_name`, the class the category's `name`. Annotations of one image and category are
united; an image without an annotation of a category has an empty mask of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ensemble_kit import strict_json
from ensemble_kit.errors import DamagedError, IncompleteError
from ensemble_kit.formats.classes import assemble, order_classes
from ensemble_kit.formats.maskformat import MaskFormat
from ensemble_kit.formats.polygons import fill_coco, points_of
from ensemble_kit.formats.sizes import ImageSizes, declared_size
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.geometry import Shape


def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    """Read a COCO file.

    Raises
    ------
    DamagedError
        Not strict JSON, a doubled id or name, an annotation of an unknown image or category, or one whose shape is
        malformed or of another size than its image.
    """
    value = strict_json.load(path)
    if not isinstance(value, dict):
        raise _damaged(path, "it is not an object with images, annotations and categories")
    images = _by_id(path, value, "images", "file_name")
    categories = _by_id(path, value, "categories", "name")
    names = order_classes((name for name, _ in categories.values()), classes, str(path))
    if not images or not names:
        item = f"{path} has {len(images)} images and {len(names)} categories"
        fix = "pass a file with images and categories"
        raise IncompleteError("samples-missing", "cannot read masks: there are none", item=item, fix=fix)
    shapes = {sample: sizes.of(sample, _declared(path, entry), str(path)) for sample, entry in images.values()}
    masks = {(s, c): Runs.empty(shapes[s]) for s in shapes for c in names}
    for where, entry in _entries(path, value, "annotations"):
        sample, _ = _named(images, entry, "image_id", where)
        name, _ = _named(categories, entry, "category_id", where)
        masks[sample, name] |= _shape(entry.get("segmentation"), shapes[sample], f"{where}, sample {sample!r}")
    return assemble(shapes, names, masks)


def write(masks: MaskSet, out: BinaryIO) -> None:
    """Write a COCO file: one annotation a mask that is not empty, in samples' and classes' order."""
    sizes = enumerate((sample, masks.image_size(sample)) for sample in masks.samples)
    out.write(b'{"images":')
    out.write(_list([{"id": k + 1, "file_name": name, "height": H, "width": W} for k, (name, (H, W)) in sizes]))
    out.write(b',"categories":')
    out.write(_list([{"id": k, "name": name} for k, name in enumerate(masks.classes, 1)]))
    out.write(b',"annotations":[')
    number = 0
    for image_id, sample in enumerate(masks.samples, 1):
        for category_id, name in enumerate(masks.classes, 1):
            if masks[sample, name]:
                number += 1
                entry = _annotation(number, image_id, category_id, masks[sample, name])
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


def _shape(value: Any, size: Shape, where: str) -> Runs:
    if isinstance(value, dict):
        if value.get("size") != list(size):
            raise _damaged(where, f"its RLE has the size {str(value.get('size'))[:40]}, its image {list(size)}")
        try:
            return Runs.from_coco(value)
        except DamagedError as error:
            raise _damaged(where, error.item) from None
    if not isinstance(value, list) or not value:
        raise _damaged(where, "its segmentation is neither polygons nor an RLE")
    runs = Runs.empty(size)
    for polygon in value:
        runs |= fill_coco(points_of(polygon, where, flat=True), size, where)
    return runs


def _entries(path: Path, value: dict[str, Any], table: str) -> list[tuple[str, dict[str, Any]]]:
    entries = value.get(table)
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise _damaged(path, f"it has no list of {table}")
    return [(f"{path}, {table}[{k}]", entry) for k, entry in enumerate(entries)]


def _by_id(path: Path, value: dict[str, Any], table: str, name: str) -> dict[Any, tuple[str, dict[str, Any]]]:
    """Index images or categories by their id; ids and names must be unique."""
    found: dict[Any, tuple[str, dict[str, Any]]] = {}
    names: set[str] = set()
    for where, entry in _entries(path, value, table):
        _check(type(entry.get("id")) in {int, str} and entry["id"] not in found, where, "its id is missing or doubled")
        text = entry.get(name)
        _check(isinstance(text, str) and bool(text) and text not in names, where, f"its {name} is missing or doubled")
        names.add(entry[name])
        found[entry["id"]] = (entry[name], entry)
    return found


def _named(table: dict[Any, tuple[str, Any]], entry: dict[str, Any], key: str, where: str) -> tuple[str, Any]:
    number = entry.get(key)
    if type(number) not in {int, str} or number not in table:
        raise _damaged(where, f"its {key} is {str(number)[:40]!r}, which the file does not list")
    return table[number]


def _declared(path: Path, entry: dict[str, Any]) -> tuple[int, int] | None:
    if "height" not in entry and "width" not in entry:
        return None
    return declared_size(entry.get("height"), entry.get("width"), f"{path}, image {entry['file_name']!r}")


def _check(sound: bool, where: str, why: str) -> None:
    if not sound:
        raise _damaged(where, why)


def _damaged(where: object, why: str) -> DamagedError:
    fix = "write the file again as COCO has it: images, annotations, categories"
    return DamagedError("coco-invalid", "cannot read a COCO file", item=f"{where}: {why}", fix=fix)


FORMAT = MaskFormat(
    "coco",
    read,
    sniff=lambda contents: {"images", "categories"} <= contents.keys,
    write=write,
    suffix=".json",
    is_folder=False,
)
