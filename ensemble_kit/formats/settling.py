"""The dialect of a CSV: told by what the user says, by its header, and by its rows; refused where two remain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ensemble_kit.errors import UsageError, some
from ensemble_kit.formats.columns import (
    Columns,
    columns_of,
    either,
    exact,
    find,
    lists_files,
    looks_like_a_row,
    of_classes,
    suggestion,
    within,
)
from ensemble_kit.formats.csv_options import EMPTY_MARK, CsvOptions, shell
from ensemble_kit.formats.dialects import PRESETS, Dialect, Rows
from ensemble_kit.formats.row_evidence import Misfit, apart, misfits
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.formats.table import Table, read_table

Purpose = Literal["read", "write", "order"]
"""What a dialect is wanted for: to read masks, to write them in the form of a sample submission, or its order only."""

_WHAT = "cannot tell the dialect of a CSV file"


@dataclass(frozen=True)
class Settled:
    """A dialect that fits a file, and the names of the presets that it is.

    Parameters
    ----------
    names : the presets that read the file alike; () where it is none.
    options : what the user said beside.
    """

    dialect: Dialect
    names: tuple[str, ...] = ()
    options: CsvOptions = field(default_factory=CsvOptions)

    @classmethod
    def of(cls, dialect: Dialect) -> Settled:
        """Take a dialect that the user names."""
        return cls(dialect, (dialect.name,))

    def told(self) -> str:
        """Say what the file is read or written as."""
        d = self.dialect
        name = f"CSV as {' or '.join(self.names)}" if self.names else "CSV"
        name += f" with {self.options}" if self.options else ""
        row = "an object" if d.rows == "object" else "a mask"
        return f"{name}: {', '.join(d.columns)}{d.ids_told}; pixels {d.numbering}; a row {row}"


def settle(
    table: Table,
    options: CsvOptions | None = None,
    sizes: ImageSizes | None = None,
    classes: Sequence[str] | None = None,
    purpose: Purpose = "read",
) -> Settled:
    """Tell the dialect of a file that the user did not name.

    The header tells the presets, over which the user's options are laid; the rows rule out those that they do not fit.

    Parameters
    ----------
    sizes, classes : of the masks, as far as they are known: with them rows tell more.

    Raises
    ------
    UsageError
        No preset has these columns, several are left that read or write the file in different ways, or the rows fit
        none.
    """
    options = options or CsvOptions()
    if options.columns and options.order is not None:
        return Settled(options.over(_plain(options)), (), options)
    candidates = _candidates(table, options)
    if len({key(d, purpose) for d in candidates.values()}) > 1 or not (options.columns or exact(table.header)):
        candidates = _fitting(table, candidates, sizes or ImageSizes(), classes, purpose, options)
    if not options:
        return Settled(next(iter(candidates.values())), tuple(candidates))
    dialect = _merged(list(candidates.values()), options)
    same = (n for n in candidates if n and key(PRESETS[n], "write") == key(dialect, "write"))
    return Settled(dialect, tuple(same), options)


def recognise(path: Path) -> Dialect:
    """Return the preset of a CSV by its header and its rows, as `settle` tells it."""
    settled = settle(read_table(path))
    return PRESETS[settled.names[0]]


def for_writing(options: CsvOptions) -> Dialect:
    """Return the dialect to write without a sample submission: the preset with these columns, or handbone's.

    Raises
    ------
    UsageError
        Several presets have the columns.
    """
    if not options.columns:
        return options.over(PRESETS["handbone"])
    same = {n: options.over(d) for n, d in PRESETS.items() if set(d.columns) == set(options.columns)}
    if options.order is not None or not same:
        return options.over(_plain(options))
    if len({key(d, "write") for d in same.values()}) > 1:
        fix = f"pass {either(f'--format {n}' for n in same)}, or say it: {_said(same, options, 'write')}"
        item = f"the columns {','.join(options.columns)} are those of {_readings(same)}"
        raise UsageError("format-ambiguous", "cannot tell the dialect to write", item=item, fix=fix)
    return next(iter(same.values()))


def key(dialect: Dialect, purpose: Purpose) -> tuple[object, ...]:
    """Return what makes two dialects of the same columns differ; where a row tells more, `misfits` does."""
    ids = (dialect.columns, dialect.template)
    if purpose == "order":
        return ids
    numbers = (*ids, dialect.order, dialect.base, dialect.relative)
    return numbers if purpose == "read" else (*numbers, dialect.rows, dialect.empty)


def _plain(options: CsvOptions) -> Dialect:
    """Return the usual dialect of the columns that the user names: along rows from 1, absolute, a row a mask."""
    return Dialect("csv", options.columns)


def _candidates(table: Table, options: CsvOptions) -> dict[str, Dialect]:
    """Return the presets whose columns the file has, with the user's options; a dialect of their own has no name."""
    header = table.header
    if options.columns:
        named = {n: options.over(d) for n, d in PRESETS.items() if set(d.columns) == set(options.columns)}
        return named or {"": options.over(_plain(options))}
    if options.id is not None or options.rle is not None or options.class_ is not None:
        over = {n: options.over(d) for n, d in PRESETS.items()}
        found = {n: d for n, d in over.items() if find(header, d) is not None}
    else:
        names = exact(header) or within(header)
        if names and (unsure := _classes_left_out(header, names)):
            what, rest = "cannot tell the classes of a CSV file", f"its other columns are those of {some(names)}"
            item = f"{table.path}: the column {unsure!r} may name the classes; {rest}"
            fix = f"name the columns, with class={unsure} or without: {suggestion(table)}"
            raise UsageError("format-ambiguous", what, item=item, fix=fix)
        found = {n: options.over(PRESETS[n]) for n in names}
    if not found:
        raise (
            looks_like_a_row(table.path, header)
            or lists_files(table)
            or UsageError(
                "format-unknown",
                _WHAT,
                item=f"{table.path}: no preset has the columns {','.join(header)[:200]}",
                fix=f"name them: {suggestion(table)}; or rename them as a preset has them: {', '.join(PRESETS)}",
            )
        )
    return found


