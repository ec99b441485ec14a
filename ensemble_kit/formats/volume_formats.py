"""The formats of label maps of volumes: NIfTI, compressed or not, NRRD, and MetaImage, which is only read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ensemble_kit.formats import metaimage, nifti, nrrd
from ensemble_kit.formats.label_meaning import NOTHING_SAID, LabelMaps
from ensemble_kit.formats.label_writing import Drawing
from ensemble_kit.formats.maskformat import EITHER, Contents, MaskFormat, always
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.formats.volume_geometries import Geometries
from ensemble_kit.formats.volume_labels import is_of, read_volumes
from ensemble_kit.formats.volume_writing import VolumeWriting
from ensemble_kit.masks.maskset import MaskSet


def labelled(options: LabelMaps, own: MaskFormat, suffixes: Sequence[str]) -> MaskFormat:
    """Return a format that reads and writes by what the user says.

    Parameters
    ----------
    suffixes : of the files that it reads.
    """

    def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
        return read_volumes(path, sizes, classes, options, suffixes)

    drawing, geometries = Drawing(options.table, options.paint), Geometries(options.like_image, options.spacing)
    how = VolumeWriting(own.name, own.suffix, drawing, geometries)
    own = replace(own, read=read, labelled=partial(labelled, own=own, suffixes=suffixes))
    if not own.suffix:
        return own
    return replace(own, write=how.write, build=how.build, check=how.check, telling=how.telling)


def _format(name: str, suffix: str, suffixes: Sequence[str], recognised: bool = True) -> MaskFormat:
    def sniff(contents: Contents) -> bool:
        return recognised and is_of(contents, suffixes)

    def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
        return read_volumes(path, sizes, classes, NOTHING_SAID, suffixes)

    own = MaskFormat(name, read, sniff, suffix=suffix, in_pieces=always, holds_void=True, ranks=frozenset({3}))
    own = replace(own, keeps_geometry=EITHER)
    return labelled(NOTHING_SAID, own, suffixes)


NIFTI = _format("nifti", ".nii.gz", nifti.SUFFIXES)
FORMATS = (
    NIFTI,
    _format("nii", ".nii", nifti.SUFFIXES, recognised=False),
    _format("nrrd", ".nrrd", nrrd.SUFFIXES),
    _format("metaimage", "", metaimage.SUFFIXES),
)
"""`nii` is NIfTI that is written without compression; what is read is told as `nifti`."""
