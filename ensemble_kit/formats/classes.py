"""Names of classes: the file that lists them, and the order in which a reader returns them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kit.errors import DamagedError, IncompleteError, MismatchError, UsageError, check_several, some
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packedmasks import Key
from ensemble_kit.remote.copies import local
from ensemble_kit.spec.labels import check_names

if TYPE_CHECKING:
    import os

    from ensemble_kit.masks.runs import Runs

ONLY_CLASS = "mask"
"""Class of the masks of a file that has one a sample and no class, unless the user names it."""


def read_classes(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read a class file: one name a line, or JSON.

    JSON is a list of names, a list of objects with a `name` (other keys, such as a colour, are ignored), an object
    whose keys are the names, or an object that holds one of these under `classes`. In a text file blank lines are
    skipped, and so is white space around a name.

    Raises
    ------
    IncompleteError
        The file is missing.
    UsageError
        A name is doubled, empty or holds control characters.
    DamagedError
        JSON of another form.
    """
    file = local(path)
    if not file.is_file():
        fix = "pass --classes FILE with one name a line, or JSON"
        raise IncompleteError(
            "input-missing", "cannot read the classes", item=f"{file} does not exist, or is not a file", fix=fix
        )
    from ensemble_kit import strict_json

    raw = file.read_bytes()
    if file.suffix.lower() == ".json" or raw.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in {b"[", b"{"}:
        return check_names("classes", _names_in(strict_json.load(file), file))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _damaged(f"{file}: byte {error.start} is not UTF-8", "save the file as UTF-8") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if why := _beside_names(lines):
        item = f"{file}: {why}, such as {lines[-1][:80]!r}"
        fix = "pass it as --labels, if it says what values of label maps mean; or list the names alone, one a line"
        also = f"; if they are part of the names, write JSON: [{json.dumps(lines[0], ensure_ascii=False)}, …]"
        raise UsageError("classes-table", "cannot read a table as a list of classes", item=item, fix=fix + also)
    return check_names("classes", lines)


def _beside_names(lines: Sequence[str]) -> str:
    """Say why lines seem to hold more than names, the same in all of them; "" where they do not."""
    if len(lines) > 1 and all(re.match(r"[0-9]+(\s*[:;,\t]\s*|\s+)\S", line) for line in lines):
        return "a number stands before every name"
    if len(lines) > 1 and all(re.fullmatch(r"- .*|([\"']).*\1", line) for line in lines):
        return "every name is quoted, or begins with - as in YAML"
    for delimiter, name in ((",", "commas"), (";", "semicolons"), ("\t", "tabs")):
        counts = {line.count(delimiter) for line in lines}
        if len(lines) > 1 and len(counts) == 1 and counts != {0}:
            return f"every line has {name}"
    return ""


def _names_in(value: Any, file: Path) -> list[str]:
    if isinstance(value, dict) and isinstance(value.get("classes"), (list, dict)):
        value = value["classes"]
    names = list(value) if isinstance(value, (list, dict)) else []
    names = [n.get("name") if isinstance(n, dict) else n for n in names]
    if not names or not all(isinstance(n, str) for n in names):
        fix = 'write ["name", …], [{"name": …, "color": …}, …] or {"name": colour, …}'
        raise _damaged(f"{file} lists no names", fix)
    return names


def _damaged(item: str, fix: str) -> DamagedError:
    return DamagedError("classes-invalid", "cannot read the classes", item=item, fix=fix)


def check_wanted(names: Sequence[str]) -> tuple[str, ...]:
    """Check class names that a caller passes: text, not blank, none twice. A mask file may hold any other name."""
    check_several("the classes", [names] if isinstance(names, str) else names, "pass a list of names")
    out = (names,) if isinstance(names, str) else tuple(names)
    if isinstance(names, str) or not out or not all(isinstance(n, str) and n for n in out) or len(set(out)) < len(out):
        item, fix = some(out) or "there is none", "pass a list of names, none blank and none twice"
        raise UsageError("name-invalid", "cannot use the names of classes", item=item, fix=fix)
    return out


def order_classes(
    found: Iterable[str], wanted: Sequence[str] | None, where: str, complete: bool = True
) -> tuple[str, ...]:
    """Return the classes in the order wanted; they must be the classes found.

    Parameters
    ----------
    complete : whether every wanted class has to be there.

    Raises
    ------
    IncompleteError
        A wanted class is not there.
    MismatchError
        A class is there that is not wanted.
    """
    have = tuple(dict.fromkeys(found))
    if wanted is None:
        return have
    names = check_wanted(wanted)
    missing, extra = [n for n in names if n not in have], [n for n in have if n not in names]
    item = f"{where} has {len(have)} classes, {len(names)} are wanted; "
    fix = "pass the classes that the masks have (--classes FILE, classes=[…]), or leave classes out by --except"
    if missing and complete:
        item += f"missing: {some(missing, 10)}"
        raise IncompleteError("classes-missing", "cannot read masks: classes are missing", item=item, fix=fix)
    if extra:
        item += f"not wanted: {some(extra, 10)}"
        raise MismatchError("classes-differ", "cannot read masks of other classes", item=item, fix=fix)
    return names


def need_classes(wanted: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """Return the names passed, for a format that holds none."""
    if wanted is None:
        item, fix = f"{where} holds no class names", "pass --classes FILE with one name a line (classes=[…])"
        raise UsageError("classes-needed", "cannot name the classes of masks", item=item, fix=fix)
    return check_wanted(wanted)


def assemble(
    samples: Iterable[str], classes: Sequence[str], masks: Mapping[Key, Runs], rule: str | None = None
) -> MaskSet:
    """Build a mask set in the order of samples, then classes; `rule` says how it was read."""
    return MaskSet({(s, c): masks[s, c] for s in samples for c in classes if (s, c) in masks}, rule)
