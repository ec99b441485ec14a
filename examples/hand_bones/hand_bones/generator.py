"""Hands that nobody has: X-rays and polygons in the competition's layout, drawn by seed.

The competition's data is closed. This keeps its layout and its statistics: both hands of a person, 29 bones, carpals
that overlap (about 0.4 % of the pixels have several labels), a foreground of about 0.4 % of a class plane, wrists that
are bent in 11 % of the training images and 58 % of the test images, and a few hands with nail art, rings or pins.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ensemble_kit import UsageError
from hand_bones.layout import META
from hand_bones.radiograph import Exposure, Metal, expose
from hand_bones.skeleton import Bone, Build, Points, Pose, rotation, sesamoids, skeleton

BENT = {"train": 0.11, "test": 0.58}
"""Share of persons whose wrists are bent."""

ODDITIES = {"nail art": 0.05, "ring": 0.04, "pins": 0.02}
"""Share of hands that have one."""

TRUTH = Path("test_truth") / "outputs_json"
"""Where the test split's polygons go: outside the layout, so that nothing trains on them by accident."""

FIELD = 295.0
"""Millimetres that an image's side shows of a mean adult."""

COLUMNS = ("image_id", "person", "split", "side", "age", "sex", "bent", "degrees", "oddity")


@dataclass(frozen=True)
class Hand:
    """One hand to picture: how it is built, how it lies, and how its picture is taken."""

    build: Build
    pose: Pose
    left: bool
    oddity: str
    exposure: Exposure


def generate(root: Path, *, people: int, test_people: int = 0, size: int = 2048, seed: int = 0, jobs: int = 1) -> None:
    """Write train/, test/, test_truth/ and meta.csv: two images a person.

    The same seed gives the same first persons, whatever their number. At another size it is the same hand.

    Parameters
    ----------
    root : a folder that holds none of these yet.
    size : the images' side in pixels, at least 32.
    jobs : processes that draw.

    Raises
    ------
    UsageError
        No person, a size too small, a seed below 0, no job, or a folder that holds data already.
    """
    if people < 1 or test_people < 0 or size < 32 or seed < 0 or jobs < 1:
        raise UsageError(
            "generate-invalid",
            "cannot generate hands",
            item=f"{people} people, {test_people} test people, {size} pixels, seed {seed}, {jobs} jobs",
            fix="ask for at least 1 person, 32 pixels, a seed of 0 and 1 job",
        )
    there = [name for name in ("train", "test", TRUTH.parts[0], META) if (root / name).exists()]
    if there:
        raise UsageError(
            "output-exists",
            "cannot generate into a folder that holds data",
            item=f"{root}: {', '.join(there)}",
            fix="pass another folder, or take the data away",
        )
    root.mkdir(parents=True, exist_ok=True)
    tasks = [("train", k) for k in range(people)] + [("test", k) for k in range(test_people)]
    numbers = range(1, len(tasks) + 1)
    arguments = (repeat(root), *zip(*tasks, strict=True), numbers, repeat(size), repeat(seed))
    if jobs > 1:
        with ProcessPoolExecutor(jobs) as pool:
            rows = [row for pair in pool.map(_picture_person, *arguments) for row in pair]
    else:
        rows = [row for pair in map(_picture_person, *arguments) for row in pair]
    with (root / META).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@dataclass(frozen=True)
class Person:
    """Whose hands they are, with the right one first."""

    age: int
    sex: str
    bent: bool
    hands: tuple[Hand, Hand]


def person(split: str, index: int, seed: int) -> Person:
    """Draw the index-th person of a split; other persons play no part in it."""
    rng = np.random.default_rng([seed, sorted(BENT).index(split), index])
    bent = _spread(index, BENT[split])
    age, sex = int(rng.integers(19, 76)), "FM"[int(rng.integers(2))]
    # Women's hands are about 8 % smaller; cortex and trabeculae thin out from 35 on (Virtama and Helelä 1969).
    loss = max(0, age - 35) / 40 * (0.32 if sex == "F" else 0.2)
    build = Build(
        scale=float((1.04 if sex == "M" else 0.955) * np.clip(rng.normal(1, 0.04), 0.9, 1.1)),
        cortex=float((1 - loss) * np.clip(rng.normal(1, 0.08), 0.8, 1.2)),
        density=float((1 - 0.8 * loss) * np.clip(rng.normal(1, 0.1), 0.75, 1.25)),
        shape=rng.standard_normal(120),
    )
    return Person(age, sex, bent, (_hand(build, bent, False, rng), _hand(build, bent, True, rng)))


