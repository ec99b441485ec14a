"""From a MODEL and a recipe to a network that is ready to run, and the recipe with the size of its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ensemble_kit import backends
from ensemble_kit.backends import Network
from ensemble_kit.dumping.preprocess import Size
from ensemble_kit.dumping.recipe import Recipe
from ensemble_kit.dumping.sides import check_sides, class_orders, told_swap
from ensemble_kit.dumping.tta import Averaged, symmetries
from ensemble_kit.errors import MismatchError, UsageError


def open_network(
    model: object,
    recipe: Recipe,
    classes: Sequence[str],
    weights: str | Path | None,
    weights_key: str | None,
    device: str,
    trust: bool,
    seed: int,
    say: Callable[[str], None],
) -> tuple[Network, Recipe]:
    """Open the network, average it over the flips that the recipe names, and settle the size of its input."""
    for option, value in (("--key", recipe.key), ("--scale", recipe.scale), ("--axes", recipe.axes)):
        if value is not None:
            fix = f"leave {option} out, or pass a folder of arrays as MODEL"
            raise _option("cannot read arrays", f"{option} with a model that runs", fix)
    group = symmetries(recipe.tta)
    check_sides(classes, group, recipe.swap)
    orders = class_orders(classes, group, recipe.swap)
    network, notes = backends.open_network(
        model,
        weights=weights,
        weights_key=weights_key,
        output=recipe.output,
        device=device,
        half=recipe.half,
        trust=trust,
        seed=seed,
        say=say,
    )
    for note in notes:
        say(note)
    if len(group) > 1:
        say(f"each image runs {len(group)} times, flipped or turned, and the {recipe.domain} are averaged")
        if orders is None:
            say("a flip leaves every class as it is; classes that have a left and a right need --swap-classes")
        else:
            say(told_swap(recipe.swap or {}))
        network = Averaged(network, group, orders)
    return network, with_channels(with_size(recipe, network), network)


def with_channels(recipe: Recipe, network: Network) -> Recipe:
    """Feed grey images as one channel to a network that takes one; where nothing tells, it is tried on zeros."""
    prep = recipe.preprocess
    if prep.channels != "grey" or prep.count is not None or network.channels == 3:
        return recipe
    size = (recipe.tile, recipe.tile) if recipe.tile is not None else prep.fixed
    if prep.size == "native":
        size = size or (8 * prep.divisor, 8 * prep.divisor)
    if network.channels == 1 or (size is not None and not _takes(network, 3, size) and _takes(network, 1, size)):
        return replace(recipe, preprocess=prep.but(count=1))
    return recipe


def _takes(network: Network, channels: int, size: Size) -> bool:
    import numpy as np

    try:
        network.forward(network.put(np.zeros((1, channels, *size), np.float32)))
    except Exception:  # noqa: BLE001 - whatever the user's model raises
        return False
    return True


def with_size(recipe: Recipe, network: Network) -> Recipe:
    """Settle the input's size: what was asked for, the only one that the network takes, or a refusal."""
    tile, prep = recipe.tile, recipe.preprocess
    size: Size | Literal["native"] | None = prep.fixed if tile is not None else prep.size
    asked = (tile, tile) if tile is not None else size
    if network.size is not None and asked is not None and asked != network.size:
        told = "each image's own size" if asked == "native" else f"{asked[0]} x {asked[1]}"
        item = f"{told}, the model takes only {network.size[0]} x {network.size[1]}"
        fix = "pass the model's own --size (or --tile), or export it with free sizes"
        raise MismatchError("model-size", "cannot feed images of this size to the model", item=item, fix=fix)
    if tile is None:
        size = size or network.size
        if size is None:
            item = "neither --size nor --tile was passed"
            fix = (
                "pass --size HxW as the network was trained, --size native for each image's own, or --tile N for a "
                "sliding window"
            )
            raise UsageError("size-missing", "cannot tell the size of the network's input", item=item, fix=fix)
        if size != "native" and size[0] != size[1] and "rot90" in recipe.tta:
            item = f"--tta rot90 with --size {size[0]}x{size[1]}"
            raise _option("cannot turn images by 90°", item, "pass a square --size, or leave rot90 out")
    elif prep.fixed is not None and min(prep.fixed) < tile:
        item = f"--tile {tile} on images of {prep.fixed[0]} x {prep.fixed[1]}"
        fix = "pass a smaller --tile, a larger --size, or no --size for images as they are"
        raise _option("cannot slide a window", item, fix)
    return replace(recipe, preprocess=replace(prep, size=size))


def _option(what: str, item: str, fix: str) -> UsageError:
    return UsageError("option-invalid", what, item=item, fix=fix)
