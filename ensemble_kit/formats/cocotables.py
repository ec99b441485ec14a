"""The tables of COCO's JSON: images, categories and annotations, by their ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ensemble_kit.errors import DamagedError, UsageError
from ensemble_kit.formats.polygons import fill_coco, points_of
from ensemble_kit.formats.sizes import declared_size
from ensemble_kit.masks.idforms import of_path
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.geometry import Shape

Entry = dict[str, Any]
Table = dict[Any, tuple[str, Entry]]
"""Name and entry by id."""


def tables(path: Path, value: Entry) -> tuple[Table, Table]:
    """Index images and categories by their ids; images are called by their ids as samples.

    Raises
    ------
    DamagedError
        An id or a name is missing or doubled.
    UsageError
        Two paths end in one name.
    """
    images, categories = _by_id(path, value, "images", "file_name"), _by_id(path, value, "categories", "name")
    info = value.get("info")
    if isinstance(info, dict) and info.get("ids") == "verbatim":
        return images, categories
    samples: dict[str, str] = {}
    for name, _ in images.values():
        if (first := samples.setdefault(of_path(name), name)) != name:
            item = f"{path}: {first!r} and {name!r} are both {of_path(name)!r} without their folders"
            fix = "write file_name as paths with / below one folder, such as 'left/a.png' and 'right/a.png'"
            raise UsageError("id-clash", "cannot tell samples apart by id", item=item, fix=fix)
    return {number: (of_path(name), entry) for number, (name, entry) in images.items()}, categories


def without_namesakes(path: Path, value: Entry) -> tuple[Entry, list[str]]:
    """Leave out categories that no annotation uses and whose name another has; return what is left, and their names.

    Roboflow writes a category 0 of no object, which has the project's name: often that of a class.
    """
    used = {str(entry.get("category_id")) for _, entry in entries(path, value, "annotations")}
    listed = [entry for _, entry in entries(path, value, "categories")]
    drawn = [entry.get("name") for entry in listed if str(entry.get("id")) in used]
    left = [entry for entry in listed if str(entry.get("id")) in used or entry.get("name") not in drawn]
    return value | {"categories": left}, [str(entry.get("name")) for entry in listed if entry not in left]


def entries(path: Path, value: Entry, table: str) -> list[tuple[str, Entry]]:
    """List the entries of a table, each with where it stands."""
    found = value.get(table)
    if not isinstance(found, list) or not all(isinstance(e, dict) for e in found):
        raise damaged(path, f"it has no list of {table}")
    return [(f"{path}, {table}[{k}]", entry) for k, entry in enumerate(found)]


def _by_id(path: Path, value: Entry, table: str, name: str) -> Table:
    found: Table = {}
    names: set[str] = set()
    for where, entry in entries(path, value, table):
        check(type(entry.get("id")) in {int, str} and entry["id"] not in found, where, "its id is missing or doubled")
        text = entry.get(name)
        check(isinstance(text, str) and bool(text) and text not in names, where, f"its {name} is missing or doubled")
        names.add(entry[name])
        found[entry["id"]] = (entry[name], entry)
    return found


def named(table: Table, entry: Entry, key: str, where: str) -> tuple[str, Entry]:
    """Return what an entry refers to."""
    number = entry.get(key)
    if type(number) not in {int, str} or number not in table:
        raise damaged(where, f"its {key} is {str(number)[:40]!r}, which the file does not list")
    return table[number]


def declared(path: Path, entry: Entry) -> tuple[int, int] | None:
    """Return the size that an image declares; None where it declares none."""
    if "height" not in entry and "width" not in entry:
        return None
    return declared_size(entry.get("height"), entry.get("width"), f"{path}, image {entry['file_name']!r}")


def is_panoptic(value: Any) -> bool:
    """Tell whether annotations list segments of PNGs in place of segmentations."""
    found = value.get("annotations") if isinstance(value, dict) else None
    return isinstance(found, list) and bool(found) and isinstance(found[0], dict) and "segments_info" in found[0]


def segmentation(value: Any, size: Shape, where: str, skip: bool = False) -> Runs:
    """Read a segmentation: polygons, RLE counts or compressed RLE, of an image of this size.

    Parameters
    ----------
    skip : whether parts of fewer than three points, which cover nothing, are left out; otherwise they are refused.
    """
    if isinstance(value, dict):
        if value.get("size") != list(size):
            raise damaged(where, f"its RLE has the size {str(value.get('size'))[:40]}, its image {list(size)}")
        try:
            return Runs.from_coco(value)
        except DamagedError as error:
            raise damaged(where, error.item) from None
    if not isinstance(value, list) or not value:
        raise damaged(where, "its segmentation is neither polygons nor an RLE")
    runs = Runs.empty(size)
    for polygon in (p for p in value if not (skip and _is_degenerate(p))):
        runs |= fill_coco(points_of(polygon, where, flat=True), size, where)
    return runs


def are_shares(value: Any) -> bool:
    """Tell whether all coordinates of polygons are from 0 to 1, as YOLO has them; one pixel at most would be drawn."""
    numbers = [number for polygon in value for number in polygon] if isinstance(value, list) else []
    return all(0 <= number <= 1 for number in numbers) and any(0 < number < 1 for number in numbers)


def is_empty(entry: Entry, degenerate: bool = False) -> bool:
    """Tell whether an annotation has no segmentation: none at all, or a list without a point.

    Parameters
    ----------
    degenerate : whether polygons of fewer than three points are none either.
    """
    value = entry.get("segmentation")
    none = isinstance(value, list) and all(part == [] or (degenerate and _is_degenerate(part)) for part in value)
    return value is None or none


def _is_degenerate(polygon: Any) -> bool:
    return isinstance(polygon, list) and len(polygon) < 6 and all(type(v) in {int, float} for v in polygon)


def empty(entry: Entry, where: str) -> DamagedError:
    """Make the error of an annotation without a segmentation."""
    has = "a bounding box and no segmentation" if entry.get("bbox") else "no segmentation"
    fix = "pass --skip-empty to leave such annotations out (skip_empty=True), or delete them"
    what = "cannot read an annotation without a mask"
    return DamagedError("annotation-empty", what, item=f"{where}: it has {has}", fix=fix)


def number_of(entry: Entry) -> str:
    """Say an annotation's id, where it has one."""
    return f", id {str(entry['id'])[:40]}" if "id" in entry else ""


def check(sound: bool, where: object, why: str) -> None:
    """Refuse a file where something does not hold."""
    if not sound:
        raise damaged(where, why)


def damaged(where: object, why: str) -> DamagedError:
    """Make the error of a file that is not as COCO has it."""
    fix = "write the file again as COCO has it: images, annotations, categories"
    return DamagedError("coco-invalid", "cannot read a COCO file", item=f"{where}: {why}", fix=fix)
