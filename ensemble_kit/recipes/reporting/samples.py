"""The samples of a page: how their scores are spread, and pictures of the worst, the median and the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ensemble_kit.execution.events import Listener, Progress, nobody
from ensemble_kit.masks import layers
from ensemble_kit.recipes.reporting.choice import pictured
from ensemble_kit.recipes.reporting.images import pixels
from ensemble_kit.recipes.reporting.material import Material
from ensemble_kit.recipes.reporting.scores import MOST, lowest_classes, sample_scores
from ensemble_kit.recipes.reporting.slices import Slice, slices_of
from ensemble_kit.reports import svg
from ensemble_kit.reports.page import Block, Chart, Key, Section, Table, View, Views
from ensemble_kit.reports.pictures import Shelf, flat, photograph
from ensemble_kit.spec.label_table import is_background

LONGEST = 512
_LISTED = 1000  # rows of the table of samples: the worst

_ERRORS = (
    ("right", layers.FOUND), ("too much", layers.INVENTED), ("missed", layers.MISSED),
    ("one class taken for another", layers.MISTAKEN),
)  # fmt: skip


def sample_section(
    m: Material, images: Mapping[str, Path], count: int, shelf: Shelf, listener: Listener = nobody
) -> Section | None:
    """Show how samples spread, and pictures of some of them.

    Parameters
    ----------
    images : the file of each sample's image, of those that have one; masks of the others lie on black.
    count : how many pictures; a volume has three.
    shelf : where pictures are kept.
    """
    if m.masks is None:
        return None
    blocks, scores = list[Block](), sample_scores(m)
    solid = any(len(m.masks.image_size(s)) == 3 for s in m.masks.samples[:1])
    chosen = pictured(m, -(-count // 3) if solid else count)
    shown = [s for group in chosen for s in group.samples]
    if scores.size:
        blocks += _spread(m, scores, shown)
    blocks += _keys(m) if shown else []
    done = 0
    for group in chosen:
        views = list[View]()
        for sample in group.samples:
            listener(Progress("drawing", done, len(shown)))
            views += _views(m, sample, images.get(sample), shelf)
            done += 1
        blocks.append(Views(group.heading, views))
    if not blocks:
        return None
    lead = "Where it is wrong: the spread over samples, then pictures. Buttons above a picture choose what lies on it."
    return Section("samples", "Samples", lead, blocks)


def _keys(m: Material) -> list[Block]:
    """Say what the colours of the layers mean."""
    assert m.masks is not None
    classes = [c for c in m.masks.classes if not is_background(c)]
    colours = list(zip(classes, layers.class_colours(len(classes)), strict=True))
    more = "" if len(classes) <= MOST else f", the first {MOST} of {len(classes)}"
    own = Key(f"Truth and answer: the classes{more}", colours[:MOST])
    found: list[Block] = [own] if m.truth is None else [Key("Errors", _ERRORS), own]
    if len(m.members) > 1:
        light = (
            tuple(layers.disagreement_colours()[-1, :3].tolist()),
            tuple(layers.disagreement_colours()[1, :3].tolist()),
        )
        found.append(Key("Disputed", [("half of the members say yes", light[0]), ("nearly all agree", light[1])]))
    return found


def _spread(m: Material, scores: np.ndarray, shown: list[str]) -> list[Block]:
    """Draw a dot for each sample, over all classes and for each, and list the samples from the worst on."""
    assert m.masks is not None
    samples, known = m.masks.samples, m.scores
    if known is not None:
        name, classes, values = m.measure.title, known.overlap.classes, known.overlap.under(m.measure).values
        told = f"{name} of each sample, the mean over its classes in the first row, then class by class"
    else:
        assert m.expected is not None
        name, classes, values = "expected Dice", m.expected.classes, m.expected.expected
        told = "The Dice that each sample is expected to get, from its scores alone (ensk review)"
    few = lowest_classes(m, MOST)
    told += "" if len(few) == len(classes) else f", of the {len(few)} lowest of {len(classes)} classes"
    rows = [("all classes", scores), *((classes[k], values[:, k]) for k in few)]
    marked = [samples.index(s) for s in shown]
    if np.isnan(scores).all():
        span = "no pair of sample and class counts"
    else:
        low, middle, high = np.nanquantile(scores, [0, 0.5, 1])
        span = f"from {low:.4f} to {high:.4f}, median {middle:.4f}"
    alt = f"{told}: {span}"
    caption = f"{told}. Lines are medians, red dots have a picture below. {span[0].upper()}{span[1:]}."
    order = np.argsort(np.where(np.isnan(scores), np.inf, scores), kind="stable")[:_LISTED].tolist()
    lines = [[samples[s], _text(scores[s]), *_lowest(classes, values[s])] for s in order]
    first = "" if len(order) == len(samples) else f", the {len(order)} lowest of {len(samples)}"
    return [
        Chart(svg.strip(rows, name, marked), alt, caption),
        Table(f"Samples{first}", ["sample", name, "lowest class", "its score"], lines),
    ]


def _lowest(classes: tuple[str, ...], values: np.ndarray) -> tuple[str, str]:
    if np.isnan(values).all():
        return "–", "–"
    k = int(np.nanargmin(values))
    return classes[k], _text(float(values[k]))


def _views(m: Material, sample: str, image: Path | None, shelf: Shelf) -> list[View]:
    """Make the pictures of a sample: one, or three of a volume."""
    assert m.masks is not None
    cuts, shape = slices_of(m, sample, LONGEST), m.masks.image_size(sample)
    bases = [None] * len(cuts) if image is None else pixels(image, sample, shape, cuts)
    out = []
    for cut, base in zip(cuts, bases, strict=True):
        drawn = _layers(m, sample, cut)
        kept = [(name, shelf.put(flat(layer.index, layer.colours), "png")) for name, layer in drawn]
        title = sample if not cut.told else f"{sample}, {cut.told}"
        address = None if base is None else shelf.put(photograph(base), "webp")
        first = "errors" if m.truth is not None else "answer"
        out.append(View(title, _note(m, sample), cut.seen, address, kept, first, m.truth is not None))
    return out


def _layers(m: Material, sample: str, cut: Slice) -> list[tuple[str, layers.Layer]]:
    assert m.masks is not None
    classes = [c for c in m.masks.classes if not is_background(c)]
    pen = max(1, max(cut.size) // 400)
    found = [("answer", layers.class_layer((cut.of(m.masks[sample, c]) for c in classes), pen=pen))]
    if m.truth is not None:
        truth, void = m.truth, m.truth.void(sample)
        pairs = ((cut.of(m.masks[sample, c] - void), cut.of(truth[sample, c] - void)) for c in classes)
        found = [
            ("errors", layers.error_layer(pairs)),
            ("truth", layers.class_layer((cut.of(truth[sample, c]) for c in classes), pen=pen)),
            *found,
        ]
    if len(m.members) > 1:
        votes = ([cut.of(member[sample, c]) for member in m.members.values()] for c in classes)
        found.append(("disputed", layers.disagreement_layer(votes)))
    return found


def _note(m: Material, sample: str) -> str:
    """Say the score of a sample, and its three lowest classes."""
    assert m.masks is not None
    k = m.masks.samples.index(sample)
    if (known := m.scores) is not None:
        own, classes, name = known.overlap.under(m.measure).values[k], known.overlap.classes, m.measure.title
    elif m.expected is not None:
        own, classes, name = m.expected.expected[k], m.expected.classes, "expected Dice"
    else:
        areas = [(c, m.masks[sample, c].area) for c in m.masks.classes]
        return "pixels: " + ", ".join(f"{c} {n}" for c, n in areas[:3]) + (", …" if len(areas) > 3 else "")
    order = [
        c for c in np.argsort(np.where(np.isnan(own), np.inf, own), kind="stable").tolist() if not np.isnan(own[c])
    ]
    lowest = ", ".join(f"{classes[c]} {own[c]:.4f}" for c in order[:3])
    return f"{name} {_text(float(sample_scores(m)[k]))}; lowest: {lowest}" if order else "no pair counts"


def _text(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"
