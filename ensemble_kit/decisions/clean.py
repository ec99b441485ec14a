"""Clean masks by rules of post-processing: those of one sample after its decision, or every mask of a set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ensemble_kit.decisions.partition import TOLD, share_out
from ensemble_kit.decisions.rule import Decided, Rule, ScoreRule
from ensemble_kit.decisions.rules import parse_rules
from ensemble_kit.errors import MismatchError, UsageError, some
from ensemble_kit.masks.alignment import Extent
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import Shape
from ensemble_kit.spec.georeference import WorldGeometry


def check_classes(rules: Iterable[Rule], classes: Sequence[str]) -> None:
    """Refuse a rule for a class that is not among `classes`.

    Raises
    ------
    MismatchError
        It names the rule and the classes.
    """
    for rule in rules:
        unknown = [c for c in rule.classes or () if c not in classes]
        if unknown:
            raise MismatchError(
                "rule-class-unknown",
                "cannot post-process",
                item=f"rule {str(rule)!r} is for {some(unknown)}, the classes are {some(classes, 40)}",
                fix="write class names as they are, after @ and with commas between",
            )


def refuse_score_rules(rules: Iterable[Rule]) -> None:
    """Refuse rules that need scores where there are only masks.

    Raises
    ------
    UsageError
        It names the rule.
    """
    for rule in rules:
        if isinstance(rule, ScoreRule):
            raise rule.masks_alone()


def refuse_across(rules: Iterable[Rule], otherwise: str = "decide each class by itself (--decide threshold)") -> None:
    """Refuse rules across classes where classes exclude each other.

    Parameters
    ----------
    otherwise : how to get masks that may overlap; empty where there is no way.

    Raises
    ------
    UsageError
        It names the rule.
    """
    for rule in rules:
        if rule.across:
            raise UsageError(
                "rule-exclusive",
                "cannot apply a rule across classes",
                item=f"rule {str(rule)!r}: the classes exclude each other, each pixel has one at most",
                fix=f"leave the rule out{otherwise and f', or {otherwise}'}",
            )


def told_of(rules: Iterable[Rule], extent: Extent) -> list[str]:
    """Write each rule, and what it is in these volumes: over how many neighbours, and of how many voxels for mm³.

    Raises
    ------
    UsageError
        A rule that has no meaning for one of the images: a connectivity of another number of axes, or a size in mm³
        where a sample has no geometry.
    """
    images = {(size, extent.geometry.get(sample)): sample for sample, size in extent.sizes.items()}
    return [str(rule) + _in_volumes(rule, images) for rule in rules]


def _in_volumes(rule: Rule, images: Mapping[tuple[Shape, WorldGeometry | None], str]) -> str:
    words, sizes = list[str](), set[int]()
    for (shape, own), sample in images.items():
        geometry = own if isinstance(own, Geometry) else None
        neighbours = rule.neighbours(shape)
        if len(shape) == 3 and hasattr(rule, "connectivity") and not words:
            words.append(f"over {neighbours} neighbours")
        if (voxels := rule.in_voxels(geometry, f"sample {sample!r}")) is not None:
            sizes.add(voxels)
    if sizes:
        words.append(f"{min(sizes)} to {max(sizes)} voxels" if len(sizes) > 1 else f"{min(sizes)} voxels")
    return f" ({', '.join(words)})" if words else ""


def clean(decided: Decided, rules: Iterable[Rule], void: Runs | None = None) -> None:
    """Apply rules to one sample's masks, in their order, each to the classes that it holds for; `decided` is changed.

    Parameters
    ----------
    void : where the masks exclude each other, the pixels that count for no class: they still do afterwards
        (`partition.share_out`). None: they may overlap.
    """
    for rule in rules:
        for after in rule.changed(decided):
            if void is not None:
                share_out(decided.masks, after, void, rule.neighbours(void.shape))
                continue
            for k, mask in after.items():
                decided.masks[k] = mask


def apply_rules(masks: MaskSet, rules: Iterable[Rule | str] | Rule | str) -> MaskSet:
    """Post-process every mask of a set: rules or their texts, in the order given.

    Where classes exclude each other they do so afterwards: pixels that a rule takes from a class go to the neighbour
    that shares most of their border, and `.rule` says so.

    Raises
    ------
    UsageError
        A rule that needs scores, such as a gate: pass it to `Ensemble.vote`. A rule that nests classes which exclude
        each other. A rule of images for a volume, the reverse, or one in mm³ for a sample without a geometry.
    MismatchError
        A rule for a class that the set does not have.

    Examples
    --------
    >>> masks = MaskSet({("x", "bone"): Runs([0, 5], [3, 6], (2, 6))})
    >>> apply_rules(masks, ["drop-small:2"])["x", "bone"].text()
    '1 3'
    """
    known = parse_rules(rules)
    refuse_score_rules(known)
    check_classes(known, masks.classes)
    told = told_of(known, masks.extent)
    nests = [rule for rule in known if rule.across]
    exclusive = bool(known) and len(masks.classes) > 1 and masks.exclusive
    if exclusive and nests:
        named = {name for rule in nests for name in rule.classes or ()}
        if len({name for (_, name), runs in masks.items() if name in named and runs}) > 1:
            refuse_across(nests, otherwise="")
        exclusive = False  # the masks overlap nowhere because most are empty
    cleaned = []
    for sample in masks.samples:
        own = [masks[sample, name] for name in masks.classes]
        where = masks.geometry(sample)
        decided = Decided(masks.classes, own, geometry=where if isinstance(where, Geometry) else None)
        clean(decided, known, masks.void(sample) if exclusive else None)
        cleaned += decided.masks
    solid = ", then ".join(told) if told != list(map(str, known)) else None
    words = "; ".join(filter(None, (masks.rule, solid, TOLD if exclusive else None)))
    return masks.with_runs(ManyRuns.of(cleaned), words or None)
