from __future__ import annotations

import pickle

import pytest
import torch
from hand_bones.augment import TRANSFORMS, Augmentation
from hand_bones.classes import CLASSES
from hand_bones.dataset import HandDataset
from hand_bones.layout import read_layout

import ensemble_kit as ek

PHOTOMETRIC = ("brightness_contrast", "jpeg", "blur", "median_blur", "clahe")
GEOMETRIC = ("affine", "elastic", "flip")


@pytest.fixture(scope="module")
def item(hands):
    got = HandDataset(read_layout(hands, "train")[:1], 64)[0]
    return got["image"], got["masks"]


def apply(item, *sections, seed=0):
    torch.manual_seed(seed)
    return Augmentation(sections)(*item)


@pytest.mark.parametrize("name", PHOTOMETRIC + GEOMETRIC)
def test_a_transform_changes_the_image_and_keeps_its_form(item, name):
    image, masks = apply(item, {"name": name, "p": 1})
    assert (image.shape, image.dtype, type(image)) == ((3, 64, 64), torch.float32, torch.Tensor)
    assert (masks.shape, masks.dtype, type(masks)) == ((29, 64, 64), torch.uint8, torch.Tensor)
    assert not torch.equal(image, item[0])
    assert torch.equal(masks, item[1]) == (name in PHOTOMETRIC)
    assert set(masks.unique().tolist()) == {0, 1}
    assert 0 <= image.min() <= image.max() <= 1
    assert torch.equal(image[0], image[2])


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_a_photometric_change_is_small(item, name):
    image, _ = apply(item, {"name": name, "p": 1})
    assert (image - item[0]).abs().mean() < 0.1


@pytest.mark.parametrize("name", GEOMETRIC)
def test_masks_move_with_the_image(item, name):
    bone = item[1].any(dim=0).float().expand(3, -1, -1).contiguous()  # an image that shows the masks themselves
    image, masks = apply((bone, item[1]), {"name": name, "p": 1})
    shown, moved = image[0] > 0.5, masks.any(dim=0)
    assert 2 * (shown & moved).sum() / (shown.sum() + moved.sum()) > 0.9


def test_a_flip_leaves_every_class_its_plane_and_twice_is_nothing(item):
    image, masks = apply(item, {"name": "flip", "p": 1})
    assert torch.equal(image, item[0].flip(-1))
    assert torch.equal(masks, item[1].flip(-1))
    assert all(map(torch.equal, apply((image, masks), {"name": "flip", "p": 1}), item))


def test_a_flip_exchanges_the_classes_that_it_is_told(item):
    _, masks = apply(item, {"name": "flip", "swap": {"Radius": "Ulna"}, "p": 1})
    radius, ulna = CLASSES.index("Radius"), CLASSES.index("Ulna")
    assert torch.equal(masks[radius], item[1][ulna].flip(-1))
    assert torch.equal(masks[ulna], item[1][radius].flip(-1))
    assert torch.equal(masks[:radius], item[1][:radius].flip(-1))


def test_resize_brings_both_to_a_size(item):
    image, masks = apply(item, {"name": "resize", "size": 32})
    assert (image.shape, masks.shape) == ((3, 32, 32), (29, 32, 32))


def test_transforms_follow_one_another_and_a_seed_repeats_them(item):
    sections = [{"name": name} for name in TRANSFORMS if name != "resize"]
    one, again, other = (apply(item, *sections, seed=s) for s in (1, 1, 2))
    assert all(map(torch.equal, one, again))
    assert not torch.equal(one[0], other[0])


def test_none_leaves_everything(item):
    assert all(map(torch.equal, apply(item), item))


def test_workers_can_take_it_along(item):
    augment = Augmentation([{"name": name} for name in TRANSFORMS if name != "resize"])
    torch.manual_seed(3)
    here = augment(*item)
    torch.manual_seed(3)
    assert all(map(torch.equal, pickle.loads(pickle.dumps(augment))(*item), here))


@pytest.mark.parametrize(
    "section",
    [
        {"name": "sharpen"},
        {"name": "flip", "prob": 1},
        {"name": "clahe", "clip": 0.5},
        {"name": "jpeg", "quality": [90, 30]},
        {"name": "median_blur", "limit": 1},
        {"name": "blur", "kernel": 4},
        {"name": "flip", "p": 2},
        {"name": "flip", "swap": {"radius": "Ulna"}},
    ],
)
def test_what_cannot_be_meant_is_refused(section):
    with pytest.raises(ek.EnskError):
        Augmentation([section])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resize", {"size": 2.5}),
        ("resize", {"size": "x"}),
        ("resize", {"size": 0}),
        ("elastic", {"sigma": 0}),
        ("elastic", {"alpha": "x"}),
        ("jpeg", {"quality": [50.5, 90.2]}),
        ("jpeg", {"quality": [True, 90]}),
        ("blur", {"kernel": 4}),
        ("median_blur", {"limit": 5.5}),
        ("flip", {"swap": ["Ulna"]}),
        ("flip", {"p": "x"}),
        ("clahe", {"clip": float("nan")}),
        ("clahe", {"tiles": 2.5}),
    ],
)
def test_a_value_that_would_fail_in_the_middle_of_an_epoch_is_refused_when_built(name, options):
    with pytest.raises(ek.UsageError, match=f"the augmentation '{name}': .*{next(iter(options))}"):
        Augmentation([{"name": name, **options}])
