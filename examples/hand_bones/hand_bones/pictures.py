"""Pictures of masks on their X-rays: one submission, its errors, and where members disagree."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ensemble_kit import Ensemble, MaskSet, MismatchError, Runs, dice, read_masks

Picture = NDArray[np.uint8]

MISSED, INVENTED, FOUND = (60, 120, 255), (255, 70, 60), (110, 190, 110)
"""RGB of false negatives, false positives and true positives."""


def load_masks(path: Path, sizes: Mapping[str, tuple[int, int]], threshold: float = 0.5) -> MaskSet:
    """Read the masks of a file or folder that the kit knows, or decide those of a logit store by one threshold.

    Parameters
    ----------
    sizes : (H, W) by image id, for files that do not say it.
    """
    if (path / "zarr.json").is_file():
        return Ensemble([path]).vote(threshold)
    return read_masks(path, image_size=sizes if path.suffix == ".csv" else None)


def overlay(image: Picture, masks: MaskSet, sample: str, opacity: float = 0.35) -> Picture:
    """Lay every class on the image in a colour of its own, with its contour.

    Parameters
    ----------
    image : grey uint8 (H, W).

    Returns
    -------
    RGB uint8 (H, W, 3).

    Raises
    ------
    MismatchError
        The masks are not of the image's size, or not of this sample.
    """
    _check(image, masks, sample)
    canvas = _rgb(image)
    pen = max(1, image.shape[0] // 700)
    for name, colour in zip(masks.classes, colours(len(masks.classes)), strict=True):
        plane = masks[sample, name].decode()
        _tint(canvas, plane, colour, opacity)
        contours, _ = cv2.findContours(plane.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, contours, -1, colour, pen)
    return canvas.astype(np.uint8)


def errors(image: Picture, prediction: MaskSet, truth: MaskSet, sample: str) -> Picture:
    """Put truth, prediction and error map side by side.

    In the error map a pixel is red where any class is predicted and not true, blue where any class is true and not
    predicted, pale green where all is right; red goes over blue, and both over green.

    Returns
    -------
    RGB uint8 (H, 3 W, 3), with a line of text above each part.
    """
    for masks in (prediction, truth):
        _check(image, masks, sample)
    if set(prediction.classes) != set(truth.classes):
        raise MismatchError(
            "classes-differ",
            "cannot compare masks of different classes",
            item=f"{len(prediction.classes)} and {len(truth.classes)} classes",
            fix="compare masks of one label space",
        )
    pairs = [(prediction[sample, name], truth[sample, name]) for name in truth.classes]
    canvas = _rgb(image)
    _tint(canvas, _union([p & t for p, t in pairs], image.shape), FOUND, 0.25)
    _tint(canvas, _union([t - p for p, t in pairs], image.shape), MISSED, 0.85)
    _tint(canvas, _union([p - t for p, t in pairs], image.shape), INVENTED, 0.85)
    score = dice(_only(prediction, sample), _only(truth, sample)).mean
    shown = {
        "truth": overlay(image, truth, sample),
        f"prediction, Dice {score:.4f}": overlay(image, prediction, sample),
        "red: too much, blue: missed": canvas.astype(np.uint8),
    }
    return np.concatenate([_titled(part, title) for title, part in shown.items()], axis=1)


def disagreement(image: Picture, members: Mapping[str, MaskSet], sample: str) -> Picture:
    """Show where members disagree: the brighter, the nearer to half of them say yes, for the class disputed most.

    Parameters
    ----------
    members : masks by member, at least two.

    Returns
    -------
    RGB uint8 (H, W, 3), with the classes that are disputed most in the line above.
    """
    if len(members) < 2:
        raise MismatchError(
            "members-few", "cannot disagree", item=f"{len(members)} members", fix="pass at least two stores or files"
        )
    sets = list(members.values())
    for masks in sets:
        _check(image, masks, sample)
        if set(masks.classes) != set(sets[0].classes):
            raise MismatchError(
                "classes-differ",
                "cannot compare members of different classes",
                item=", ".join(f"{name}: {len(masks.classes)}" for name, masks in members.items()),
                fix="pass members of one label space",
            )
    worst = np.zeros(image.shape, np.float32)
    disputed: dict[str, float] = {}
    for name in sets[0].classes:
        votes = np.zeros(image.shape, np.uint8)
        for masks in sets:
            votes += masks[sample, name].decode()
        minority = np.minimum(votes, len(sets) - votes)
        disputed[name] = float((minority > 0).sum() / max(int((votes > 0).sum()), 1))
        worst = np.maximum(worst, minority / (len(sets) // 2))
    heat = cv2.applyColorMap((worst * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    shown = np.where(worst[..., None] > 0, 0.25 * _rgb(image) + 0.75 * heat, 0.7 * _rgb(image)).astype(np.uint8)
    top = sorted(disputed, key=lambda name: -disputed[name])[:3]
    words = ", ".join(f"{name} {100 * disputed[name]:.0f} %" for name in top)
    return _titled(shown, f"{len(sets)} members; disputed: {words}")


def colours(count: int) -> list[tuple[int, int, int]]:
    """Give `count` RGB colours; neighbours differ much (steps of the golden angle)."""
    hues = [(k * 0.381966) % 1.0 for k in range(count)]
    return [
        (round(255 * r), round(255 * g), round(255 * b))
        for r, g, b in (colorsys.hsv_to_rgb(hue, 0.75, 1.0) for hue in hues)
    ]


def save(picture: Picture, path: Path, width: int = 1600) -> None:
    """Write a picture, at most `width` pixels wide; the suffix says how (`.png`, `.jpg`)."""
    scale = min(1.0, width / picture.shape[1])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), np.ascontiguousarray(picture[..., ::-1])):
        raise OSError(f"cannot write {path}")


def _only(masks: MaskSet, sample: str) -> MaskSet:
    return MaskSet({(sample, name): masks[sample, name] for name in masks.classes})


def _union(parts: Sequence[Runs], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    whole = Runs.empty((shape[0], shape[1]))
    for part in parts:
        whole |= part
    return whole.decode()


def _tint(canvas: NDArray[np.float32], plane: NDArray[np.bool_], colour: tuple[int, int, int], opacity: float) -> None:
    canvas[plane] = canvas[plane] * (1 - opacity) + np.array(colour) * opacity


def _rgb(image: Picture) -> NDArray[np.float32]:
    return np.repeat(image[..., None], 3, axis=2).astype(np.float32)


def _titled(picture: Picture, title: str) -> Picture:
    height = max(16, picture.shape[0] // 24)
    strip = np.zeros((height, picture.shape[1], 3), np.uint8)
    size = height / 36
    pen = max(1, round(size * 1.6))
    cv2.putText(
        strip, title, (height // 3, round(height * 0.72)), cv2.FONT_HERSHEY_SIMPLEX, size, (255,) * 3, pen, cv2.LINE_AA
    )
    return np.concatenate([strip, picture])


def _check(image: Picture, masks: MaskSet, sample: str) -> None:
    if sample not in masks.samples or masks.image_size(sample) != image.shape:
        found = "no such sample" if sample not in masks.samples else f"masks of {masks.image_size(sample)}"
        raise MismatchError(
            "image-size-differs",
            "cannot draw masks on another image",
            item=f"{sample}: an image of {image.shape}, {found}",
            fix="pass the image that the masks were made for",
        )
