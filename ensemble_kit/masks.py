"""`MaskSet`: (sample, class) → Runs, the one shape in which masks travel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble_kit.errors import IncompleteError, MismatchError, UsageError, some
from ensemble_kit.runs import Runs

if TYPE_CHECKING:
    import os

Key = tuple[str, str]


class MaskSet(Mapping[Key, Runs]):
    """Masks by (sample, class); joined by these names, never by position.

    Every sample holds every class (an empty mask is an entry too), and all masks of a sample have one size.

    Parameters
    ----------
    masks : mapping of (sample, class) to Runs. Samples and classes keep the order in which they first appear.
    rule : the rule that made the masks, in words, where a vote did.

    Raises
    ------
    IncompleteError
        A sample lacks a class that another sample has.
    MismatchError
        Two masks of one sample differ in size.

    Examples
    --------
    >>> one = Runs([0], [2], (2, 2))
    >>> masks = MaskSet({("a", "bone"): one})
    >>> masks.samples, masks.classes, masks["a", "bone"].area
    (('a',), ('bone',), 2)
    """

    def __init__(self, masks: Mapping[Key, Runs], rule: str | None = None) -> None:
        self._masks = {_checked_key(key, runs): runs for key, runs in _items(masks)}
        self.rule = rule
        self.samples = tuple(dict.fromkeys(s for s, _ in self._masks))
        self.classes = tuple(dict.fromkeys(c for _, c in self._masks))
        if len(self._masks) != len(self.samples) * len(self.classes):
            missing = [(s, c) for s in self.samples for c in self.classes if (s, c) not in self._masks]
            raise IncompleteError(
                "masks-missing",
                "cannot make a mask set with holes",
                item=f"{len(missing)} of {len(missing) + len(self._masks)} (sample, class) pairs: {some(missing)}",
                fix="give every sample every class; an empty mask is Runs.empty((H, W))",
            )
        self._sizes: dict[str, tuple[int, int]] = {}
        for (sample, name), runs in self._masks.items():
            size = self._sizes.setdefault(sample, runs.shape)
            if size != runs.shape:
                raise MismatchError(
                    "mask-size-differs",
                    "cannot hold masks of two sizes for one sample",
                    item=f"sample {sample!r}, class {name!r}: {' x '.join(map(str, runs.shape))} and "
                    f"{' x '.join(map(str, size))}",
                    fix="give every class of a sample the size of its image",
                )

    def image_size(self, sample: str) -> tuple[int, int]:
        """Return (H, W) of a sample."""
        return self._sizes[sample]

    def __getitem__(self, key: Key) -> Runs:
        return self._masks[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __repr__(self) -> str:
        return f"MaskSet({len(self.samples)} samples x {len(self.classes)} classes)"

    def write(
        self,
        path: str | os.PathLike[str],
        format: str | None = None,  # noqa: A002 - the contract's name
        like: str | os.PathLike[str] | None = None,
        force: bool = True,
    ) -> None:
        """Write the masks to a file or folder; see `ensemble_kit.formats.write_masks`.

        Parameters
        ----------
        path : where to; at the end it is there whole or as it was before.
        format : name of the format (`handbone`, `kaggle`, `png`, `coco`, …); without it the path's kind tells.
        like : a sample submission whose rows give the order, and must name the same (sample, class) pairs.
        force : replace what is there.
        """
        from ensemble_kit.formats import write_masks

        write_masks(self, Path(path), format=format, like=like, force=force)


def _items(masks: Mapping[Key, Runs]) -> Iterable[tuple[Key, Runs]]:
    if not isinstance(masks, Mapping):
        raise _no_mask(f"{type(masks).__name__} is no mapping")
    return masks.items()


def _checked_key(key: Key, runs: Runs) -> Key:
    if not (isinstance(key, tuple) and len(key) == 2 and all(isinstance(part, str) for part in key)):
        raise _no_mask(f"the key {key!r}")
    if not isinstance(runs, Runs):
        raise _no_mask(f"{type(runs).__name__} for {key!r}")
    return key


def _no_mask(item: str) -> UsageError:
    return UsageError(
        "masks-invalid",
        "cannot make a mask set",
        item=item,
        fix="pass {(sample, class): Runs} with both names as text; ek.encode(array) makes Runs of an array",
    )


def check_same_keys(a: MaskSet, b: MaskSet, names: tuple[str, str]) -> None:
    """Refuse two mask sets whose classes, samples or image sizes differ."""
    if set(a.classes) != set(b.classes):
        only_a, only_b = sorted(set(a.classes) - set(b.classes)), sorted(set(b.classes) - set(a.classes))
        raise MismatchError(
            "classes-differ",
            "cannot join masks of different classes",
            item=f"only in {names[0]}: {some(only_a) or 'none'}; only in {names[1]}: {some(only_b) or 'none'}",
            fix="give both the same classes; the order does not matter",
        )
    missing = [s for s in b.samples if s not in a._sizes]
    if missing:
        raise IncompleteError(
            "samples-missing",
            f"cannot join masks: {names[0]} lacks samples that {names[1]} has",
            item=f"{len(missing)} of {len(b.samples)}: {some(missing)}",
            fix=f"add them to {names[0]}, or drop them from {names[1]}",
        )
    extra = [s for s in a.samples if s not in b._sizes]
    if extra:
        raise MismatchError(
            "samples-differ",
            f"cannot join masks: {names[0]} has samples that {names[1]} lacks",
            item=f"{len(extra)} of {len(a.samples)}: {some(extra)}",
            fix=f"add them to {names[1]}, or drop them from {names[0]}",
        )
    for sample in a.samples:
        (H, W), (h, w) = a.image_size(sample), b.image_size(sample)
        if (h, w) != (H, W):
            raise MismatchError(
                "image-size-differs",
                "cannot join masks of different sizes",
                item=f"sample {sample!r}: {H} x {W} in {names[0]}, {h} x {w} in {names[1]}",
                fix="pass the image's own size to both (--image-size HxW)",
            )
