"""What `--format fiftyone` writes, imported by FiftyOne itself (`make exports-test`)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ensemble_kit as ek
from test_ome_zarr import masks_of

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("fiftyone") is None, reason="needs fiftyone: make exports-test"),
    pytest.mark.filterwarnings("ignore"),  # theirs
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def fo() -> Any:
    from database import fiftyone

    return fiftyone()


def imported(fo: Any, folder: Path) -> Any:
    return fo.Dataset.from_dir(str(folder), dataset_type=fo.types.FiftyOneDataset, progress=False)


@pytest.mark.parametrize("overlap", ["", "b"])
def test_fiftyone_sees_every_mask_and_its_class(fo: Any, tmp_path: Path, overlap: str) -> None:
    masks, images = masks_of((30, 40), overlap=overlap), tmp_path / "images"
    images.mkdir()
    for sample in masks.samples:
        Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(images / f"{sample}.png")
    masks.write(tmp_path / "m", format="fiftyone", like_image=images)
    dataset = imported(fo, tmp_path / "m")
    assert dataset.media_type == "image"
    fields = {"masks": ("x", "y")} if not overlap else {"masks_x": ("x",), "masks_y": ("y",)}
    targets = {field: dict(enumerate(names, 1)) | {255: "void"} for field, names in fields.items()}
    assert dataset.mask_targets == targets
    assert [s.ensk_sample for s in dataset] == list(masks.samples)
    dataset.compute_metadata(progress=False)  # which reads the images
    for sample in dataset:
        assert sample.filepath == str(images / f"{sample.ensk_sample}.png")
        assert (sample.metadata.height, sample.metadata.width) == (30, 40)
        for field, names in fields.items():
            labels = sample[field].get_mask()
            for value, name in enumerate(names, 1):
                np.testing.assert_array_equal(labels == value, masks[sample.ensk_sample, name].decode())
    dataset.add_dir(str(tmp_path / "m"), dataset_type=fo.types.FiftyOneDataset, progress=False)
    assert len(dataset) == 4  # ids are given by the import, so two of them do not collide


def test_fiftyones_own_figures_are_the_kits(fo: Any, tmp_path: Path) -> None:
    """Truth and answer as two fields of one dataset, scored there."""
    answer, truth = masks_of((30, 40)), masks_of((30, 40), samples="zab").arranged("ab", ("x", "y"))
    for name, masks in (("answer", answer), ("truth", truth)):
        masks.write(tmp_path / name, format="fiftyone")
    dataset = imported(fo, tmp_path / "answer").clone()
    dataset.rename_sample_field("masks", "answer")
    others = {s.ensk_sample: s.masks for s in imported(fo, tmp_path / "truth")}
    dataset.set_values("truth", [others[name] for name in dataset.values("ensk_sample")])
    counts = np.zeros((3, 3), np.int64)
    for sample in dataset:
        np.add.at(counts, (sample.truth.get_mask().ravel(), sample.answer.get_mask().ravel()), 1)
    ours = ek.confusion(answer, truth).counts
    np.testing.assert_array_equal(counts[1:, 1:], ours[:2, :2])
    assert (counts[0, 1:] == ours[2, :2]).all()
