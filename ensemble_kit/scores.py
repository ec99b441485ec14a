"""`Ensemble`: members' logits fused into levels, and levels decided into masks."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from ensemble_kit.cores import cores
from ensemble_kit.errors import IncompleteError, MismatchError, UsageError, some
from ensemble_kit.events import Listener, Progress, nobody
from ensemble_kit.fused import FusedSample
from ensemble_kit.masks import MaskSet
from ensemble_kit.postprocess import Rule, check_classes, clean, parse_rules
from ensemble_kit.runs import ManyRuns, Runs
from ensemble_kit.spec import LEVELS, Mean, Upsample
from ensemble_kit.store import LogitStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.thresholds import ThresholdSet

T = TypeVar("T")
Weights = Sequence[float] | Sequence[Sequence[float]] | Mapping[str, float]


@dataclass(frozen=True)
class Fusion:
    """How members become one answer; what a threshold set records and `vote` checks.

    Parameters
    ----------
    mean : what is averaged, "probability", "logit", or a power of the probability, "power:R".
    upsample : what is interpolated from grid to plane, each member's "logits" or the fused "scores".
    members : names, in the order of `weights` and `temperatures`.
    weights : integers that add up to 65536, per member, for each class: (C, M).
    temperatures : per member.
    """

    mean: Mean
    upsample: Upsample
    members: tuple[str, ...]
    weights: tuple[tuple[int, ...], ...]
    temperatures: tuple[float, ...]


def integer_weights(weights: Sequence[float], names: Sequence[str]) -> tuple[int, ...]:
    """Scale weights to integers that add up to 65536: largest remainder, ties to the name that sorts first.

    Weights count as the decimals they are written as, so that 0.1, 0.1, 0.1 are equal thirds exactly.

    Examples
    --------
    >>> integer_weights([2, 1], ["b", "a"])
    (43691, 21845)
    """
    exact = [_exact_weight(w, n) for w, n in zip(weights, names, strict=True)]
    total = sum(exact)
    if total == 0:
        raise UsageError(
            "weights-invalid", "cannot fuse members", item="all weights are 0", fix="pass at least one weight above 0"
        )
    shares = [w * LEVELS / total for w in exact]
    whole = [int(s) for s in shares]
    by_rest = sorted(range(len(whole)), key=lambda k: (whole[k] - shares[k], names[k]))
    for k in by_rest[: LEVELS - sum(whole)]:
        whole[k] += 1
    return tuple(whole)


def _exact_weight(weight: float, name: str) -> Fraction:
    try:
        exact = Fraction(str(float(weight)))
    except (TypeError, ValueError, OverflowError):
        exact = Fraction(-1)
    if exact < 0:
        raise UsageError(
            "weights-invalid",
            "cannot fuse members",
            item=f"member {name!r} has weight {weight!r}",
            fix="pass finite weights of at least 0",
        )
    return exact


class Ensemble:
    """Several members' stores, read sample by sample and fused.

    Parameters
    ----------
    members : paths or `LogitStore`s. Their order never matters. Classes are joined by name.
    weights : one number per member (in the order of `members`), a mapping by member name, or for each member a
        row with one number per class. Default: equal.
    mean : "probability" averages scores; "logit" averages logits clipped to ±16; "power:R" averages scores to the
        power R, 0 ≤ R < 1, between the geometric mean ("power:0") and the arithmetic one.
    upsample : "logits" interpolates each member to the image's size and then fuses, as every framework's own
        pipeline does (default for sigmoid stores); "scores" fuses on the grid and interpolates the result: cheaper,
        the default and the only one for softmax stores. The two differ at boundaries.
    temperatures : one number per member; logits are divided by it. Default: 1.
    samples : "same" refuses members that are of different samples, "common" takes those that all of them hold, and
        leaves out what a member was never given (`dropped` counts).

    Raises
    ------
    MismatchError
        Members of different classes, samples, image sizes or activations.
    UsageError
        Weights, temperatures or options that cannot mean anything.
    """

    def __init__(
        self,
        members: Iterable[str | os.PathLike[str] | LogitStore],
        weights: Weights | None = None,
        mean: Mean = "probability",
        upsample: Upsample | None = None,
        temperatures: Sequence[float] | Mapping[str, float] | None = None,
        samples: Literal["same", "common"] = "same",
    ) -> None:
        if isinstance(members, (str, os.PathLike, LogitStore)):
            members = [members]
        given = [m if isinstance(m, LogitStore) else LogitStore(m) for m in members]
        if not given:
            raise UsageError("members-none", "cannot fuse members", item="there is none", fix="pass at least one store")
        _check_mean(mean)
        _check_choice("samples", samples, ("same", "common"))
        order = sorted(range(len(given)), key=lambda k: (given[k].member, given[k].fingerprint))
        self.members = tuple(given[k] for k in order)
        self.classes = self.members[0].classes
        self.activation = self.members[0].activation
        _check_members(self.members)
        _check_clamps(self.members, mean)
        if upsample is None:
            upsample = "logits" if self.activation == "sigmoid" else "scores"
        _check_choice("upsample", upsample, ("logits", "scores"))
        if self.activation == "softmax" and (upsample == "logits" or mean == "logit"):
            raise UsageError(
                "softmax-option",
                "cannot fuse softmax members this way",
                item=f"mean={mean!r}, upsample={upsample!r}",
                fix="pass mean='probability' and upsample='scores': softmax logits have no zero of their own",
            )
        self.samples, self.dropped = _join_samples(self.members, samples)
        names = tuple(m.member for m in self.members)
        rows = [[row[k] for k in order] for row in _weight_rows(weights, given, self.classes)]
        scale = [_temperatures(temperatures, given)[k] for k in order]
        _check_namesakes(names, rows, scale)
        self.fusion = Fusion(mean, upsample, names, tuple(integer_weights(r, names) for r in rows), tuple(scale))

    def as_tuned(self, tuned: ThresholdSet) -> Ensemble:
        """Return the same members, fused as the set was tuned: its mean, upsampling, weights and temperatures."""
        tuned.check_members(self)
        _check_clamps(self.members, tuned.fusion.mean)
        other, by_class = copy.copy(self), dict(zip(tuned.levels, tuned.fusion.weights, strict=True))
        other.fusion = replace(tuned.fusion, weights=tuple(by_class[c] for c in self.classes))
        return other

    def __repr__(self) -> str:
        names = ", ".join(self.fusion.members)
        return (
            f"Ensemble({names}: {len(self.samples)} samples x {len(self.classes)} classes, mean of {self.fusion.mean})"
        )

    def image_size(self, sample: str) -> tuple[int, int]:
        """Return (H, W) of a sample's image."""
        return self.members[0].image_size(sample)

    def levels(self, sample: str) -> NDArray[np.uint16]:
        """Fuse a sample on the finest member's grid: uint16 (C, h, w), by rules 1–3 of docs/concepts.md.

        Where members' grids or boxes differ, each is interpolated to the finest one's box; cells outside it are 0.
        """
        return FusedSample(self, sample, "scores").levels()

    def fused(self, sample: str) -> FusedSample:
        """Open a sample for decisions and counts, without fusing anything yet."""
        return FusedSample(self, sample, self.fusion.upsample)

    def level_of(self, threshold: float) -> int:
        """Turn a threshold in [0, 1] into the level that decides, on the scale that `mean` has."""
        from ensemble_kit.kernels import tables

        if isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.number)) or not 0 <= threshold <= 1:
            raise UsageError(
                "threshold-invalid", "cannot decide", item=f"threshold {threshold!r}", fix="pass a number in [0, 1]"
            )
        p = float(threshold)
        power = tables.power_of(self.fusion.mean)
        if power is not None:
            return int(tables.level_of_probability(tables.power_share(np.float64(p), power)))
        with np.errstate(divide="ignore"):
            return int(tables.q_of_logit(np.log(np.float64(p)) - np.log1p(-np.float64(p))))

    def class_levels(self, thresholds: Any) -> tuple[int, ...]:
        """Resolve thresholds — a number, one per class (in order or by name), or a ThresholdSet — to levels."""
        from ensemble_kit.thresholds import ThresholdSet

        if isinstance(thresholds, ThresholdSet):
            thresholds.check_fits(self)
            return tuple(thresholds.levels[c] for c in self.classes)
        if isinstance(thresholds, Mapping):
            if set(thresholds) != set(self.classes):
                raise MismatchError(
                    "classes-differ",
                    "cannot decide with these thresholds",
                    item=f"thresholds for {some(thresholds)}, classes {some(self.classes)}",
                    fix="pass exactly one threshold per class",
                )
            return tuple(self.level_of(thresholds[c]) for c in self.classes)
        if isinstance(thresholds, (Sequence, np.ndarray)) and not isinstance(thresholds, str):
            if len(thresholds) != len(self.classes):
                raise MismatchError(
                    "classes-differ",
                    "cannot decide with these thresholds",
                    item=f"{len(thresholds)} thresholds, {len(self.classes)} classes",
                    fix="pass exactly one threshold per class, in the order of .classes",
                )
            return tuple(self.level_of(t) for t in thresholds)
        return (self.level_of(thresholds),) * len(self.classes)

    def vote(
        self,
        thresholds: Any = 0.5,
        rules: Iterable[Rule | str] | Rule | str = (),
        jobs: int | None = None,
        listener: Listener = nobody,
    ) -> MaskSet:
        """Soft vote: fuse and decide every sample.

        Parameters
        ----------
        thresholds : a number, one per class (a sequence in the order of `.classes` or a mapping by name), or a
            `ThresholdSet`, which must fit this ensemble.
        rules : post-processing (`ensemble_kit.postprocess`), rules or their texts such as "drop-small:200"; applied
            in this order to every mask of the classes that they name. Without any, those of the set hold.
        jobs : threads over samples; default: every core. The result never depends on it.
        """
        levels = self.class_levels(thresholds)
        known = parse_rules(rules or getattr(thresholds, "rules", ()))
        check_classes(known, self.classes)

        def decide(sample: str) -> tuple[tuple[int, int], ManyRuns]:
            fused = self.fused(sample)
            decided = fused.decide(dict(enumerate(levels)))
            if not known:
                return fused.plane, decided

            def cleaned(c: int, name: str) -> Runs:
                runs = decided.mask(c, fused.plane)
                return clean(runs, name, known, lambda top: fused.runs(c, self.level_of(top)).area)

            return fused.plane, ManyRuns.of([cleaned(c, name) for c, name in enumerate(self.classes)])

        found = dict(over_samples(decide, self.samples, jobs, "voting", listener))
        runs = ManyRuns.joined([decided for _, decided in found.values()])
        places = np.arange(len(found) * len(self.classes)).reshape(len(found), len(self.classes))
        return MaskSet.trusted({sample: plane for sample, (plane, _) in found.items()}, self.classes, runs, places)


