"""The competition's folders: images, polygons, and what is known of each image.

train/DCM/ID001/image1661130828152.png
train/outputs_json/ID001/image1661130828152.json     {"annotations": [{"label": …, "points": [[x, y], …]}], …}
test/DCM/ID040/…                                      images alone
meta.csv                                              optional: image_id,bent and any other column
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble_kit import DamagedError, IncompleteError, MismatchError
from hand_bones import wrist
from hand_bones.classes import CLASSES

META, REMOVALS = "meta.csv", "removals.txt"


@dataclass(frozen=True)
class Annotation:
    """The polygons of one image.

    Attributes
    ----------
    polygons : (label, points) in the file's order; points are float64 (n, 2) of x, y in pixels of the original image.
    size : (H, W) of that image, where the file says it.
    """

    polygons: tuple[tuple[str, NDArray[np.float64]], ...]
    size: tuple[int, int] | None = None

    def of(self, label: str) -> list[NDArray[np.float64]]:
        """Give the polygons of one class."""
        return [points for name, points in self.polygons if name == label]


@dataclass(frozen=True)
class Record:
    """One image: whose it is, where it lies, and what is drawn on it.

    Attributes
    ----------
    person : the folder's name; both hands of a person share it.
    image_id : the file's name with extension, as submissions have it.
    annotation : None where nobody drew anything (the test split).
    bent : whether the wrist is bent: from `meta.csv`, else from the polygons, else None.
    """

    person: str
    image_id: str
    image: Path
    annotation: Annotation | None
    split: str
    bent: bool | None


def read_layout(
    root: Path, split: str, annotations: Path | None = None, removals: Collection[str] = ()
) -> list[Record]:
    """Read a split of the layout, sorted by person and image.

    Parameters
    ----------
    split : `"train"` or `"test"`, or any other folder with `DCM/` in it.
    annotations : where the polygons are; without it `ROOT/SPLIT/outputs_json`, which a training split must have.
    removals : ids of images to leave out with their polygons, unread: whatever is wrong with them does not matter.

    Raises
    ------
    IncompleteError
        No images, images without polygons, or polygons without an image.
    DamagedError
        Polygons that cannot be read, or one image id in two folders.
    MismatchError
        A label that is no class, polygons that were filed under another image, or removals of images that are not
        there: they were written for other data.
    """
    drawn = annotations or root / split / "outputs_json"
    unread = {Path(image_id).stem for image_id in removals}
    images, left_out = _by_id(root / split / "DCM", ".png", unread)
    polygons, also_left_out = _by_id(drawn, ".json", unread) if drawn.is_dir() else ({}, set())
    strange = sorted(i for i in removals if not i.endswith(".png") or Path(i).stem not in left_out | also_left_out)
    if strange:
        raise MismatchError(
            "removals-differ",
            "cannot remove images that are not there",
            item=f"{len(strange)} of {len(removals)}: {', '.join(strange[:5])}",
            fix="use the removal list of this data",
        )
    if not images:
        raise IncompleteError(
            "images-missing",
            "cannot read the layout: there are no images",
            item=f"{root / split / 'DCM'} holds no ID*/*.png",
            fix="pass the folder that holds train/DCM and test/DCM; generate.py makes one",
        )
    if polygons or annotations is not None or split == "train":
        _check_pairs(images, polygons, drawn)
    bent = _read_bent(root / META)
    records = []
    for stem, image in images.items():
        annotation = read_annotation(polygons[stem], image.name) if stem in polygons else None
        known = bent.get(image.name)
        if known is None and annotation is not None:
            known = wrist.is_bent(annotation)
        records.append(Record(image.parent.name, image.name, image, annotation, split, known))
    return records


def read_annotation(path: Path, image_id: str | None = None) -> Annotation:
    """Read the polygons of one image; `image_id` is the image that they are meant to belong to."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        polygons = tuple((a["label"], np.array(a["points"], np.float64)) for a in value["annotations"])
        size = _size_of(value)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    for label, points in polygons:
        if not isinstance(label, str) or points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
            raise _damaged(path, f"{label!r} has points of shape {points.shape}, not at least three pairs of x and y")
        if not np.isfinite(points).all():
            raise _damaged(path, f"{label!r} has a point that is not finite")
    strange = sorted({label for label, _ in polygons} - set(CLASSES))
    if strange:
        raise MismatchError(
            "label-unknown",
            "cannot read polygons of labels that are no class",
            item=f"{path}: {', '.join(strange[:10])}",
            fix="correct the label, or put the image into the removal list",
        )
    named = value.get("filename", image_id)
    if image_id is not None and named != image_id:
        raise MismatchError(
            "image-differs",
            "cannot take the polygons of another image",
            item=f"{path} says {named!r}, and lies beside {image_id!r}",
            fix="put both files back into their pair, or the image into the removal list",
        )
    return Annotation(polygons, size)


