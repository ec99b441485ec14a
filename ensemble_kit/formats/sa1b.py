"""Masks of Segment Anything's JSON (SA-1B), one file an image or a folder of them; read only.

Its masks have no classes and lie over each other, parts over wholes: they are united to one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ensemble_kit import strict_json
from ensemble_kit.formats.classes import ONLY_CLASS, assemble, order_classes
from ensemble_kit.formats.cocotables import damaged, entries, number_of, segmentation
from ensemble_kit.formats.index import files_under, no_files
from ensemble_kit.formats.maskformat import Contents, MaskFormat
from ensemble_kit.formats.sizes import ImageSizes, declared_size
from ensemble_kit.masks.idforms import of_path
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs


def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    """Read one JSON, or all of a folder.

    Raises
    ------
    DamagedError
        Not of this form, an image twice, or a mask of another size than its image.
    """
    files = [path / name for name in files_under(path, ".json")] if path.is_dir() else [path]
    if not files:
        raise no_files(path, "JSON")
    name = order_classes(classes or (ONLY_CLASS,), classes, str(path))[0]
    order_classes((name,), classes, str(path))
    masks: dict[tuple[str, str], Runs] = {}
    total = 0
    for file in files:
        value = strict_json.load(file)
        if not _is_one(value):
            raise damaged(file, "it is not an object with one image and its annotations")
        given = value["image"].get("file_name")
        if not isinstance(given, str) or not given or (of_path(given), name) in masks:
            raise damaged(file, f"its file_name is missing, or another file's too: {str(given)[:200]!r}")
        sample = of_path(given)
        declared = declared_size(value["image"].get("height"), value["image"].get("width"), str(file))
        size = sizes.of(sample, declared, str(file))
        found = Runs.empty(size)
        for where, entry in entries(file, value, "annotations"):
            found = found | segmentation(entry.get("segmentation"), size, f"{where}{number_of(entry)}")
            total += 1
        masks[sample, name] = found
    rule = f"{total} masks without classes are united to {name!r}"
    return assemble(dict.fromkeys(sample for sample, _ in masks), (name,), masks, rule)


def _is_one(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("image"), dict) and "annotations" in value


def _sniff(contents: Contents) -> bool:
    return _is_one(contents.value)


FORMAT = MaskFormat("sa-1b", read, sniff=_sniff)