def over_samples(
    work: Callable[[str], T], samples: Sequence[str], jobs: int | None, verb: str, listener: Listener = nobody
) -> Iterable[tuple[str, T]]:
    """Run `work` on every sample in threads (kernels release the GIL) and yield results in the order of `samples`.

    At most two samples a thread are in flight, so memory does not grow with their number.
    """
    if jobs is not None and jobs < 1:
        raise UsageError("option-invalid", "cannot share out work", item=f"jobs={jobs}", fix="pass 1 or more threads")
    threads = jobs or cores()
    listener(Progress(verb, 0, len(samples)))
    if threads == 1:  # where memory is so short that no thread can start, this still runs
        for k, sample in enumerate(samples):
            result = work(sample)
            listener(Progress(verb, k + 1, len(samples), k + 1, sample))
            yield sample, result
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ensk-sample")
    waiting: list[Future[T]] = []
    ahead = iter(samples)
    try:
        for k, sample in enumerate(samples):
            while len(waiting) < 2 * threads and (following := next(ahead, None)) is not None:
                waiting.append(pool.submit(work, following))
            result = waiting.pop(0).result()
            listener(Progress(verb, k + 1, len(samples), k + 1, sample))
            yield sample, result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # a signal does not wait for the samples in flight


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(
            "option-invalid",
            f"cannot use {name}",
            item=f"{name}={value!r}",
            fix=f"pass one of {', '.join(repr(a) for a in allowed)}",
        )


