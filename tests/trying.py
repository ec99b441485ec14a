"""What tests of files and commands share: run a command, write a file, expect an error by its code and its words."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as reference

import ensemble_kit as ek
from ensemble_kit.cli.app import app

DATA = Path(__file__).parent / "data" / "foreign"


def ensk(*arguments: object) -> None:
    """Run a command in this process."""
    app([str(a) for a in arguments], standalone_mode=False)


def put(path: Path, content: Any) -> Path:
    """Write bytes, text, or a value as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


class refused:  # noqa: N801 - read as pytest.raises
    """Expects an error of a class with a code, which names these texts."""

    def __init__(self, kind: type[ek.EnskError], code: str, *named: str) -> None:
        self.kind, self.code, self.named = kind, code, named

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> bool:
        assert isinstance(error, self.kind), f"{error!r} in place of {self.kind.__name__}"
        assert error.code == self.code, error
        for text in self.named:
            assert re.search(re.escape(text), str(error)), f"{text!r} is not in: {error}"
        return True


def filled(polygon: list[float], H: int, W: int) -> np.ndarray:
    """Fill a polygon x, y, x, y, … by pycocotools."""
    return reference.decode(reference.frPyObjects([[float(v) for v in polygon]], H, W))[..., 0].astype(bool)


def coco(annotations: Any, **more: Any) -> dict[str, Any]:
    """Make a COCO file of two images and three categories."""
    images = [
        {"id": 7, "file_name": "a.jpg", "height": 6, "width": 5},
        {"id": 8, "file_name": "b.jpg", "height": 4, "width": 4},
    ]
    categories = [{"id": 3, "name": "x"}, {"id": 1, "name": "y"}, {"id": 2, "name": "never"}]
    return {"images": images, "categories": categories, "annotations": annotations} | more


def one(segmentation: Any, number: int = 1, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 7, "category_id": 3, "segmentation": segmentation} | more


SQUARE = [1, 1, 4, 1, 4, 4, 1, 4]


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels>
<label><name>cat</name><color>#fff</color><attributes></attributes></label><label><name>dog &amp; co</name></label>
</labels></task></meta>
<image id="0" name="set\\a.jpg" width="12" height="9">{shapes}</image><image id="1" name="b.jpg" width="3" height="2">
</image></annotations>
"""
MASK = np.random.default_rng(3).random((4, 5)) < 0.5


def rle(mask: np.ndarray) -> str:
    counts = [(value, len(list(run))) for value, run in itertools.groupby(mask.ravel().tolist())]
    return ", ".join(map(str, ([0] if counts[0][0] else []) + [n for _, n in counts]))


def drawn(mask: np.ndarray = MASK, label: str = "dog &amp; co", **more: Any) -> str:
    given = {"rle": rle(mask), "left": 6, "top": 3, "width": mask.shape[1], "height": mask.shape[0]} | more
    return f'<mask label="{label}" {" ".join(f"{k}={chr(34)}{v}{chr(34)}" for k, v in given.items())}></mask>'


POLYGON = '<polygon label="cat" points="1.5,1.25;8.00,2.50;4.0,7.75" z_order="{z}"><attribute name="a">b</attribute></polygon>'


def panoptic(folder: Path, segments: np.ndarray, infos: list[dict[str, Any]]) -> Path:
    rgb = np.stack([segments % 256, segments // 256 % 256, segments // 65536], -1).astype(np.uint8)
    (folder / "p").mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(folder / "p" / "a.png")
    annotation = {"image_id": 7, "file_name": "a.png", "segments_info": infos}
    H, W = segments.shape
    images = [{"id": 7, "file_name": "a.jpg", "height": H, "width": W}]
    return put(folder / "p.json", coco([annotation], images=images))


SEGMENTS = np.array([[0, 70_000, 70_000, 5], [300, 300, 70_000, 5], [0, 0, 5, 5]])
INFOS = [{"id": 70_000, "category_id": 3}, {"id": 300, "category_id": 1}, {"id": 5, "category_id": 3, "iscrowd": 1}]
