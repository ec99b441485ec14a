"""A hand's skeleton: the outlines of 29 bones in millimetres, and their pose.

The frame is a hand's own: the origin in the capitate, x towards the thumb, y towards the fingertips. Lengths of the
tubular bones are the means of Buryanov and Kotiuk, "Proportions of hand segments", Int. J. Morphol. 28(3), 2010;
widths and the carpals' outlines are read off ordinary adult hands.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, PchipInterpolator

from hand_bones.classes import CLASSES

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Bone:
    """One bone, in millimetres.

    Attributes
    ----------
    outline : (n, 2), closed, in order.
    axis : (2, 2), from one end to the other.
    half_width : at even steps along the axis; also half of how thick the bone is.
    shell : thickness of the cortical bone at even steps along the axis.
    marrow : density of the trabecular bone at even steps along the axis.
    """

    label: str
    outline: Points
    axis: Points
    half_width: Points
    shell: Points
    marrow: Points

    def moved(self, matrix: Points, shift: Points) -> Bone:
        """Apply `matrix @ p + shift` to every point."""
        return replace(self, outline=self.outline @ matrix.T + shift, axis=self.axis @ matrix.T + shift)

    def turned(self, degrees: float, about: Points) -> Bone:
        """Turn, with positive angles from the fingertips towards the little finger."""
        turn = rotation(degrees)
        return self.moved(turn, about - turn @ about)


@dataclass(frozen=True)
class Build:
    """What both hands of a person share.

    Attributes
    ----------
    scale : of all lengths; 1 is the mean adult.
    cortex, density : of cortical thickness and of trabecular bone; both fall with age.
    shape : standard normal numbers that shape single bones.
    """

    scale: float
    cortex: float
    density: float
    shape: NDArray[np.float64]


@dataclass(frozen=True)
class Pose:
    """How one hand lies, in degrees.

    Attributes
    ----------
    wrist : deviation of the hand from the forearm, towards the little finger.
    spread : how far the fingers are apart; 1 is relaxed.
    joints : (5, 3) sideways bends of each finger's joints, from the knuckle outwards.
    thumb : of the thumb's metacarpal against the third one's.
    """

    wrist: float
    spread: float
    joints: NDArray[np.float64]
    thumb: float


@dataclass(frozen=True)
class Form:
    """The form of a kind of tubular bone.

    Attributes
    ----------
    profile : (n, 3), share of the way from base to head, and the half-widths in mm on the thumb's and the other side.
    head : mm over which the head is rounded off.
    cup, notch : how deep base and head are hollowed, in mm.
    cortex : thickest cortical bone, as a share of the half-width.
    """

    profile: Points
    head: float
    cup: float
    notch: float
    cortex: float


def _points(text: str) -> Points:
    return np.array([[float(v) for v in pair.split()] for pair in text.split(",")])


METACARPAL = Form(
    _points(
        "0 7.6 7.6, 0.06 7.9 7.7, 0.16 6.2 6.0, 0.32 4.7 4.6, 0.5 4.3 4.2, 0.66 4.7 4.6, 0.8 6.2 6.0, 0.89 7.5 7.4, "
        "0.94 7.6 7.5, 1 6.6 6.6"
    ),
    head=5.6,
    cup=1.0,
    notch=0.0,
    cortex=0.42,
)
PROXIMAL = Form(
    _points("0 7.2 7.2, 0.07 7.9 7.9, 0.2 6.4 6.4, 0.45 5.1 5.1, 0.68 4.9 4.9, 0.84 5.6 5.6, 0.93 6.1 6.1, 1 5.5 5.5"),
    head=3.4,
    cup=0.7,
    notch=0.9,
    cortex=0.42,
)
MIDDLE = Form(
    _points("0 6.5 6.5, 0.09 7.1 7.1, 0.25 5.3 5.3, 0.52 4.2 4.2, 0.74 4.3 4.3, 0.9 5.2 5.2, 1 4.7 4.7"),
    head=3.4,
    cup=0.7,
    notch=0.9,
    cortex=0.42,
)
DISTAL = Form(
    _points("0 5.4 5.4, 0.12 6.1 6.1, 0.3 4.1 4.1, 0.55 2.9 2.9, 0.74 3.2 3.2, 0.88 4.0 4.0, 1 3.4 3.4"),
    head=3.2,
    cup=0.8,
    notch=0.0,
    cortex=0.3,
)

# Length in mm, form and relative width of each bone from base to tip; then where each finger begins and leans.
FINGERS = (
    ((46.2, METACARPAL, 1.0), (31.6, PROXIMAL, 1.02), (21.7, DISTAL, 1.25)),
    ((68.1, METACARPAL, 1.02), (39.8, PROXIMAL, 0.97), (22.4, MIDDLE, 0.96), (15.8, DISTAL, 0.97)),
    ((64.6, METACARPAL, 1.0), (44.6, PROXIMAL, 1.0), (26.3, MIDDLE, 1.0), (17.4, DISTAL, 1.04)),
    ((58.0, METACARPAL, 0.87), (41.4, PROXIMAL, 0.93), (25.7, MIDDLE, 0.94), (17.3, DISTAL, 1.0)),
    ((53.7, METACARPAL, 0.84), (32.7, PROXIMAL, 0.82), (18.1, MIDDLE, 0.81), (16.0, DISTAL, 0.85)),
)
BASES = ((26.3, 2.6), (15.0, 9.0), (1.4, 9.6), (-10.4, 7.7), (-19.8, 3.7))
LEAN = (48.0, 8.0, 0.5, -8.5, -17.0)
SPLAY = (-14.0, 3.5, 1.0, -1.5, -5.5)
JOINT = 1.3

CARPALS = {
    "Trapezium": "13.2 7.6, 19 9.4, 24.4 7.2, 28 2.2, 26 -2.6, 20.4 -4.8, 15 -3, 13 2.4",
    "Trapezoid": "7.6 9.6, 13 10.9, 18.6 9.2, 18.4 4, 15.6 -0.8, 10 -1.6, 6.6 3",
    "Capitate": (
        "-6.6 10.4, 1 11.6, 8.4 10.4, 8.2 4.6, 6.4 -1, 6.6 -6, 4 -11, -0.6 -12.6, -5.4 -10.6, -7.4 -5.6, -6.4 2"
    ),
    "Hamate": "-6.4 9.2, -12.6 10.4, -19.4 8.8, -21.6 5, -18.2 -0.6, -12.6 -6.2, -8.2 -10.4, -6 -8.4, -6.4 0",
    "Scaphoid": (
        "19.6 -3.8, 23 -8.2, 21.4 -13.4, 15.6 -18, 9.4 -19.8, 4.6 -17.8, 5.4 -13.4, 7.8 -9.4, 8.8 -4, 12.6 -0.8, 17 -1"
    ),
    "Lunate": (
        "5.6 -14, 6.2 -18.6, 3.2 -22, -2 -23.2, -7.4 -21.6, -10.8 -17.6, -9.8 -13.4, -6.4 -11, -1.2 -13.4, 3.2 -12"
    ),
    "Triquetrum": "-9.4 -12.6, -10 -18.4, -13.8 -20, -19 -16.4, -22.4 -10.6, -21.4 -5.4, -16.8 -3.2, -12.4 -6.6",
    "Pisiform": "-13.4 -6.4, -11.6 -11, -13.6 -15.6, -18 -16.6, -21.8 -13.8, -22.2 -8.8, -18.6 -5",
}
DEPTH = {"Pisiform": 5.0, "Trapezoid": 6.0, "Capitate": 7.5, "Hamate": 7.0}
RADIUS = (
    "21.6 -16.6, 17.6 -19.4, 11.6 -22.4, 5 -23.8, -2 -24.6, -7 -24, -8.4 -26, -7.2 -30, -4.4 -37, -1.8 -48, -0.4 -66,"
    " 0 -100, 0 -200, 0 -300, 15 -300, 15 -200, 14.6 -100, 14.4 -66, 15.6 -52, 18.4 -41, 21 -31, 22.6 -22.6, 23 -18.4"
)
ULNA = (
    "-20.8 -20.8, -19.4 -23, -16.6 -25.2, -12 -25.6, -8 -26.6, -6.8 -29.4, -7.8 -34, -8.6 -44, -8 -66, "
    "-7 -100, -7 -200, -7 -300, -19 -300, -19 -200, -18.6 -100, -18.8 -66, -19.2 -46, -20.4 -36, -21.8 -29, -22.2 -24"
)
WRIST = np.array([0.0, -3.0])
FOREARM = ("Radius", "Ulna")
ROW = ("Scaphoid", "Lunate", "Triquetrum", "Pisiform")


def skeleton(build: Build, pose: Pose) -> dict[str, Bone]:
    """Pose a person's bones: all 29 classes, in their order, in millimetres."""
    dice = iter(np.tanh(build.shape / 2))  # ±1, most of them small
    bones = [bone for finger in range(5) for bone in _finger(finger, build, pose, dice)]
    for label, text in CARPALS.items():
        bones.append(_block(label, _points(text), build, dice))
    bones.append(_forearm("Radius", RADIUS, (13.5, 15, 12, 8.5, 7.4, 7.4, 7.4, 7.4), build, dice))
    bones.append(_forearm("Ulna", ULNA, (7.5, 7, 5.8, 5.5, 5.6, 5.8, 6, 6), build, dice))
    share = dict.fromkeys(ROW, 0.5) | dict.fromkeys(FOREARM, 1.0)
    placed = {b.label: b.turned(-pose.wrist * share.get(b.label, 0.0), WRIST * build.scale) for b in bones}
    return {label: placed[label] for label in CLASSES}