def _classes_left_out(header: Sequence[str], names: Sequence[str]) -> str | None:
    """Return a column that may hold classes, and which none of the presets uses."""
    left = [find(header, PRESETS[name]) for name in names]
    unsure = of_classes(left[0].further) if left[0] is not None else []
    return unsure[0] if unsure and not any(len(PRESETS[n].columns) == 3 for n in names) else None


def _fitting(
    table: Table,
    candidates: dict[str, Dialect],
    sizes: ImageSizes,
    classes: Sequence[str] | None,
    purpose: Purpose,
    options: CsvOptions,
) -> dict[str, Dialect]:
    """Leave out the dialects that the rows rule out; refuse where several are left, or none."""
    tried = [(d, find(table.header, d) or Columns(())) for d in candidates.values()]
    found = dict(zip(candidates, misfits(table, tried, sizes, classes), strict=True))
    left = {n: d for n, d in candidates.items() if not found[n].rules_out}
    if not left:
        item = f"{table.path}: its columns are those of {some(candidates)}, but {_whys(table.path, found)}"
        named = _changed(table, candidates, sizes, classes, options) or suggestion(table)
        fix = f"check the sizes of the images, or name what the file is: {named}"
        raise UsageError("format-unknown", _WHAT, item=item, fix=fix)
    if len({key(d, purpose) for d in left.values()}) > 1 and not (purpose == "write" and _alike(left, options)):
        of_samples = [pair for pair in tried if pair[0] in left.values() and pair[0].template is None]
        several = len({d.order for d in left.values()}) > 1
        hint = apart(table, *of_samples[0], sizes, classes) if several and of_samples else None
        raise _ambiguous(table, left, options, purpose, hint)
    return left