def _check_mean(mean: str) -> None:
    from ensemble_kit.kernels import tables

    if mean != "logit" and (not isinstance(mean, str) or tables.power_of(mean) is None):
        raise UsageError(
            "option-invalid",
            "cannot use mean",
            item=f"mean={mean!r}",
            fix="pass 'probability', 'logit', or 'power:R' with 0 <= R < 1, such as 'power:0.5'",
        )


def _check_members(members: Sequence[LogitStore]) -> None:
    first = members[0]
    for other in members[1:]:
        if set(other.classes) != set(first.classes):
            only_a, only_b = set(first.classes) - set(other.classes), set(other.classes) - set(first.classes)
            raise MismatchError(
                "classes-differ",
                "cannot fuse members of different classes",
                item=f"only in {first.member!r}: {some(sorted(only_a)) or 'none'}; "
                f"only in {other.member!r}: {some(sorted(only_b)) or 'none'}",
                fix="dump all members with the same class names; the order does not matter",
            )
        if other.activation != first.activation:
            raise MismatchError(
                "activation-differs",
                "cannot mix sigmoid and softmax members",
                item=f"{first.member!r} is {first.activation}, {other.member!r} is {other.activation}",
                fix="soft-vote each kind for itself and combine the two with a hard vote",
            )


def _check_clamps(members: Sequence[LogitStore], mean: Mean) -> None:
    """Refuse a mean of logits whose bounds differ: where they are far from 0, the wider member would decide alone."""
    from ensemble_kit.kernels.tables import LOGIT_RANGE

    bounds = [min(m.clamp or LOGIT_RANGE, LOGIT_RANGE) for m in members]
    if mean != "logit" or len(set(bounds)) == 1:
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