def sesamoids(bones: dict[str, Bone], build: Build) -> list[Bone]:
    """Give the two small bones below the thumb's knuckle, which nobody labels."""
    start, end = bones["finger-3"].axis
    along = (end - start) / np.hypot(*(end - start))
    across = np.array([-along[1], along[0]])
    turn = np.linspace(0, 2 * np.pi, 25)[:-1]
    found = []
    for side, dice in ((-1, build.shape[-1]), (1, build.shape[-2])):
        middle = end - along * 3.2 * build.scale + across * side * (4.2 + 0.5 * np.tanh(dice)) * build.scale
        half = (2.1 + 0.4 * np.tanh(dice)) * build.scale
        ring = middle + half * (np.outer(np.cos(turn), across) + 1.35 * np.outer(np.sin(turn), along))
        one = np.ones(3)
        axis = np.stack([middle - along * half, middle + along * half])
        found.append(Bone("sesamoid", ring, axis, half * one, 0.4 * one, build.density * one))
    return found


def rotation(degrees: float) -> Points:
    """Give the matrix that turns x to y."""
    a = math.radians(degrees)
    return np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])


def _finger(finger: int, build: Build, pose: Pose, dice: Iterator[float]) -> list[Bone]:
    parts = FINGERS[finger]
    numbers = range(3, 0, -1) if finger == 0 else range(3 + 4 * finger, 4 * finger - 1, -1)
    at = np.array(BASES[finger]) * build.scale
    lean = pose.thumb if finger == 0 else LEAN[finger] * (0.55 + 0.45 * pose.spread)
    bones = []
    for k, ((length, form, width), number) in enumerate(zip(parts, numbers, strict=True)):
        if k:
            lean += pose.joints[finger, k - 1] + (SPLAY[finger] * (pose.spread if finger else 1.0) if k == 1 else 0.0)
        a, b, c = (next(dice) for _ in range(3))
        size = build.scale * (1 + 0.05 * a)
        bone = _tube(f"finger-{number}", length * size, form, width * build.scale * (1 + 0.09 * b), 0.9 * c, build)
        turn = rotation(-lean)
        bones.append(bone.moved(turn, at))
        at = at + turn @ np.array([0.0, length * size + JOINT * build.scale])
    return bones


