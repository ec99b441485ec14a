"""`Ensemble`: members' logits fused into levels, and levels decided into masks."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ensemble_kit.decisions.clean import Rule, check_classes, clean, parse_rules
from ensemble_kit.errors import MismatchError, UsageError, check_choice, some
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import over_samples
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores.joining import (
    _check_clamps,
    _check_mean,
    _check_members,
    _check_namesakes,
    _join_samples,
    _temperatures,
    _weight_rows,
)
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.fusion import Fusion, Mean, Upsample, Weights, integer_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.thresholds.thresholdset import ThresholdSet


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
        check_choice("samples", samples, ("same", "common"))
        order = sorted(range(len(given)), key=lambda k: (given[k].member, given[k].fingerprint))
        self.members = tuple(given[k] for k in order)
        self.classes = self.members[0].classes
        self.activation = self.members[0].activation
        _check_members(self.members)
        _check_clamps(self.members, mean)
        if upsample is None:
            upsample = "logits" if self.activation == "sigmoid" else "scores"
        check_choice("upsample", upsample, ("logits", "scores"))
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
        """Fuse a sample on the finest member's grid: uint16 (C, h, w), by rules 1–3 of design §3.

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
        from ensemble_kit.thresholds.thresholdset import ThresholdSet

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
        rules : post-processing (`ensemble_kit.decisions.clean`), rules or their texts such as "drop-small:200"; applied
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
