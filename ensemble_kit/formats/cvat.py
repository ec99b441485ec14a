"""Masks in CVAT's XML ("CVAT for images 1.1"): polygons and masks, read only.

Polygons are filled as pycocotools does, which CVAT's own exports of masks use. A mask's RLE are counts of pixels, off
and on in turn, along the rows of its box. Labels are those of the task's description, whether drawn or not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

import numpy as np

from ensemble_kit.errors import DamagedError, IncompleteError, UnsafeError, UsageError
from ensemble_kit.formats.classes import assemble, order_classes
from ensemble_kit.formats.maskformat import Contents, MaskFormat
from ensemble_kit.formats.polygons import fill_coco, points_of
from ensemble_kit.formats.shapes import NO_PIXEL, Labelled, cropped, together, told
from ensemble_kit.formats.sizes import ImageSizes, check_bitmap, declared_size
from ensemble_kit.masks.idforms import of_path
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.geometry import Shape

_NO_MASKS = frozenset({"box", "ellipse", "polyline", "points", "cuboid", "skeleton"})
_NUMBER = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,20})?")


class _Drawn(NamedTuple):
    """A shape as the file has it: the element, its attributes, and its line."""

    kind: str
    given: dict[str, str]
    line: int


class _File:
    """What an XML file holds, filled by the parser's calls; no tree is built, and nothing is expanded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.labels: dict[str, None] = {}
        self.images: list[tuple[dict[str, str], int, list[_Drawn]]] = []
        self._open: list[str] = []
        self._text = ""
        self._parser = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._refuse_types
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._hear
        try:
            with path.open("rb") as file:
                self._parser.ParseFile(file)
        except expat.ExpatError as error:
            raise _damaged(path, f"it is not whole XML: {error}") from None
        except UnicodeDecodeError as error:
            raise _damaged(path, f"its text is not in its encoding: {error.reason}") from None
        except LookupError:
            raise _damaged(path, "its encoding is not known") from None

    def _begin(self, name: str, given: dict[str, str]) -> None:
        inside = self._open[-1] if self._open else ""
        self._open.append(name)
        self._text = ""
        line = self._parser.CurrentLineNumber
        if len(self._open) == 1 and name != "annotations":
            raise _damaged(self.path, f"its first element is <{name[:40]}>, not <annotations>")
        if name == "track" and inside == "annotations":
            item, fix = f"{self.path}: it has tracks of a video", "export the task as 'CVAT for images 1.1'"
            raise UsageError("format-unread", "cannot read masks", item=item, fix=fix)
        if name == "image" and inside == "annotations":
            self.images.append((given, line, []))
        elif inside == "image" and len(self._open) == 3:
            self.images[-1][2].append(_Drawn(name, given, line))

    def _end(self, _: str) -> None:
        if self._open[-3:] == ["labels", "label", "name"]:
            self.labels.setdefault(self._text.strip())
        self._open.pop()

    def _hear(self, text: str) -> None:
        if self._open[-1] == "name":
            self._text += text

    def _refuse_types(self, *_: object) -> None:
        item, fix = f"{self.path} declares document types, which can expand without end", "remove the DOCTYPE"
        raise UnsafeError("xml-doctype", "cannot read an XML file", item=item, fix=fix)


