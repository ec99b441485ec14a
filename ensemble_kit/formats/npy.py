"""Masks in one `.npy`, or in a folder of one a sample.

.npy     (N, C, H, W): samples are called by their row, `0`, `1`, …; (C, H, W): one sample, called as the file
         of volumes (N, C, D, H, W) and (C, D, H, W)
folder   `<sample>.npy`, (C, H, W) or (C, D, H, W) each, with an `index.json`

Four axes are images where the second is as long as the list of classes, else a volume where the first is; where both
are, `image_size` of three numbers makes it a volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from ensemble_kit.errors import MismatchError
from ensemble_kit.formats.classes import need_classes
from ensemble_kit.formats.index import Index, files_under, index_of
from ensemble_kit.formats.maskformat import Contents, MaskFormat, always
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.formats.stacks import Stack, is_volume, of_sample, of_stack, put_sample, put_stack, whole
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packedmasks import Key
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.stream import Masks, by_sample
from ensemble_kit.spec.geometry import as_text


def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    """Read one `.npy`, or a folder of one a sample."""
    return (_read_folder if path.is_dir() else _read_file)(path, sizes, classes)


def _read_file(path: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    names = need_classes(classes, str(path))
    with path.open("rb") as file:
        stack, sample = Stack.open(file, path.stat().st_size, str(path)), path.name.removesuffix(".npy")
        if len(stack.shape) in {2, 3} or is_volume(stack, sample, None, len(names), sizes):
            masks = of_sample(stack, sample, names, sizes)
        else:
            masks = of_stack(stack, None, names, sizes)
    return whole(path, tuple(dict.fromkeys(s for s, _ in masks)), names, masks, classes)


def _read_folder(path: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    index = Index.load(path)
    if index is None:
        names = need_classes(classes, str(path))
        files = {f.removesuffix(".npy"): f for f in files_under(path, ".npy")}
    else:
        names = tuple(n for n, _ in index.classes)
        files = {s: f for s, f, _ in index.samples}
        index.check_files(path, files.values(), ".npy")
    masks: dict[Key, Runs] = {}
    for sample, name in files.items():
        with (path / name).open("rb") as file:
            stack = Stack.open(file, (path / name).stat().st_size, str(path / name))
            masks |= of_sample(stack, sample, names, sizes)
    return whole(path, tuple(files), names, masks, classes).with_geometry({} if index is None else index.geometries)


def write(masks: Masks, out: BinaryIO) -> None:
    """Write one `.npy`, bool (N, C, H, W) or (N, C, D, H, W), in samples' and classes' order; it holds no names.

    Raises
    ------
    MismatchError
        Samples of different sizes do not make a stack.
    """
    sizes = {masks.image_size(s): s for s in masks.samples}
    if len(sizes) > 1:
        (a, first), (b, second) = list(sizes.items())[:2]
        item = f"sample {first!r} has {as_text(a)}, sample {second!r} {as_text(b)}"
        fix = "pass a path that ends in .npz, or a folder with --format npy"
        raise MismatchError("image-size-differs", "cannot write one stack of masks", item=item, fix=fix)
    put_stack(out, masks)


def build(masks: Masks, folder: Path) -> None:
    """Write a folder of one `.npy` a sample, bool (C, H, W) or (C, D, H, W)."""
    index = index_of("npy", masks, ".npy", keeps_geometry=True)
    index.save(folder)
    for (_, name, _), (piece, sample) in zip(index.samples, by_sample(masks), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("wb") as file:
            put_sample(file, piece, sample)


def _sniff(contents: Contents) -> bool:
    return contents.head.startswith(b"\x93NUMPY") or bool(contents.files(".npy"))


FORMAT = MaskFormat(
    "npy",
    read,
    sniff=_sniff,
    write=write,
    build=build,
    in_pieces=always,
    suffix=".npy",
    ranks=frozenset({2, 3}),
    keeps_geometry=frozenset({"folder"}),
)
