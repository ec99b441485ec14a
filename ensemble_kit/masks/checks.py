"""What a mask set refuses to hold."""

from __future__ import annotations

from collections.abc import Mapping

from ensemble_kit.errors import UsageError, check_kind, differ
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.geometry import Shape, as_text


def check_item(key: tuple[str, str], runs: Runs) -> None:
    """Refuse a key that is not (sample, class), or a value that is not Runs."""
    if not (isinstance(key, tuple) and len(key) == 2 and all(isinstance(name, str) for name in key)):
        raise no_mask(f"the key {key!r}")
    if not isinstance(runs, Runs):
        raise no_mask(f"{type(runs).__name__} for {key!r}")


def sizes_of(masks: Mapping[tuple[str, str], Runs]) -> dict[str, Shape]:
    """Return the size of every sample's image; refuse masks of two sizes for one."""
    sizes: dict[str, Shape] = {}
    for (sample, name), runs in masks.items():
        size = sizes.setdefault(sample, runs.shape)
        if size != runs.shape:
            what, which = "cannot hold masks of two sizes for one sample", f"sample {sample!r}, class {name!r}"
            fix = "give every class of a sample the size of its image"
            raise differ(what, which, as_text(runs.shape), as_text(size), fix, "mask-size-differs")
    return sizes


def checked_void(void: Mapping[str, Runs] | None, sizes: Mapping[str, Shape]) -> Mapping[str, Runs]:
    """Refuse void of a sample without masks, or of another size than these."""
    if void is not None:
        check_kind("void", void, Mapping, "pass {sample: Runs}")
    for sample, runs in (void or {}).items():
        if not isinstance(runs, Runs):
            raise no_mask(f"{type(runs).__name__} as the void of {sample!r}")
        if sample not in sizes:
            raise no_mask(f"the void of {sample!r}, a sample without masks")
        if runs.shape != sizes[sample]:
            what, which = "cannot hold void of another size than the masks", f"sample {sample!r}"
            fix = "give a sample's void the size of its image"
            raise differ(what, which, as_text(runs.shape), as_text(sizes[sample]), fix, "mask-size-differs")
    return void or {}


def no_mask(item: str) -> UsageError:
    """Make the error of what no mask set can hold."""
    fix = "pass {(sample, class): Runs} with both names as text; ek.encode(array) makes Runs of an array"
    return UsageError("masks-invalid", "cannot make a mask set", item=item, fix=fix)
