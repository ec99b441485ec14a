"""Members as the command line names them: `PATH` or `NAME=PATH`, the same NAME again for another fold of the member."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from ensemble_kit.access import reading
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import IncompleteError, UsageError, some
from ensemble_kit.joining.given import named
from ensemble_kit.logits.folds import Folds
from ensemble_kit.logits.open import is_store
from ensemble_kit.remote.copies import as_path
from ensemble_kit.thresholds.thresholdset import ThresholdSet


@dataclass(frozen=True)
class MemberPaths:
    """Where one member lies.

    Parameters
    ----------
    paths : one, or the stores of its folds.
    name : what the user calls it; None: as its store says, or its file is called.
    """

    paths: tuple[Path, ...]
    name: str | None = None

    def __post_init__(self) -> None:
        masks = [str(path) for path in self.paths if len(self.paths) > 1 and not is_store(path)]
        if masks:
            raise UsageError(
                "folds-not-stores",
                "cannot take files for folds of one member",
                item=f"{some(masks)} called {self.name!r}, but only scores of folds are joined or averaged",
                fix="pass stores, or give each mask file a name of its own, which counts it as a member",
            )

    @property
    def is_store(self) -> bool:
        """Whether it holds logits, not masks."""
        return is_store(self.paths[0])

    @property
    def label(self) -> str:
        """What results call it where several are listed: its name, or its file's."""
        return self.name or self.paths[0].name

    def __str__(self) -> str:
        return str(self.paths[0]) if self.name is None else f"{self.name}={','.join(map(str, self.paths))}"


def members_of(arguments: Iterable[Path]) -> list[MemberPaths]:
    """Read members, those of one name as one, in the order in which the names came first.

    Raises
    ------
    UsageError
        What is both a path and a name before a path; several files of masks of one name.
    IncompleteError
        A pattern behind a name that no path fits.
    """
    found: dict[object, MemberPaths] = {}
    for k, argument in enumerate(arguments):
        name, paths = _read(argument)
        if name is None:
            found[k] = MemberPaths(paths)
        elif name in found:
            found[name] = MemberPaths((*found[name].paths, *paths), name)
        else:
            found[name] = MemberPaths(paths, name)
    return list(found.values())


def unnamed(path: Path) -> Path:
    """Return a path that a command takes alone; refuse `NAME=PATH`, which is a member's where several are taken."""
    with reading(path, "cannot read an input"):
        there = path.exists()
    if there or is_store(path):
        return path
    name, paths = _read(path)
    if name is not None and all(one.exists() or is_store(one) for one in paths):
        item = f"{str(path)!r} calls {some(list(map(str, paths)))} {name!r}, as members of an ensemble are called"
        fix = "pass " + ", or ".join(map(shlex.quote, map(str, paths)))
        raise UsageError("path-named", "cannot take a named member where one path is taken", item=item, fix=fix)
    return path


def paths_of(members: Sequence[MemberPaths]) -> list[Path]:
    """List the paths of all members."""
    return [path for member in members for path in member.paths]


def open_ensemble(members: Sequence[MemberPaths], threshold: object, options: Mapping[str, Any]) -> Ensemble:
    """Open stores; with a set and without options of fusing, they are fused as it was tuned.

    A set says which classes of members are taken; other ones are refused.
    """
    given = {k: v for k, v in options.items() if v is not None}
    if isinstance(threshold, ThresholdSet):
        threshold.check_member_classes(given.setdefault("classes", threshold.member_classes))
    common = given.get("samples") == "common"
    opened = [m.paths[0] if m.name is None else _folds(m.name, m.paths, common) for m in members]
    ensemble = Ensemble(opened, **given)
    if isinstance(threshold, ThresholdSet) and not set(given) - {"samples", "classes"}:
        return ensemble.as_tuned(threshold)
    return ensemble


def told_members(ensemble: Ensemble) -> list[str]:
    """Say which members have folds, and which classes of which members are left out or missing."""
    lines = []
    for member in ensemble.members:
        if isinstance(member, Folds) and len(member.stores) > 1:
            how = "joined, each holds other samples" if member.joined else "averaged, all hold the same samples"
            lines.append(f"{member.member}: {len(member.stores)} folds, {how}")
    lines += [f"classes of {name} left out, since not every member has them: {', '.join(own)}"
              for name, own in ensemble.left_out.items()]  # fmt: skip
    lines += [f"classes that {name} lacks, and in which it has no say: {', '.join(own)}"
              for name, own in ensemble.lacking.items()]  # fmt: skip
    if ensemble.activation == "softmax" and ensemble.left_out:
        lines.append("exclusive classes: what is left out is taken from the softmax, too; the others add up to 1")
    if ensemble.activation == "softmax" and ensemble.lacking:
        lines.append(
            "exclusive classes: each score is the mean of those members that have the class; scores of a pixel need "
            "not add up to 1"
        )
    return lines


def counted(ensemble: Ensemble) -> list[str]:
    """Name the members, those of several folds with their number: `unet (5 folds)`."""
    several = {m.member: len(m.stores) for m in ensemble.members if isinstance(m, Folds) and len(m.stores) > 1}
    return [f"{name} ({several[name]} folds)" if name in several else name for name in ensemble.fusion.members]


def _folds(name: str, paths: Sequence[Path], common: bool) -> Folds:
    return named(name, list(paths), common)


def _read(argument: Path) -> tuple[str | None, tuple[Path, ...]]:
    name, equals, rest = str(argument).partition("=")
    if not equals or not name.strip() or not rest or "/" in name or "\\" in name:
        return None, (argument,)
    path = as_path(rest)
    if argument.exists() or is_store(argument):
        if path.exists() or is_store(path):
            raise UsageError(
                "member-ambiguous",
                "cannot tell a path from a named member",
                item=f"{str(argument)!r} exists, and so does {rest!r}, which it may call {name!r}",
                fix=f"write {argument.absolute()} for the path, or {name}=./{rest} for the member {name!r}",
            )
        return None, (argument,)
    if has_magic(rest) and not path.exists():
        paths = tuple(Path(found) for found in sorted(glob(rest)))  # noqa: PTH207 - a pattern, relative or not
        if not paths:
            fix = "check the pattern; it is that of a shell, such as unet=fold*.zarr"
            raise IncompleteError("member-missing", "cannot find a member", item=f"no path fits {rest!r}", fix=fix)
        return name, paths
    return name, (path,)


def on_this_machine(members: Sequence[MemberPaths], paths: Sequence[Path]) -> list[MemberPaths]:
    """Give members other paths, all in their order: those of copies."""
    own = iter(paths)
    return [replace(member, paths=tuple(next(own) for _ in member.paths)) for member in members]
