"""Whether two sides have the same classes, samples and image sizes; they are joined by name, never by position."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ensemble_kit.errors import IncompleteError, MismatchError, differ, some
from ensemble_kit.masks.idforms import difference
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import Box, Shape, as_text
from ensemble_kit.spec.georeference import WorldGeometry


class Extent(NamedTuple):
    """What there is a mask, or a score, for: every class of every sample."""

    classes: tuple[str, ...]
    sizes: Mapping[str, Shape]
    """Size of each sample's image."""
    geometry: Mapping[str, WorldGeometry] = {}
    """Where volumes lie in the world, of the samples of which it is known."""
    windows: Mapping[str, tuple[Box, ...]] = {}
    """The pixels that members saw of an image, of the samples of which none saw all."""

    def arranged(self, samples: Sequence[str], classes: Sequence[str]) -> Extent:
        """Return what there is for these samples and classes, in this order."""
        sizes = {sample: self.sizes[sample] for sample in samples}
        geometry = {sample: self.geometry[sample] for sample in samples if sample in self.geometry}
        windows = {sample: self.windows[sample] for sample in samples if sample in self.windows}
        return Extent(tuple(classes), sizes, geometry, windows)

    def called(self, names: Mapping[str, str]) -> Extent:
        """Return the same under new names of samples, by the old ones."""
        sizes = {names[sample]: size for sample, size in self.sizes.items()}
        geometry = {names[sample]: own for sample, own in self.geometry.items()}
        windows = {names[sample]: own for sample, own in self.windows.items()}
        return Extent(self.classes, sizes, geometry, windows)


def check_aligned(
    a: Extent,
    b: Extent,
    names: tuple[str, str],
    what: str = "cannot join masks",
    missing: str = "samples-missing",
    fix: str = "",
) -> None:
    """Refuse two sides whose classes, samples, image sizes or geometries differ; their order does not matter.

    Parameters
    ----------
    names : what messages call the two sides, such as ("the prediction", "the truth").
    what : what cannot be done with them.
    missing : code of the error where `a` lacks samples of `b`.
    fix : what to do where sizes or geometries differ; default: what mends masks.

    Raises
    ------
    IncompleteError
        `a` lacks samples that `b` has.
    MismatchError
        `a` has samples that `b` lacks, or classes, image sizes or geometries differ.
    """
    ours, theirs = names
    if a.classes != b.classes:
        check_same_classes(a.classes, b.classes, names, what)
    if a.sizes == b.sizes:
        check_same_geometry(a, b, names, what, fix)
        return
    lacking, extra = [s for s in b.sizes if s not in a.sizes], [s for s in a.sizes if s not in b.sizes]
    why, mend = (lacking and extra and difference(a.sizes, b.sizes)) or ("", "")
    why = why and f"; {why}"
    if lacking:
        item = f"{ours} lacks samples that {theirs} has: {len(lacking)} of {len(b.sizes)}: {some(lacking)}{why}"
        raise IncompleteError(missing, what, item=item, fix=mend or f"add them to {ours}, or drop them from {theirs}")
    if extra:
        item = f"{ours} has samples that {theirs} lacks: {len(extra)} of {len(a.sizes)}: {some(extra)}"
        mend = f"add them to {theirs}, or drop them from {ours}"
        raise MismatchError("samples-differ", what, item=item, fix=mend)
    sample = next(sample for sample, size in a.sizes.items() if size != b.sizes[sample])
    own, wanted = f"{as_text(a.sizes[sample])} in {ours}", f"{as_text(b.sizes[sample])} in {theirs}"
    mend = fix or "pass the image's own size to both (--image-size HxW)"
    if len(a.sizes[sample]) != len(b.sizes[sample]):
        mend = "compare volumes with volumes, and images with images; a stack of slices is no volume"
    if sample in a.geometry and sample in b.geometry:
        own, wanted = f"{own}, {a.geometry[sample].as_text()}", f"{wanted}, {b.geometry[sample].as_text()}"
        mend = fix or _mend(a, b, sample)
    raise differ(what, f"sample {sample!r}", own, wanted, mend, "image-size-differs")


def check_same_geometry(a: Extent, b: Extent, names: tuple[str, str], what: str, fix: str = "") -> None:
    """Refuse a volume that lies elsewhere in the world on the other side, where both say it.

    Parameters
    ----------
    a, b : of the same sizes.
    fix : what to do; default: what mends masks.

    Raises
    ------
    MismatchError
        It names both geometries.
    """
    for sample, own in a.geometry.items():
        other = b.geometry.get(sample)
        if other is not None and not own.is_near(other, a.sizes[sample]):
            ours, theirs = (
                f"{geometry.as_text()} in {name}" for geometry, name in zip((own, other), names, strict=True)
            )
            how = own.apart(other)
            mend = fix or _mend(a, b, sample)
            raise differ(what, f"sample {sample!r}, its {how}", ours, theirs, mend, "geometry-differs")


def _mend(a: Extent, b: Extent, sample: str) -> str:
    """Say how volumes are brought to one geometry: turned where they have the same voxels, else resampled."""
    own, other, sizes = a.geometry[sample], b.geometry[sample], (a.sizes[sample], b.sizes[sample])
    if isinstance(own, Geometry) and isinstance(other, Geometry) and own.has_voxels_of(other, *sizes):
        return "turn one of them to the axes of the other: ensk convert MASKS --like-image FOLDER --out FOLDER"
    return (
        "resample one of them to the other's voxels; where only a header is wrong, write the masks with the right one: "
        "ensk convert MASKS --drop-geometry --like-image FOLDER --out FOLDER"
    )


def check_same_classes(
    a: Iterable[str],
    b: Iterable[str],
    names: tuple[str, str],
    what: str,
    fix: str = "give both the same classes; the order does not matter",
) -> None:
    """Refuse two sides of different classes; their order does not matter.

    Parameters
    ----------
    names : what the message calls the two sides.
    what, fix : what cannot be done with them, and what to pass instead.

    Raises
    ------
    MismatchError
        It names the classes that only one side has.
    """
    ours, theirs = set(a), set(b)
    if ours != theirs:
        only = [some(sorted(one)) or "none" for one in (ours - theirs, theirs - ours)]
        item = f"classes only in {names[0]}: {only[0]}; only in {names[1]}: {only[1]}"
        raise MismatchError("classes-differ", what, item=item, fix=fix)
