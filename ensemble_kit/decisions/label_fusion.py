"""Label fusion: members count by how well they are estimated to vote (docs/concepts.md#label-fusion)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.decisions.patterns import Votes, together
from ensemble_kit.decisions.quality import ALL, RaterQuality
from ensemble_kit.decisions.simple import Performance, Simple
from ensemble_kit.decisions.staple import Estimate, Staple
from ensemble_kit.errors import Caution, MismatchError, UsageError, check_kind, check_several, warn
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.spec.label_table import is_background

if TYPE_CHECKING:
    from numpy.typing import NDArray

Fusion = str | Staple | Simple
_METHODS = {"staple": Staple, "simple": Simple}
_NUMBERS: Mapping[str, type] = {"iterations": int, "tolerance": float, "alpha": float, "least": int}
_WHY = {
    "weights": "what a member weighs is what it estimates",
    "quorum": "it decides by probabilities or Dice, not by a number of members",
    "ties": "it has a rule of its own for them",
    "empty": "an empty mask says how well a member votes",
}


@dataclass(frozen=True)
class FusionRule:
    """How labels are fused, once the options are known to fit.

    Parameters
    ----------
    method : its options.
    members : how many.
    by : "class", or "label" for label maps.

    Raises
    ------
    UsageError
        SIMPLE by label, or fewer members than the method needs.
    """

    method: Staple | Simple
    members: int
    by: str

    def __post_init__(self) -> None:
        if isinstance(self.method, Simple):
            if self.by == "label":
                raise _unfit(
                    "by='label'",
                    "SIMPLE compares masks, and decides each class by itself",
                    "pass by='class' (--by class), or fusion='staple' (--fusion staple)",
                )
        elif self.members < self.method.needs:
            raise _unfit(
                "region='disagreement'",
                f"of {self.members} members no one can tell who is right where they disagree",
                f"pass {self.method.needs} members or more, or region='all' (--fusion staple)",
            )

    def __str__(self) -> str:
        return self.method.told(self.members, self.by)


def method_of(fusion: Fusion | None) -> Staple | Simple | None:
    """Read a method: a value, or its text `NAME[:SCOPE][,KEY=VALUE…]`; None is the majority.

    Raises
    ------
    UsageError
        A text of another form, or an option that the method does not have.

    Examples
    --------
    >>> method_of("simple:pooled,alpha=1.5")
    Simple(scope='pooled', alpha=1.5, least=3)
    """
    if fusion is None or isinstance(fusion, Staple | Simple):
        return fusion
    check_kind("fusion", fusion, str, "pass 'majority', 'staple', 'simple', ek.Staple(…) or ek.Simple(…)")
    name, _, inside = fusion.partition(":")
    if fusion == "majority":
        return None
    kind = _METHODS.get(name)
    if kind is None or inside.startswith(",") or fusion.endswith((":", ",")):
        raise _unread(fusion, "pass majority, staple, simple, or with options staple:pooled,region=disagreement")
    options: dict[str, Any] = {}
    for text in filter(None, inside.split(",")):
        key, given, value = text.partition("=")
        key, value = (key, value) if given else ("scope", key)
        if key in options or key not in vars(kind()):
            known = ", ".join(f"{k}=…" for k in vars(kind()))
            wrong = f"{key} is given twice" if key in options else f"{name} has no {key!r}"
            raise _unread(fusion, f"give each once: {known}", wrong)
        try:
            options[key] = _NUMBERS.get(key, str)(value)
        except ValueError:
            raise _unread(fusion, f"pass a number as {key}") from None
    return kind(**options)


def refuse_beside(method: Staple | Simple, **options: object) -> None:
    """Refuse options of a majority vote that a method has no use for; None is not given."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(
                "fusion-option-idle",
                f"cannot use {name} beside fusion={str(method)!r}",
                item=f"{name}={value!r}, but {_WHY[name]}",
                fix=f"leave {name} (--{name}) out, or vote by fusion='majority' (--fusion majority)",
            )


def fuse_labels(masks: Sequence[MaskSet], rule: FusionRule, names: Sequence[str] | None = None) -> MaskSet:
    """Fuse the masks of members that have the same samples, classes and sizes.

    Warns of label inversion, of estimates that did not converge, and where classes of members exclude each other but
    those of the result overlap.

    Parameters
    ----------
    names : of the members; default: their numbers.

    Raises
    ------
    UsageError
        Another number of names than of members, or two that are the same.
    MismatchError
        Classes of a member overlap, and the fusion is by label.
    """
    first = masks[0]
    if names is not None:
        check_several("the names of members", names, "pass a list of texts, one per member")
        if len(names) != len(masks):
            item = f"{len(names)} names of {len(masks)} members"
            raise _unfit(f"names={list(names)!r}", item, "pass one name per member, or none")
        if len(set(names)) < len(names):
            item = "figures of members are told by their names, and two have the same"
            raise _unfit(f"names={list(names)!r}", item, "pass names that differ, or none")
    fused = _by_label(masks, rule) if rule.by == "label" else _by_class(masks, rule)
    if names is not None:
        fused.quality = fused.quality.named(names)
    for caution in fused.quality.cautions():
        warn(caution)
    if rule.by == "class" and len(first.classes) > 1 and all(m.exclusive for m in masks) and not fused.exclusive:
        doubt = "members' classes exclude each other, but fused class by class some pixels have several"
        warn(Caution(doubt, "pass --by label with staple (by='label'), or vote by --fusion majority"))
    return fused