def _picture_person(root: Path, split: str, index: int, number: int, size: int, seed: int) -> list[dict[str, Any]]:
    """Write both pictures of a person and give their rows of the table."""
    who, name, rows = person(split, index, seed), f"ID{number:03d}", []
    rng = np.random.default_rng([seed, sorted(BENT).index(split), index, 1])
    stamp = 1_660_000_000_000 + number * 4_000_000
    for hand in who.hands:
        stamp += int(rng.integers(1_000, 2_000_000))
        image, annotations = picture(hand, size, rng)
        _write(root, split, name, f"image{stamp}", image, annotations)
        rows.append(
            {
                "image_id": f"image{stamp}.png",
                "person": name,
                "split": split,
                "side": "left" if hand.left else "right",
                "age": who.age,
                "sex": who.sex,
                "bent": int(who.bent),
                "degrees": round(hand.pose.wrist, 1),
                "oddity": hand.oddity,
            }
        )
    return rows


def _spread(index: int, share: float) -> bool:
    """Tell whether the index-th of a row is one of an evenly spread share."""
    return math.floor((index + 1) * share + 0.5) > math.floor(index * share + 0.5)


def _hand(build: Build, bent: bool, left: bool, rng: np.random.Generator) -> Hand:
    turn = float(
        rng.uniform(20, 36) * (1 if rng.random() < 0.8 else -0.8) if bent else np.clip(rng.normal(0, 4), -9, 9)
    )
    pose = Pose(
        wrist=turn,
        spread=float(rng.uniform(0.35, 1.35)),
        joints=np.clip(rng.normal(0, 2.2, (5, 3)), -5, 5),
        thumb=float(rng.uniform(34, 56)),
    )
    own = Build(build.scale, build.cortex, build.density, build.shape + 0.25 * rng.standard_normal(build.shape.shape))
    exposure = Exposure(
        noise=float(rng.uniform(0.006, 0.02)),
        scatter=float(rng.uniform(0.02, 0.14)),
        balance=float(rng.uniform(0.15, 0.45)),
        crispness=float(rng.uniform(0.15, 0.7)),
        gamma=float(rng.uniform(0.65, 1.0)),
        black=float(rng.uniform(0.0, 0.09)),
        white=float(rng.uniform(0.84, 1.0)),
        blur=float(rng.uniform(0.1, 0.2)),
    )
    chance = rng.random()
    limits = np.cumsum(list(ODDITIES.values()))
    oddity = next((name for name, limit in zip(ODDITIES, limits, strict=True) if chance < limit), "")
    return Hand(own, pose, left, oddity, exposure)


