"""Clean masks by rules of post-processing: one mask after its decision, or every mask of a set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ensemble_kit.decisions.partition import TOLD, share_out
from ensemble_kit.decisions.rule import Rule
from ensemble_kit.decisions.rules import Gate, gate_needs_scores, parse_rules
from ensemble_kit.errors import MismatchError, some
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs

Above = Callable[[float], int]
"""Counts the pixels of the mask's class and sample that lie at or above a threshold."""


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


def refuse_gates(rules: Iterable[Rule]) -> None:
    """Refuse gates, which need scores, where there are only masks.

    Raises
    ------
    UsageError
        It names the gate.
    """
    for rule in rules:
        if isinstance(rule, Gate):
            raise gate_needs_scores(rule)


def clean(runs: Runs, name: str, rules: Iterable[Rule], above: Above | None = None) -> Runs:
    """Apply the rules that hold for class `name` to its mask, in their order.

    Parameters
    ----------
    above : counts the pixels of this class at or above a threshold; without it a gate is refused.
    """
    for rule in rules:
        if not rule.covers(name):
            continue
        if isinstance(rule, Gate) and above is not None:
            runs = rule.decide(runs, above(rule.top)) if runs else runs
        else:
            runs = rule.apply(runs)
    return runs


def clean_exclusive(
    masks: Sequence[Runs], names: Sequence[str], rules: Iterable[Rule], void: Runs, above: Sequence[Above] | None = None
) -> list[Runs]:
    """Apply rules to the masks of one sample that exclude each other, so that they still do (`partition.share_out`).

    Rules are applied in their order, each to the classes in theirs.

    Parameters
    ----------
    void : pixels that count for no class.
    above : of each class, as for `clean`.
    """
    out = list(masks)
    for rule in rules:
        for k, name in enumerate(names):
            if rule.covers(name):
                after = clean(out[k], name, (rule,), None if above is None else above[k])
                share_out(out, k, after, void, getattr(rule, "connectivity", 8))
    return out


def apply_rules(masks: MaskSet, rules: Iterable[Rule | str] | Rule | str) -> MaskSet:
    """Post-process every mask of a set: rules or their texts, in the order given.

    Where classes exclude each other they do so afterwards: pixels that a rule takes from a class go to the neighbour
    that shares most of their border, and `.rule` says so.

    Raises
    ------
    UsageError
        A gate, which needs scores: pass it to `Ensemble.vote`.
    MismatchError
        A rule for a class that the set does not have.

    Examples
    --------
    >>> masks = MaskSet({("x", "bone"): Runs([0, 5], [3, 6], (2, 6))})
    >>> apply_rules(masks, ["drop-small:2"])["x", "bone"].text()
    '1 3'
    """
    known = parse_rules(rules)
    refuse_gates(known)
    check_classes(known, masks.classes)
    if known and len(masks.classes) > 1 and masks.exclusive:
        cleaned = [
            runs
            for s in masks.samples
            for runs in clean_exclusive([masks[s, c] for c in masks.classes], masks.classes, known, masks.void(s))
        ]
        return masks.with_runs(ManyRuns.of(cleaned), "; ".join(filter(None, (masks.rule, TOLD))))
    return masks.with_runs(ManyRuns.of([clean(runs, key[1], known) for key, runs in masks.items()]), masks.rule)