def _tube(label: str, length: float, form: Form, width: float, bow: float, build: Build) -> Bone:
    """Make a tubular bone that stands on the origin and points along y."""
    t, right, left = form.profile.T
    share = (1 - np.cos(np.linspace(0, np.pi, 61))) / 2  # closer together at the ends
    y = share * length
    close = _rounded(y, 3.6 * width, 2.4) * _rounded(length - y, form.head * width, 2.3)
    bend = bow * 4 * share * (1 - share)
    sides = [sign * PchipInterpolator(t, side)(share) * close * width for side, sign in ((right, 1), (left, -1))]
    ring = np.concatenate([np.stack([sides[0] + bend, y], 1), np.stack([sides[1] + bend, y], 1)[::-1]])
    inward = np.clip(1 - (ring[:, 0] / (0.7 * width * float(right.max()))) ** 2, 0, 1)
    ring[:, 1] += inward * form.cup * width * np.clip(1 - ring[:, 1] / (2.5 * width), 0, 1)
    ring[:, 1] -= inward * form.notch * width * np.clip(1 - (length - ring[:, 1]) / (2.5 * width), 0, 1)
    steps = np.linspace(0, 1, 33)
    half = PchipInterpolator(t, (right + left) / 2)(steps) * width
    middle = np.sin(np.pi * np.clip((steps - 0.06) / 0.9, 0, 1)) ** 1.2
    shell = (0.55 + middle * (form.cortex * half - 0.4)) * build.cortex
    marrow = (1 - 0.72 * middle) * build.density
    return Bone(label, ring, np.array([[0.0, 0.0], [0.0, length]]), half, shell, marrow)


