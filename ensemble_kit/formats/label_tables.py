"""Tables of label maps: what each value means, from a file, a preset, or a mapping."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from ensemble_kit import strict_json
from ensemble_kit.errors import DamagedError, IncompleteError, check_kind
from ensemble_kit.formats.label_presets import PRESETS, VOID, Row
from ensemble_kit.formats.nnunet_dataset import Dataset
from ensemble_kit.formats.table import Table, read_table
from ensemble_kit.remote.copies import local
from ensemble_kit.spec.label_table import VALUES, Colour, LabelTable

_COLUMNS = {
    "value": ("value", "id", "index"),
    "name": ("name", "class", "label", "class_name"),
    "colour": ("colour", "color", "rgb"),
}
"""What the columns, and the keys of JSON's objects, may be called."""

_CHANNELS = (("r", "g", "b"), ("red", "green", "blue"))
_KEYS = ("labels", "id2label", "categories")
"""Where a table stands in a larger JSON: nnU-Net's dataset.json, a Hugging Face config.json, COCO."""
_CVAT = "# label:color_rgb:parts:actions"


def load_table(source: str | PathLike[str] | Mapping[int, str] | LabelTable) -> LabelTable:
    """Read a table of label values: the name of a preset, a JSON or CSV file, or names by value.

    Text may be lines of value and name, such as `7 road`. A CSV has the columns `value`, `name` and, if known,
    `colour` (`#rrggbb` or `[r,g,b]`), or `r`, `g`, `b`. Without values, as in CVAT's labelmap.txt, it reads colours
    only. JSON is a list of objects with these keys, an object of names by value, or of values by name (also under
    `labels`, as in nnU-Net's dataset.json, whose label `ignore` is void, under `id2label` or `categories`). Several
    values may name one class; a row named `void` is void. With nnU-Net's `regions_class_order` classes are regions,
    which overlap.

    Raises
    ------
    IncompleteError
        There is neither such a file nor such a preset.
    DamagedError
        A file of another form, a value twice, or a row without a name.
    """
    if isinstance(source, LabelTable):
        return source
    fix = "pass a file, the name of a preset, or names by value: {0: 'road', 1: 'sky'}"
    check_kind("the table of labels", source, str | PathLike | Mapping, fix)
    if isinstance(source, Mapping):
        return table_of(((v, n, None) for v, n in source.items()), "the mapping")
    if str(source) in PRESETS:
        return table_of(PRESETS[str(source)], f"preset {source}")
    path = local(source)
    if not path.is_file():
        item = f"{str(path)!r} is neither a file nor a preset"
        fix = f"pass a JSON or CSV file of value, name and colour, or one of {', '.join(PRESETS)}"
        raise IncompleteError("labels-missing", "cannot read a table of labels", item=item, fix=fix)
    head = path.read_bytes()[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if path.suffix.lower() == ".json" or head[:1] in {b"[", b"{"}:
        content = strict_json.load(path)
        return _of_regions(content, str(path)) or table_of(_of_json(content, path), str(path))
    if head.startswith(_CVAT.encode()):
        return replace(table_of(_of_cvat(path), str(path)), numbered=False)
    if numbered := _of_lines(path):
        return table_of(numbered, str(path))
    rows = read_table(path)
    has_values = any(name.strip().casefold() in _COLUMNS["value"] for name in rows.header)
    return replace(table_of(_of_csv(rows), str(path)), numbered=has_values)


def table_of(rows: Iterable[tuple[Any, Any, Colour | None]], where: str) -> LabelTable:
    """Make a table of rows, none of whose values may stand twice.

    Raises
    ------
    DamagedError
        It names the row.
    """
    named: dict[int, str | None] = {}
    void, colours = set(), {}
    for value, name, colour in rows:
        if type(value) is not int or not 0 <= value < VALUES or not isinstance(name, str) or not name:
            raise _damaged(
                where, f"the row {value!r}, {name!r}", "write a value from 0 to 65535 and a name in every row"
            )
        if value in named or value in void:
            before = named.get(value, VOID)
            raise _damaged(where, f"the value {value} is {before!r} and again {name!r}", "name every value once")
        if name.strip().casefold() == VOID:
            void.add(value)
        else:
            named[value] = name
        if colour is not None:
            colours[value] = colour
    classes = tuple(dict.fromkeys(name for name in named.values() if name is not None))
    if not classes:
        raise _damaged(where, "it names no class", "write a row of value and name for each class")
    return LabelTable(classes, named, frozenset(void), colours, source=where)


def _of_csv(table: Table) -> list[tuple[int, str, Colour | None]]:
    where, header = str(table.path), [name.strip().casefold() for name in table.header]
    found = {key: next((header.index(n) for n in names if n in header), None) for key, names in _COLUMNS.items()}
    rgb = next(([header.index(c) for c in names] for names in _CHANNELS if set(names) <= set(header)), [])
    if found["name"] is None or (found["value"] is None and found["colour"] is None and not rgb):
        fix = "write the header value,name or value,name,colour; names alone, in their order, are passed as --classes"
        raise _damaged(where, f"its header is {','.join(table.header)!r}", fix)
    names = [name.strip() for name in table.column(found["name"])]
    values = [str(k) for k in range(len(names))] if found["value"] is None else table.column(found["value"])
    if rgb:
        colours = [",".join(parts) for parts in zip(*(table.column(c) for c in rgb), strict=True)]
    else:
        colours = [""] * len(names) if found["colour"] is None else table.column(found["colour"])
    rows = []
    for line, value, name, colour in zip(table.lines, values, names, colours, strict=True):
        if not re.fullmatch(r"\s*[0-9]{1,9}\s*", value):
            raise _damaged(where, f"line {line}: the value {value!r}", "write whole numbers as values")
        rows.append((int(value), name, _colour(colour.strip() or None, f"{where}, line {line}")))
    return rows


def _of_lines(path: Path) -> list[Row]:
    """Read lines of a value and a name, such as `7 road` or `7: road`; none where a line is something else."""
    lines = [line.strip() for line in path.read_bytes().decode("utf-8-sig", "replace").splitlines() if line.strip()]
    found = [re.fullmatch(r"([0-9]{1,9})(?:\s*:\s*|\s+)([^\d\s,;:][^,;\t]*)", line) for line in lines]
    return [(int(match[1]), match[2], None) for match in found if match] if all(found) else []


def _of_cvat(path: Path) -> list[tuple[int, str, Colour | None]]:
    """Read CVAT's labelmap.txt, `name:r,g,b:parts:actions` in each line, whose rows have no values."""
    lines = [line for line in path.read_text("utf-8-sig").splitlines() if line.strip() and not line.startswith("#")]
    rows = []
    for k, line in enumerate(lines):
        name, _, rest = line.partition(":")
        rows.append((k, name.strip(), _colour(rest.partition(":")[0].strip() or None, f"{path}, {line[:40]!r}")))
    return rows


def _of_regions(content: Any, where: str) -> LabelTable | None:
    """Read the regions of an nnU-Net dataset.json, which overlap; None where it is something else."""
    if not isinstance(content, dict) or "regions_class_order" not in content:
        return None
    dataset = Dataset.of(content, where)
    if dataset.activation == "softmax":
        return None
    values: dict[int, str | None] = {0: None}
    for name, own in dataset.heads.items():
        values |= {value: name for value in own if value not in values}
    void = frozenset() if dataset.ignore is None else frozenset({dataset.ignore})
    return LabelTable(dataset.classes, values, void, source=where, regions=dataset.heads)


def _of_json(content: Any, path: Path) -> list[Row]:
    key = next((k for k in _KEYS if isinstance(content, dict) and isinstance(content.get(k), (list, dict))), None)
    if key is not None:
        content = content[key]
    if key == "labels" and isinstance(content, dict) and type(content.get("ignore")) is int:
        content = {VOID if name == "ignore" else name: value for name, value in content.items()}
    if isinstance(content, dict):
        if all(isinstance(v, str) and re.fullmatch("[0-9]{1,9}", k) for k, v in content.items()):
            return [(int(value), name, None) for value, name in content.items()]
        if all(type(v) is int for v in content.values()):
            return [(value, name, None) for name, value in content.items()]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        fix = 'write [{"value": 0, "name": "road", "colour": "#804080"}, …], {"0": "road"} or {"road": 0}'
        raise _damaged(str(path), "it is not a table", fix)
    rows = []
    for k, row in enumerate(content):
        value, name, colour = (next((row[n] for n in names if n in row), None) for names in _COLUMNS.values())
        rows.append((value, name, _colour(colour, f"{path}, row {k + 1}")))
    return rows  # type: ignore[return-value]  # `table_of` checks values and names


def _colour(value: Any, where: str) -> Colour | None:
    """Read `#rrggbb`, `[r,g,b]` or `r,g,b`; None: none."""
    if value is None:
        return None
    parts: list[int] = []
    if isinstance(value, str) and re.fullmatch("#?[0-9a-fA-F]{6}", value):
        parts = list(bytes.fromhex(value.removeprefix("#")))
    elif isinstance(value, str) and re.fullmatch(
        r"[\[(]?\s*\d{1,3}(\s*,\s*|\s+)\d{1,3}(\s*,\s*|\s+)\d{1,3}\s*[\])]?", value
    ):
        parts = [int(part) for part in re.findall(r"\d+", value)]
    elif isinstance(value, list) and all(type(part) is int for part in value):
        parts = value
    if len(parts) != 3 or not all(0 <= part < 256 for part in parts):
        raise _damaged(where, f"the colour {str(value)[:40]!r}", "write it as #rrggbb or [r,g,b]")
    red, green, blue = parts
    return red, green, blue


def _damaged(where: str, why: str, fix: str) -> DamagedError:
    return DamagedError("labels-invalid", "cannot read a table of labels", item=f"{where}: {why}", fix=fix)
