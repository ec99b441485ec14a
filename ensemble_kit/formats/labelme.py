"""Masks as JSON of shapes, one file a sample: LabelMe's, and the polygons of the hand-bone set.

    LabelMe     {"imagePath": …, "shapes": [{"label": …, "points": …, "shape_type": …}], "imageHeight", "imageWidth"}
    hand-bone   {"filename": …, "annotations": [{"label": …, "points": [[x, y], …]}], "metadata": {"height", "width"}}

The key tells the two apart: `shapes` are drawn as LabelMe draws them, `annotations` are filled as `cv2.fillPoly` does,
which the hand-bone set is scored by. The sample is the last part of `imagePath`, or the file name that the JSON gives,
else the JSON's own name without `.json`. A sample without shapes of a class has an empty mask of it. The second form is
written, with polygons that fill to the mask exactly; a hidden index keeps the classes and their order, which polygons
alone would lose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ensemble_kit import strict_json
from ensemble_kit.errors import DamagedError, IncompleteError
from ensemble_kit.formats.classes import order_classes
from ensemble_kit.formats.index import Index, files_under, index_of, no_files
from ensemble_kit.formats.maskformat import Contents, MaskFormat, always
from ensemble_kit.formats.polygons import fill_opencv, outline, points_of
from ensemble_kit.formats.shapes import NO_PIXEL, Labelled, draw, together, told
from ensemble_kit.formats.sizes import ImageSizes, declared_size
from ensemble_kit.masks.idforms import last_part, of_path
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.stream import Masks, by_sample
from ensemble_kit.spec.geometry import Shape

INDEX = ".ensk-index"
"""Hidden and without `.json`: other readers take every JSON of the folder for a sample."""

IGNORED = "__ignore__"
"""LabelMe's label of pixels that count neither as prediction nor as truth."""


def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None, paint: bool = False) -> MaskSet:
    """Read a folder of JSON, or one file.

    Parameters
    ----------
    paint : whether later shapes are drawn over earlier ones, as in LabelMe's own label images.

    Raises
    ------
    DamagedError
        Not strict JSON, another form, or a sample that two files give.
    MismatchError
        A label that `classes` lacks.
    """
    index = Index.load(path, INDEX) if path.is_dir() else None
    files = {path / name: name for name in files_under(path, ".json")} if path.is_dir() else {path: path.name}
    if not files:
        raise no_files(path, "JSON")
    if index is not None:
        index.check_files(path, (file for _, file, _ in index.samples), ".json")
    own = {s for s, _, _ in index.samples} if index is not None else set()
    found: dict[str, tuple[Path, Shape, dict[str, Runs]]] = {}
    void: dict[str, Runs] = {}
    said: Counter[str] = Counter()
    for file in files:
        sample, size, masks = _read_one(file, sizes, own, paint, said)
        if sample in found:
            raise _damaged(file, f"sample {sample!r} stands in {found[sample][0]} too")
        if IGNORED in masks and IGNORED not in (classes or ()):
            void[sample] = masks.pop(IGNORED)
        found[sample] = (file, size, masks)
    labels = dict.fromkeys(label for _, _, masks in found.values() for label in masks)
    names = _class_names(path, index, labels, classes)
    order = [s for s, _, _ in index.samples if s in found] if index is not None else list(found)
    read = {(s, c): found[s][2].get(c) or Runs.empty(found[s][1]) for s in order for c in names}
    ignored = f"{IGNORED!r} is void, in {len(void)} samples" if void else None
    return MaskSet(read, "; ".join(filter(None, [ignored, told(+said)])) or None, void)


def build(masks: Masks, folder: Path) -> None:
    """Write one JSON a sample."""
    index = index_of("labelme", masks, ".json")
    index.save(folder, INDEX)
    for (_, file, (H, W)), (piece, sample) in zip(index.samples, by_sample(masks), strict=True):
        annotations = [
            {"type": "poly_seg", "label": name, "points": points}
            for name in masks.classes
            for points in outline(piece[sample, name])
        ]
        value = {"filename": sample, "annotations": annotations, "metadata": {"height": H, "width": W}}
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(strict_json.dump(value))


def _read_one(
    file: Path, sizes: ImageSizes, own: set[str], paint: bool, said: Counter[str]
) -> tuple[str, Shape, dict[str, Runs]]:
    value = strict_json.load(file)
    kinds = {"shapes", "annotations"} & value.keys() if isinstance(value, dict) else set()
    shapes = value[next(iter(kinds))] if len(kinds) == 1 else None
    if not isinstance(shapes, list):
        raise _damaged(file, "it has neither a list of annotations nor one of shapes, or both")
    sample = _sample(file, value, own)
    size = sizes.of(sample, _declared(file, value), str(file))
    drawn = []
    for k, shape in enumerate(shapes):
        where = f"{file}, shape {k}"
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"]:
            raise _damaged(where, "it has no label")
        kind = shape.get("shape_type") or "polygon"
        if kinds == {"shapes"}:
            runs = draw(str(kind), shape.get("points"), size, where, shape.get("mask"))
        elif kind == "polygon":
            runs = fill_opencv([points_of(shape.get("points"), where, flat=False)], size, where)
        else:
            raise _damaged(where, f"its shape is {str(kind)[:40]!r}, in this form only polygons are masks")
        drawn.append(Labelled(shape["label"], runs))
        said[NO_PIXEL] += not runs
    return sample, size, together(drawn, size, paint)


def _sample(file: Path, value: dict[str, Any], own: set[str]) -> str:
    """Name the sample: LabelMe's path leads from the JSON to the image, so that only its last part is an id."""
    given = value.get("filename", value.get("imagePath", file.name.removesuffix(".json")))
    if not isinstance(given, str) or not given:
        raise _damaged(file, "its file name is not text")
    if given in own:
        return given
    sample = of_path(given) if "filename" in value else last_part(given)
    if not sample:
        raise _damaged(file, f"its path {given[:200]!r} names no file")
    return sample


def _declared(file: Path, value: dict[str, Any]) -> Shape | None:
    metadata = value.get("metadata")
    given = metadata if isinstance(metadata, dict) else {}
    height = value.get("imageHeight", given.get("height"))
    width = value.get("imageWidth", given.get("width"))
    return None if height is None and width is None else declared_size(height, width, str(file))


def _class_names(
    path: Path, index: Index | None, labels: dict[str, None], classes: Sequence[str] | None
) -> tuple[str, ...]:
    """Name the classes. Polygons do not tell of a class that nobody drew, so `classes` may hold more names."""
    if index is not None:
        return order_classes((n for n, _ in index.classes), classes, str(path))
    if classes is None and not labels:
        what, fix = "cannot read masks: no polygon names a class", "pass --classes FILE (classes=[…])"
        raise IncompleteError("classes-missing", what, item=str(path), fix=fix)
    return order_classes(labels, classes, str(path), complete=False)


def _damaged(where: object, why: str) -> DamagedError:
    fix = "write it as {'annotations': [{'label': …, 'points': [[x, y], …]}, …]}"
    return DamagedError("polygons-invalid", "cannot read polygon JSON", item=f"{where}: {why}", fix=fix)


def _sniff(contents: Contents) -> bool:
    value = contents.value
    return (
        isinstance(value, dict)
        and any(isinstance(value.get(key), list) for key in ("annotations", "shapes"))
        and not ({"images", "image", "item"} & value.keys())
    )


FORMAT = MaskFormat(
    "labelme", read, sniff=_sniff, build=build, in_pieces=always, index=INDEX, takes=frozenset({"paint"})
)