def _by_class(masks: Sequence[MaskSet], rule: FusionRule) -> MaskSet:
    first = masks[0]
    names, S, C = first.classes, len(first.samples), len(first.classes)
    groups = _groups(first, rule)
    found: dict[tuple[int, int], ManyRuns] = {}
    rows = {sample: k for k, sample in enumerate(first.samples)}
    told: list[list[Any]] = []
    for group in groups:
        told.append([])
        for c, name in enumerate(names):
            votes = [_votes(masks, sample, [name], 0) for sample in group]
            ballots, which = together(votes, 2)
            labels, what = rule.method.fuse(ballots, "class")
            told[-1].append(what)
            for sample, own, index in zip(group, votes, which, strict=True):
                found[rows[sample], c] = own.runs(labels[index] - 1, 1)
    runs = ManyRuns.joined([found[s, c] for s in range(S) for c in range(C)])
    sizes, geometry = first.extent.sizes, first.extent.geometry
    fused = MaskSet.trusted(sizes, names, runs, np.arange(S * C).reshape(S, C), str(rule)).with_geometry(geometry)
    fused.quality = _quality(masks, rule, _figures(told, len(masks)), [what for row in told for what in row])
    return fused


def _figures(told: list[list[Any]], members: int) -> dict[str, NDArray[np.float64]]:
    """Arrange what was estimated for each group and class."""
    flat = [what for row in told for what in row]
    shape = (len(told), len(flat) // max(len(told), 1), members)
    if flat and isinstance(flat[0], Performance):
        parts = {"dice": [w.dice for w in flat], "dropped": [w.dropped for w in flat]}
    else:
        parts = {"sensitivity": [w.sensitivity[:, 1] for w in flat], "specificity": [w.specificity[:, 1] for w in flat]}
    return {name: np.array(values, np.float64).reshape(shape) for name, values in parts.items()}


def _quality(
    masks: Sequence[MaskSet],
    rule: FusionRule,
    figures: dict[str, NDArray[np.float64]],
    told: Sequence[Any],
    **more: Any,
) -> RaterQuality:
    """Gather what is known of members, whose names are their numbers."""
    method = rule.method
    stopped = sum(isinstance(what, Estimate) and not what.converged for what in told)
    longer = str(replace(method, iterations=10 * method.iterations)) if isinstance(method, Staple) else ""
    names = tuple(f"member {k}" for k in range(1, len(masks) + 1))
    samples = masks[0].samples if method.scope == "sample" else (ALL,)
    more |= {"stopped": stopped, "estimates": len(told), "more": longer}
    return RaterQuality(str(method), names, samples, masks[0].classes, figures, **more)


def _by_label(masks: Sequence[MaskSet], rule: FusionRule) -> MaskSet:
    first, method = masks[0], rule.method
    for k, member in enumerate(masks, start=1):
        if not member.exclusive:
            raise MismatchError(
                "classes-overlap",
                "cannot fuse by label",
                item=f"two classes of member {k} overlap",
                fix='fuse class by class: by="class" (--by class)',
            )
    names, C = first.classes, len(first.classes)
    unlabelled = -1 if any(map(is_background, names)) else 0
    labels_of = names if unlabelled else ("no class", *names)
    L = len(labels_of)
    groups = _groups(first, rule)
    runs: list[ManyRuns] = []
    estimates: list[Estimate] = []
    for group in groups:
        votes = [_votes(masks, sample, names, unlabelled) for sample in group]
        ballots, which = together(votes, L)
        labels, what = method.fuse(ballots, "label")
        assert isinstance(what, Estimate)
        estimates.append(what)
        owners = labels - 1 - unlabelled  # classes are 0 … C-1; C is a pixel in none, C + 1 one without a decision
        owners = np.where(labels < 0, C + 1, np.where(owners < 0, C, owners))
        runs += [own.runs(owners[index], C + 2) for own, index in zip(votes, which, strict=True)]
    many, width = ManyRuns.joined(runs), C + 2
    indices = np.arange(len(runs) * width).reshape(-1, width)
    void = (
        {} if unlabelled else {s: many.mask(indices[k, -1], first.image_size(s)) for k, s in enumerate(first.samples)}
    )
    fused = MaskSet.trusted(first.extent.sizes, names, many, indices[:, :C], str(rule), void, exclusive=True)
    fused = fused.with_geometry(first.extent.geometry)
    own, shape = slice(L - C, None), (len(groups), len(masks), L)
    figures = {
        name: np.array([getattr(e, name) for e in estimates]).reshape(shape)[:, :, own].transpose(0, 2, 1)
        for name in ("sensitivity", "specificity")
    }
    thetas = [np.where(e.theta.sum(axis=1, keepdims=True) > 0, e.theta, np.nan) for e in estimates]
    confusion = np.array(thetas).reshape(*shape, L)
    fused.quality = _quality(masks, rule, figures, estimates, confusion=confusion, labels=labels_of)
    return fused


def _groups(masks: MaskSet, rule: FusionRule) -> list[list[str]]:
    """Return the samples that are estimated together."""
    pooled = [list(masks.samples)] if masks.samples else []
    return [[s] for s in masks.samples] if rule.method.scope == "sample" else pooled


def _votes(masks: Sequence[MaskSet], sample: str, names: Sequence[str], unlabelled: int) -> Votes:
    size = math.prod(masks[0].image_size(sample))
    return Votes.of([[m[sample, n] for n in names] for m in masks], [m.void(sample) for m in masks], size, unlabelled)


def _unread(fusion: str, fix: str, wrong: str | None = None) -> UsageError:
    item = f"fusion={fusion!r}" if wrong is None else f"fusion={fusion!r}: {wrong}"
    return UsageError("fusion-invalid", "cannot read a fusion of labels", item=item, fix=fix)


def _unfit(what: str, item: str, fix: str) -> UsageError:
    return UsageError("fusion-invalid", f"cannot use {what} here", item=item, fix=fix)
