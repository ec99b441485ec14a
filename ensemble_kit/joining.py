"""Joining members: whether they fit, which samples they share, and what each weighs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from ensemble_kit.errors import IncompleteError, MismatchError, UsageError, check_choice, differ, some
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.masks.alignment import check_same_classes
from ensemble_kit.masks.idforms import difference
from ensemble_kit.spec.fusion import Fusion, Upsample, Weights, integer_weights
from ensemble_kit.spec.mean import Mean


def check_members(members: Sequence[LogitStore]) -> None:
    """Refuse members that cannot be fused.

    Raises
    ------
    UsageError
        One store twice.
    MismatchError
        Members of different classes or activations.
    """
    check_distinct(members)
    first = members[0]
    for other in members[1:]:
        names = repr(first.member), repr(other.member)
        fix = "dump all members with the same class names; the order does not matter"
        check_same_classes(first.classes, other.classes, names, "cannot fuse members of different classes", fix)
        if other.activation != first.activation:
            item = f"{first.member!r} is {first.activation}, {other.member!r} is {other.activation}"
            alone = "soft-vote each kind alone and combine the two with a hard vote"
            raise MismatchError("activation-differs", "cannot mix sigmoid and softmax members", item=item, fix=alone)


def check_distinct(members: Sequence[LogitStore], how: Sequence[Hashable] | None = None) -> None:
    """Refuse one store twice, which would count twice: through a link, as a copy or as its packed file too.

    Parameters
    ----------
    how : how each member decides; one store may decide in two ways.

    Raises
    ------
    UsageError
        Two have one id.
    """
    known: dict[Hashable, LogitStore] = {}
    for store, way in zip(members, how or [None] * len(members), strict=True):
        other = known.get((store.uuid, way))
        if other is not None:
            paths = list(dict.fromkeys(str(s.path) for s in (other, store)))
            raise twice(paths, f"one store, {store.uuid[:8]}")
        known[store.uuid, way] = store


def twice(paths: Sequence[str], what: str) -> UsageError:
    """Say that a member is named twice.

    Parameters
    ----------
    paths : where it is: one path, or two that lead to the same.
    what : what they hold, such as "one store".
    """
    item = f"{paths[0]} is named twice" if len(paths) == 1 else f"{paths[0]} and {paths[1]} are {what}"
    fix = "name each member once; where one is to count twice, give it twice the weight of the others"
    return UsageError("member-twice", "cannot count one member as two", item=item, fix=fix)


def fuse(
    members: Sequence[LogitStore],
    order: Sequence[int],
    weights: Weights | None,
    mean: Mean,
    upsample: Upsample | None,
    temperatures: Sequence[float] | Mapping[str, float] | None,
) -> Fusion:
    """Check and complete what the user says about fusing members.

    Parameters
    ----------
    members : sorted.
    order : the position of each in the order that the user named, which is that of weights and temperatures.

    Raises
    ------
    MismatchError
        Clamps that differ under a mean of logits, weights for other names, members that cannot be told apart.
    UsageError
        Options of other values, weights or temperatures that cannot be used.
    """
    _check_clamps(members, mean)
    upsample = "logits" if upsample is None else upsample
    check_choice("upsample", upsample, ("logits", "scores"))
    given = [members[order.index(k)] for k in range(len(order))]
    names = tuple(m.member for m in members)
    rows = [[row[k] for k in order] for row in _weight_rows(weights, given, members[0].classes)]
    scale = [_temperatures(temperatures, given)[k] for k in order]
    _check_namesakes(names, rows, scale)
    return Fusion(mean, upsample, names, tuple(integer_weights(r, names) for r in rows), tuple(scale))


def check_fusion(given: Fusion | None, ours: Fusion, classes: int) -> None:
    """Refuse a fusion that was made for another ensemble.

    Raises
    ------
    MismatchError
        It is of other members, or has weights for another number of classes.
    """
    if given is not None and (given.members != ours.members or len(given.weights) != classes):
        raise differ(
            "cannot fuse members this way",
            "the fusion",
            f"for {some(given.members)} and {len(given.weights)} classes",
            f"the members are {some(ours.members)}, of {classes} classes",
            "pass a fusion of these members, or with_fusion(weights=…, mean=…)",
            "set-does-not-fit",
        )


def _check_clamps(members: Sequence[LogitStore], mean: Mean) -> None:
    """Refuse a mean of logits with different bounds: far from 0 the wider member would decide alone."""
    from ensemble_kit.kernels.tables import LOGIT_RANGE

    bounds = [min(m.clamp or LOGIT_RANGE, LOGIT_RANGE) for m in members]
    if not mean.of_logits or len(set(bounds)) == 1:
        return
    low, high = bounds.index(min(bounds)), bounds.index(max(bounds))
    raise MismatchError(
        "clamps-differ",
        'cannot fuse members with mean="logit" whose logits were limited differently',
        item=f"{members[low].member!r} to ±{bounds[low]:g}, {members[high].member!r} to ±{bounds[high]:g}",
        fix='dump all members with the same --clamp, or pass mean="probability", where far background hardly counts',
    )


def _check_namesakes(names: Sequence[str], rows: Sequence[Sequence[float]], temperatures: Sequence[float]) -> None:
    """Refuse members of one name that are treated differently: a tuned set could not tell them apart."""
    treated: dict[str, tuple[float, ...]] = {}
    for k, name in enumerate(names):
        treatment = (*(row[k] for row in rows), temperatures[k])
        if treated.setdefault(name, treatment) != treatment:
            raise MismatchError(
                "members-namesakes",
                "cannot tell members apart",
                item=f"two are called {name!r}, with different weights or temperatures",
                fix="give each a name of its own: LogitWriter(member=…), ensk dump-logits --member",
            )


def join_samples(members: Sequence[LogitStore], how: str) -> tuple[tuple[str, ...], int]:
    """Return the samples of all members in the order of the first, and how many others there are.

    Parameters
    ----------
    how : "same" refuses members of different samples, "common" takes those that all of them have.

    Raises
    ------
    MismatchError
        With "same", a member that lacks samples of another.
    IncompleteError
        No sample is in all of them.
    """
    first = members[0].samples
    if all(m.samples == first and (how == "same" or m.complete) for m in members):
        return first, 0  # as nearly always: sets of a million names would take 0.1 GB a member
    held = [set(m.samples) - (set(m.missing) if how == "common" else set()) for m in members]
    common = set.intersection(*held)
    union = {s for m in members for s in m.samples}
    if how == "same":
        for member, own in zip(members, held, strict=True):
            if own != union:
                lacking = [s for m in members for s in m.samples if s not in own]
                why, mend = _differences(members)
                raise MismatchError(
                    "samples-differ",
                    "cannot fuse members that hold different samples",
                    item=f"{member.member!r} lacks {len(set(lacking))} of {len(union)}: "
                    f"{some(dict.fromkeys(lacking))}{why}",
                    fix=mend or "dump the same images for every member, or pass samples='common' (--samples common)",
                )
    if not common:
        why, fix = _differences(members)
        raise IncompleteError(
            "samples-none",
            "cannot fuse members",
            item=f"they have no sample in common{why}",
            fix=fix or "dump the same images for every member",
        )
    return tuple(s for s in first if s in common), len(union) - len(common)


def _differences(members: Sequence[LogitStore]) -> tuple[str, str]:
    """Say how the ids of two members differ that mean the same images, and what to do; blank where they do not."""
    for other in members[1:]:
        if found := difference(members[0].samples, other.samples):
            fix = "dump every member of the same files with the same --id (ensk dump-logits --id name|stem|path)"
            return f"; {found[0]}", fix
    return "", ""


def _weight_rows(weights: Weights | None, members: Sequence[LogitStore], classes: Sequence[str]) -> list[list[float]]:
    """Return a row of M weights for each class."""
    names = [m.member for m in members]
    if weights is None:
        weights = [1.0] * len(members)
    if isinstance(weights, Mapping):
        if set(weights) != set(names):
            item = f"weights for {some(weights)}, members {some(names)}"
            raise MismatchError(
                "weights-invalid", "cannot weigh members", item=item, fix="pass exactly one weight per member name"
            )
        weights = [weights[n] for n in names]
    try:
        table = np.array(weights, np.float64)
    except (ValueError, TypeError):
        table = np.empty(0)
    if table.shape == (len(members),):
        return [table.tolist()] * len(classes)
    if table.shape == (len(members), len(classes)):
        return [list(row) for row in table.T.tolist()]
    raise UsageError(
        "weights-invalid",
        "cannot weigh members",
        item=f"weights of shape {table.shape} for {len(members)} members and {len(classes)} classes",
        fix="pass one weight per member, or for each member one weight per class",
    )


def _temperatures(given: Sequence[float] | Mapping[str, float] | None, members: Sequence[LogitStore]) -> list[float]:
    if given is None:
        return [1.0] * len(members)
    if isinstance(given, Mapping):
        given = [given.get(m.member, float("nan")) for m in members]
    try:
        values = [float(t) for t in given]
    except (TypeError, ValueError):
        values = []
    if len(values) != len(members) or not all(0 < t < float("inf") for t in values):
        item = f"temperatures {given!r} for {len(members)} members"
        raise UsageError(
            "temperatures-invalid", "cannot scale logits", item=item, fix="pass one finite number above 0 per member"
        )
    return values
