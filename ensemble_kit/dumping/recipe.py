"""`Recipe`: everything that decides which values a store holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, get_args

from ensemble_kit.dumping.arrays import Axes
from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.dumping.sides import Swap, by_kind
from ensemble_kit.dumping.tiling import TileWeights
from ensemble_kit.dumping.tta import symmetries
from ensemble_kit.errors import check_choice, check_number
from ensemble_kit.logits.plausible import Domain
from ensemble_kit.spec.fusion import Activation


@dataclass(frozen=True)
class Recipe:
    """What decides the values that are stored; the store records it, and only the same one resumes it.

    Parameters
    ----------
    preprocess : from an image to the network's input.
    tta : some of "hflip", "vflip", "rot90"; outputs are averaged over the group that they make.
    swap : pairs of classes that a horizontal flip exchanges, {"A": "B"}; or pairs by what exchanges them:
        {"hflip": {"A": "B"}, "vflip": {...}} where their position in the image tells classes apart, {"handedness":
        {"A": "B"}} where their shape does. {}: there are none; None: not known.
    tile, overlap : side of a sliding window in pixels and overlap of neighbours as a fraction; None: whole images.
    activation : "sigmoid" for overlapping classes, "softmax" for exclusive ones. None: "sigmoid", unless one of the
        classes is the background.
    domain : what the network puts out or the arrays hold; probabilities become logits in the store.
    tile_weights : how windows that overlap are averaged: "hann", "constant" or "gaussian".
    output : which of a network's several outputs holds the logits: its name, or its position (-1 is the last).
    half : float16 autocast, on CUDA.
    key, scale, axes : of a folder of arrays: which array of an .npz, what its values were multiplied by, and where the
        classes stand, "chw" or "hwc".
    """

    preprocess: Preprocess = field(default_factory=Preprocess)
    tta: tuple[str, ...] = ()
    swap: Swap | None = None
    tile: int | None = None
    overlap: float = 0.25
    activation: Activation | None = None
    domain: Domain = "logits"
    tile_weights: TileWeights = "hann"
    output: str | int | None = None
    half: bool = False
    key: str | None = None
    scale: float | None = None
    axes: Axes | None = None

    def __post_init__(self) -> None:
        symmetries(self.tta)
        by_kind(self.swap or {})
        if self.activation is not None:
            check_choice("activation", self.activation, get_args(Activation))
        check_choice("domain", self.domain, get_args(Domain))
        fraction = "pass a fraction of the window, at least 0 and below 1, such as 0.25"
        check_number("--overlap", self.overlap, fraction, least=0, below=1)
        if self.tile is not None:
            check_number("--tile", self.tile, "pass its side in pixels, such as 512", least=1, most=2**16, whole=True)
        check_choice("--tile-weights", self.tile_weights, get_args(TileWeights))
        if self.axes is not None:
            check_choice("--axes", self.axes, get_args(Axes))
        if self.scale is not None:
            check_number("--scale", self.scale, "pass what the values were multiplied by, such as 10000", above=0)

    def __str__(self) -> str:
        return self.told()

    def told(self, tiles: bool = False) -> str:
        """Say it in words.

        Parameters
        ----------
        tiles : whether windows are kept as the tiles of a scene, and blended in the vote alone.
        """
        prep, told = self.preprocess, [f"{self.domain} of {self.activation} classes"]
        if prep.fixed is not None:
            told.append(f"input {prep.fixed[0]} x {prep.fixed[1]} by {prep.resize}")
        elif self.tile is None:
            told.append(f"images at their own sizes, padded to multiples of {prep.divisor}")
        if self.tile is not None:
            windows = f"windows of {self.tile} x {self.tile} that overlap by {self.overlap:g}"
            blended = (
                "kept as tiles, which a vote blends by weights of its own" if tiles else f"{self.tile_weights} weights"
            )
            told.append(f"{windows}, {blended}")
        mean, std = (" ".join(f"{v:g}" for v in values) for values in (prep.mean, prep.std))
        shown = f"{prep.channels} as one channel" if prep.count == 1 else f"{prep.channels}"
        shown += " channels" if prep.arrays else ""
        if prep.limits is not None:
            shown += ", values from {:g} to {:g}".format(*prep.limits)
        told.append(
            f"{shown}, z-score of each image" if prep.normalise == "zscore" else f"{shown}, mean {mean}, std {std}"
        )
        return " · ".join(told)

    def to_dict(self) -> dict[str, Any]:
        """Write it as plain JSON values, without options that were not given."""
        out: dict[str, Any] = {
            "preprocessing": self.preprocess.to_dict(),
            "activation": self.activation,
            "domain": self.domain,
        }
        if self.tta:
            out |= {"tta": list(self.tta), "swap_classes": _plain(self.swap or {})}
        if self.tile is not None:
            out |= {"tile": self.tile, "overlap": self.overlap}
            if self.tile_weights != "hann":  # which former versions did not record
                out["tile_weights"] = self.tile_weights
        optional = {
            "output": self.output,
            "half": self.half or None,
            "key": self.key,
            "scale": self.scale,
            "axes": self.axes,
        }
        return out | {k: v for k, v in optional.items() if v is not None}


def _plain(swap: Swap) -> dict[str, Any]:
    return {key: value if isinstance(value, str) else dict(value) for key, value in swap.items()}
