"""Volumes are written slice by slice behind their header: label maps, or the mask of a class."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from ensemble_kit.errors import Caution, MismatchError, UsageError
from ensemble_kit.formats import nifti, nrrd
from ensemble_kit.formats.index import index_of
from ensemble_kit.formats.label_writing import Drawing
from ensemble_kit.formats.maskformat import Telling
from ensemble_kit.formats.volume_geometries import Geometries, Written
from ensemble_kit.masks.labelmaps import kind_of
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.stream import Masks, by_sample
from ensemble_kit.spec.label_table import drawn_values

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

_LEVEL = 6  # of gzip: level 1 took a third of the time and 2.5 times the bytes


@dataclass(frozen=True)
class VolumeWriting:
    """How masks become label maps of volumes.

    Parameters
    ----------
    name : of the format.
    suffix : of its files.
    drawing, geometries : which value each class has, and where volumes lie.
    """

    name: str
    suffix: str
    drawing: Drawing
    geometries: Geometries

    def check(self, masks: Masks) -> None:
        """Refuse masks that have no values or no geometry; raise as `Drawing.values` and `Geometries.check` do."""
        self.drawing.values(masks)
        self.geometries.check(masks)

    def build(self, masks: Masks, folder: Path) -> None:
        """Write one file a sample, with the index.

        Raises
        ------
        MismatchError
            Two classes of a sample overlap.
        """
        values = self.drawing.values(masks)
        index = replace(index_of(self.name, masks, self.suffix), values=tuple(values[name] for name in masks.classes))
        geometries = {sample: self.geometries.of(masks, sample) for sample in masks.samples}
        index = replace(
            index, samples=tuple((sample, file, geometries[sample].shape) for sample, file, _ in index.samples)
        )
        index.save(folder)
        files = {sample: folder / file for sample, file, _ in index.samples}
        for piece, sample in by_sample(masks):
            files[sample].parent.mkdir(parents=True, exist_ok=True)
            with files[sample].open("wb") as out:
                self._write(piece, sample, geometries[sample], values, out)

    def write(self, masks: Masks, out: BinaryIO) -> None:
        """Write the one sample that there is; raise as `build` does."""
        if len(masks.samples) > 1:
            item = f"there are {len(masks.samples)} samples"
            fix = f"pass a folder as --out, with --format {self.name}: one file a sample"
            raise MismatchError("volume-several", "cannot write several volumes as one file", item=item, fix=fix)
        values, written = self.drawing.values(masks), self.geometries.of(masks, masks.samples[0])
        for piece, sample in by_sample(masks):
            self._write(piece, sample, written, values, out)

    def _write(self, masks: MaskSet, sample: str, written: Written, values: Mapping[str, int], out: BinaryIO) -> None:
        kind = kind_of(drawn_values(tuple(values), values))
        bands = masks.label_bands(sample, values, self.drawing.paint is not None)
        write_volume(out, self.suffix, written, kind, (band[0] for band in bands))

    def telling(self, masks: Masks, like: Path | None = None) -> Telling:
        """Say the value of each class, how volumes come to lie where they do, and which classes cannot be seen."""
        return _WithGeometry(self.drawing.telling(masks, like), self.geometries.told(masks))


class _WithGeometry(Telling):
    """Says beside another what of the geometry of volumes was assumed."""

    def __init__(self, other: Telling, words: str) -> None:
        self._other, self._words = other, words

    def add(self, masks: MaskSet) -> None:
        """Show masks to the other."""
        self._other.add(masks)

    def told(self) -> str:
        """Say both."""
        return "; ".join(filter(None, (self._other.told(), self._words)))

    def doubts(self) -> Sequence[Caution]:
        """Return the other's."""
        return self._other.doubts()


def write_volume(
    out: BinaryIO, suffix: str, written: Written, kind: np.dtype[Any], slices: Iterable[NDArray[np.unsignedinteger]]
) -> None:
    """Write a volume: its header, then one slice (H, W) after the other; the same slices give the same bytes.

    Parameters
    ----------
    suffix : of the format: `.nii.gz`, `.nii` or `.nrrd`.
    """
    header, opened = _FORMS[suffix]
    with opened(out, header(written, kind)) as file:
        for one in _turned(slices, written):
            file.write(one.astype(kind.newbyteorder("<"), copy=False).tobytes())


def _turned(slices: Iterable[NDArray[Any]], written: Written) -> Iterator[NDArray[Any]]:
    """Give the slices of a volume that is turned, which takes it as a whole; or as they are."""
    yield from slices if not _turns(written) else written.turn.of(np.stack(list(slices)))


def _turns(written: Written) -> bool:
    return written.turn.axes != (0, 1, 2) or bool(written.turn.flips)


def _nifti(written: Written, kind: DTypeLike) -> bytes:
    return nifti.header_for(written.header, written.geometry, written.shape, kind)


def _nrrd(written: Written, kind: DTypeLike) -> bytes:
    if written.geometry is None:
        item, fix = "the header of its image does not say where it lies", "pass --format nifti, which keeps that header"
        raise UsageError("geometry-missing", "cannot write a volume without its geometry", item=item, fix=fix)
    return nrrd.header_for(written.geometry, written.shape, kind)


@contextmanager
def _packed(out: BinaryIO, header: bytes) -> Iterator[BinaryIO]:
    with _gzip(out) as file:
        file.write(header)
        yield file


@contextmanager
def _plain(out: BinaryIO, header: bytes) -> Iterator[BinaryIO]:
    out.write(header)
    yield out


@contextmanager
def _packed_behind(out: BinaryIO, header: bytes) -> Iterator[BinaryIO]:
    out.write(header)
    with _gzip(out) as file:
        yield file


def _gzip(out: BinaryIO) -> AbstractContextManager[BinaryIO]:
    """Open a compressed stream that names no file and no time."""
    return cast("AbstractContextManager[BinaryIO]", gzip.GzipFile("", "wb", _LEVEL, out, mtime=0))


_Header = Callable[[Written, Any], bytes]
_Opened = Callable[[BinaryIO, bytes], AbstractContextManager[BinaryIO]]
_FORMS: dict[str, tuple[_Header, _Opened]] = {
    ".nii.gz": (_nifti, _packed),
    ".nii": (_nifti, _plain),
    ".nrrd": (_nrrd, _packed_behind),
}
