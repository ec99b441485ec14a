"""A stack's logits kept as a store, a member like others."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ensemble_kit.dumping.resuming import check_replaceable
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import Caution, MismatchError, UsageError, check_kind, check_path, some, warn
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.events import Listener
from ensemble_kit.execution.executor import Executor
from ensemble_kit.logits.body import available_memory
from ensemble_kit.recipes import memory as projected
from ensemble_kit.recipes.made_store import MadeStore, record_of, refuse_member
from ensemble_kit.scores import fused
from ensemble_kit.spec.fusion import Fusion, integer_weights
from ensemble_kit.spec.mean import PROBABILITY
from ensemble_kit.stacking.apply import ApplyStack
from ensemble_kit.stacking.model import Fitted, StackModel
from ensemble_kit.thresholds.members import MemberRecord

FOLDS, ALL = "out of fold", "fitted on all samples"


@dataclass(frozen=True)
class Stacked:
    """A store of stacked logits that was written, or would be.

    Parameters
    ----------
    path, member : of the store.
    samples, resumed, written : how many there are, were there before, and were written.
    bytes : projected, of the samples that were not there.
    """

    path: str
    member: str
    samples: int
    resumed: int
    written: int
    bytes: int


def equal(ensemble: Ensemble) -> Ensemble:
    """Return the same members, fused with equal weights and nothing else: what a stack is fitted and applied to."""
    names = [m.member for m in ensemble.members]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        fix = "give each member a name of its own: LogitWriter(member=…), ensk dump-logits --member"
        raise UsageError("members-namesakes", "cannot stack members of one name", item=some(twice), fix=fix)
    if lacking := ensemble.lacking:
        item = f"{next(iter(lacking))!r} lacks {some(next(iter(lacking.values())))}"
        fix = "pass classes='common' (--member-classes common), or members that have all classes"
        raise MismatchError("classes-differ", "cannot stack members of different classes", item=item, fix=fix)
    weights = (integer_weights([1.0] * len(names), names),) * len(ensemble.classes)
    return ensemble.with_fusion(Fusion(PROBABILITY, "logits", tuple(names), weights, (1.0,) * len(names)))


@dataclass(frozen=True)
class StackedStore:
    """A store to write with a fitted stack, or with one that is still to be fitted.

    Parameters
    ----------
    ensemble : members, as `equal` returns them.
    out : path of the store.
    out_of_fold : whether each sample is taken from the fold that it is in, not from the fit of all.
    member, overwrite : as for `LogitWriter`.

    Raises
    ------
    UsageError
        `out` is a member.
    """

    ensemble: Ensemble
    out: str | os.PathLike[str]
    out_of_fold: bool
    member: str = "stack"
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_path(self.out)
        refuse_member(self.ensemble, self.out)

    @property
    def bytes_of_sample(self) -> int:
        """Bytes of the logits of one sample."""
        e = self.ensemble
        return 2 * len(e.classes) * max(int(np.prod(fused.placement(e.inputs, s).grid)) for s in e.samples)

    @property
    def bytes_at_work(self) -> int:
        """Bytes that a thread holds of one sample: members' logits as they are read and as numbers, and the result."""
        e = self.ensemble
        return self.bytes_of_sample * (2 * len(e.members) + 14) + sum(m.bytes_per_sample for m in e.members)

    def threads(self, jobs: int | None, memory: int | None) -> int:
        """Return how many samples may be at work within a budget of bytes; without one by what the machine has.

        Raises
        ------
        ResourceError
            One sample does not fit.
        """
        if memory is None:
            return jobs or min(cores(), max(1, available_memory() // self.bytes_at_work))
        held = projected.held()
        projected.check(memory, held + self.bytes_at_work, "apply a stack")
        return min(jobs or cores(), int((memory - held) // self.bytes_at_work))

    def plan(self, model: StackModel | None) -> Stacked:
        """Return what would be written; without a model nothing can be resumed."""
        there = self._store(model).there() if model is not None else frozenset()
        samples = self.ensemble.samples
        todo = len(samples) - len(there)
        return Stacked(os.fspath(self.out), self.member, len(samples), len(there), 0, todo * self.bytes_of_sample)

    def check_out(self, known: Fitted) -> None:
        """Refuse, before a stack is fitted, what is at `out` and can be neither resumed nor replaced.

        Parameters
        ----------
        known : what the stack is fitted on.

        Raises
        ------
        UsageError
            A file, or a folder of other things than a store.
        MismatchError
            Samples of another member or network, or of a stack of other members.
        """
        if self.overwrite:
            check_replaceable(self.out)
            return
        names = self.member, known.classes, known.activation
        MadeStore(self.ensemble, self.out, *names, _origin(known.members)).there(("stacked", "network_sha256"))

    def write(self, model: StackModel, executor: Executor, listener: Listener) -> Stacked:
        """Write the samples that are not there yet."""
        samples, done = self.ensemble.samples, self.plan(model)

        def needed(todo: Sequence[str]) -> int:
            return len(todo) * self.bytes_of_sample

        how = "stacking", executor, listener
        written = self._store(model).write(self._work(model), samples, needed, *how, by_slab=False)
        return replace(done, written=written)

    def _store(self, model: StackModel) -> MadeStore:
        names = self.member, model.classes, model.activation
        return MadeStore(self.ensemble, self.out, *names, self._provenance(model), overwrite=self.overwrite)

    def _work(self, model: StackModel) -> ApplyStack:
        e = self.ensemble
        inputs = replace(e.inputs, classes=model.classes)
        if not self.out_of_fold:
            return ApplyStack(inputs, model.of_all[None], {})
        return ApplyStack(inputs, model.by_fold, {s: k for k, fold in enumerate(model.folds) for s in fold})

    def _provenance(self, model: StackModel) -> Mapping[str, Any]:
        """Return what the store records; a set that was tuned on one knows another stack by `network_sha256`."""
        record = {
            "members": record_of(self.ensemble)["members"],
            "model": model.digest,
            "applied": FOLDS if self.out_of_fold else ALL,
            "folds": len(model.folds),
            "features": list(model.names),
        }
        return {**_origin(model.members), "stacked": record, "network_sha256": model.digest}


def _origin(members: Sequence[MemberRecord]) -> dict[str, str]:
    told = ", ".join(f"{m.name} {m.fingerprint[:16]}" for m in members)
    return {"model": f"stack of {told}", "domain": "logits"}


def fitted(ensemble: Ensemble) -> Fitted:
    """Describe what a stack of this ensemble is fitted on."""
    return Fitted(ensemble.records, ensemble.classes, ensemble.activation, ensemble.samples)


def applied(
    known: Fitted, ensemble: Ensemble, out: str | os.PathLike[str], member: str, overwrite: bool
) -> StackedStore:
    """Check that a stack applies to an ensemble, and warn of samples that it may have seen."""
    check_kind("the ensemble", ensemble, Ensemble)
    ours = equal(ensemble)
    known.check_applies(fitted(ours))
    if seen := known.seen(fitted(ours)):
        doubt = f"{len(seen)} of {len(ours.samples)} samples are called like samples that the stack was fitted on"
        fix = "make sure that they are other images: of the same ones the stack knows the truth"
        warn(Caution(f"{doubt}: {some(seen, 3)}", fix))
    store = StackedStore(ours, out, False, member, overwrite)
    store.check_out(known)
    return store
