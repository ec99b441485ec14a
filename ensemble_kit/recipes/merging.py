"""Parts become one: all of one plan, none missing, none twice; for `ensk merge`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ensemble_kit.dumping.resuming import differences
from ensemble_kit.errors import IncompleteError, MismatchError, UsageError, some
from ensemble_kit.execution.parts import Part
from ensemble_kit.recipes.part_file import PartFile, is_part, parts_of, path_of

_WHAT = "cannot merge parts"


def found(paths: Sequence[Path]) -> list[Path]:
    """Return the files of parts: those named, and of any other path the parts of what is to be there.

    Raises
    ------
    IncompleteError
        A path of which there is no part.
    """
    out: list[Path] = []
    for path in paths:
        own = [path] if is_part(path) else parts_of(path)
        if not own:
            item = f"{str(path)!r} is not a part, and there is no {path.name}.part-i-of-n beside it"
            fix = "pass the files that --part wrote, under the names that it gave them"
            raise IncompleteError("part-missing", _WHAT, item=item, fix=fix)
        out += own
    return out


def read(paths: Sequence[Path]) -> list[PartFile]:
    """Read all parts of one plan, in their order.

    Raises
    ------
    UsageError
        A part that is named twice.
    MismatchError
        Parts of different plans.
    IncompleteError
        A part that is missing.
    DamagedError
        A file that is not a part.
    """
    parts = [(path, PartFile.load(path)) for path in paths]
    (first, one), *others = parts
    for path, other in others:
        mine = {"kind": one.kind, "parts": one.part.of, **one.plan}
        if apart := differences({"kind": other.kind, "parts": other.part.of, **other.plan}, mine):
            item = f"{path} and {first} are of two plans, there and here: {'; '.join(apart)}"
            fix = "name the parts of one run, made with one command, one by one"
            raise MismatchError("parts-differ", _WHAT, item=item, fix=fix)
    by_number: dict[int, tuple[Path, PartFile]] = {}
    for path, part in parts:
        if (same := by_number.setdefault(part.part.number, (path, part)))[1] is not part:
            item = f"{same[0]} and {path} are both part {part.part}" if same[0] != path else f"{path} is named twice"
            raise UsageError("part-twice", _WHAT, item=item, fix="name the parts one by one, each once")
    if missing := [Part(k, one.part.of) for k in range(1, one.part.of + 1) if k not in by_number]:
        listed = ", ".join(map(str, missing[:10])) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        item = f"without {listed}; there are {some(list(map(str, paths)), 3)}"
        out = str(first).rpartition(".part-")[0]
        fix = f"run the command with --part {missing[0]}, which writes {path_of(out, missing[0])}, and pass that too"
        raise IncompleteError("part-missing", _WHAT, item=item, fix=fix)
    return [by_number[k][1] for k in sorted(by_number)]
