"""Files of label maps: PNG, TIFF and NumPy arrays become `LabelMap`s."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import DamagedError, MismatchError, UsageError
from ensemble_kit.formats.npz import named_stacks
from ensemble_kit.formats.png_codec import grey_of, read_labels
from ensemble_kit.formats.sizes import ImageSizes, check_bitmap
from ensemble_kit.formats.stacks import Stack
from ensemble_kit.masks.labelmaps import LabelMap
from ensemble_kit.spec.label_table import LabelTable, in_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.spec.label_table import Colour

SUFFIXES = (".png", ".tif", ".tiff", ".npy")
"""Of the files of a folder; a file by itself is an `.npy` or an `.npz`."""


def read_image(path: Path, table: LabelTable | None, binary: bool = False, solid: bool | None = None) -> LabelMap:
    """Read one label map; colours become values by the table's colours.

    Parameters
    ----------
    binary : whether black and white stored as colours are the values 0 and 255.
    solid : whether it is a volume; None: as its axes say.

    Raises
    ------
    DamagedError
        A file that is not whole, or of another kind than label maps are.
    UsageError
        Colours, and no table that has any.
    MismatchError
        Colours that the table does not have.
    """
    if path.suffix.lower() == ".npy":
        check_numbered(table, str(path))
        with path.open("rb") as file:
            stack = Stack.open(file, path.stat().st_size, str(path))
            return _of_stack(stack, [""], solid)[""]
    pixels, palette = read_labels(path) if path.suffix.lower() == ".png" else _tiff(path)
    grey = grey_of(pixels) if binary and pixels.ndim == 3 else None
    if grey is not None and set(np.unique(grey).tolist()) <= {0, 255}:
        return LabelMap.of(grey, str(path))
    if pixels.ndim == 3:
        return _by_colours(pixels, table, str(path))
    check_numbered(table, str(path))
    found = LabelMap.of(pixels, str(path))
    if palette is not None and table is not None:
        _check_palette(found, palette, table, str(path))
    return found


def check_numbered(table: LabelTable | None, where: str) -> None:
    """Refuse to read values by a table that has colours only.

    Raises
    ------
    UsageError
        Its rows could be numbered from 0 or from 1.
    """
    if table is not None and not table.numbered:
        item = f"{where} holds values, and {table.source} has none: its first row can be 0 or 1"
        fix = "add a column value to the table, or pass its names as --classes in place of --labels"
        raise UsageError("label-ambiguous", "cannot tell the classes of a label map", item=item, fix=fix)


def read_arrays(path: Path, sizes: ImageSizes) -> dict[str, LabelMap]:
    """Read the label maps of one `.npy` or of an `.npz`, one array a sample or a stack.

    An `.npy` is (H, W), (N, H, W), or of volumes (N, D, H, W); one volume, (D, H, W), where that is the size that was
    passed. Its samples are called by their row, or as the file where there is one.
    """
    out: dict[str, LabelMap] = {}
    if path.suffix.lower() == ".npz":
        for names, stack, solid in named_stacks(path, sizes):
            out |= _of_stack(stack, names, solid)
        return out
    with path.open("rb") as file:
        stack = Stack.open(file, path.stat().st_size, str(path))
        known, axes = sizes.known(path.stem), len(stack.shape)
        solid = None if known is None else len(known) == 3
        is_one = axes == 2 or (axes == 3 and solid is True)
        return _of_stack(stack, [path.stem] if is_one else [str(k) for k in range((*stack.shape, 0)[0])], solid)


def _of_stack(stack: Stack, names: Sequence[str], solid: bool | None) -> dict[str, LabelMap]:
    """Read images (N, H, W) or volumes (N, D, H, W), or without the first axis where there is one name.

    Parameters
    ----------
    solid : whether they are volumes; None: where the axes are not those of so many images, if there are values that
        binary masks do not have, which may have as many axes.
    """
    axes, guessed = len(stack.shape), solid is None
    if solid is None:
        solid = axes == 4 or (axes == 3 and len(names) == 1 and stack.shape[0] != 1)
    coloured = guessed and axes == 3 and stack.shape[0] != len(names) and stack.shape[-1] in {3, 4}
    several = math.prod(stack.shape[: -3 if solid else -2]) if axes in {2, 3, 4} else 0
    if coloured or stack.dtype.kind not in "bui" or several != len(names) or (solid and axes == 2):
        raise _unfit(stack, coloured)
    if not solid:
        return {name: LabelMap.of(bitmap, stack.where) for name, bitmap in zip(names, stack.bitmaps(), strict=True)}
    slices, shape = stack.bitmaps(), stack.shape[-3:]
    out = {name: LabelMap.of_slices(islice(slices, shape[0]), shape, stack.where) for name in names}
    next(slices, None)  # which compares the checksum of a zip entry
    if guessed and all(np.isin(found.values, [0, 1, 255]).all() for found in out.values()):
        raise _unfit(stack, coloured=False)
    return out


def _unfit(stack: Stack, coloured: bool) -> MismatchError:
    item = f"{stack.where} has the shape {stack.shape}, {stack.dtype}; label maps are integers (H, W) or (N, H, W), "
    item += "of volumes (D, H, W) or (N, D, H, W)"
    fix = "save the label of every pixel; for masks (samples, classes, H, W) pass --format npy or npz"
    if stack.dtype.kind == "f" and len(stack.shape) in {2, 3, 4}:
        fix = "save labels as integers, labels.astype(np.uint8); of scores, classes first, save scores.argmax(0)"
    elif coloured:
        fix = (
            "save colours as PNG, which --labels FILE reads by the table's colours; of a volume pass --image-size DxHxW"
        )
    elif stack.dtype.kind in "bui" and len(stack.shape) in {3, 4}:
        fix += "; a volume of one class is read with --image-size DxHxW"
    return MismatchError("stack-shape", "cannot read a stack of label maps", item=item, fix=fix)


def _tiff(path: Path) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    from PIL.TiffImagePlugin import TiffImageFile

    try:
        with TiffImageFile(path) as image:
            check_bitmap((image.height, image.width), str(path))
            if image.mode not in {"1", "L", "P", "RGB"} and not image.mode.startswith("I;16"):
                raise ValueError(f"its mode is {image.mode}, not 8- or 16-bit grey, palette or RGB")
            if getattr(image, "n_frames", 1) > 1:
                raise ValueError(f"it has {image.n_frames} pages, a label map has one")
            palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3) if image.mode == "P" else None
            pixels = np.asarray(image)
    except DamagedError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow raises anything for a damaged TIFF
        item, fix = f"{path}: {error}", "write the file again; labels as integers of 8 or 16 bits, as TIFF or PNG"
        raise DamagedError("tiff-invalid", "cannot read a TIFF of labels", item=item, fix=fix) from None
    return (pixels.astype(np.uint16) if image.mode.startswith("I;16") else pixels), palette


def _by_colours(pixels: NDArray[Any], table: LabelTable | None, where: str) -> LabelMap:
    """Turn colours into the values of a table."""
    from ensemble_kit.kernels import labels as kernels

    if table is None or not table.colours:
        if _is_grey(pixels):
            item = f"{where} has three channels, which are equal: they can be values, or colours of a table"
            fix = "write one channel where they are values (pixels[..., 0]), or pass --labels with colours"
            raise UsageError("labels-needed", "cannot read colours as labels", item=item, fix=fix)
        item = f"{where} has colours, and {'no table was passed' if table is None else 'the table has none'}"
        fix = "pass --labels with a FILE of value, name and colour, or a preset such as voc or camvid"
        raise UsageError("labels-needed", "cannot read colours as labels", item=item, fix=fix)
    meanings: dict[int, list[int]] = {}
    for value, colour in table.colours.items():
        meanings.setdefault(_packed(colour), []).append(value)
    known = np.array(sorted(meanings), np.int64)
    flat = np.ascontiguousarray(pixels).reshape(-1, 3)
    rows = np.empty(len(flat), np.uint16)
    kernels.rows_of_colours(flat, known, rows)
    found = LabelMap.of(rows.reshape(pixels.shape[:2]), where)
    if int(found.values.max()) == known.size:
        unknown = flat[rows == known.size].astype(np.int64) @ np.array([65536, 256, 1])
        codes, counts = np.unique(unknown, return_counts=True)
        listed = [f"#{code:06x} ({in_pixels(n)})" for code, n in zip(codes.tolist(), counts.tolist(), strict=True)]
        item = f"{where} has colours that the table lacks: {', '.join(listed[:12])}"
        item += f" and {len(listed) - 12} more" if len(listed) > 12 else ""
        fix = "add them to the table, or save the masks without smoothing: a resized mask mixes colours"
        if _is_grey(pixels):
            grey = "write one channel where the three, which are equal, are values (pixels[..., 0]), or add the colours"
            raise MismatchError("label-colours", "cannot read colours as labels", item=item, fix=grey)
        raise MismatchError("label-colours", "cannot read colours as labels", item=item, fix=fix)
    used = np.unique(found.values)
    for code in known[used].tolist():
        names = {table.name_of(value) for value in meanings[code]}
        if len(names) > 1:
            item = f"{where} has the colour #{code:06x}, which can be {' or '.join(sorted(names))}"
            fix = "pass a table that has every colour once, or label maps of values"
            raise MismatchError("label-colours", "cannot read colours as labels", item=item, fix=fix)
    value_of = np.zeros(known.size, np.uint16)
    value_of[used] = [meanings[code][0] for code in known[used].tolist()]
    return LabelMap(found.edges, value_of[found.values], found.shape)


def _is_grey(pixels: NDArray[Any]) -> bool:
    return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all())


def _check_palette(found: LabelMap, palette: NDArray[np.uint8], table: LabelTable, where: str) -> None:
    """Refuse a palette that gives values the colours of other classes: an image that was reduced to fewer colours."""
    by_colour = {colour: table.name_of(value) for value, colour in table.colours.items()}
    shown = {int(v): tuple(palette[v].tolist()) for v in np.unique(found.values) if v < len(palette)}
    other = {v: by_colour[c] for v, c in shown.items() if c in by_colour and by_colour[c] != table.name_of(v)}
    if other and len(other) + sum(table.colours.get(v) == c for v, c in shown.items()) == len(shown):
        value, name = next(iter(other.items()))
        item = (
            f"{where}: the value {value} is {table.name_of(value)} in the table, and its palette's colour is {name}'s"
        )
        fix = "save the image as RGB to go by its colours, or pass a table without colours to go by its values"
        raise MismatchError("label-palette", "cannot tell the classes of a palette image", item=item, fix=fix)


def _packed(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]
