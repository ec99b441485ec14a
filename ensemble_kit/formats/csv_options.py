"""What the user says of a CSV's dialect: `order=F,base=1,id=ImageId,rle=EncodedPixels`, over a preset or alone."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, cast

from ensemble_kit.errors import UsageError, check_choice, check_kind, some
from ensemble_kit.formats.dialects import Dialect, Rows
from ensemble_kit.formats.table import quoted
from ensemble_kit.masks.rle import Order

_KEYS = ("order", "base", "offsets", "id", "class", "rle", "template", "empty", "rows")
EMPTY_MARK = re.compile(r"[^\d\s]{1,8}|-1|0|1 0|0 0|\[\]")
"""What other files write for an empty mask."""

_FIX = "write KEY=VALUE with commas between, such as --csv order=F,base=1,id=ImageId,rle=EncodedPixels"


@dataclass(frozen=True)
class CsvOptions:
    """How the rows of a CSV are read or written, as far as the user says it; None: as the preset has it.

    Parameters
    ----------
    order : "C" numbers pixels along rows, "F" down columns.
    base : number of the first pixel, 0 or 1.
    offsets : "absolute", or "relative": each start counts from the end of the run before it.
    id, class_, rle : names of the columns of the id, the class and the runs.
    template : how sample and class are joined in the id, such as `{image}_{class}`; `{image}` alone: not at all.
    empty : what stands for an empty mask.
    rows : what a row holds, "mask" or "object".
    """

    order: Order | None = None
    base: int | None = None
    offsets: str | None = None
    id: str | None = None
    class_: str | None = None
    rle: str | None = None
    template: str | None = None
    empty: str | None = None
    rows: Rows | None = None

    @classmethod
    def of(cls, given: CsvOptions | Mapping[str, Any] | str | None) -> CsvOptions:
        """Check what the user passes: text as `--csv` takes it, or a mapping with the same keys.

        Raises
        ------
        UsageError
            A key that does not exist or stands twice, or a value that it cannot have.

        Examples
        --------
        >>> CsvOptions.of("order=F,base=0").order
        'F'
        >>> CsvOptions.of({"class": "part"}).class_
        'part'
        """
        if given is None or isinstance(given, CsvOptions):
            return given or cls()
        pairs = _pairs(given) if isinstance(given, str) else given
        check_kind("csv", pairs, Mapping, "pass a mapping such as {'order': 'F', 'rle': 'EncodedPixels'}")
        if unknown := [key for key in pairs if key not in _KEYS]:
            fix = f"pass some of {', '.join(_KEYS)}"
            raise UsageError("option-invalid", "cannot use --csv", item=f"there is no {some(unknown)}", fix=fix)
        values = {key: pairs[key] for key in pairs if pairs[key] is not None}
        values = {key: value if key == "base" else str(value) for key, value in values.items()}
        if str(values.get("base")) in {"0", "1"}:
            values["base"] = int(values["base"])
        for key, allowed in (
            ("order", ("C", "F")),
            ("base", (0, 1)),
            ("offsets", ("absolute", "relative")),
            ("rows", ("mask", "object")),
        ):
            check_choice(f"--csv {key}", values.get(key, allowed[0]), allowed)
        for key in ("id", "class", "rle"):
            if values.get(key) == "":
                raise UsageError("option-invalid", "cannot use --csv", item=f"{key}= names no column", fix=_FIX)
        if "class" in values:
            values["class_"] = values.pop("class")
        if "template" in values:
            values["template"] = _template(values["template"])
        return cls(**cast(dict[str, Any], values))

    def __bool__(self) -> bool:
        return self != CsvOptions()

    def __str__(self) -> str:
        given = {f.name.rstrip("_"): getattr(self, f.name) for f in fields(self)}
        shown = ",".join(quoted(f"{key}={value}") for key, value in given.items() if value is not None)
        return shown.replace("{sample}", "{image}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns, where all are named that a dialect needs; else none."""
        if self.id is None or self.rle is None:
            return ()
        return (self.id, self.rle) if self.class_ is None else (self.id, self.class_, self.rle)

    def over(self, dialect: Dialect) -> Dialect:
        """Return a dialect with what is said here in place of its own.

        Raises
        ------
        UsageError
            A template beside a class column.
        """
        template = dialect.template if self.template is None else self.template
        if template in {"", "{sample}"} or (self.class_ is not None and self.template is None):
            template = None
        first, *middle, last = dialect.columns
        if self.class_ is not None:
            middle = [self.class_]
        elif self.columns or template is not None:  # all columns are named, or the id holds the class
            middle = []
        columns = (self.id or first, *middle, self.rle or last)
        return replace(
            dialect,
            columns=columns,
            template=template,
            order=self.order or dialect.order,
            base=cast(Any, dialect.base if self.base is None else self.base),
            relative=dialect.relative if self.offsets is None else self.offsets == "relative",
            empty=dialect.empty if self.empty is None else self.empty,
            rows=self.rows or dialect.rows,
        )


def _pairs(text: str) -> dict[str, str]:
    """Read `key=value,key=value`, as a line of CSV: a value that holds a comma stands with its key in double quotes."""
    try:
        parts = next(csv.reader([text], strict=True), [])
    except csv.Error:
        parts = [""]
    out: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or key.strip() in out:
            why = f"{key.strip()!r} stands twice" if equals else f"{part!r} is not KEY=VALUE"
            raise UsageError("option-invalid", "cannot use --csv", item=f"{text!r}: {why}", fix=_FIX)
        out[key.strip()] = value
    return out


def _template(text: str) -> str:
    """Write `{image}` and `{id}` as `{sample}`, which is what dialects call it."""
    template = text.replace("{image}", "{sample}").replace("{id}", "{sample}")
    if template not in {"", "{sample}"} and not (template.count("{sample}") == template.count("{class}") == 1):
        fix = "pass a template that holds {image} and {class} once each, such as template={image}_{class}"
        raise UsageError("option-invalid", "cannot use --csv", item=f"template={text!r}", fix=fix)
    return template


def shell(options: CsvOptions) -> str:
    """Write options as a word of a command line."""
    return shlex.quote(str(options)) if re.search(r"[^\w=,.:/@%+{}-]", str(options)) else str(options)
