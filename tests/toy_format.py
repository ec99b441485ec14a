"""The smallest format of masks, one line of text a mask: all that a new one takes, but for its entry in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from ensemble_kit.formats.classes import assemble, order_classes
from ensemble_kit.formats.maskformat import MaskFormat
from ensemble_kit.formats.sizes import ImageSizes, declared_size
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs


def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    masks = {}
    for line in path.read_text().splitlines()[1:]:
        sample, name, height, width, runs = line.split("|")
        size = sizes.of(sample, declared_size(int(height), int(width), str(path)), str(path))
        masks[sample, name] = Runs.parse(runs, size)
    names = order_classes((name for _, name in masks), classes, str(path))
    return assemble(dict.fromkeys(sample for sample, _ in masks), names, masks)


def write(masks: MaskSet, out: BinaryIO) -> None:
    out.write(b"toy masks\n")
    out.writelines(
        ("|".join([*key, *map(str, runs.shape), runs.text()]) + "\n").encode() for key, runs in masks.items()
    )


FORMAT = MaskFormat(
    "toy",
    read,
    sniff=lambda contents: contents.head.startswith(b"toy masks\n"),
    write=write,
    suffix=".toy",
    is_folder=False,
)
