"""`Recipe`: everything that decides which values a store holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.errors import MismatchError, UsageError
from ensemble_kit.spec.fusion import Activation

if TYPE_CHECKING:
    from ensemble_kit.backends import Network

Domain = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class Recipe:
    """What decides the values that are stored; the store records it, and only the same one resumes it.

    Parameters
    ----------
    preprocess : from an image to the network's input.
    tta : some of "hflip", "vflip", "rot90"; outputs are averaged over the group that they make.
    swap : pairs of classes that a mirror exchanges; {} says that there are none, None that nobody thought of it.
    tile, overlap : side of a sliding window in pixels and overlap of neighbours as a fraction; None: whole images.
    activation : "sigmoid" for overlapping classes, "softmax" for exclusive ones.
    domain : what the network or the arrays hold; probabilities become logits on the way into the store.
    half : float16 autocast, on CUDA.
    key, scale : for a folder of arrays: which array of an .npz, and what its values were multiplied by.
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
        from ensemble_kit.dumping.tiling import check_tile
        from ensemble_kit.dumping.tta import symmetries

        symmetries(self.tta)
        check_tile(self.tile, self.overlap)
        for name, allowed in (
            ("activation", ("sigmoid", "softmax")),
            ("domain", ("logits", "probabilities")),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    "option-invalid",
                    "cannot dump logits",
                    item=f"{name} = {getattr(self, name)!r}",
                    fix=f"pass {' or '.join(allowed)}",
                )
        if self.scale is not None and not 0 < self.scale < float("inf"):
            raise UsageError(
                "option-invalid",
                "cannot scale arrays",
                item=f"scale = {self.scale!r}",
                fix="pass what the values were multiplied by, such as 10000",
            )

    def __str__(self) -> str:
        prep, parts = self.preprocess, [f"{self.domain} of {self.activation} classes"]
        if prep.size is not None:
            parts.append(f"input {prep.size[0]} x {prep.size[1]} by {prep.resize}")
        if self.tile is not None:
            parts.append(f"windows of {self.tile} x {self.tile} that overlap by {self.overlap:g}")
        mean, std = (" ".join(f"{v:g}" for v in values) for values in (prep.mean, prep.std))
        return " · ".join([*parts, f"{prep.channels}, mean {mean}, std {std}"])

    def to_dict(self) -> dict[str, Any]:
        """Write it as plain JSON values, without what was not asked for."""
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


def with_size(recipe: Recipe, network: Network) -> Recipe:
    """Settle the input's size: what was asked for, what the network insists on, or a refusal."""
    prep, tile = recipe.preprocess, recipe.tile
    asked = (tile, tile) if tile is not None else prep.size
    if network.size is not None and asked is not None and asked != network.size:
        raise MismatchError(
            "model-size",
            "cannot feed images of this size to the model",
            item=f"asked for {asked[0]} x {asked[1]}, the model takes only {network.size[0]} x {network.size[1]}",
            fix="pass the model's own --size (or --tile), or export it with free sizes",
        )
    size = prep.size
    if tile is None and size is None:
        size = network.size
        if size is None:
            raise UsageError(
                "size-missing",
                "cannot tell the size of the network's input",
                item="neither --size nor --tile was passed",
                fix="pass --size HxW as the network was trained, or --tile N for a sliding window",
            )
    if tile is not None and size is not None and min(size) < tile:
        raise UsageError(
            "option-invalid",
            "cannot slide a window",
            item=f"--tile {tile} on images of {size[0]} x {size[1]}",
            fix="pass a smaller --tile, a larger --size, or no --size for images as they are",
        )
    if tile is None and size is not None and size[0] != size[1] and "rot90" in recipe.tta:
        raise UsageError(
            "option-invalid",
            "cannot turn images by 90°",
            item=f"--tta rot90 with --size {size[0]}x{size[1]}",
            fix="pass a square --size, or leave rot90 out",
        )
    return replace(recipe, preprocess=prep.but(size=size))
