"""What tests of files and commands share: run a command, write a file, expect an error by its code and its words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
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
