"""Pictures of single samples at the image's size: classes, errors, and where members disagree."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ensemble_kit.errors import IncompleteError, UsageError, check_choice, some
from ensemble_kit.masks.drawing import as_rgb
from ensemble_kit.masks.idforms import in_form
from ensemble_kit.masks.layers import Layer, class_layer, disagreement_layer, error_layer
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.metrics.overlap import dice
from ensemble_kit.recipes.reporting.images import pixels
from ensemble_kit.recipes.reporting.material import Material
from ensemble_kit.recipes.reporting.slices import slices_of
from ensemble_kit.spec.label_table import is_background

_LONGEST = 200  # bytes of a file's name, which the kind, suffix and a temporary name's part come to; systems allow 255

KINDS = ("overlay", "errors", "disputed")


def check_kind_of_picture(kind: str, members: int, truth: bool) -> None:
    """Refuse a kind of picture that what is given does not allow.

    Raises
    ------
    UsageError
        Another kind; errors without a truth, or a truth without errors; fewer than two members that disagree.
    """
    check_choice("KIND", kind, KINDS, "cannot draw")
    if (kind == "errors") != truth:
        fix = "pass --val, the truth" if kind == "errors" else "leave --val out, or draw errors"
        raise UsageError("draw-inputs", f"cannot draw {kind}", item=f"{'a' if truth else 'no'} truth is given", fix=fix)
    if kind == "disputed" and members < 2:
        item, fix = f"{members} members", "pass at least two stores, or two mask files"
        raise UsageError("draw-inputs", "cannot draw what members dispute", item=item, fix=fix)


def chosen(samples: Sequence[str], wanted: Sequence[str], most: int) -> list[str]:
    """Return the samples that are drawn: those asked for, else the first ones.

    Raises
    ------
    IncompleteError
        A sample that is not there.
    """
    if unknown := [s for s in wanted if s not in samples]:
        item, fix = (
            f"there is no sample {some(unknown)}; there are {some(samples, 3)}",
            "pass --sample with one of these",
        )
        raise IncompleteError("sample-unknown", "cannot draw samples", item=item, fix=fix)
    return list(wanted) or list(samples[:most])


def file_names(kind: str, samples: Sequence[str]) -> dict[str, str]:
    """Name the file of each sample: its id, with its folders in the name, shortened where it is too long for one.

    Raises
    ------
    UsageError
        Two samples get one name.
    """
    names = {s: f"{_short(in_form(s, 'path').replace('/', '_').removesuffix('.png'))}_{kind}.png" for s in samples}
    if len(set(names.values())) < len(names):
        item, fix = (
            f"{some(samples)} become {some(names.values())}",
            "draw them one at a time, into folders of their own",
        )
        raise UsageError("id-clash", "cannot name pictures apart", item=item, fix=fix)
    return names


def _short(name: str) -> str:
    """Return a name of at most 200 bytes, of which the last are a digest where it is cut."""
    if len(name.encode()) <= _LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{name.encode()[: _LONGEST - 17].decode(errors='ignore')}-{digest}"


def pictures(
    kind: str, m: Material, samples: Sequence[str], images: Mapping[str, Path], longest: int
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Draw samples: yield each one's id, what is to be said of it, and RGB uint8 (h, w, 3).

    Slices of a volume are as wide and as high as they are in millimetres, where its geometry is known.

    Parameters
    ----------
    images : the file of each sample's image; masks of the others lie on black.
    longest : the longer side of a picture has at most as many pixels.
    """
    assert m.masks is not None
    for sample in samples:
        shape = m.masks.image_size(sample)
        for cut in slices_of(m, sample, longest):
            own = images.get(sample)
            base = np.zeros(cut.size, np.uint8) if own is None else pixels(own, sample, shape, [cut])[0]
            name = sample if not cut.told else f"{sample} {cut.told.replace(' = ', '')}"
            classes = [c for c in m.masks.classes if not is_background(c)]
            if kind == "errors":
                assert m.truth is not None
                truth, void = m.truth, m.truth.void(sample)
                pairs = ((cut.of(m.masks[sample, c] - void), cut.of(truth[sample, c] - void)) for c in classes)
                layer: Layer = error_layer(pairs)
                told = f"Dice {dice(_only(m.masks, sample), _only(truth, sample)).mean:.4f}"
            elif kind == "disputed":
                votes = ([cut.of(member[sample, c]) for member in m.members.values()] for c in classes)
                layer, told = disagreement_layer(votes), f"{len(m.members)} members"
            else:
                layer = class_layer((cut.of(m.masks[sample, c]) for c in classes), pen=max(1, max(cut.size) // 700))
                told = f"{sum(m.masks[sample, c].area > 0 for c in classes)} of {len(classes)} classes"
            yield name, told, cut.as_seen(layer.on(as_rgb(base)))


def _only(masks: MaskSet, sample: str) -> MaskSet:
    return masks.arranged([sample], masks.classes)
