"""Look at the data before training: how large the bones are, which of them overlap, how far wrists are bent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ensemble_kit import MaskSet, Runs
from hand_bones import wrist
from hand_bones.classes import CLASSES
from hand_bones.layout import Record, annotated
from hand_bones.truth import truth_masks

LEAST = 0.08
"""Least median absolute deviation: hands differ by so much anyhow."""


@dataclass(frozen=True)
class Survey:
    """Figures of N annotated images, at their original sizes.

    Attributes
    ----------
    image_ids : N ids.
    area : (N, 29), share of the image that a class covers; 0 where nobody drew it.
    overlap : (29, 29), share of the image that two classes have in common, mean over images; the diagonal is 0.
    several : (N,), share of the image that has more than one label.
    degrees : (N,), how far the wrist is bent, towards the little finger; NaN where a bone that tells it is missing.
    bent : (N,), whether it counts as bent.
    """

    image_ids: tuple[str, ...]
    area: NDArray[np.float64]
    overlap: NDArray[np.float64]
    several: NDArray[np.float64]
    degrees: NDArray[np.float64]
    bent: NDArray[np.bool_]

    def table(self) -> pd.DataFrame:
        """Show a row a class: how often it is drawn, how large it is, and which class it overlaps most."""
        drawn = np.where(self.area > 0, self.area, np.nan)
        mate = self.overlap.argmax(axis=1)
        share = self.overlap.max(axis=1) / self.area.mean(axis=0).clip(1e-12)
        return pd.DataFrame(
            {
                "class": CLASSES,
                "images": (self.area > 0).sum(axis=0),
                "area_percent": 100 * self.area.mean(axis=0),
                "smallest": 100 * np.nanmin(drawn, axis=0),
                "largest": 100 * np.nanmax(drawn, axis=0),
                "overlaps": [CLASSES[k] if self.overlap[c, k] > 0 else "" for c, k in enumerate(mate)],
                "overlap_percent": 100 * share,
            }
        )

    def summary(self) -> str:
        """Say what matters of all classes, in lines."""
        return "\n".join(
            [
                f"{len(self.image_ids)} images, {int((self.area == 0).sum())} of their classes not drawn",
                f"foreground of a class plane: {100 * self.area.mean():.2f} %",
                f"pixels with several labels: {100 * self.several.mean():.2f} % of the image",
                f"wrists bent: {100 * self.bent.mean():.0f} %, the median by {np.nanmedian(np.abs(self.degrees)):.0f}°",
            ]
        )

    def suspects(self, factor: float = 6.0) -> list[tuple[str, str]]:
        """Name images that a person should look at: (image id, reason), the strangest first.

        A class that nobody drew, or whose share of all bones of its image is too far from the class's median: further,
        in logarithms, than `factor` median absolute deviations, each at least `LEAST`. Whoever looks puts the bad ones
        into the removal list.
        """
        part = np.log(np.maximum(self.area, 1e-9) / self.area.sum(axis=1, keepdims=True).clip(1e-9))
        off = np.abs(part - np.median(part, axis=0))
        strange = off / np.maximum(np.median(off, axis=0), LEAST)
        found = []
        for n, c in zip(*np.where((strange > factor) | (self.area == 0)), strict=True):
            usual = 100 * float(np.median(self.area[:, c]))
            reason = f"{CLASSES[c]} covers {100 * self.area[n, c]:.3f} % of the image, usually {usual:.3f} %"
            found.append(
                (strange[n, c], self.image_ids[n], reason if self.area[n, c] else f"{CLASSES[c]} is not drawn")
            )
        return [(image_id, reason) for _, image_id, reason in sorted(found, key=lambda row: (-row[0], row[1:]))]


def survey(records: Sequence[Record]) -> Survey:
    """Measure annotated records, one image at a time.

    Raises
    ------
    IncompleteError
        A record without polygons.
    """
    pairs = annotated(records)
    areas, overlaps, several, degrees = [], [], [], []
    for record, annotation in pairs:
        area, overlap, shared = _measure(truth_masks([record]), record.image_id)
        areas.append(area)
        overlaps.append(overlap)
        several.append(shared)
        angle = wrist.angle(annotation)
        degrees.append(np.nan if angle is None else angle)
    return Survey(
        tuple(record.image_id for record, _ in pairs),
        np.stack(areas),
        np.mean(overlaps, axis=0),
        np.array(several),
        np.array(degrees),
        np.array([bool(record.bent) for record, _ in pairs]),
    )


def _measure(masks: MaskSet, image_id: str) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    H, W = masks.image_size(image_id)
    runs = [masks[image_id, name] for name in CLASSES]
    overlap, shared = np.zeros((len(CLASSES),) * 2), [Runs.empty((H, W))]
    for a, b in combinations(range(len(CLASSES)), 2):
        common = runs[a] & runs[b]
        if common:
            overlap[a, b] = overlap[b, a] = common.area
            shared.append(common)
    several = reduce(Runs.__or__, shared)
    return np.array([one.area for one in runs]) / (H * W), overlap / (H * W), several.area / (H * W)
