"""`Recipe`: everything that decides which values a store holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.dumping.tta import symmetries
from ensemble_kit.errors import check_choice, check_number
from ensemble_kit.logits.ingest import Domain
from ensemble_kit.spec.fusion import Activation


@dataclass(frozen=True)
class Recipe:
    """What decides the values that are stored; the store records it, and only the same one resumes it.

    Parameters
    ----------
    preprocess : from an image to the network's input.
    tta : some of "hflip", "vflip", "rot90"; outputs are averaged over the group that they make.
    swap : pairs of classes that a mirror exchanges; {}: there are none; None: not known.
    tile, overlap : side of a sliding window in pixels and overlap of neighbours as a fraction; None: whole images.
    activation : "sigmoid" for overlapping classes, "softmax" for exclusive ones.
    domain : what the network puts out or the arrays hold; probabilities become logits in the store.
    half : float16 autocast, on CUDA.
    key, scale : of a folder of arrays: which array of an .npz, and what its values were multiplied by.
    """

    preprocess: Preprocess = field(default_factory=Preprocess)
    tta: tuple[str, ...] = ()
    swap: Mapping[str, str] | None = None
    tile: int | None = None
    overlap: float = 0.25
    activation: Activation = "sigmoid"
    domain: Domain = "logits"
    half: bool = False
    key: str | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        symmetries(self.tta)
        check_choice("activation", self.activation, get_args(Activation))
        check_choice("domain", self.domain, get_args(Domain))
        fraction = "pass a fraction of the window, at least 0 and below 1, such as 0.25"
        check_number("--overlap", self.overlap, fraction, least=0, below=1)
        if self.tile is not None:
            check_number("--tile", self.tile, "pass its side in pixels, such as 512", least=1, most=2**16, whole=True)
        if self.scale is not None:
            check_number("--scale", self.scale, "pass what the values were multiplied by, such as 10000", above=0)

    def __str__(self) -> str:
        prep, told = self.preprocess, [f"{self.domain} of {self.activation} classes"]
        if prep.size is not None:
            told.append(f"input {prep.size[0]} x {prep.size[1]} by {prep.resize}")
        if self.tile is not None:
            told.append(f"windows of {self.tile} x {self.tile} that overlap by {self.overlap:g}")
        mean, std = (" ".join(f"{v:g}" for v in values) for values in (prep.mean, prep.std))
        return " · ".join([*told, f"{prep.channels}, mean {mean}, std {std}"])

    def to_dict(self) -> dict[str, Any]:
        """Write it as plain JSON values, without options that were not given."""
        out: dict[str, Any] = {
            "preprocessing": self.preprocess.to_dict(),
            "activation": self.activation,
            "domain": self.domain,
        }
        if self.tta:
            out |= {"tta": list(self.tta), "swap_classes": dict(self.swap or {})}
        if self.tile is not None:
            out |= {"tile": self.tile, "overlap": self.overlap}
        optional = {"half": self.half or None, "key": self.key, "scale": self.scale}
        return out | {k: v for k, v in optional.items() if v is not None}
