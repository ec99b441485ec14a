"""Whether two sides have the same classes, samples and image sizes; they are joined by name, never by position."""

from __future__ import annotations

from typing import Protocol

from ensemble_kit.errors import IncompleteError, MismatchError, differ, some
from ensemble_kit.spec.geometry import Shape, as_text


class Side(Protocol):
    """What has a value for each sample and class, such as a mask set or an ensemble."""

    @property
    def samples(self) -> tuple[str, ...]:
        """Names of the samples."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        ...

    def image_size(self, sample: str, /) -> Shape:
        """Return the size of a sample's image."""
        ...


def check_aligned(
    a: Side, b: Side, names: tuple[str, str], what: str = "cannot join masks", missing: str = "samples-missing"
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
    if lacking := _lacking(a, b):
        item = f"{ours} lacks samples that {theirs} has: {len(lacking)} of {len(b.samples)}: {some(lacking)}"
        raise IncompleteError(missing, what, item=item, fix=f"add them to {ours}, or drop them from {theirs}")
    if extra := _lacking(b, a):
        item = f"{ours} has samples that {theirs} lacks: {len(extra)} of {len(a.samples)}: {some(extra)}"
        raise MismatchError("samples-differ", what, item=item, fix=f"add them to {theirs}, or drop them from {ours}")
    for sample in a.samples:
        size, other = a.image_size(sample), b.image_size(sample)
        if size != other:
            own, wanted = f"{as_text(size)} in {ours}", f"{as_text(other)} in {theirs}"
            fix = "pass the image's own size to both (--image-size HxW)"
            raise differ(what, f"sample {sample!r}", own, wanted, fix, "image-size-differs")


def _lacking(a: Side, b: Side) -> list[str]:
    """List the samples of `b` that `a` lacks."""
    known = set(a.samples)
    return [sample for sample in b.samples if sample not in known]
