"""The sets that the ladder is measured on: images and truth to fit networks, to tune, and to judge.

usgra, larynx and nuclei are folders below `--data`; the hands are generated. Of every set three parts: `fit` trains the
networks, `val` tunes, `test` judges; nothing is trained on `val` or `test`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import ensemble_kit as ek

HANDS = Path(__file__).resolve().parent.parent / "hand_bones"


@dataclass(frozen=True)
class Case:
    """One image with its truth and the group it shares information with (a person, a video).

    Attributes
    ----------
    image : uint8 (H, W, 3).
    planes : bool (C, H, W).
    """

    name: str
    group: str
    image: NDArray[np.uint8]
    planes: NDArray[np.bool_]


Parts = dict[str, list[Case]]


@dataclass(frozen=True)
class Set:
    """What is learnt: the classes, how they relate, and how networks are trained.

    Attributes
    ----------
    side : of the network's square input; images are stretched to it.
    steps : of training, a number for each family.
    """

    name: str
    classes: tuple[str, ...]
    exclusive: bool
    side: int
    steps: dict[str, int]
    load: Callable[[Path], Parts]
    about: str
    batch: int = 8

    @property
    def activation(self) -> str:
        return "softmax" if self.exclusive else "sigmoid"


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a grey or a colour image as (H, W, 3)."""
    return np.asarray(Image.open(path).convert("RGB"))


def cases(
    folder: Path, planes: Callable[[NDArray[np.uint8]], NDArray[np.bool_]], group: Callable[[str], str]
) -> list[Case]:
    """Read a folder of images/ and masks/, sorted by name."""
    return [
        Case(p.name, group(p.name), read_image(p), planes(np.asarray(Image.open(folder / "masks" / p.name))))
        for p in sorted((folder / "images").glob("*.png"))
    ]


def shuffled(rows: list[Case], count: int) -> tuple[list[Case], list[Case]]:
    """Divide cases at random into all but `count` and `count`, each in their order."""
    held = set(random.Random(0).sample(range(len(rows)), count))
    return [r for k, r in enumerate(rows) if k not in held], [r for k, r in enumerate(rows) if k in held]


def one_hot(count: int) -> Callable[[NDArray[np.uint8]], NDArray[np.bool_]]:
    """Turn a label map into a plane for each value."""
    return lambda labels: labels[None] == np.arange(count)[:, None, None]


def by_name(name: str) -> str:
    """Every image is a group of its own."""
    return name


def load_usgra(data: Path, planes: Callable[[NDArray[np.uint8]], NDArray[np.bool_]]) -> Parts:
    """124 images to fit and 80 to tune, of the authors' training part; their test part to judge."""
    fit, val = shuffled(cases(data / "usgra" / "train", planes, by_name), 80)
    return {"fit": fit, "val": val, "test": cases(data / "usgra" / "test", planes, by_name)}


def usgra_exclusive(data: Path) -> Parts:
    return load_usgra(data, one_hot(3))


def usgra_overlapping(data: Path) -> Parts:
    return load_usgra(data, lambda labels: np.stack([labels == 1, labels == 2, labels > 0]))


