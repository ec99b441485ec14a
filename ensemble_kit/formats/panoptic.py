"""Masks of COCO's panoptic form: a JSON beside a folder of PNGs whose colours number segments; read only.

A pixel's segment is R + 256 G + 65536 B, its class the segment's category: classes exclude each other, and segments of
one class are united. Segment 0 is void. The folder is called as the JSON without its suffix, or is the JSON's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit import strict_json
from ensemble_kit.errors import IncompleteError
from ensemble_kit.formats.classes import order_classes
from ensemble_kit.formats.cocotables import damaged, declared, entries, is_panoptic, named, tables
from ensemble_kit.formats.filenames import check_inside
from ensemble_kit.formats.maskformat import MaskFormat
from ensemble_kit.formats.png_codec import read_labels
from ensemble_kit.formats.shapes import told
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.masks.labelmaps import LabelMap, classes_of
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.label_table import LabelTable

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None, images: Path | None = None) -> MaskSet:
    """Read a panoptic JSON with its PNGs.

    Parameters
    ----------
    images : the folder of the PNGs, where it is another one.

    Raises
    ------
    DamagedError
        A PNG with a segment that the JSON lacks, or one of another kind than RGB.
    IncompleteError
        An image without an annotation, or an annotation whose PNG is not there.
    """
    value = strict_json.load(path)
    if not isinstance(value, dict):
        raise damaged(path, "it is not an object with images, annotations and categories")
    samples, categories = tables(path, value)
    own = [name for name, _ in categories.values()]
    names = order_classes(own, classes, str(path))
    numbers = {number: k + 1 for k, number in enumerate(categories)}
    maps: dict[str, LabelMap] = {}
    used: set[int] = set()
    for where, entry in entries(path, value, "annotations"):
        sample, image = named(samples, entry, "image_id", where)
        if sample in maps:
            raise damaged(where, f"sample {sample!r} has two annotations")
        file = _png(path, images, entry, where)
        pixels = _segments(file)
        sizes.of(sample, declared(path, image) or pixels.shape, str(path))
        sizes.of(sample, pixels.shape, str(file))
        if declared(path, image) not in {None, pixels.shape}:
            raise damaged(where, f"its image is {declared(path, image)}, and {file} is {pixels.shape}")
        segments = {0: 0} | {_segment(s, where): numbers[_category(s, numbers, where)] for s in _list(entry, where)}
        maps[sample] = LabelMap.of(_classes(pixels, segments, str(file)), str(file))
        used.update(segments.values())
    missing = [name for name, _ in samples.values() if name not in maps]
    if missing or not maps:
        what, item = "cannot read masks: annotations are missing", f"{path}: {len(missing)} of {len(samples)} images"
        raise IncompleteError("samples-missing", what, item=item, fix="export the annotations of all images")
    unused = [name for k, name in enumerate(own, 1) if k not in used]
    table = LabelTable(names, dict(enumerate(own, 1)), frozenset({0}), source="segments by their category")
    masks = MaskSet.trusted(*classes_of(maps, table), exclusive=True)
    masks.rule = "; ".join(filter(None, ["pixels without a segment are void", told({}, unused)]))
    return masks


def _list(entry: dict[str, Any], where: str) -> list[dict[str, Any]]:
    found = entry.get("segments_info")
    if not isinstance(found, list) or not all(isinstance(s, dict) for s in found):
        raise damaged(where, "it has no list of segments_info")
    return found


def _segment(segment: dict[str, Any], where: str) -> int:
    number = segment.get("id")
    if type(number) is not int or not 0 < number < 2**24:
        raise damaged(where, f"a segment's id is {str(number)[:40]!r}, not a number from 1 to {2**24 - 1}")
    return number


def _category(segment: dict[str, Any], numbers: dict[Any, int], where: str) -> Any:
    number = segment.get("category_id")
    if type(number) not in {int, str} or number not in numbers:
        raise damaged(where, f"a segment's category_id is {str(number)[:40]!r}, which the file does not list")
    return number


def _png(path: Path, images: Path | None, entry: dict[str, Any], where: str) -> Path:
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise damaged(where, "its file_name is missing")
    check_inside(name)
    folders = [images] if images is not None else [path.with_suffix(""), path.parent]
    found = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if found is None:
        what, item = "cannot read masks: files are missing", f"{where}: {name!r} is in none of {[*map(str, folders)]}"
        raise IncompleteError("files-missing", what, item=item, fix="pass the folder of the PNGs: --images FOLDER")
    return found


def _segments(file: Path) -> NDArray[np.uint32]:
    pixels, _ = read_labels(file)
    if pixels.ndim != 3:
        raise damaged(file, "it is not RGB, whose colours number segments")
    return pixels.astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)


def _classes(pixels: NDArray[np.uint32], segments: dict[int, int], where: str) -> NDArray[np.uint16]:
    """Turn numbers of segments into numbers of classes; 0 is none."""
    known = np.array(sorted(segments), np.uint32)
    rows = np.minimum(np.searchsorted(known, pixels), known.size - 1)
    if (unknown := pixels[known[rows] != pixels]).size:
        raise damaged(where, f"its segment {int(unknown[0])} is not in segments_info")
    return np.array([segments[number] for number in known.tolist()], np.uint16)[rows]


FORMAT = MaskFormat(
    "coco-panoptic",
    read,
    sniff=lambda contents: contents.keys >= {"images", "categories"} and is_panoptic(contents.value),
    is_folder=False,
    takes=frozenset({"images"}),
)