def _changed(
    table: Table,
    candidates: dict[str, Dialect],
    sizes: ImageSizes,
    classes: Sequence[str] | None,
    options: CsvOptions,
) -> str:
    """Write the options by which presets would fit: a row an object, another mark of an empty mask, or both."""
    changed: dict[str, CsvOptions] = {}
    for name, dialect in candidates.items():
        texts = table.column(columns_of(table, dialect).numbers[-1])
        mark = next((text for text in texts if EMPTY_MARK.fullmatch(text)), None)
        ways: list[tuple[Rows | None, str | None]] = [(None, mark), ("object", None), ("object", mark)]
        for rows, empty in ways:
            said = replace(options, rows=rows or options.rows, empty=empty or options.empty)
            over = said.over(dialect)
            if over != dialect and not misfits(table, [(over, columns_of(table, over))], sizes, classes)[0].rules_out:
                changed[name] = said
                break
    return either(f"--from {name} --from-csv {shell(said)}" for name, said in changed.items()) if changed else ""


def _ambiguous(
    table: Table, left: dict[str, Dialect], options: CsvOptions, purpose: Purpose, hint: str | None
) -> UsageError:
    """Make the error of a file that several dialects fit: what each would do, what speaks for one, and its options."""
    columns, option = ",".join(table.header)[:200], "--format" if purpose == "write" else "--from"
    fits = f"the columns {columns} are those of {some(left, 12)}, and the rows fit each"
    item = f"{table.path}: {fits}: {_readings(left)}{f'; {hint}' if hint else ''}"
    named, said = either(f"{option} {n}" for n in left), _said(left, options, purpose)
    fix = f"pass {named} (format={next(iter(left))!r}), or say it: {said}"
    return UsageError("format-ambiguous", _WHAT, item=item, fix=fix)


def _alike(left: dict[str, Dialect], options: CsvOptions) -> bool:
    """Tell whether the user has said how pixels are numbered, so that what is open has its usual value."""
    return bool(options) and len({key(d, "read") for d in left.values()}) == 1


def _merged(left: Sequence[Dialect], options: CsvOptions) -> Dialect:
    """Return the dialect that the user's options and the presets that are left agree in; what is open is as usual."""
    first = left[0]
    rows = first.rows if len({d.rows for d in left}) == 1 else "mask"
    empty = first.empty if len({d.empty for d in left}) == 1 else ""
    return options.over(replace(first, rows=rows, empty=empty))


def _readings(candidates: dict[str, Dialect]) -> str:
    """Say how each of several dialects reads rows; those that read alike are named together."""
    groups: dict[str, list[str]] = {}
    for name, d in candidates.items():
        row = ", a row an object" if d.rows == "object" else ""
        groups.setdefault(f"{d.numbering}{row}{d.ids_told}", []).append(name)
    return "; ".join(f"{' and '.join(names)} ({how})" for how, names in groups.items())


def _said(candidates: dict[str, Dialect], options: CsvOptions, purpose: Purpose) -> str:
    """Write the option that tells the candidates apart: each key whose values differ, with all of them."""
    dialects = candidates.values()
    values: dict[str, set[str]] = {
        "order": {d.order for d in dialects},
        "base": {str(d.base) for d in dialects},
        "offsets": {"relative" if d.relative else "absolute" for d in dialects},
        "rows": {d.rows for d in dialects} if purpose == "write" else set(),
        "template": {"{image}" if d.template is None else "{image}_{class}" for d in dialects},
    }
    if purpose == "order":
        values = {"template": values["template"]}
    open_keys = [f"{k}={'|'.join(sorted(v))}" for k, v in values.items() if len(v) > 1]
    option = "--from-csv" if purpose == "read" else "--csv"
    return f"{option} {','.join([str(options)] * bool(options) + open_keys)}"


def _whys(path: Path, found: dict[str, Misfit]) -> str:
    """Say what is wrong with the first row that each dialect cannot read."""
    return "; ".join(
        f"not {name or 'so'}, by line {m.line}: {m.why.removeprefix(f'{path}, line {m.line}: ')}"
        for name, m in found.items()
    )
