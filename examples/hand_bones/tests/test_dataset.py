from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hand_bones.dataset import HandDataset
from hand_bones.layout import read_layout
from hand_bones.polygons import draw

import ensemble_kit as ek


def test_an_item_is_an_image_and_its_planes(hands):
    records = read_layout(hands, "train")
    item = HandDataset(records, 64)[5]
    assert (item["image"].shape, item["image"].dtype) == ((3, 64, 64), torch.float32)
    assert (item["masks"].shape, item["masks"].dtype) == ((29, 64, 64), torch.uint8)
    assert item["id"] == records[5].image_id
    assert item["original_size"] == (128, 128)
    assert 0 <= item["image"].min() < item["image"].max() <= 1
    assert np.array_equal(item["masks"].numpy(), draw(records[5].annotation, (64, 64), (128, 128)))


def test_the_network_sees_in_training_what_it_sees_in_the_dump(hands):
    from ensemble_kit.dumping.preprocess import Preprocess

    record = read_layout(hands, "train")[0]
    rgb = cv2.imread(str(record.image), cv2.IMREAD_COLOR_RGB)
    dumped, _ = Preprocess(size=(48, 48)).apply(rgb)
    assert np.array_equal(HandDataset([record], 48)[0]["image"].numpy(), dumped)


def test_an_augmentation_gets_both(hands):
    records = read_layout(hands, "train")[:2]
    plain = HandDataset(records, 32)[1]
    item = HandDataset(records, 32, augment=lambda image, masks: (image.flip(-1), masks.flip(-1)))[1]
    assert torch.equal(item["image"].flip(-1), plain["image"])
    assert torch.equal(item["masks"].flip(-1), plain["masks"])


def test_a_loader_makes_batches(hands):
    loader = torch.utils.data.DataLoader(HandDataset(read_layout(hands, "train"), 32), batch_size=5)
    batch = next(iter(loader))
    assert batch["image"].shape == (5, 3, 32, 32)
    assert len(batch["id"]) == 5


def test_images_without_polygons_are_no_training_data(hands):
    with pytest.raises(ek.IncompleteError, match="nobody drew"):
        HandDataset(read_layout(hands, "test"), 32)


def test_an_image_that_cannot_be_read_is_named(hands, tmp_path):
    from dataclasses import replace

    record = read_layout(hands, "train")[0]
    broken = tmp_path / "cut.png"
    broken.write_bytes(record.image.read_bytes()[:300])
    with pytest.raises(ek.DamagedError, match=r"cut\.png"):
        HandDataset([replace(record, image=broken)], 32)[0]
