"""What an X-ray plate sees of a hand: attenuation through soft tissue, cortical and trabecular bone, metal; then noise.

Every bone is a shell of cortical bone around trabecular bone, as thick as it is wide, so a ray near the edge crosses
more cortex than one through the middle: that is why shafts are bright at their sides and joints have a bright line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hand_bones.skeleton import Bone, Points

Plane = NDArray[np.float32]

SOFT, CORTICAL, TRABECULAR, METAL = 0.026, 0.105, 0.03, 0.9
"""Attenuation per mm at about 55 kV; bone's is what it adds to the soft tissue that it displaces."""


FLAT = 0.6
"""Cortex towards the plate, as a share of the cortex at the sides: tubular bones are hollowed more that way."""


@dataclass(frozen=True)
class Exposure:
    """How one picture was taken and shown.

    Attributes
    ----------
    noise : standard deviation of the photon noise where nothing absorbs.
    scatter : share of scattered radiation.
    balance : share of the coarse differences that the display takes away, so that thin and thick parts both show.
    crispness : strength of the edge enhancement.
    gamma : of the display; below 1 is brighter.
    black, white : grey levels of the empty background and of the brightest bone, 0…1.
    blur : of focal spot and detector, in mm.
    """

    noise: float
    scatter: float
    balance: float
    crispness: float
    gamma: float
    black: float
    white: float
    blur: float


@dataclass(frozen=True)
class Metal:
    """Something that absorbs nearly everything: a polygon in pixels, and its thickness in mm."""

    polygon: Points
    thickness: float


def expose(
    bones: Sequence[Bone],
    flesh: Sequence[tuple[Points, float, float, float]],
    metals: Sequence[Metal],
    size: int,
    scale: float,
    exposure: Exposure,
    rng: np.random.Generator,
) -> Plane:
    """Take a picture.

    Parameters
    ----------
    bones : in pixels along the outline and the axis, in mm for the rest.
    flesh : capsules that make up the soft tissue: (2, 2) ends in pixels, radius at either end and depth in mm.
    scale : pixels per mm.

    Returns
    -------
    float32 (size, size), 0…1, bone is bright.
    """
    soft = _flesh(flesh, size, scale)
    cloud = _noise(rng, size, 9 * scale) * 0.035 + _noise(rng, size, 2.2 * scale) * 0.02
    absorbed = SOFT * soft * (1 + cloud)
    grain = _trabeculae(rng, scale)
    for bone in bones:
        _add(absorbed, bone, grain, scale, rng)
    for metal in metals:
        _add_metal(absorbed, metal)
    return _develop(absorbed, scale, exposure, rng)


def _flesh(capsules: Sequence[tuple[Points, float, float, float]], size: int, scale: float) -> Plane:
    """Give the thickness of soft tissue in mm: a smooth union of capsules, round at its rim."""
    step = max(1, size // 256)
    small = -(-size // step)
    at = (np.arange(small, dtype=np.float32) + 0.5) * step - 0.5
    x, y = at[None, :], at[:, None]
    soft = 1.5  # mm over which capsules melt into one another
    total = np.full((small, small), 1e-30, np.float32)
    reach, depth = np.zeros_like(total), np.zeros_like(total)
    for ends, r0, r1, thick in capsules:
        (x0, y0), (x1, y1) = ends
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-6), 0, 1)
        radius = r0 + (r1 - r0) * t
        outside = np.hypot(x - x0 - t * dx, y - y0 - t * dy) / scale - radius
        weight = np.exp(np.clip(-outside / soft, -60, 40))
        total += weight
        reach += weight * radius
        depth += weight * thick
    inside, reach, depth = (
        cv2.resize(plane.astype(np.float32), (small * step, small * step), interpolation=cv2.INTER_CUBIC)[:size, :size]
        for plane in (soft * np.log(total), reach / total, depth / total)
    )
    depth = cv2.GaussianBlur(depth, (0, 0), 2.5 * scale)
    return depth * _dome(np.maximum(inside, 0), reach)


def _dome(inside: Plane, radius: Plane | float) -> Plane:
    """Half an ellipse over the distance from the rim: 0 there, 1 from `radius` on."""
    x = np.minimum(inside / radius, 1)
    return np.sqrt(np.maximum(x * (2 - x), 0))


