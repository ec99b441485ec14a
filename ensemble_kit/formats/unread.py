"""Files and folders of other programs that are not read: how each is told, and what to export in its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from ensemble_kit.errors import UsageError
from ensemble_kit.formats.maskformat import Contents


class Unread(NamedTuple):
    """One kind of file that holds masks, or seems to, and is not read.

    Parameters
    ----------
    name : what messages call it.
    seen : tells it by its name or its first bytes.
    fix : what to export or do instead.
    """

    name: str
    seen: Callable[[Contents], bool]
    fix: str


_SLICES = (
    "save a segmentation as NIfTI or NRRD (3D Slicer, SimpleITK), or each image as a PNG of labels in a folder "
    "(--format label-map)"
)
_COCO = "export COCO instances with segmentations"


def _ends(*suffixes: str) -> Callable[[Contents], bool]:
    """Tell a file by its name, or a folder by the names of its files."""
    return lambda c: any(bool(c.files(s)) if c.is_folder else c.path.name.lower().endswith(s) for s in suffixes)


def _starts(*heads: bytes, at: int = 0) -> Callable[[Contents], bool]:
    return lambda c: any(c.head[at : at + len(head)] == head for head in heads)


def _has(*keys: str) -> Callable[[Contents], bool]:
    """Tell a JSON file, or the first of a folder, by keys of its object, or of the first in its list."""

    def seen(c: Contents) -> bool:
        value = next(iter(c.value), None) if isinstance(c.value, list) else c.value
        return isinstance(value, dict) and set(keys) <= value.keys()

    return seen


def _is_fused(c: Contents) -> bool:
    """Tell a folder of `ensk fuse` by its index."""
    return isinstance(c.value, dict) and str(c.value.get("format")).startswith(("ensk.fused/", "ensk.uncertainty/"))


def _is_via(c: Contents) -> bool:
    """Tell VGG's annotator: its project, or the export whose values are files with regions."""
    value = c.value
    first = next(iter(value.values()), None) if isinstance(value, dict) else None
    is_project = isinstance(value, dict) and any(key.startswith("_via_") for key in value)
    return is_project or (isinstance(first, dict) and {"filename", "regions"} <= first.keys())


def _is_yolo(c: Contents) -> bool:
    """Tell text of `class x y x y …` or `class x y width height`, in a file or the first of a folder."""
    found = [c.path / file for file in c.files(".txt")] if c.is_folder else [c.path]
    if not found or found[0].suffix.lower() != ".txt":
        return False
    with found[0].open("rb") as file:
        return bool(re.match(rb"[0-9]+( [0-9.e+-]+){4,}\s", file.read(4096)))


def _is_ome(c: Contents) -> bool:
    """Tell OME-Zarr by what the outermost group of a folder says in its attributes."""
    groups = [file for file in c.files(".json") if file.rpartition("/")[2] == "zarr.json"]
    return bool(groups) and b'"ome"' in (c.path / min(groups, key=len)).read_bytes()[:65536]


UNREAD: tuple[Unread, ...] = (
    Unread("DICOM", lambda c: _starts(b"DICM", at=128)(c) or _ends(".dcm")(c), _SLICES),
    Unread("a compressed CSV", _ends(".csv.zip", ".csv.gz", ".csv.bz2", ".csv.xz"), "unpack it, and pass the .csv"),
    Unread("a zip archive", _starts(b"PK\x03\x04"), "unpack it, and pass the file or folder that was inside"),
    Unread("a gzip file", _starts(b"\x1f\x8b"), "unpack it (gunzip), and pass the file that was inside"),
    Unread(
        "one image",
        _starts(b"\x89PNG", b"II*\0", b"MM\0*", b"\xff\xd8\xff", b"BM", b"GIF8", b"RIFF"),
        "pass the folder that holds the masks, one image a sample",
    ),
    Unread("HDF5", _starts(b"\x89HDF\r\n\x1a\n"), "save the arrays with numpy.savez, one a sample, as .npz"),
    Unread("MATLAB", _ends(".mat"), "save the arrays with numpy.savez, one a sample, as .npz"),
    Unread("Python's pickle", _ends(".pkl", ".pickle", ".pt", ".pth"), "save the masks as COCO results (JSON) or .npz"),
    Unread("Parquet", _starts(b"PAR1"), "write the table as CSV (pandas: to_csv(…, index=False))"),
    Unread("a spreadsheet", _ends(".xlsx", ".xls", ".ods"), "save it as CSV"),
    Unread(
        "Pascal VOC's XML of boxes",
        lambda c: bool(re.search(rb"<annotation[\s>]", c.head)) or _ends(".xml")(c),
        "pass the folder SegmentationClass of its PNGs (--format label-map --labels voc), or export COCO",
    ),
    Unread("SVG", lambda c: b"<svg" in c.head[:1024], _COCO),
    Unread("VGG Image Annotator's JSON", _is_via, "export COCO in VIA (Annotation → Export), and pass that file"),
    Unread("Supervisely's JSON", _has("objects", "size"), "export COCO, or 'masks' as PNGs, in Supervisely"),
    Unread("GeoJSON", _has("type", "features"), "draw the polygons on each image's grid, and save label maps as PNG"),
    Unread("Label Studio's JSON-MIN", _has("annotation_id"), "export JSON (not JSON-MIN) in Label Studio"),
    Unread("Labelbox's JSON", _has("data_row"), "convert it to COCO (labelbox: its exporter), and pass that file"),
    Unread("Darwin's JSON (V7)", _has("item", "annotations"), "export COCO in Darwin"),
    Unread(
        "what ensk fuse keeps (its probabilities, or the disagreement of members), not masks",
        _is_fused,
        "read its files with numpy.load; for masks vote over the members (ensk vote)",
    ),
    Unread(
        "an OME-Zarr without the index.json that ensk writes beside it",
        _is_ome,
        "pass the folder that has it; labels of other programs are read as SAMPLE.npy (--format label-map)",
    ),
    Unread("FiftyOne's samples", _has("samples"), "export fiftyone.types.COCODetectionDataset with segmentations"),
    Unread(
        "results of boxes", _has("image_id", "category_id", "bbox"), "export results with segmentations (segm.json)"
    ),
    Unread("YOLO's text files", _is_yolo, "convert them to COCO with segmentations, and pass that file"),
    Unread(
        "JPEG images",
        _ends(".jpg", ".jpeg", ".webp"),
        "save masks as PNG: JPEG changes the values of pixels along every boundary",
    ),
    Unread("BMP or GIF images", _ends(".bmp", ".gif"), "save masks as PNG"),
)
"""In the order in which they are asked."""


def refuse_unread(contents: Contents) -> None:
    """Refuse what another program wrote and no reader takes, saying what to export.

    Raises
    ------
    UsageError
        It is one of `UNREAD`.
    """
    for known in UNREAD:
        if known.seen(contents):
            item, what = f"{contents.path} is {known.name}, which is not read", "cannot read masks"
            raise UsageError("format-unread", what, item=item, fix=known.fix)