def picture(hand: Hand, size: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """Take the picture of a hand.

    Returns
    -------
    uint8 (size, size), and the polygons as the competition's JSON has them: whole pixels, clipped to the image.
    """
    fine = max(1, -(-512 // size))  # small images are drawn larger and averaged, as a detector does
    wide = size * fine
    bones = skeleton(hand.build, hand.pose)
    matrix, shift, per_mm = _placement(hand, bones, wide, rng)
    small = [bone.moved(matrix, shift) for bone in sesamoids(bones, hand.build)]
    bones = {label: bone.moved(matrix, shift) for label, bone in bones.items()}
    flesh = _flesh(bones, hand.build.scale)
    metals = _metals(hand.oddity, bones, per_mm, rng)
    image = expose([*bones.values(), *small], flesh, metals, wide, per_mm, hand.exposure, rng)
    image = _mark(image, hand.left, rng)
    if fine > 1:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    annotations = [
        {"id": f"{k:08x}", "type": "poly_seg", "attributes": {}, "points": points, "label": label}
        for k, (label, bone) in enumerate(bones.items())
        for points in _clipped((bone.outline + 0.5) / fine - 0.5, size)
    ]
    return np.round(image * 255).astype(np.uint8), annotations


def _placement(hand: Hand, bones: dict[str, Bone], wide: int, rng: np.random.Generator) -> tuple[Points, Points, float]:
    """Lay the hand on the plate: `matrix @ mm + shift` are pixels, and pixels per mm."""
    tilt = float(rng.normal(0, 2.5)) - hand.pose.wrist * float(rng.uniform(0.1, 0.8))
    turn = rotation(-tilt)
    if not hand.left:
        turn = np.diag([-1.0, 1.0]) @ turn
    turn = np.diag([1.0, -1.0]) @ turn  # images count downwards
    around = np.concatenate([bone.outline for label, bone in bones.items() if label not in {"Radius", "Ulna"}])
    placed = around @ turn.T
    low, high = placed.min(axis=0) - 10, placed.max(axis=0) + 10
    room = wide * float(rng.uniform(0.97, 1.03)) / FIELD
    per_mm = float(min(room, 0.97 * wide / (high[0] - low[0]), 0.8 * wide / (high[1] - low[1])))
    spare = wide / per_mm - (high - low)
    at = np.array([spare[0] * rng.uniform(0.35, 0.65), min(spare[1] * rng.uniform(0.1, 0.28), 0.06 * wide / per_mm)])
    return turn * per_mm, (at - low) * per_mm, per_mm


def _flesh(bones: dict[str, Bone], scale: float) -> list[tuple[Points, float, float, float]]:
    """Lay capsules of soft tissue around the bones."""
    capsules = []

    def add(a: Points, b: Points, r0: float, r1: float, depth: float) -> None:
        capsules.append((np.stack([a, b]), r0 * scale, r1 * scale, depth * scale))

    middle = {label: bone.axis.mean(axis=0) for label, bone in bones.items()}
    for finger in range(5):
        numbers = range(3, 0, -1) if finger == 0 else range(3 + 4 * finger, 4 * finger - 1, -1)
        rays = [bones[f"finger-{k}"].axis for k in numbers]
        slim = (1.14, 1.0, 1.03, 0.96, 0.83)[finger]
        add(rays[0][0], rays[0][1], *((11, 12, 24) if finger else (12.5, 12.5, 21)))
        radii = (10.6, 9.2, 8.5, 7.2) if finger else (10.6, 9.0, 7.6)
        for (start, end), r0, r1 in zip(rays[1:], radii, radii[1:], strict=False):
            far = end + (end - start) * (0.12 if end is rays[-1][1] else 0.05)
            add(start, far, r0 * slim, r1 * slim, (r0 + r1) * slim * 0.85)
    heads = [bones[f"finger-{k}"].axis for k in (7, 11, 15, 19)]
    for one, other in pairwise(heads):  # the palm, up to the webs
        add(one.mean(axis=0), other.mean(axis=0), 12, 12, 25)
        add(one[1] + (one[1] - one[0]) * 0.06, other[1] + (other[1] - other[0]) * 0.06, 8, 8, 18)
    add(middle["finger-3"], heads[0].mean(axis=0), 8, 12, 20)  # the web of the thumb
    add(middle["finger-3"], middle["Capitate"], 15, 17, 26)
    add(middle["finger-19"], middle["Triquetrum"], 13, 13, 25)
    add(middle["Hamate"], middle["Trapezium"], 14, 12, 27)
    add(middle["Scaphoid"], bones["Radius"].axis[0], 14, 17, 29)
    add(middle["Triquetrum"], bones["Ulna"].axis[0], 12, 14, 28)
    for bone, r in (("Radius", 16), ("Ulna", 13)):
        start, end = bones[bone].axis
        beyond = start + (end - start) * 5
        add(middle["Capitate"], start, r + 3, r + 1, 29)
        add(start, end, r, r + 3, 36)
        add(end, beyond, r + 3, r + 8, 44)
    return capsules


def _metals(oddity: str, bones: dict[str, Bone], per_mm: float, rng: np.random.Generator) -> list[Metal]:
    if oddity == "ring":
        start, end = bones[f"finger-{rng.choice([14, 10, 6])}"].axis
        along = (end - start) / np.hypot(*(end - start))
        across = np.array([-along[1], along[0]])
        middle = start + (end - start) * rng.uniform(0.35, 0.5)
        reach, half = 9.6 * per_mm, rng.uniform(1.2, 2.6) * per_mm
        u = np.linspace(-1, 1, 21)
        sag = 0.9 * per_mm * (1 - u**2)
        edge = middle + np.outer(u * reach, across)
        band = np.concatenate([edge + np.outer(sag + half, along), (edge + np.outer(sag - half, along))[::-1]])
        return [Metal(band, 1.8)]
    if oddity == "pins":
        host = bones[str(rng.choice(["Radius", "finger-19", "finger-15", "finger-7"]))]
        pins = []
        start, end = host.axis
        for k in range(int(rng.integers(1, 4))):  # through the shaft, crossing one another
            reach = rotation(float(rng.uniform(3, 8) * (-1) ** k)) @ (end - start) * 0.46
            middle = start + (end - start) * rng.uniform(0.42, 0.52)
            pins.append(Metal(_bar(middle - reach, middle + reach, 0.7 * per_mm), 1.4))
        return pins
    if oddity == "nail art":
        gems = []
        for k in (1, 4, 8, 12, 16):
            start, end = bones[f"finger-{k}"].axis
            for _ in range(int(rng.integers(0, 5))):
                at = start + (end - start) * rng.uniform(0.75, 1.25) + rng.normal(0, 1.8 * per_mm, 2)
                turn = np.linspace(0, 2 * np.pi, 17)
                radius = rng.uniform(0.4, 1.3) * per_mm
                gems.append(Metal(at + radius * np.stack([np.cos(turn), np.sin(turn)], 1), rng.uniform(0.15, 0.7)))
        return gems
    return []


def _bar(start: Points, end: Points, half: float) -> Points:
    along = (end - start) / np.hypot(*(end - start))
    side = half * np.array([-along[1], along[0]])
    return np.stack([start + side, end + side, end - side, start - side])


def _mark(image: NDArray[np.float32], left: bool, rng: np.random.Generator) -> NDArray[np.float32]:
    """Put the lead letter of the side where the plate is empty."""
    wide = image.shape[0]
    tall = rng.uniform(0.028, 0.04)
    x, y = (0.05 if left else 0.91) + rng.uniform(-0.015, 0.015), rng.uniform(0.06, 0.3)
    pen = np.zeros(image.shape, np.uint8)
    origin = (round(x * wide), round(y * wide))
    cv2.putText(
        pen,
        "L" if left else "R",
        origin,
        cv2.FONT_HERSHEY_SIMPLEX,
        tall * wide / 22,
        255,
        max(1, wide // 190),
        cv2.LINE_AA,
    )
    return np.maximum(image, pen.astype(np.float32) / 255 * 0.97)


def _clipped(outline: Points, size: int) -> Iterator[list[list[int]]]:
    """Clip a closed outline to the image (Sutherland and Hodgman 1974) and round it to whole pixels."""
    points = outline
    for dim, sign, limit in ((0, 1, 0.0), (0, -1, size - 1.0), (1, 1, 0.0), (1, -1, size - 1.0)):
        depth = sign * (points[:, dim] - limit)
        kept = []
        for k in range(len(points)):
            a, b, da, db = points[k - 1], points[k], depth[k - 1], depth[k]
            if (da < 0) != (db < 0):
                kept.append(a + (b - a) * da / (da - db))
            if db >= 0:
                kept.append(b)
        if not kept:
            return
        points = np.array(kept)
    corners = np.floor(points + 0.5).astype(int)
    corners = corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)]
    if len(corners) >= 3:
        yield corners.tolist()


def _write(
    root: Path, split: str, person: str, name: str, image: NDArray[np.uint8], annotations: list[dict[str, Any]]
) -> None:
    pictures = root / split / "DCM" / person
    polygons = (root / TRUTH if split == "test" else root / split / "outputs_json") / person
    for folder in (pictures, polygons):
        folder.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(pictures / f"{name}.png"), image):
        raise OSError(f"cannot write {pictures / name}.png")
    H, W = image.shape
    value = {
        "annotations": annotations,
        "attributes": {},
        "filename": f"{name}.png",
        "parent_path": f"/{split}/DCM/{person}",
        "metadata": {"height": H, "width": W},
    }
    (polygons / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
