"""Draw small volumes with three organs, one inside another, as raw datasets of nnU-Net.

`Dataset001_Toy` has labels that exclude each other and slices along z; `Dataset002_ToyRegions` has regions that
overlap and slices along y, so that nnU-Net transposes its arrays.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import nibabel
import numpy as np

LABELS = {"background": 0, "organ": 1, "tumour": 2, "kidney": 3}
REGIONS = {"background": 0, "whole_organ": [1, 2], "tumour": 2, "kidney": 3}
ORDER = [1, 2, 3]
"""`regions_class_order`: the value that each region is painted with, the last one on top."""
DATASETS = {"Dataset001_Toy": (LABELS, 0), "Dataset002_ToyRegions": (REGIONS, 1)}
"""Labels of a dataset, and which axis of (z, y, x) has thick slices."""
# centre and radii in parts of the body's, and the mean intensity; label 2 lies inside label 1
SHAPES = {1: ((-0.1, -0.3, -0.3), (0.6, 0.45, 0.4), 220), 2: ((-0.1, -0.3, -0.3), (0.3, 0.22, 0.2), 380)}
SHAPES |= {3: ((0.1, 0.4, 0.4), (0.45, 0.3, 0.25), 540)}


def draw(rng: np.random.Generator, thick: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one case: image int16 and labels uint8 (z, y, x), and the affine of their file."""
    shape, spacing = rng.integers(38, 50, 3), rng.uniform(0.85, 1.1, 3)
    shape[thick], spacing[thick] = rng.integers(12, 17), rng.uniform(3.6, 4.6)
    centre, radii = shape / 2 + rng.uniform(-1, 1, 3), shape * rng.uniform(0.36, 0.42, 3)
    at = (np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) - centre) / radii
    body = (at**2).sum(-1) < 1
    image, labels = np.where(body, rng.normal(100, 20, shape), 0), np.zeros(shape, np.uint8)
    for value, (middle, size, mean) in SHAPES.items():
        moved = np.array(middle) + (0 if value == 2 else rng.uniform(-0.08, 0.08, 3))
        inside = (((at - moved) / (np.array(size) * rng.uniform(0.85, 1.15, 3))) ** 2).sum(-1) < 1
        labels[inside & body] = value
        image[inside & body] = rng.normal(mean, 40, int((inside & body).sum()))
    image = np.where(body, np.maximum(image, 1), 0)
    return image.astype(np.int16), labels, affine_of(spacing, rng.uniform(-0.2, 0.2))


def affine_of(spacing: np.ndarray, angle: float) -> np.ndarray:
    """Return an oblique affine to RAS whose x axis points to the left."""
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1, 1, 1]) @ np.diag(spacing[::-1])
    affine[:3, 3] = 30, -20, 10
    return affine


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write (z, y, x) as NIfTI, whose axes are x, y, z."""
    image = nibabel.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nibabel.save(image, path)


def write_dataset(folder: Path, name: str, training: int = 6, test: int = 2, seed: int = 0) -> Path:
    """Write a raw dataset with its test labels, and a split into two folds; return its folder."""
    labels, thick = DATASETS[name]
    root, rng = folder / name, np.random.default_rng([seed, *name.encode()])
    for sub in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (root / sub).mkdir(parents=True, exist_ok=True)
    for k in range(training + test):
        part, case = "Tr" if k < training else "Ts", f"case_{k:02}"
        image, mask, affine = draw(rng, thick)
        save(root / f"images{part}" / f"{case}_0000.nii.gz", image, affine)
        save(root / f"labels{part}" / f"{case}.nii.gz", mask, affine)
    about = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": training, "file_ending": ".nii.gz"}
    about |= {"regions_class_order": ORDER} if labels is REGIONS else {}
    (root / "dataset.json").write_text(json.dumps(about, indent=2))
    cases = [f"case_{k:02}" for k in range(training)]
    folds = [{"train": cases[1::2], "val": cases[::2]}, {"train": cases[::2], "val": cases[1::2]}]
    (root / "splits_final.json").write_text(json.dumps(folds))
    return root


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="nnUNet_raw")
    for name in DATASETS:
        print(write_dataset(parser.parse_args().folder, name))
