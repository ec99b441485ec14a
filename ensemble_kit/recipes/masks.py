"""Read masks for a vote or a tuning, with sizes and class names from wherever they are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import UsageError
from ensemble_kit.formats.reading import read_masks
from ensemble_kit.formats.sizes import ImageSize
from ensemble_kit.logits.open import is_store
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.geometry import Shape

_LACKS = {"image-size-missing", "classes-needed"}  # codes for what another file may provide


def truth_for(
    ensemble: Ensemble,
    path: Path,
    format: str | None = None,  # noqa: A002 - the option's name
    image_size: ImageSize | None = None,
) -> MaskSet:
    """Read the truth of an ensemble's samples; sizes and class names come from the ensemble.

    Raises
    ------
    UsageError
        The path is a store of logits.
    """
    refuse_store(path, "the truth")
    sizes = image_size or {s: ensemble.image_size(s) for s in ensemble.samples}
    return read_masks(path, format=format, image_size=sizes, classes=ensemble.classes)


def read_together(
    paths: Sequence[Path],
    formats: Sequence[str | None] | None = None,
    image_size: ImageSize | None = None,
    classes: Sequence[str] | None = None,
    known: Sequence[MaskSet] = (),
) -> list[MaskSet]:
    """Read mask files of the same samples; sizes and class names that one of them lacks are taken from another.

    Parameters
    ----------
    formats : of each file; None is recognised.
    image_size, classes : what the user passes; takes precedence over what files say.
    known : mask sets that are read already and provide sizes and class names too.

    Raises
    ------
    UsageError
        A store of logits among the files; sizes or class names that no file provides.
    """
    names = tuple(classes) if classes is not None else next((m.classes for m in known), None)
    sizes: dict[str, Shape] = {s: m.image_size(s) for m in known for s in m.samples}
    formats = formats or [None] * len(paths)
    read: dict[int, MaskSet] = {}
    while len(read) < len(paths):
        before, missing = len(read), None
        for k, path in enumerate(paths):
            if k in read:
                continue
            refuse_store(path, "masks")
            try:
                masks = read_masks(path, formats[k], image_size or sizes or None, names)
            except UsageError as error:
                if error.code not in _LACKS:
                    raise
                missing = error
                continue
            read[k] = masks
            names = names or masks.classes
            sizes.update({s: masks.image_size(s) for s in masks.samples})
        if len(read) == before and missing is not None:
            raise missing
    return [read[k] for k in range(len(paths))]


def refuse_store(path: Path, wanted: str) -> None:
    """Refuse a store of logits where masks are wanted.

    Parameters
    ----------
    wanted : what cannot be read, such as "the truth".

    Raises
    ------
    UsageError
        The path is a store.
    """
    if is_store(path):
        raise UsageError(
            "store-not-masks",
            f"cannot read {wanted}",
            item=f"{str(path)!r} is a store of logits",
            fix="pass a mask file or folder; ensk vote makes masks of stores",
        )


def sizes_from(path: Path) -> dict[str, Shape]:
    """Read the size of every image from a store, a folder of images (by name and by stem) or masks.

    Raises
    ------
    UsageError
        The path is none of these.
    """
    from ensemble_kit.dumping.images import find_images, image_size
    from ensemble_kit.logits.store import LogitStore

    if is_store(path):
        store = LogitStore(path)
        return {s: store.image_size(s) for s in store.samples}
    if path.is_dir() and (found := [p for p in find_images(path) if p.parent == path]):
        sizes = {p: image_size(p) for p in found}
        return {key: size for p, size in sizes.items() for key in (p.stem, p.name)}
    masks = read_masks(path)
    return {s: masks.image_size(s) for s in masks.samples}
