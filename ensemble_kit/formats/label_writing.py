"""Label maps are written as a folder of PNGs, indexed or 16-bit grey, with an `index.json`; or as one `.npz`.

Both keep names, order, sizes and the value of each class. The `.npz` has `samples`, `classes`, `values` and `labels`
(N, H, W), or arrays `0`, `1`, … (H, W) in place of `labels` where the samples differ in size. Volumes are (D, H, W) in
place of (H, W), and in a folder one `.npy` each.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ensemble_kit.errors import Caution, MismatchError, UsageError, some
from ensemble_kit.formats import npz
from ensemble_kit.formats.index import index_of
from ensemble_kit.formats.label_presets import voc_colour
from ensemble_kit.formats.maskformat import Telling
from ensemble_kit.formats.png_writing import height_of_bands, write_png
from ensemble_kit.masks.cover import Covering
from ensemble_kit.masks.labelmaps import kind_of
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.stream import Masks, by_sample
from ensemble_kit.spec.label_table import LabelTable, drawn_values

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Drawing:
    """How masks become label maps.

    Parameters
    ----------
    table : gives classes their values, and values their colours.
    paint : the value of each class in place of the table's, in the order in which they are drawn; classes may overlap.
    """

    table: LabelTable | None = None
    paint: Mapping[str, int] | None = None

    def build(self, masks: Masks, folder: Path) -> None:
        """Write one indexed PNG a sample, or 16-bit grey where a value is above 255; of volumes `.npy`; and the index.

        Raises
        ------
        MismatchError
            Two classes of a sample overlap, or the table lacks a class.
        """
        values = self.values(masks)
        solid = any(len(masks.image_size(sample)) == 3 for sample in masks.samples)
        index = index_of("label-map", masks, ".npy" if solid else ".png", keeps_geometry=True)
        replace(index, values=tuple(values[name] for name in masks.classes)).save(folder)
        palette, kind = palette_of(self.table), kind_of(drawn_values(tuple(values), values))
        for (_, file, size), bands in zip(index.samples, self._bands(masks, values), strict=True):
            if solid:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                with (folder / file).open("wb") as out:
                    npz.put_parts(out, kind, size, bands)
                continue
            write_png(folder / file, bands, size, kind, palette if kind == np.uint8 else None)

    def write(self, masks: Masks, out: BinaryIO) -> None:
        """Write an `.npz` with the names and values, deflated; raise as `build` does."""
        values = self.values(masks)
        kind = kind_of(drawn_values(tuple(values), values))
        shapes = [masks.image_size(s) for s in masks.samples]
        with zipfile.ZipFile(out, "w") as archive:
            npz.put_names(archive, masks)
            npz.put_geometries(archive, masks)
            npz.put_array(archive, "values", np.array([values[name] for name in masks.classes], np.int64))
            labels = self._bands(masks, values)
            if len(set(shapes)) == 1:
                npz.put_arrays(archive, "labels", kind, (len(shapes), *shapes[0]), chain.from_iterable(labels))
            else:
                for k, (shape, bands) in enumerate(zip(shapes, labels, strict=False)):  # none in a rehearsal
                    npz.put_arrays(archive, str(k), kind, shape, bands)

    def _bands(self, masks: Masks, values: Mapping[str, int]) -> Iterator[Iterable[NDArray[np.unsignedinteger]]]:
        """Draw the label map of each sample some rows at a time, of a volume its slices."""
        for piece, sample in by_sample(masks):
            size = piece.image_size(sample)
            height = 1 if len(size) == 3 else height_of_bands(size[1])
            yield piece.label_bands(sample, values, self.paint is not None, height)

    def values(self, masks: Masks) -> dict[str, int]:
        """Return the value of each class, in the order in which they are drawn.

        Raises
        ------
        MismatchError
            `paint` or the table names other classes.
        UsageError
            Two classes of `paint` have one value.
        """
        if self.paint is not None:
            if set(self.paint) != set(masks.classes):
                item = f"--paint names {some(self.paint)}, the classes are {some(masks.classes, 40)}"
                fix = "name every class once, as CLASS=VALUE,CLASS=VALUE; ensk convert --only leaves classes out"
                raise MismatchError("paint-classes", "cannot draw a label map", item=item, fix=fix)
            if len(set(drawn_values(tuple(self.paint), self.paint)[0])) < len(self.paint):
                item, fix = f"--paint {dict(self.paint)}: two classes have one value", "give every class its own value"
                raise UsageError("label-map-invalid", "cannot draw a label map", item=item, fix=fix)
            return dict(self.paint)
        if self.table is None:
            return dict(zip(masks.classes, drawn_values(masks.classes)[0], strict=True))
        found = {name: self.table.value_of(name) for name in masks.classes}
        if lacking := [name for name, value in found.items() if value is None]:
            item = f"{self.table.source} has no value for {some(lacking)}"
            fix = "add a row for each class, or pass another --labels"
            raise MismatchError("classes-differ", "cannot write label maps by a table", item=item, fix=fix)
        return {name: value for name, value in found.items() if value is not None}

    def telling(self, masks: Masks, _: Path | None = None) -> Telling:
        """Say the value of each class, and which classes cannot be seen."""
        return _Drawn(self.values(masks), painted=self.paint is not None)


class _Drawn(Telling):
    """Says the value of each class, of pixels without one, and of void; and which classes are drawn over entirely."""

    def __init__(self, values: Mapping[str, int], painted: bool) -> None:
        self._values, self._painted = values, painted
        self._none, self._void = drawn_values(tuple(values), values)[1:]
        self._rest, self._held, self._seen = Covering(), set[str](), set[str]()

    def add(self, masks: MaskSet) -> None:
        """Count pixels without a class, where they are void, and look for classes that can be seen."""
        if self._none == self._void:
            self._rest.add(MaskSet({**masks, **{(s, "void of the set"): masks.void(s) for s in masks.samples}}))
        if self._painted:
            order = tuple(self._values)
            for name in order:
                for sample in masks.samples if name not in self._seen else ():
                    if masks[sample, name].area:
                        self._held.add(name)
                        if _seen(masks, sample, order, name):
                            self._seen.add(name)
                            break

    def told(self) -> str:
        """Say the value of each class, of pixels without one, and of void."""
        named = ", ".join(f"{value} {name!r}" for name, value in self._values.items())
        without = f"no class {self._none}"
        if self._none == self._void:
            without = f"no class {self._void}, as void ({self._rest.bare} pixels)"
        return f"label maps are written with: {named}; {without}; void {self._void}"

    def doubts(self) -> list[Caution]:
        """Say which classes have pixels, and none after all others were drawn."""
        hidden = [name for name in self._values if name in self._held - self._seen]
        fix = f"name {some(hidden)} later in --paint, which draws later classes over earlier ones"
        return [Caution(f"drawn over entirely, in every sample: {some(hidden)}", fix)] if hidden else []


def _seen(masks: MaskSet, sample: str, order: Sequence[str], name: str) -> bool:
    seen = masks[sample, name]
    for later in order[order.index(name) + 1 :]:
        seen = seen - masks[sample, later]
    return seen.area > 0


def palette_of(table: LabelTable | None) -> bytes:
    """Return 256 colours, three bytes each: the table's, and PASCAL VOC's for values without one."""
    known = table.colours if table is not None else {}
    return bytes(part for value in range(256) for part in known.get(value, voc_colour(value)))
