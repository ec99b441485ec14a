"""Every reader on mutated files: an error of the kit or whole masks, never a traceback, a cut result or much memory."""

from __future__ import annotations

import base64
import copy
import io
import json
import shutil
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as reference

import ensemble_kit as ek
from conftest import EXAMPLES
from ensemble_kit.formats.classes import read_classes
from trying import CVAT, DATA, INFOS, POLYGON, SEGMENTS, SQUARE, coco, drawn, one, panoptic, put

SIZES = {
    "a.jpg": (6, 5),
    "b.jpg": (4, 4),
    "a": (6, 5),
    "scan.jpg": (61, 83),
    "scan.png": (37, 50),
    "none.png": (37, 50),
}


def studio() -> list[dict[str, Any]]:
    """A brush of 4 x 4 pixels, and a polygon."""
    rle = [0, 0, 0, 64, 57, 27, 252, 127, 247, 192, 35, 255, 190, 1, 31, 253, 240, 8, 255, 192]  # of label-studio-sdk
    size = {"original_width": 4, "original_height": 4}
    stroke = {"id": "r", "type": "brushlabels", "value": {"format": "rle", "rle": rle, "brushlabels": ["x"]}, **size}
    polygon = {
        "id": "p",
        "type": "polygonlabels",
        "value": {"points": [[0, 0], [90, 9], [50, 50]], "polygonlabels": ["x"]},
    }
    return [{"id": 1, "data": {"image": "a"}, "annotations": [{"result": [stroke, polygon | size]}]}]


Read = Callable[[Path], object]
LABELS = np.array([[0, 1, 2], [2, 2, 0]], np.uint8)


def picture(mode: str = "PNG", values: np.ndarray = LABELS, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, mode, **options)
    return out.getvalue()


def arrays(**given: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **given)
    return out.getvalue()


