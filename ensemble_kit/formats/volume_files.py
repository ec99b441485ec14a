"""Files of volumes: which reader each has, and what the masks of one are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import DamagedError, MismatchError, some
from ensemble_kit.formats import metaimage, nifti, nrrd
from ensemble_kit.formats.index import files_under
from ensemble_kit.formats.volume import WHOLE, Volume, damaged
from ensemble_kit.masks.labelmaps import LabelMap
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = (*nifti.SUFFIXES, *nrrd.SUFFIXES, *metaimage.SUFFIXES)
"""Of all files of volumes."""

_FARTHEST = 2**40  # what no label is, and an integer can be

_READERS = {suffix: module.open_volume for module in (nifti, nrrd, metaimage) for suffix in module.SUFFIXES}


def suffix_of(file: str) -> str:
    """Return the suffix of a file of volumes; "" where it is none."""
    return next((suffix for suffix in SUFFIXES if file.lower().endswith(suffix)), "")


def name_of(file: str) -> str:
    """Return a file's name without the suffix of volumes: the id of its sample, or its class.

    Examples
    --------
    >>> name_of("case_1.nii.gz"), name_of("case_1.seg.nrrd")
    ('case_1', 'case_1')
    """
    return file[: len(file) - len(suffix_of(file))].removesuffix(".seg")


def volumes_under(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> list[str]:
    """List the files of volumes of a folder, relative, sorted."""
    return sorted(file for suffix in suffixes for file in files_under(folder, suffix))


def open_volume(path: Path) -> Volume:
    """Read the header of a volume, in the format that the file's suffix names.

    Raises
    ------
    DamagedError
        No format has its suffix; or as the format's own `open_volume`.
    """
    if not (suffix := suffix_of(path.name)):
        raise damaged(path, "its name ends in none of the suffixes of volumes", f"call it {', '.join(SUFFIXES)}")
    return _READERS[suffix](path)


def label_maps(volume: Volume) -> list[LabelMap]:
    """Read a volume as label maps, one a channel, slice by slice.

    Raises
    ------
    MismatchError
        Values that are not whole numbers.
    """
    found: list[list[LabelMap]] = [[] for _ in range(volume.channels)]
    for channel, values in volume.slices():
        found[channel].append(LabelMap.of(_whole(values, volume.where), volume.where))
    return [LabelMap.joined(slices, volume.shape) for slices in found]


def _whole(values: NDArray[Any], where: str) -> NDArray[Any]:
    """Return values as integers."""
    if values.dtype.kind != "f":
        return values
    whole = np.rint(values)
    with np.errstate(invalid="ignore"):
        odd = ~(np.abs(values - whole) <= WHOLE)
    if odd.any():
        item = f"{where} holds {values[odd][0]:g}, which is not a whole number: scores or soft masks, not labels"
        fix = (
            "write labels (argmax of channels, or where a channel is 0.5 or more); or vote over scores: save each as "
            "SAMPLE.npy, and make a store of them by ensk dump-logits ARRAYS --images IMAGES --domain probabilities"
        )
        raise MismatchError("volume-soft", "cannot read masks", item=item, fix=fix)
    return np.clip(whole, -_FARTHEST, _FARTHEST).astype(np.int64)


def binary(found: LabelMap, where: str, values: Sequence[int] | None = None) -> Runs:
    """Return the runs of a binary mask, of {0, 1} or {0, 255}; or of these values.

    Raises
    ------
    DamagedError
        Other values.
    """
    from ensemble_kit.kernels import labels as kernels

    if values is None and (held := sorted(found.counts())) and not any(set(held) <= {0, top} for top in (1, 255)):
        item = f"{where} holds the values {some(held, 12)}; those of one class are 0 and 1, or 0 and 255"
        fix = "write 0 and 1; if its folder holds label maps, one a sample, pass that folder"
        raise DamagedError("mask-values", "cannot read the mask of a class", item=item, fix=fix)
    on = found.values > 0 if values is None else np.isin(found.values, values)
    size = int(np.prod(found.shape, dtype=np.int64))
    starts, ends, _ = kernels.runs_of(found.edges, np.where(on, 0, -1), size, 1)
    return Runs.trusted((starts, ends), found.shape)


def with_geometries(masks: MaskSet, volumes: Mapping[str, Volume], also: Sequence[str] = ()) -> MaskSet:
    """Return masks with the geometry of their volumes; `.rule` says what of their headers was assumed, and `also`."""
    out = masks.with_geometry({s: v.geometry for s, v in volumes.items() if v.geometry is not None})
    notes = Counter(note for v in volumes.values() for note in _notes(v))
    told = [f"{count} of {len(volumes)} volumes: {note}" for note, count in notes.items()]
    out.rule = "; ".join([*([] if masks.rule is None else [masks.rule]), *told, *also]) or None
    return out


def _notes(volume: Volume) -> Iterator[str]:
    yield from volume.told
    if volume.dtype.kind == "f" or (volume.slope, volume.inter) != (1, 0):
        yield f"whole numbers as {volume.dtype.name}{'' if volume.slope == 1 else ', scaled'}"