def read(
    path: Path, sizes: ImageSizes, classes: Sequence[str] | None, skip_empty: bool = False, paint: bool = False
) -> MaskSet:
    """Read an XML file; `.rule` says what was left out and which labels nothing uses.

    Parameters
    ----------
    skip_empty : whether boxes, ellipses, lines and points, which are not masks, are left out.
    paint : whether shapes are drawn over each other by their z-order.

    Raises
    ------
    UnsafeError
        A document type, by which a small file can declare gigabytes of text.
    DamagedError
        Incomplete XML, a shape that is incomplete or not a mask, or an image that occurs twice.
    """
    file = _File(path)
    said: Counter[str] = Counter()
    found: dict[str, tuple[Shape, dict[str, Runs]]] = {}
    for given, line, shapes in file.images:
        where = f"{path}, line {line}"
        name = given.get("name", "")
        sample = of_path(name)
        if not sample or sample in found:
            raise _damaged(where, f"an image is called {name[:200]!r}, as another one is" if name else "no name")
        size = sizes.of(sample, _size(given, where), str(path))
        drawn = []
        for shape in sorted(shapes, key=lambda shape: _whole(shape.given.get("z_order", "0"), where)):
            own = f"{path}, line {shape.line}, sample {sample!r}, {shape.kind}"
            if shape.kind == "tag":
                said["tags of whole images left out"] += 1
            elif shape.kind in _NO_MASKS:
                if not skip_empty:
                    raise _no_mask(own)
                said[f"shapes of the kind {shape.kind} left out"] += 1
            else:
                drawn.append(Labelled(_label(shape, own), _runs(shape, size, own)))
                said[NO_PIXEL] += not drawn[-1].runs
        found[sample] = size, together(drawn, size, paint)
    if not found:
        what, fix = "cannot read masks: there are none", "export a task with images"
        raise IncompleteError("samples-missing", what, item=f"{path} has no image", fix=fix)
    used = dict.fromkeys(label for _, masks in found.values() for label in masks)
    names = order_classes(file.labels | used, classes, str(path), complete=bool(file.labels))
    masks = {(s, c): own.get(c) or Runs.empty(size) for s, (size, own) in found.items() for c in names}
    return assemble(found, names, masks, told(+said, [name for name in names if name not in used]))


def _label(shape: _Drawn, where: str) -> str:
    label = shape.given.get("label")
    if not label:
        raise _damaged(where, "it has no label")
    return label


def _runs(shape: _Drawn, size: Shape, where: str) -> Runs:
    if shape.kind == "polygon":
        pairs = [pair.split(",") for pair in shape.given.get("points", "").split(";")]
        if not all(len(pair) == 2 and all(map(_NUMBER.fullmatch, pair)) for pair in pairs):
            raise _damaged(where, "its points are not x,y;x,y;…")
        return fill_coco(points_of([float(v) for pair in pairs for v in pair], where, flat=True), size, where)
    if shape.kind == "mask":
        left, top = (_whole(shape.given.get(key, ""), where) for key in ("left", "top"))
        h, w = check_bitmap(_size(shape.given, where), where)
        counts = [_whole(text.strip(), where) for text in shape.given.get("rle", "").split(",")]
        if min(counts) < 0 or sum(counts) != h * w:
            raise _damaged(where, f"its counts add up to {sum(counts)}, its box has {h} x {w} pixels")
        edges = np.cumsum([*counts, 0][: len(counts) // 2 * 2], dtype=np.int64).reshape(-1, 2)
        edges = edges[edges[:, 0] < edges[:, 1]]
        return cropped(Runs(edges[:, 0], edges[:, 1], (h, w)), left, top, size)
    raise _damaged(where, "only polygons and masks are known as masks")


def _size(given: dict[str, str], where: str) -> Shape:
    H, W = (_whole(given.get(key, ""), where) for key in ("height", "width"))
    return declared_size(H, W, where)


def _whole(text: str, where: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,10}", text):
        raise _damaged(where, f"{text[:40]!r} is not a whole number")
    return int(text)


def _no_mask(where: str) -> DamagedError:
    fix = "pass --skip-empty to leave such shapes out (skip_empty=True), or draw them as polygons or masks"
    return DamagedError("annotation-empty", "cannot read an annotation without a mask", item=where, fix=fix)


def _damaged(where: object, why: str) -> DamagedError:
    fix = "export the task again as 'CVAT for images 1.1'"
    return DamagedError("cvat-invalid", "cannot read a CVAT file", item=f"{where}: {why}", fix=fix)


def _sniff(contents: Contents) -> bool:
    starts = contents.head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")
    return starts and re.search(rb"<annotations[\s>]", contents.head) is not None


FORMAT = MaskFormat("cvat", read, sniff=_sniff, is_folder=False, takes=frozenset({"skip_empty", "paint"}))