def read_removals(path: Path) -> dict[str, str]:
    """Read a removal list: a line an image, `image_id reason`; `#` begins a comment.

    Raises
    ------
    IncompleteError
        There is no such file.
    DamagedError
        It is not UTF-8, has a line without a reason, or an image that stands there twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DamagedError(
            "removals-invalid", "cannot read the removal list", item=f"{path}: {error}", fix="save it as UTF-8"
        ) from None
    except OSError as error:
        raise IncompleteError(
            "removals-missing",
            "cannot read the removal list",
            item=f"{path}: {error.strerror}",
            fix="pass a file with one line an image: image_id reason",
        ) from None
    removals: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        image_id, _, reason = line.partition("#")[0].strip().partition(" ")
        if not image_id:
            continue
        if not reason.strip() or image_id in removals:
            raise DamagedError(
                "removals-invalid",
                "cannot read the removal list",
                item=f"{path}, line {number}: {image_id} {'stands there twice' if reason else 'has no reason'}",
                fix="write one line an image: image_id reason",
            )
        removals[image_id] = reason.strip()
    return removals


def removals_of(root: Path, listed: Path | None = None) -> dict[str, str]:
    """Read the removal list of the data below `root`: the file `listed`, else removals.txt where there is one."""
    if listed is None and not (root / REMOVALS).exists():
        return {}
    return read_removals(listed or root / REMOVALS)


def _by_id(folder: Path, suffix: str, unread: Collection[str]) -> tuple[dict[str, Path], set[str]]:
    """Find files by their stem, and which of the unread ones there are."""
    found: dict[str, Path] = {}
    left_out: set[str] = set()
    for path in sorted(folder.glob(f"*/*{suffix}")):
        if path.stem in unread:
            left_out.add(path.stem)
            continue
        if path.stem in found:
            raise DamagedError(
                "image-doubled",
                "cannot tell two images apart",
                item=f"{found[path.stem]} and {path}",
                fix="give every image a name of its own: submissions know images by it",
            )
        found[path.stem] = path
    return found, left_out


def _check_pairs(images: Mapping[str, Path], polygons: Mapping[str, Path], drawn: Path) -> None:
    bare = [images[stem] for stem in images if stem not in polygons]
    stray = [polygons[stem] for stem in polygons if stem not in images]
    if bare or stray:
        raise IncompleteError(
            "pairs-missing",
            "cannot pair images with polygons",
            item=f"{len(bare)} images without polygons under {drawn}, {len(stray)} polygons without an image: "
            + ", ".join(str(path) for path in (bare + stray)[:5]),
            fix="add the missing files, or take the other half of each pair away",
        )


def _read_bent(path: Path) -> dict[str, bool]:
    if not path.is_file():
        return {}
    words = {"0": False, "1": True}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return {row["image_id"]: words[row["bent"]] for row in csv.DictReader(file) if row["bent"] != ""}
    except UnicodeDecodeError as error:
        raise DamagedError(
            "meta-invalid", "cannot read which wrists are bent", item=f"{path}: {error}", fix="save it as UTF-8"
        ) from None
    except KeyError as error:
        raise DamagedError(
            "meta-invalid",
            "cannot read which wrists are bent",
            item=f"{path}: {error} is no column, or neither 0 nor 1",
            fix="write the columns image_id and bent, with 0, 1 or nothing",
        ) from None


def _size_of(value: Mapping[str, Any]) -> tuple[int, int] | None:
    metadata = value.get("metadata") or {}
    return (int(metadata["height"]), int(metadata["width"])) if "height" in metadata else None


def _damaged(path: Path, why: str) -> DamagedError:
    return DamagedError(
        "polygons-invalid",
        "cannot read polygons",
        item=f"{path}: {why}",
        fix="write {'annotations': [{'label': …, 'points': [[x, y], …]}, …]}, or put the image into the removal list",
    )


def annotated(records: Iterable[Record]) -> list[tuple[Record, Annotation]]:
    """Give records with their annotations.

    Raises
    ------
    IncompleteError
        A record without polygons.
    """
    pairs = [(record, record.annotation) for record in records]
    bare = [record.image_id for record, annotation in pairs if annotation is None]
    if bare:
        raise IncompleteError(
            "polygons-missing",
            "cannot use images that nobody drew on",
            item=f"{len(bare)} of {len(pairs)}: {', '.join(bare[:5])}",
            fix="pass a split that has polygons",
        )
    return [(record, annotation) for record, annotation in pairs if annotation is not None]