def array(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


def masks(path: Path, **options: Any) -> ek.MaskSet:
    return ek.read_masks(path, image_size={**SIZES}, **options)


def folder(path: Path, **options: Any) -> ek.MaskSet:
    return ek.read_masks(path.parent, classes=["p", "q"], **options)


MASK = np.array([[[[1, 0], [0, 1]]]], bool)
RESULTS = [{"image_id": 7, "category_id": 3, "segmentation": {"size": [6, 5], "counts": [0, 2, 28]}, "score": 0.5}]
PACKED = reference.encode(np.asfortranarray(np.eye(6, 5, dtype=np.uint8)))["counts"].decode()
COCO = coco([one([SQUARE]), one({"size": [6, 5], "counts": [3, 2, 25]}, 2), one({"size": [6, 5], "counts": PACKED}, 3)])
BONE = {"filename": "a", "annotations": [{"label": "x", "points": [[0, 0], [4, 0], [3, 3]]}], "metadata": {"height": 6, "width": 5}}  # fmt: skip
SAM = {
    "image": {"file_name": "a", "width": 5, "height": 6},
    "annotations": [one({"size": [6, 5], "counts": [3, 2, 25]})],
}
LABELME = json.loads((DATA / "labelme.json").read_text())
FILES: dict[str, tuple[str, bytes | Any, Read]] = {
    "coco": ("c.json", COCO, lambda p: masks(p, format="coco")),
    "results": ("r.json", RESULTS, lambda p: masks(p, format="coco", images=put(p.with_name("i.json"), coco([])), score=0)),
    "labelme": ("l.json", LABELME, lambda p: masks(p, format="labelme")),
    "hand-bone": ("h.json", BONE, lambda p: masks(p, format="labelme")),
    "sa-1b": ("s.json", SAM, lambda p: masks(p, format="sa-1b")),
    "label-studio": ("t.json", studio(), lambda p: ek.read_masks(p, "label-studio")),
    "cvat": ("x.xml", CVAT.replace("{shapes}", POLYGON.replace("{z}", "1") + drawn()).encode(), lambda p: ek.read_masks(p, "cvat")),
    "csv": ("m.csv", b"image_name,class,rle\na.jpg,x,1 2 9 1\nb.jpg,x,\n", lambda p: masks(p, format="handbone")),
    "label png": ("f/a.png", picture(), lambda p: folder(p, first_value=1)),
    "16-bit png": ("f/a.png", picture(values=LABELS.astype(np.uint16)), lambda p: folder(p, first_value=1)),
    "binary png": ("f/x/a.png", picture(values=LABELS // 2 * 255), lambda p: ek.read_masks(p.parent.parent, "png")),
    "tiff": ("f/a.tif", picture("TIFF"), lambda p: folder(p, first_value=1)),
    "packed tiff": ("f/a.tif", picture("TIFF", compression="tiff_lzw"), lambda p: folder(p, first_value=1)),
    "npz": ("m.npz", arrays(samples=np.array(["a"]), classes=np.array(["x"]), masks=MASK), ek.read_masks),
    "npy": ("m.npy", array(MASK), lambda p: ek.read_masks(p, classes=["x"])),
    "label table": ("t.csv", b"value,name,color\n0,sky,#ff0000\n1,sea,\n2,land,#00ff00\n255,void,\n",
                    lambda p: ek.read_masks(put(p.with_name("f") / "a.png", picture()).parent, labels=p)),
    "label table in JSON": ("t.json", [{"value": 0, "name": "sky"}, {"value": 1, "name": "sea", "color": [1, 2, 3]}, {"value": 2, "name": "land"}],
                            lambda p: ek.read_masks(put(p.with_name("f") / "a.png", picture()).parent, labels=p)),
    "classes": ("c.txt", b"liver\nspleen\n", read_classes),
    "classes in JSON": ("c.json", {"classes": [{"name": "liver", "color": "#fff"}, {"name": "spleen"}]}, read_classes),
}  # fmt: skip
WHOLE = {name: raw if isinstance(raw, bytes) else json.dumps(raw).encode() for name, (_, raw, _) in FILES.items()}
SHORTER = {"csv", "label table", "classes"}
"""Texts of lines: without its last lines, one is a whole file of less; a line that is cut is refused."""
ANY = {"classes"}
"""A name without its last letters is a name."""


def attempt(name: str, raw: bytes, home: Path) -> bool:
    """Read mutated bytes; tell whether that went well. Anything but an error of the kit fails the test."""
    file, _, read = FILES[name]
    shutil.rmtree(home, ignore_errors=True)
    path = put(home / file, raw)
    try:
        read(path)
    except ek.EnskError as error:
        assert error.exit_code in range(2, 9)
        assert error.item and error.fix
        return False
    return True


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_whole(tmp_path: Path, name: str) -> None:
    assert attempt(name, WHOLE[name], tmp_path / "f")


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_no_cut_file_is_read(tmp_path: Path, name: str) -> None:
    raw = WHOLE[name]
    least = len(raw.rstrip())
    for cut in range(0, least, max(1, least // 60)):
        went_well = attempt(name, raw[:cut], tmp_path / "f")
        if went_well:
            assert name in SHORTER, f"the first {cut} of {len(raw)} bytes were read"
            assert name in ANY or raw[:cut].endswith(b"\n"), raw[:cut]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_mutated_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    raw = bytearray(WHOLE[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at, n = data.draw(st.integers(0, len(raw))), data.draw(st.integers(0, 6))
        new = data.draw(st.one_of(st.binary(max_size=6), st.sampled_from([b"-1", b"9" * 20, b"1e999", b"NaN", b"\xff\xff\xff\xff", b"\0", b'"', b"[", b"null"])))  # fmt: skip
        raw[at : at + n] = new
    attempt(name, bytes(raw), tmp_path_factory.getbasetemp() / "fuzz")


HOSTILE: list[Any] = [None, True, -1, 0, 2**31, 2**70, 1.5, 1e308, "", "x" * 300, "../../x", "\ud800"[:0], [], [[]], [None], {}, {"a": 1}, [1, 2, 3], "9" * 30]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a value, but only the first three of a long list."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for k in range(min(len(value), 3)):
            yield from places(value[k], (*path, k))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    out = copy.copy(value)
    out[path[0]] = changed(value[path[0]], path[1:], new)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, raw, _) in FILES.items() if not isinstance(raw, bytes)])
def test_every_value_of_json_may_be_anything(tmp_path: Path, name: str) -> None:
    value = FILES[name][1]
    for path in places(value):
        for new in HOSTILE:
            attempt(name, json.dumps(changed(value, path, new)).encode(), tmp_path / "f")
        if path and isinstance(path[-1], str):
            less = copy.deepcopy(value)
            holder = less
            for key in path[:-1]:
                holder = holder[key]
            del holder[path[-1]]
            attempt(name, json.dumps(less).encode(), tmp_path / "f")


@pytest.mark.slow
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_mutated_panoptic_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    home = tmp_path_factory.getbasetemp() / "panoptic"
    path = panoptic(home, SEGMENTS, INFOS)
    if data.draw(st.booleans()):
        value = json.loads(path.read_text())
        where, new = data.draw(st.sampled_from(list(places(value)))), data.draw(st.sampled_from(HOSTILE))
        put(path, changed(value, where, new))
    else:
        raw = bytearray((home / "p" / "a.png").read_bytes())
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        put(home / "p" / "a.png", bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    try:
        read = ek.read_masks(path, "coco-panoptic")
    except ek.EnskError:
        return
    assert read.exclusive


# ---------------------------------------------------------------------------------------------- small files, much memory


def bomb_png(height: int, width: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(64 << 20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


MB = 2**20
BIG = {"original_width": 2**14, "original_height": 2**14}
SMALL = {"original_width": 4, "original_height": 4}


def brush(size: dict[str, int], count: int) -> list[dict[str, Any]]:
    """A brush that declares `count` values, all zero, in few bytes."""
    head = f"{count:032b}" + "00111" + "1111" * 4
    bits = head + ("1" + "11" + "1" * 16 + "0" * 8) * 8
    raw = [int(bits[k : k + 8].ljust(8, "0"), 2) for k in range(0, len(bits), 8)]
    value = {"format": "rle", "rle": raw, "brushlabels": ["x"]}
    return [
        {
            "id": 1,
            "data": {"image": "a"},
            "annotations": [{"result": [{"id": "r", "type": "brushlabels", "value": value, **size}]}],
        }
    ]


def in_labelme(**shape: Any) -> dict[str, Any]:
    return {"imagePath": "a", "imageHeight": 4, "imageWidth": 4, "shapes": [{"label": "x"} | shape]}


# MB beside a file's own size: Python's table of interned strings, which other tests fill, may double meanwhile (16)
BOMBS: dict[str, tuple[str, Any, int]] = {
    "a PNG of 30000 x 30000": ("f/x/a.png", bomb_png(30_000, 30_000), 48),
    "a PNG with more rows than it declares": ("f/x/a.png", bomb_png(4, 4), 24),
    "a PNG in LabelMe": ("l.json", in_labelme(shape_type="mask", points=[[0, 0], [29_999, 29_999]],
                                              mask=base64.b64encode(bomb_png(30_000, 30_000)).decode()), 24),
    "a brush of an image of 16384 x 16384": ("t.json", brush(BIG, 4 * 2**28), 24),
    "a brush of 4 GB for an image of 4 x 4": ("t.json", brush(SMALL, 2**32 - 1), 24),
    "a mask of CVAT of 1e12 pixels": ("x.xml", CVAT.replace("{shapes}", drawn(width=2**20, height=2**20, rle=str(2**40))), 24),
    "entities of XML": ("x.xml", '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "' + "x" * 1000 + '">' + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)) + "]><annotations>&i;</annotations>", 24),
    "a circle as large as the earth": ("l.json", in_labelme(shape_type="circle", points=[[0, 0], [2**20, 0]]), 24),
    "a polygon around a million pixels": ("l.json", in_labelme(points=[[-(2**20), -(2**20)], [2**20, 0], [0, 2**20]]), 24),
    "an image of COCO of 1e12 pixels": ("c.json", coco([one([[0, 0, 9, 0, 9, 9]])],
                                                       images=[{"id": 7, "file_name": "a", "height": 2**20, "width": 2**20}]), 64),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_takes_little_memory(tmp_path: Path, name: str) -> None:
    file, content, limit = BOMBS[name]
    path = put(tmp_path / file, content)
    path = path.parent.parent if path.suffix == ".png" else path
    size = 3 * path.stat().st_size if path.is_file() else 2 * MB
    tracemalloc.start()
    try:
        ek.read_masks(path)
    except ek.EnskError as error:
        assert error.exit_code in {3, 7}
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < limit * MB + size, f"{peak / MB:.1f} MB"
