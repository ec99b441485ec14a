"""What tests of volumes share: label maps, affines, and files of them by other programs."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813 - as everybody calls it

import ensemble_kit as ek
from ensemble_kit.spec.affine import Geometry

DATA = Path(__file__).parent / "data" / "volumes"
HEART = DATA / "heart" / "labels"
CORD = DATA / "cord"
CLASSES = ["background", "myocardium", "cavity"]
OBLIQUE = np.array([[-0.8, 0.1, 0.3, 12], [0.1, 0.78, 0.2, -7], [0.06, -0.16, 4.9, 3], [0, 0, 0, 1]])


def labels_of(shape: tuple[int, ...] = (4, 5, 6), classes: int = 3, seed: int = 0) -> np.ndarray:
    """A label map (D, H, W) of the values 0 … classes - 1, in stretches."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, classes, -(-int(np.prod(shape)) // 3))
    return np.repeat(steps, 3)[: int(np.prod(shape))].reshape(shape).astype(np.uint8)


def save_nifti(path: Path, labels: np.ndarray, affine: np.ndarray = OBLIQUE, codes: tuple[int, int] = (1, 1)) -> Path:
    """Write an array (D, H, W) as NIfTI by nibabel, with the codes of qform and sform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.asarray(labels).dtype)
    header.set_data_shape(np.asarray(labels).T.shape)
    header.set_qform(affine, code=codes[0], strip_shears=True)
    header.set_sform(affine, code=codes[1])
    nibabel.save(nibabel.Nifti1Image(np.asarray(labels).T, None, header), path)
    return path


def array_of(path: Path) -> np.ndarray:
    """The voxels of a NIfTI as nibabel has them, (D, H, W)."""
    return np.asarray(nibabel.load(path).dataobj).T


def masks_of(labels: np.ndarray, sample: str = "a", classes: list[str] | None = None) -> ek.MaskSet:
    """Masks of the values 0, 1, … of a label map."""
    return ek.MaskSet({(sample, name): ek.encode(labels == k) for k, name in enumerate(classes or CLASSES)})


AFFINES = {
    "axes": np.diag([-1.0, 1, 1, 1]) @ OBLIQUE,
    "spacing": OBLIQUE @ np.diag([1, 1, 1.1, 1]),
    "origin": OBLIQUE + np.eye(4)[:, [1, 2, 0, 0]] * 0 + np.outer([0, 0, 2.0, 0], [0, 0, 0, 1]),
}


def itk(path: Path) -> tuple[np.ndarray, Geometry]:
    """A volume as SimpleITK reads it: its array (D, H, W), and its place."""
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), Geometry.of(affine, "LPS")