def _join_samples(members: Sequence[LogitStore], how: str) -> tuple[tuple[str, ...], int]:
    first = members[0].samples
    held = [set(m.samples) - (set(m.missing) if how == "common" else set()) for m in members]
    common = set.intersection(*held)
    union = {s for m in members for s in m.samples}
    if how == "same":
        for member, own in zip(members, held, strict=True):
            if own != union:
                lacking = [s for m in members for s in m.samples if s not in own]
                raise MismatchError(
                    "samples-differ",
                    "cannot fuse members that hold different samples",
                    item=f"{member.member!r} lacks {len(set(lacking))} of {len(union)}: {some(dict.fromkeys(lacking))}",
                    fix="dump the same images for every member, or pass samples='common' (--samples common)",
                )
    if not common:
        raise IncompleteError(
            "samples-none",
            "cannot fuse members",
            item="they have no sample in common",
            fix="dump the same images for every member",
        )
    return tuple(s for s in first if s in common), len(union) - len(common)


def _weight_rows(weights: Weights | None, members: Sequence[LogitStore], classes: Sequence[str]) -> list[list[float]]:
    """One row of M weights for each class."""
    names = [m.member for m in members]
    if weights is None:
        weights = [1.0] * len(members)
    if isinstance(weights, Mapping):
        if set(weights) != set(names):
            raise MismatchError(
                "weights-invalid",
                "cannot weigh members",
                item=f"weights for {some(weights)}, members {some(names)}",
                fix="pass exactly one weight per member name",
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
        raise UsageError(
            "temperatures-invalid",
            "cannot scale logits",
            item=f"temperatures {given!r} for {len(members)} members",
            fix="pass one finite number above 0 per member",
        )
    return values