def load_larynx(data: Path) -> Parts:
    """Frames of eight videos: the first half of each video's training frames to fit, the rest to tune."""
    rows = cases(data / "larynx" / "train", one_hot(7), video)
    videos = {v: [r for r in rows if r.group == v] for v in dict.fromkeys(r.group for r in rows)}
    fit = [r for own in videos.values() for r in own[: len(own) // 2]]
    val = [r for own in videos.values() for r in own[len(own) // 2 :]]
    return {"fit": fit, "val": val, "test": cases(data / "larynx" / "test", one_hot(7), video)}


def video(name: str) -> str:
    """The sequence that a frame is of: `seq3` of `seq3_0014.png`."""
    return name.split("_", maxsplit=1)[0]


def load_nuclei(data: Path) -> Parts:
    """25 images to fit and 60 to tune, and the test part."""
    fit, val = shuffled(cases(data / "nuclei" / "train", lambda labels: labels[None] > 0, by_name), 60)
    return {"fit": fit, "val": val, "test": cases(data / "nuclei" / "test", lambda labels: labels[None] > 0, by_name)}


FIT, HELD, NOISE = 8, 43, 22.0
"""Persons of the hands, two hands each, and grey levels of noise: few to fit, so that networks are weak."""
WHOLE, WINDOW = 416, 256
"""Sides of a hand's picture and of the window of it that is shown: some bones lie outside, so that masks are empty."""


def load_hands(_data: Path) -> Parts:
    """16 generated hands to fit, with few bent wrists; 85 to tune and 85 to judge, where more than half are bent."""
    return {
        "fit": hands("train", range(FIT)),
        "val": hands("test", range(HELD))[:85],
        "test": hands("test", range(HELD, 2 * HELD))[:85],
    }


def hands(split: str, persons: Sequence[int], seed: int = 15) -> list[Case]:
    """Generate windows of both hands of persons of a split; `seed` makes them others than the example's."""
    generator, draw = _hand_bones()
    found = []
    for index in persons:
        rng = np.random.default_rng([seed, index, split == "test"])
        for side, hand in enumerate(generator.person(split, index, seed).hands):
            image, annotations = generator.picture(hand, WHOLE, rng)
            y, x = (int(v) for v in rng.integers(WHOLE - WINDOW + 1, size=2))
            view = slice(y, y + WINDOW), slice(x, x + WINDOW)
            name = f"{split}{index:03d}{'RL'[side]}.png"
            grainy = np.clip(image[view] + rng.normal(0, NOISE, (WINDOW, WINDOW)), 0, 255).astype(np.uint8)
            planes = draw(annotations, WHOLE)[:, *view]
            found.append(Case(name, f"{split}{index:03d}", np.repeat(grainy[..., None], 3, 2), planes))
    return found


@cache
def _hand_bones() -> tuple[object, Callable]:
    """Import the hands' generator from the example beside this one."""
    if str(HANDS) not in sys.path:
        sys.path.insert(0, str(HANDS))
    import cv2
    from hand_bones import generator
    from hand_bones.classes import CLASSES

    def draw(annotations: list[dict], size: int) -> NDArray[np.bool_]:
        planes = np.zeros((len(CLASSES), size, size), np.uint8)
        for a in annotations:
            cv2.fillPoly(planes[CLASSES.index(a["label"])], [np.array(a["points"], np.int32)], 1)
        return planes.astype(bool)

    return generator, draw


def bones() -> tuple[str, ...]:
    _hand_bones()
    from hand_bones.classes import CLASSES

    return tuple(CLASSES)


def truth(rows: list[Case], wanted: Set) -> ek.MaskSet:
    """Give the truth as the kit's masks, at the images' own sizes."""
    return ek.MaskSet(
        {(r.name, c): ek.encode(plane) for r in rows for c, plane in zip(wanted.classes, r.planes, strict=True)}
    )


SETS = {
    s.name: s
    for s in (
        Set(
            "hands",
            bones(),
            False,
            128,
            {"unet": 170, "fpn": 220, "dilated": 150},
            load_hands,
            "windows of generated hands, 29 overlapping bones of which some lie outside, networks trained on 16 images",
            batch=4,
        ),
        Set(
            "usgra-any",
            ("nerve", "vessel", "any"),
            False,
            128,
            {"unet": 500, "fpn": 500, "dilated": 500},
            usgra_overlapping,
            "ultrasound, nerve and vessel and their union",
        ),
        Set(
            "nuclei",
            ("nucleus",),
            False,
            192,
            {"unet": 200, "fpn": 200, "dilated": 200},
            load_nuclei,
            "microscopy, one class",
        ),
        Set(
            "larynx",
            ("void", "vocal folds", "other tissue", "glottal space", "pathology", "surgical tool", "intubation"),
            True,
            128,
            {"unet": 300, "fpn": 300, "dilated": 300},
            load_larynx,
            "endoscopy, seven exclusive classes, frames of eight videos as groups",
        ),
        Set(
            "usgra",
            ("background", "nerve", "vessel"),
            True,
            128,
            {"unet": 400, "fpn": 400, "dilated": 400},
            usgra_exclusive,
            "ultrasound, exclusive",
        ),
    )
}
