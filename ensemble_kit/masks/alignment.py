"""Whether two sides have the same classes, samples and image sizes; they are joined by name, never by position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ensemble_kit.errors import IncompleteError, MismatchError, differ, some
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
    if set(a.classes) != set(b.classes):
        only_a, only_b = sorted(set(a.classes) - set(b.classes)), sorted(set(b.classes) - set(a.classes))
        item = f"classes only in {ours}: {some(only_a) or 'none'}; only in {theirs}: {some(only_b) or 'none'}"
        fix = "give both the same classes; the order does not matter"
        raise MismatchError("classes-differ", what, item=item, fix=fix)
    if a.sizes == b.sizes:
        return
    if lacking := [sample for sample in b.sizes if sample not in a.sizes]:
        item = f"{ours} lacks samples that {theirs} has: {len(lacking)} of {len(b.sizes)}: {some(lacking)}"
        raise IncompleteError(missing, what, item=item, fix=f"add them to {ours}, or drop them from {theirs}")
    if extra := [sample for sample in a.sizes if sample not in b.sizes]:
        item = f"{ours} has samples that {theirs} lacks: {len(extra)} of {len(a.sizes)}: {some(extra)}"
        raise MismatchError("samples-differ", what, item=item, fix=f"add them to {theirs}, or drop them from {ours}")
    sample = next(sample for sample, size in a.sizes.items() if size != b.sizes[sample])
    own, wanted = f"{as_text(a.sizes[sample])} in {ours}", f"{as_text(b.sizes[sample])} in {theirs}"
    fix = "pass the image's own size to both (--image-size HxW)"
    raise differ(what, f"sample {sample!r}", own, wanted, fix, "image-size-differs")
