"""What each member weighs, and how members are fused: the user's words become a `Fusion`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ensemble_kit.errors import MismatchError, UsageError, check_choice, differ, some
from ensemble_kit.logits.folds import StoreMember, stores_of
from ensemble_kit.spec.fusion import Fusion, Upsample, Weights, integer_weights
from ensemble_kit.spec.mean import Mean


def fuse(
    members: Sequence[StoreMember],
    classes: Sequence[str],
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
    classes : of the ensemble; a member weighs nothing in those that it lacks.
    order : the position of each in the order that the user named, which is that of weights and temperatures.

    Raises
    ------
    MismatchError
        Clamps that differ under a mean of logits, weights for other names, members that cannot be told apart.
    UsageError
        Options of other values, weights or temperatures that cannot be used, a class in which no member weighs; a mean
        of logits of exclusive classes that not all members have.
    """
    _check_clamps(members, mean)
    _check_exclusive(members, classes, mean)
    upsample = "logits" if upsample is None else upsample
    check_choice("upsample", upsample, ("logits", "scores"))
    given = [members[order.index(k)] for k in range(len(order))]
    names = tuple(m.member for m in members)
    rows = [[row[k] for k in order] for row in _weight_rows(weights, given, classes)]
    rows = [_held(name, row, members) for name, row in zip(classes, rows, strict=True)]
    scale = [_temperatures(temperatures, given)[k] for k in order]
    _check_namesakes(names, rows, scale)
    whole = tuple(integer_weights(r, names) for r in rows)
    return Fusion(mean, upsample, names, whole, tuple(scale), tuple(map(tuple, rows)))


def _check_exclusive(members: Sequence[StoreMember], classes: Sequence[str], mean: Mean) -> None:
    """Refuse a mean of logits of exclusive classes that some members lack: they have no common zero."""
    lacking = [m for m in members if not set(classes) <= set(m.classes)]
    if mean.of_logits and lacking and lacking[0].activation == "softmax":
        raise UsageError(
            "softmax-option",
            "cannot average logits of exclusive classes that some members lack",
            item=f"{lacking[0].member!r} lacks {some([c for c in classes if c not in lacking[0].classes])}; logits "
            "compare only with those of the same member's other classes",
            fix="pass mean='probability' (--mean probability), or classes='common' (--member-classes common)",
        )


def _held(name: str, row: Sequence[float], members: Sequence[StoreMember]) -> list[float]:
    """Leave members without a class out of its weights."""
    own = [weight if name in m.classes else 0.0 for weight, m in zip(row, members, strict=True)]
    if any(row) and not any(own):
        having = [m.member for m in members if name in m.classes]
        raise UsageError(
            "weights-invalid",
            "cannot fuse members",
            item=f"class {name!r} is only in {some(having)}, which weighs nothing",
            fix="pass a weight above 0 for one of them, or classes='common' (--member-classes common)",
        )
    return own


def check_fusion(
    given: Fusion | None, ours: Fusion, classes: Sequence[str] = (), members: Sequence[StoreMember] = ()
) -> None:
    """Refuse a fusion that was made for another ensemble.

    Raises
    ------
    MismatchError
        It is of other members, has weights for another number of classes, or weighs a member in one that it lacks.
    """
    for name, row in zip(classes, () if given is None else given.weights, strict=False):
        for member, weight in zip(members, row, strict=False):
            if weight and name not in member.classes:
                raise differ(
                    "cannot fuse members this way",
                    f"class {name!r}",
                    f"weight {weight} of 65536 for {member.member!r}",
                    f"a member of the classes {some(member.classes)}",
                    "pass a fusion of members with these classes, or with_fusion(weights=…, mean=…)",
                    "set-does-not-fit",
                )
    if given is not None and (given.members != ours.members or len(given.weights) != len(classes)):
        raise differ(
            "cannot fuse members this way",
            "the fusion",
            f"for {some(given.members)} and {len(given.weights)} classes",
            f"the members are {some(ours.members)}, of {len(classes)} classes",
            "pass a fusion of these members, or with_fusion(weights=…, mean=…)",
            "set-does-not-fit",
        )


def _check_clamps(given: Sequence[StoreMember], mean: Mean) -> None:
    """Refuse a mean of logits with different bounds: far from 0 the wider member would decide alone."""
    from ensemble_kit.kernels.tables import LOGIT_RANGE

    members = [store for member in given for store in stores_of(member)]
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


def _weight_rows(weights: Weights | None, members: Sequence[StoreMember], classes: Sequence[str]) -> list[list[float]]:
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


def _temperatures(given: Sequence[float] | Mapping[str, float] | None, members: Sequence[StoreMember]) -> list[float]:
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
