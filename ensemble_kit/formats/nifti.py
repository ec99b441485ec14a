"""NIfTI, versions 1 and 2, by nibabel: its header, read and made; the voxels follow it as `Volume` reads them.

The affine is the sform's where its code is not 0, else the qform's, as nibabel and ITK take it.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import MismatchError, UsageError
from ensemble_kit.formats.volume import WHAT, Volume, damaged, geometry_of, head_of, missing_extra, open_at
from ensemble_kit.spec.affine import Geometry

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from ensemble_kit.spec.geometry import Shape

SUFFIXES = (".nii.gz", ".nii")

_HEADS = {348: 352, 540: 544}  # bytes of a header, and where its voxels may begin
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # millimetres of a spatial unit
_UNITS = {1: "metres", 3: "micrometres"}
_SIDE = 2**15 - 1  # most voxels along an axis of version 1
_FARTHEST = 2**40  # bytes of extensions


def open_volume(path: Path) -> Volume:
    """Read the header of a NIfTI file.

    Raises
    ------
    DamagedError
        Another file, a damaged header, or one that declares more than the file holds.
    MismatchError
        Voxels that are no numbers, no axis z, or more than one axis beside x, y and z.
    UsageError
        nibabel is not installed.
    """
    header, gzipped = header_of(path)
    where, offset = str(path), _offset(header, str(path))
    shape = tuple(int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])])
    spatial, channels = shape[:3], int(np.prod([1, *shape[3:]], dtype=object))
    if len(shape) < 3:
        item = f"{where} has {' x '.join(map(str, shape))} voxels: it has no axis z"
        fix = "save a volume, of one slice too (array[..., None]); or save images as PNG"
        raise MismatchError("volume-axes", WHAT, item=item, fix=fix)
    if sum(n > 1 for n in shape[3:]) > 1:
        item = f"{where} has {' x '.join(map(str, shape))} voxels: more than one axis beside x, y and z"
        raise MismatchError("volume-axes", WHAT, item=item, fix="save one volume a file, or one with a channel a class")
    geometry, told = _geometry(header, spatial[::-1], where)
    size = path.stat().st_size
    return Volume(
        where,
        spatial[::-1],
        _dtype(header, where),
        partial(open_at, path, offset, gzipped),
        (size if gzipped else max(size - offset, 0), gzipped),
        geometry,
        channels,
        slope=_number(header["scl_slope"], 1.0) or 1.0,
        inter=_number(header["scl_inter"], 0.0) if _number(header["scl_slope"], 1.0) else 0.0,
        told=told,
    )


def header_of(path: Path) -> tuple[Any, bool]:
    """Read a header as nibabel does, with its dimensions checked; and tell whether the file is gzip."""
    nibabel = _nibabel()
    head, gzipped = head_of(path, max(_HEADS))
    sizes = {int.from_bytes(head[:4], order): order for order in ("little", "big")}
    size = next((n for n in _HEADS if n in sizes), 0)
    magic = head[344:348] if size == 348 else head[4:8]
    if not size or len(head) < size or magic[:3] not in {b"n+1", b"n+2", b"ni1", b"ni2"}:
        raise damaged(path, f"it is not NIfTI: it begins with {head[:8]!r}", "pass .nii or .nii.gz files")
    if magic[:2] == b"ni":
        item, fix = f"{path} is the header of a pair .hdr and .img", "save it as one file .nii.gz"
        raise UsageError("format-unread", WHAT, item=item, fix=fix)
    kind = nibabel.Nifti1Header if size == 348 else nibabel.Nifti2Header
    header = kind(head[:size], "<" if sizes[size] == "little" else ">", check=False)
    dims = header["dim"].tolist()
    if not 1 <= dims[0] <= 7 or any(n < 1 for n in dims[1 : 1 + dims[0]]):
        raise damaged(path, f"its header declares the dimensions {dims}")
    return header, gzipped


def header_for(like: Any, geometry: Geometry | None, shape: Shape, dtype: DTypeLike) -> bytes:
    """Make the header of a label map, and the four bytes that say that nothing stands between it and the voxels.

    Parameters
    ----------
    like : the header of the image, whose affine, codes and units are kept; None: they come from the geometry.
    shape : (D, H, W).
    """
    nibabel = _nibabel()
    if like is not None:
        header = like.as_byteswapped("<")
    else:
        assert geometry is not None
        header = (nibabel.Nifti2Header if max(shape) > _SIDE else nibabel.Nifti1Header)(endianness="<")
    header.set_data_dtype(dtype)
    if header.get_data_shape() != shape[::-1]:  # which forgets the sizes of further axes
        header.set_data_shape(shape[::-1])
    if like is None and geometry is not None:
        _set_affines(header, geometry, shape)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    header.set_intent("none")
    header["vox_offset"] = _HEADS[header["sizeof_hdr"].item()]
    return bytes(header.binaryblock) + bytes(4)


def _set_affines(header: Any, geometry: Geometry, shape: Shape) -> None:
    """Write an affine as sform, and as qform too where a rotation and the spacing say it."""
    header.set_zooms(geometry.spacing[::-1])
    header.set_xyzt_units("mm")
    header.set_qform(geometry.ras, code="scanner", strip_shears=True)
    header.set_sform(geometry.ras, code="scanner")
    if not Geometry.of(header.get_qform()).is_near(Geometry.of(geometry.ras), shape):
        header["qform_code"] = 0


def _geometry(header: Any, shape: Shape, where: str) -> tuple[Geometry | None, tuple[str, ...]]:
    """Return where a volume lies, and what of it was assumed."""
    found: dict[str, NDArray[np.float64]] = {}
    if header["sform_code"] > 0:
        with np.errstate(invalid="ignore"):  # a signalling NaN, which is refused as any other
            found["sform"] = np.asarray(header.get_sform(), np.float64)
    if header["qform_code"] > 0:
        header = header.copy()
        if header["pixdim"][0] == 0:
            header["pixdim"][0] = 1  # as the standard says
        with suppress(Exception):  # nibabel's own, for a quaternion that is none
            found["qform"] = np.asarray(header.get_qform(), np.float64)
        found.setdefault("qform", np.full((4, 4), np.nan))
    if not found:
        spacing = " x ".join(f"{v:g}" for v in header["pixdim"][3:0:-1].tolist())
        return None, (f"it does not say where it lies (qform and sform have the code 0; spacing z, y, x {spacing})",)
    unit = int(header["xyzt_units"]) & 7
    scale = np.diag([_MM.get(unit, 1.0)] * 3 + [1.0])
    used = next(iter(found))
    geometry = geometry_of(scale @ found[used], "RAS", f"{where}, {used}")
    told = [f"its unit is {_UNITS[unit]}"] if unit in _UNITS else []
    if len(found) == 2 and not _agree(geometry, scale @ found["qform"], shape):
        told.append("its qform and sform differ: the sform is used")
    return geometry, tuple(told)


def _agree(geometry: Geometry, other: NDArray[np.float64], shape: Shape) -> bool:
    if not np.isfinite(other).all() or np.linalg.det(other[:3, :3]) == 0:
        return False
    return geometry.is_near(Geometry.of(other), shape)


def _offset(header: Any, where: str) -> int:
    """Return where the voxels begin."""
    least = _HEADS[header["sizeof_hdr"].item()]
    offset = _number(header["vox_offset"], -1.0) or least
    if not least <= offset <= _FARTHEST or offset % 1:
        raise damaged(where, f"its header says that voxels begin at {offset:g}")
    return int(offset)


def _dtype(header: Any, where: str) -> np.dtype[Any]:
    try:
        return np.dtype(header.get_data_dtype())
    except Exception as error:  # noqa: BLE001 - nibabel's own errors, whose module is not imported here
        raise damaged(where, f"its type of voxels is unknown ({error})") from None


def _number(value: Any, otherwise: float) -> float:
    """Return a number of a header, or another where it is NaN or infinite, which headers write for none."""
    number = float(value)
    return number if np.isfinite(number) else otherwise


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError:
        raise missing_extra("nibabel") from None
    return nibabel