def _add(absorbed: Plane, bone: Bone, grain: Plane, scale: float, rng: np.random.Generator) -> None:
    size = absorbed.shape[0]
    low = np.maximum(np.floor(bone.outline.min(axis=0)).astype(int) - 2, 0)
    high = np.minimum(np.ceil(bone.outline.max(axis=0)).astype(int) + 3, size)
    if (low >= high).any():
        return
    crop = (slice(low[1], high[1]), slice(low[0], high[0]))
    fine = 16  # fractions of a pixel, as cv2 wants them
    # A bone that the plate's edge cuts has no end there, so its mask goes on beyond.
    pad = int(np.ceil(1.2 * bone.half_width.max() * scale))
    mask = np.zeros((high[1] - low[1] + 2 * pad, high[0] - low[0] + 2 * pad), np.uint8)
    cv2.fillPoly(mask, [np.round((bone.outline - low + pad) * fine).astype(np.int32)], 255, shift=4)
    rim = (cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / scale)[pad:-pad, pad:-pad]
    rim = cv2.GaussianBlur(rim, (0, 0), 0.35 * scale)
    along = bone.axis[1] - bone.axis[0]
    length = float(np.hypot(*along))
    x = np.arange(low[0], high[0], dtype=np.float32)[None, :] - np.float32(bone.axis[0, 0])
    y = np.arange(low[1], high[1], dtype=np.float32)[:, None] - np.float32(bone.axis[0, 1])
    t = (x * along[0] + y * along[1]) / length  # pixels along the axis
    s = (y * along[0] - x * along[1]) / length  # and across
    share = np.clip(t / length, 0, 1)
    half, shell, marrow = (_at(share, values) for values in (bone.half_width, bone.shell, bone.marrow))
    whole = half * _dome(rim, half)
    inner = np.maximum(half - shell, 0.2)
    spongy = (half - FLAT * shell) * _dome(np.maximum(rim - shell, 0), inner)
    offset = rng.uniform(0, grain.shape[0], 2)
    texture = cv2.remap(
        grain,
        (s + offset[0]).astype(np.float32),
        (t + offset[1]).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    bony = CORTICAL * (whole - spongy) * (1 + 0.04 * texture) + TRABECULAR * spongy * marrow * (1 + 0.33 * texture)
    absorbed[crop] += 2 * bony.astype(np.float32)


def _at(share: Plane, values: Points) -> Plane:
    """Read values given at even steps over 0…1."""
    table = np.interp(np.linspace(0, 1, 1024), np.linspace(0, 1, len(values)), values).astype(np.float32)
    return table[(share * 1023).astype(np.int32)]


def _trabeculae(rng: np.random.Generator, scale: float) -> Plane:
    """Make a texture of fibres along y that can be tiled: standard deviation 1."""
    side = 512
    white = np.fft.rfft2(rng.standard_normal((side, side)))
    fy, fx = np.fft.fftfreq(side)[:, None] * scale, np.fft.rfftfreq(side)[None, :] * scale  # cycles per mm
    total = np.zeros((side, side))
    for across, along, share in ((0.14, 0.8, 0.7), (0.13, 0.13, 0.55), (0.45, 1.1, 0.5)):  # mm
        part = np.fft.irfft2(white * np.exp(-2 * np.pi**2 * ((fx * across) ** 2 + (fy * along) ** 2)), (side, side))
        total += share * part / part.std()
        white = np.roll(white, 37, axis=0)
    return (total / total.std()).astype(np.float32)


def _noise(rng: np.random.Generator, size: int, wavelength: float) -> Plane:
    """Make smooth noise of standard deviation near 1."""
    small = max(4, int(np.ceil(size / wavelength * 2)) + 3)
    coarse = rng.standard_normal((small, small), np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _add_metal(absorbed: Plane, metal: Metal) -> None:
    mask = np.zeros(absorbed.shape, np.uint8)
    cv2.fillPoly(mask, [np.round(metal.polygon * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    absorbed += METAL * metal.thickness * (mask.astype(np.float32) / 255)


def _develop(absorbed: Plane, scale: float, exposure: Exposure, rng: np.random.Generator) -> Plane:
    """Photons to grey levels: scatter, blur, noise, logarithm, edge enhancement, window."""
    light = np.exp(-absorbed)
    light = cv2.GaussianBlur(light, (0, 0), exposure.blur * scale)
    light = (light + exposure.scatter * _wide(light, 12 * scale)) / (1 + exposure.scatter)
    light += np.sqrt(light) * exposure.noise * rng.standard_normal(light.shape, np.float32)
    dense = -np.log(np.maximum(light, 0.02))
    dense += exposure.crispness * (dense - cv2.GaussianBlur(dense, (0, 0), 2.5 * scale))
    dense -= exposure.balance * np.minimum(_wide(dense, 16 * scale), dense)
    top = np.quantile(dense[::4, ::4], 0.996)
    shown = np.clip(dense / top, 0, 1.25) ** exposure.gamma
    return np.clip(exposure.black + (exposure.white - exposure.black) * shown, 0, 1)


def _wide(plane: Plane, sigma: float) -> Plane:
    """Blur widely, on an eighth of the pixels."""
    small = cv2.resize(plane, None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / 8), plane.shape[::-1], interpolation=cv2.INTER_LINEAR)
