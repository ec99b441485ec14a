"""What a batch and an output hold: fields by their keys, ids as text, sizes of images; from any framework's arrays."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from ensemble_kit.errors import UsageError, some

Key = Hashable | Callable[[Any], Any]
"""Where a field is: a mapping's key, a tuple's index, an attribute's name, or a function of the whole."""


def field(holder: Any, key: Key) -> Any:
    """Take a field of a batch or an output.

    Raises
    ------
    KeyError
        There is no such field.
    """
    if isinstance(holder, Mapping) and key in holder:
        return holder[key]
    if isinstance(holder, (tuple, list)) and isinstance(key, int) and -len(holder) <= key < len(holder):
        return holder[key]
    if isinstance(key, str) and not isinstance(holder, Mapping) and hasattr(holder, key):
        return getattr(holder, key)
    if callable(key):
        return key(holder)
    raise KeyError(key)


def listed(holder: Any) -> str:
    """Name the fields of a batch or an output, with their shapes."""
    if isinstance(holder, Mapping):
        keys = ", ".join(f"{k!r} {_shape(v)}" for k, v in holder.items())
        return f"a {type(holder).__name__}, its keys are {keys or 'none'}"
    if isinstance(holder, (tuple, list)):
        return f"a {type(holder).__name__} of {len(holder)}: " + ", ".join(
            f"{k} {_shape(v)}" for k, v in enumerate(holder[:8])
        )
    return _shape(holder)


def _shape(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return str(tuple(shape))
    return f"{type(value).__name__}{f' of {len(value)}' if isinstance(value, (list, tuple)) else ''}"


def plain(value: Any) -> Any:
    """Turn arrays of any framework into nested lists of numbers or texts; other values stay."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "numpy"):  # TensorFlow
        return plain(value.numpy())
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def ids_of(value: Any) -> list[str]:
    """Return ids as text: of whole numbers or texts, in an array, a list or a tuple.

    Raises
    ------
    UsageError
        They are something else, such as floats.

    Examples
    --------
    >>> import numpy as np
    >>> ids_of(np.array([7, 12])), ids_of(("a.png", b"b.png"))
    (['7', '12'], ['a.png', 'b.png'])
    """
    found = plain(value)
    found = found if isinstance(found, list) else [found]
    odd = [v for v in found if isinstance(v, bool) or not isinstance(v, (str, bytes, numbers.Integral, PurePath))]
    if odd:
        shown = f"{odd[0]!r}, " if isinstance(odd[0], (int, float)) else ""  # a batch in place of its id is long
        item = f"an id is {shown}of type {type(odd[0]).__name__}"
        fix = "let the batch hold an id for each sample, as text or as a whole number"
        raise UsageError("batch-ids", "cannot tell the ids of samples", item=item, fix=fix)
    return [v.decode() if isinstance(v, bytes) else str(v) for v in found]


class Sizes:
    """Read the sizes of a batch's images, (H, W) or (D, H, W).

    Parameters
    ----------
    columns : whether sizes come as a sequence of heights and one of widths, as PyTorch's default_collate makes them of
        pairs. None: learnt from the first batch that has another number of samples than a size has numbers.
    """

    def __init__(self, columns: bool | None = None) -> None:
        self.columns = columns

    def read(self, value: Any, count: int, rank: int) -> list[tuple[int, ...]]:
        """Return a size for each of `count` samples.

        Parameters
        ----------
        value : an array (B, 2), a list of sizes, a list of heights and one of widths, or one size for all.
        rank : how many numbers a size has.

        Raises
        ------
        UsageError
            They are not as many sizes, or can be read in two ways.
        """
        rows, stacked = plain(value), hasattr(value, "shape")
        if not isinstance(rows, list) or not rows:
            raise _sizes(f"{rows!r:.80} for {count} samples")
        if all(_is_whole(n) for n in rows):
            if len(rows) != rank:
                one = f"pass {'(H, W)' if rank == 2 else '(D, H, W)'} if it is one for all; or "
                raise _sizes(f"{rows!r:.80} for {count} samples of {rank} axes", one)
            return [tuple(map(int, rows))] * count
        lengths = {len(row) if isinstance(row, list) else 0 for row in rows}
        by_rows, by_columns = (len(rows), lengths) == (count, {rank}), (len(rows), lengths) == (rank, {count})
        if by_rows and by_columns:
            turned = [list(column) for column in zip(*rows, strict=True)]
            made = not stacked and any(hasattr(row, "shape") for row in value)
            if made and self.columns is None and turned != rows:
                raise _either(rows, turned)
            by_columns = made and bool(self.columns)
        elif not stacked and by_columns != by_rows:
            self.columns = by_columns
        if not by_rows and (stacked or not by_columns):
            raise _sizes(f"{rows!r:.80} for {count} samples")
        if by_columns and not stacked:
            rows = [list(column) for column in zip(*rows, strict=True)]
        if not all(_is_whole(n) for row in rows for n in row):
            raise _sizes(f"{rows!r:.80}")
        return [tuple(map(int, row)) for row in rows]


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and value is not True and float(value).is_integer()


def _sizes(item: str, one: str = "") -> UsageError:
    fix = f"{one}let the batch hold the size (H, W) of each image in pixels, as an array (B, 2) or a list of pairs"
    return UsageError("batch-sizes", "cannot tell the sizes of images", item=item, fix=fix)


def _either(rows: Sequence[Any], turned: Sequence[Any]) -> UsageError:
    item = f"{rows} is {some(map(tuple, rows))} row by row, {some(map(tuple, turned))} as default_collate makes pairs"
    fix = "let the dataset return the size as an array, torch.tensor([H, W]), which is collated to (B, 2); or pass "
    fix += 'a function: image_size=lambda batch: list(zip(*batch["size"])) for the second reading'
    return UsageError("batch-sizes", "cannot tell which number is whose size", item=item, fix=fix)