def _rounded(distance: Points, reach: float, power: float) -> Points:
    """Close a profile towards an end: 0 at the end, 1 from `reach` mm on, along a superellipse."""
    x = np.clip(1 - distance / reach, 0, 1)
    closed: Points = (1 - x**power) ** (1 / power)
    return closed


def _block(label: str, corners: Points, build: Build, dice: Iterator[float]) -> Bone:
    middle = corners.mean(axis=0)
    a, b, c, d = (next(dice) for _ in range(4))
    stretch = np.diag([1 + 0.07 * a, 1 + 0.07 * b])
    own = (corners - middle) @ (rotation(6 * c) @ stretch).T
    ripple = 1 + 0.05 * d * np.sin(np.arange(len(own)) * 2.4 + 5 * a)
    outline = _smooth(own * ripple[:, None] + middle) * build.scale
    depth = DEPTH.get(label, 6.5) * build.scale
    x = outline[:, 0].mean()
    axis = np.array([[x, outline[:, 1].min()], [x, outline[:, 1].max()]])
    one = np.ones(3)
    return Bone(label, outline, axis, depth * one, 0.62 * build.cortex * one, 1.05 * build.density * one)


def _forearm(label: str, text: str, half_width: tuple[float, ...], build: Build, dice: Iterator[float]) -> Bone:
    a, b = (next(dice) for _ in range(2))
    corners = _points(text) * np.array([1 + 0.04 * a, 1.0]) + np.array([0.0, 1.6 * b if label == "Ulna" else 0.5 * b])
    outline = _smooth(corners) * build.scale
    middle = outline[outline[:, 1] < -60 * build.scale][:, 0].mean()
    axis = np.array([[middle, -22.0 * build.scale], [middle, -78.0 * build.scale]])
    shell = np.array([0.6, 0.65, 1.0, 1.7, 2.3, 2.6, 2.7, 2.7]) * (1.0 if label == "Radius" else 0.85) * build.cortex
    marrow = np.array([0.8, 0.78, 0.7, 0.55, 0.42, 0.36, 0.33, 0.32]) * build.density
    return Bone(label, outline, axis, np.array(half_width) * build.scale, shell, marrow)


def _smooth(corners: Points) -> Points:
    """Lay a closed cubic spline through corners."""
    ring = np.concatenate([corners, corners[:1]])
    at = np.concatenate([[0.0], np.cumsum(np.sqrt(np.linalg.norm(np.diff(ring, axis=0), axis=1)))])  # centripetal
    return CubicSpline(at, ring, bc_type="periodic")(np.linspace(0, at[-1], 97)[:-1])
