"""The ids of a CSV's rows: which sample and class each means, and what stands there when masks are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, product
from pathlib import Path

from ensemble_kit.errors import DamagedError, MismatchError, UsageError, some
from ensemble_kit.formats.classes import ONLY_CLASS, check_wanted
from ensemble_kit.formats.dialects import Dialect
from ensemble_kit.masks.packedmasks import Key
from ensemble_kit.masks.stream import Masks


class Splitter:
    """Splits joined ids by the known classes (and samples, where they are known).

    What stands before and behind the sample is looked up by its length, so that the cost does not grow with the number
    of classes.
    """

    def __init__(self, dialect: Dialect, classes: Iterable[str], samples: frozenset[str] | None = None) -> None:
        self._samples = samples
        self._around: dict[tuple[str, str], str] = {}
        for name in classes:
            self._around[dialect.around(name)] = name
        self._lengths = sorted({(len(head), len(foot)) for head, foot in self._around})

    def candidates(self, joined: str) -> list[tuple[str, str]]:
        """Return every (sample, class) that the id can mean."""
        found = []
        for head, foot in self._lengths:
            end = len(joined) - foot
            name = self._around.get((joined[:head], joined[end:])) if end > head else None
            if name is not None and (self._samples is None or joined[head:end] in self._samples):
                found.append((joined[head:end], name))
        return found


class Keys:
    """Turns the id fields of a row into (sample, class)."""

    def __init__(
        self, dialect: Dialect, samples: frozenset[str] | None, classes: Sequence[str] | None, path: Path
    ) -> None:
        self._path, self._dialect = path, dialect
        known = check_wanted(classes) if classes is not None else dialect.classes
        self._only = _only_class(known, dialect, path) if dialect.by_sample else ""
        if dialect.template is not None and not known:
            item = f"{path}: {dialect.template} can be split in more than one way"
            fix = "pass --classes FILE with one name a line (classes=[…])"
            raise UsageError("classes-needed", "cannot split joined ids", item=item, fix=fix)
        self._split = Splitter(dialect, known, samples) if dialect.template is not None else None

    def of(self, lines: Sequence[int], columns: Sequence[list[str]]) -> list[Key]:
        """Return the (sample, class) of each row, from the columns of its ids; `lines` are named where one is wrong.

        Raises
        ------
        DamagedError
            A name is blank, or an id can mean several.
        MismatchError
            An id means none.
        """
        if self._split is not None:
            return [self._split_id(line, joined) for line, joined in zip(lines, columns[0], strict=True)]
        keys = list(zip(columns[0], columns[1] if len(columns) == 2 else [self._only] * len(lines), strict=True))
        if not all(map(all, keys)):
            line, key = next((line, key) for line, key in zip(lines, keys, strict=True) if not all(key))
            why = f"line {line}: sample {key[0]!r}, class {key[1]!r}: a name is blank"
            raise self._refuse("row-unnamed", why, "name the sample and the class of every row")
        return keys

    def _split_id(self, line: int, joined: str) -> Key:
        assert self._split is not None
        found = self._split.candidates(joined)
        if len(found) == 1:
            return found[0]
        if not found:
            item = f"{self._path}, line {line}: {joined[:200]!r} is not {self._dialect.template} of known names"
            fix = "pass the classes that the ids end in (--classes FILE, classes=[…])"
            raise MismatchError("id-unknown", "cannot split a joined id", item=item, fix=fix)
        why = f"line {line}: {joined[:200]!r} can mean (sample, class) {some(found)}"
        raise self._refuse(
            "id-ambiguous", why, "pass image_size as a mapping of sample to (H, W): it names the samples"
        )

    def _refuse(self, code: str, why: str, fix: str) -> DamagedError:
        return DamagedError(code, "cannot read a CSV file", item=f"{self._path}, {why}", fix=fix)


def _only_class(known: tuple[str, ...], dialect: Dialect, path: Path) -> str:
    if len(known) > 1:
        item = f"{path}: {dialect.name!r} has one mask a sample, {len(known)} classes are wanted"
        fix = "pass one class, or another --format"
        raise MismatchError("classes-too-many", "cannot read masks of several classes", item=item, fix=fix)
    return known[0] if known else ONLY_CLASS


def check_fits(masks: Masks, dialect: Dialect) -> None:
    """Refuse masks that a dialect cannot tell apart."""
    if dialect.by_sample and len(masks.classes) > 1:
        item = f"{dialect.name!r} has one mask a sample, these have {len(masks.classes)} classes"
        fix = "write one class at a time, or pass another --format"
        raise MismatchError("classes-too-many", "cannot write masks of several classes", item=item, fix=fix)
    if dialect.template is None:
        return
    nested = [pair for pair in combinations(masks.classes, 2) if _may_meet(*(dialect.around(name) for name in pair))]
    rows = {sample: row for row, sample in enumerate(masks.samples)} if nested else {}
    for sample, (name, other) in product(rows, nested):
        joined, (head, foot) = dialect.join(sample, name), dialect.around(other)
        same = joined[len(head) : len(joined) - len(foot)]
        if same in rows and dialect.join(same, other) == joined:
            keys = sorted([(sample, name), (same, other)], key=lambda key: rows[key[0]])
            item = f"{keys[0]!r} and {keys[1]!r} both give {joined!r}"
            fix = "rename a class, or pass a dialect with a class column"
            raise MismatchError("id-ambiguous", "cannot join sample and class to one id", item=item, fix=fix)


def _may_meet(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Tell whether what stands around a sample in the ids of two classes may give one id of two samples."""
    (head, foot), (front, end) = one, other
    heads, feet = head.startswith(front) or front.startswith(head), foot.endswith(end) or end.endswith(foot)
    return heads and feet


def id_fields(dialect: Dialect, key: Key) -> tuple[str, ...]:
    """Return what stands in the id columns of a mask's row."""
    return key if len(dialect.columns) == 3 else (dialect.join(*key),)


def doubled(
    path: Path, rows: Sequence[tuple[str, ...]], lines: Sequence[int], objects: str, option: str = "--from-csv"
) -> DamagedError:
    """Make the error of rows of which one stands twice: name the first, by its lines.

    Parameters
    ----------
    objects : what would be said of the CSV if each row were an object.
    option : that says it.
    """
    seen: dict[tuple[str, ...], int] = {}
    first, second, row = next(
        (seen[r], line, r) for r, line in zip(rows, lines, strict=True) if seen.setdefault(r, line) != line
    )
    item = f"{path}: {row if len(row) > 1 else row[0]!r} on line {first} and on line {second}"
    fix = (
        f"keep one row for each sample and class; or, if each row is one object, pass {option} {objects} "
        f"(csv={objects!r})"
    )
    return DamagedError("row-doubled", "cannot read a CSV file with a row twice", item=item, fix=fix)
