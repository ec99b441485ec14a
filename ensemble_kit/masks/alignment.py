"""Whether two sides have the same classes, samples and image sizes; they are joined by name, never by position."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ensemble_kit.errors import IncompleteError, MismatchError, differ, some
from ensemble_kit.masks.idforms import difference
from ensemble_kit.spec.geometry import Shape, as_text


class Extent(NamedTuple):
    """What there is a mask, or a score, for: every class of every sample."""

    classes: tuple[str, ...]
    sizes: Mapping[str, Shape]
    """Size of each sample's image."""


def check_aligned(
    a: Extent, b: Extent, names: tuple[str, str], what: str = "cannot join masks", missing: str = "samples-missing"
) -> None:
    """Refuse two sides whose classes, samples or image sizes differ; their order does not matter.

    Parameters
    ----------
    names : what messages call the two sides, such as ("the prediction", "the truth").
    what : what cannot be done with them.
    missing : code of the error where `a` lacks samples of `b`.

    Raises
    ------
    IncompleteError
        `a` lacks samples that `b` has.
    MismatchError
        `a` has samples that `b` lacks, or classes or image sizes differ.
    """
    ours, theirs = names
    if a.classes != b.classes:
        check_same_classes(a.classes, b.classes, names, what)
    if a.sizes == b.sizes:
        return
    lacking, extra = [s for s in b.sizes if s not in a.sizes], [s for s in a.sizes if s not in b.sizes]
    why, mend = (lacking and extra and difference(a.sizes, b.sizes)) or ("", "")
    why = why and f"; {why}"
    if lacking:
        item = f"{ours} lacks samples that {theirs} has: {len(lacking)} of {len(b.sizes)}: {some(lacking)}{why}"
        raise IncompleteError(missing, what, item=item, fix=mend or f"add them to {ours}, or drop them from {theirs}")
    if extra:
        item = f"{ours} has samples that {theirs} lacks: {len(extra)} of {len(a.sizes)}: {some(extra)}"
        fix = f"add them to {theirs}, or drop them from {ours}"
        raise MismatchError("samples-differ", what, item=item, fix=fix)
    sample = next(sample for sample, size in a.sizes.items() if size != b.sizes[sample])
    own, wanted = f"{as_text(a.sizes[sample])} in {ours}", f"{as_text(b.sizes[sample])} in {theirs}"
    fix = "pass the image's own size to both (--image-size HxW)"
    raise differ(what, f"sample {sample!r}", own, wanted, fix, "image-size-differs")


def check_same_classes(
    a: Iterable[str],
    b: Iterable[str],
    names: tuple[str, str],
    what: str,
    fix: str = "give both the same classes; the order does not matter",
) -> None:
    """Refuse two sides of different classes; their order does not matter.

    Parameters
    ----------
    names : what the message calls the two sides.
    what, fix : what cannot be done with them, and what to pass instead.

    Raises
    ------
    MismatchError
        It names the classes that only one side has.
    """
    ours, theirs = set(a), set(b)
    if ours != theirs:
        only = [some(sorted(one)) or "none" for one in (ours - theirs, theirs - ours)]
        item = f"classes only in {names[0]}: {only[0]}; only in {names[1]}: {only[1]}"
        raise MismatchError("classes-differ", what, item=item, fix=fix)
