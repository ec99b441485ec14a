"""Fitting a second stage over members by folds, and keeping it as out-of-fold logits and a model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit import strict_json
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import MismatchError, UsageError, check_kind, check_number, warn
from ensemble_kit.execution.choosing import Given, chosen
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import Executor, Items, Threads
from ensemble_kit.files import check_space, check_target
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.once import once
from ensemble_kit.recipes import memory as projected
from ensemble_kit.recipes.stack import Stack
from ensemble_kit.recipes.stack_scores import judge
from ensemble_kit.recipes.stack_store import Stacked, StackedStore, applied, equal, fitted
from ensemble_kit.remote.copies import here
from ensemble_kit.remote.urls import url_of
from ensemble_kit.scores import fused
from ensemble_kit.stacking import features
from ensemble_kit.stacking.fit import ClassFit, FitClass
from ensemble_kit.stacking.kept import KeptFits
from ensemble_kit.stacking.model import StackModel
from ensemble_kit.stacking.rows import STRATA, DrawRows, Rows, per_stratum
from ensemble_kit.tuning.folds import Groups, group_of, make_folds
from ensemble_kit.tuning.statistics import check_truth
from ensemble_kit.tuning.truth import items_with_truth

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROOM = 2_000_000_000
"""Bytes for rows where no budget is given."""


@dataclass(frozen=True)
class Stacking:
    """A stack that is ready to be fitted; nothing is read or written yet.

    Parameters
    ----------
    ensemble : members; how it is fused makes no difference.
    out : path of the store of out-of-fold logits.
    folds : number of folds, 3 or more; "auto": five, or one for each group where these are fewer.
    groups, seed : as for `tune_thresholds`.
    model : path of the model's file; default: that of the store, with the suffix `.stack.json`.
    member : name of the store as a member.
    overwrite : replace what is there; otherwise an unfinished run is resumed.

    Raises
    ------
    UsageError
        Fewer than 3 folds or groups; `out` is a member; members of one name; no path for the model.
    """

    ensemble: Ensemble
    out: str | os.PathLike[str]
    folds: int | str = "auto"
    groups: Groups = None
    seed: int = 0
    model: str | os.PathLike[str] | None = None
    member: str = "stack"
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_kind("the ensemble", self.ensemble, Ensemble)
        for sample in self.ensemble.samples:
            fused.check_placed(self.ensemble.inputs, sample, "cannot fit a stack")
        if self.model is not None:
            here(self.model, "cannot place the model's file")
        _ = self.store, self.samples_of_folds
        if self.model is None and url_of(self.out) is not None:
            item, fix = f"{os.fspath(self.out)} is a URL", "pass the path of a file as model (--model)"
            raise UsageError("stack-model-path", "cannot place the model's file", item=item, fix=fix)
        check_target(self.file, force=True, folder=False)
        _check_apart(("the store of out-of-fold logits", self.out), ("the model's file", self.file))

    @once
    def store(self) -> StackedStore:
        """The store of out-of-fold logits."""
        return StackedStore(equal(self.ensemble), self.out, True, self.member, self.overwrite)

    @property
    def file(self) -> Path:
        """Path of the model's file."""
        return Path(self.out).with_suffix(".stack.json") if self.model is None else Path(self.model)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features of a cell and class."""
        return features.names([m.member for m in self.ensemble.members], self.ensemble.classes)

    @once
    def samples_of_folds(self) -> list[NDArray[np.int64]]:
        """Sample numbers of each fold."""
        samples = self.ensemble.samples
        count = len(set(group_of(samples, self.groups)))
        if count < 3:
            what, item = "cannot fit a stack by folds", f"{count} groups of {len(samples)} samples, 3 are needed"
            fix = "pass samples of three groups or more, or --groups that tell them apart"
            raise UsageError("groups-few", what, item=item, fix=fix)
        fix = f"pass 3 to {count} folds, at most one for each of the {count} groups"
        folds = min(5, count) if self.folds == "auto" else self.folds
        check_number(
            "folds", folds, fix, least=3, most=count, whole=True, what="cannot make folds", code="folds-invalid"
        )
        return make_folds(samples, int(folds), self.groups, self.seed)

    def applied(self, ensemble: Ensemble, out: str | os.PathLike[str]) -> StackedStore:
        """Return the store that the stack will write of other samples, after the checks of `Stack.apply`.

        Raises
        ------
        UsageError
            One path for two of the outputs, or for one and a member.
        """
        check_kind("the ensemble", ensemble, Ensemble)
        later = "the store of other samples", out
        for mine in (("the store of out-of-fold logits", self.out), ("the model's file", self.file)):
            _check_apart(mine, later)
            for name, store in ensemble.stores:
                _check_apart(mine, (f"member {name!r}", store.path))
        for name, store in self.ensemble.stores:
            _check_apart(later, (f"member {name!r}", store.path))
        return applied(fitted(self.store.ensemble), ensemble, out, self.member, self.overwrite)

    def check_out(self) -> None:
        """Refuse what is at `out` and can be neither resumed nor replaced, as `StackedStore.check_out`."""
        self.store.check_out(fitted(self.store.ensemble))

    def told(self) -> list[str]:
        """Say what is fitted on what."""
        e, folds = self.store.ensemble, len(self.samples_of_folds)
        names = ", ".join(m.member for m in e.members)
        groups = len(set(group_of(e.samples, self.groups)))
        told = [f"{e.dropped} samples are not in every member and are left out"] if e.dropped else []
        told.append(f"stack: {len(self.features)} features of {names}; {len(e.samples)} samples, {groups} groups")
        return [*told, f"folds: {folds}; every sample is scored by the fit of the others"]

    def run(
        self,
        truth: MaskSet,
        jobs: int | None = None,
        memory: int | None = None,
        listener: Listener = nobody,
        executor: Executor | None = None,
    ) -> tuple[Stack, Stacked]:
        """Fit, keep the model, write the out-of-fold logits and score them.

        Raises
        ------
        MismatchError
            Truth of other classes, samples or sizes; what is there was fitted on something else.
        IncompleteError
            Samples without truth.
        ResourceError
            The disk or the budget of memory is too small.
        """
        e = self.store.ensemble
        truth = e.without_nodata(truth)
        self.check_out()
        check_truth(e, truth)
        at_once, threads = self._room(jobs, memory)
        where = Threads(threads) if executor is None else executor
        check_space(self.out, self.store.plan(None).bytes, self.overwrite)
        model = self._fitted(truth, where, at_once, listener)
        written = self.store.write(model, where, listener)
        own, folds = Ensemble([self.out]).on(e.samples), len(self.samples_of_folds)
        scores = judge(e, own, truth, folds, self.groups, self.seed, where, listener)
        return Stack(model, scores), written

    def _fitted(self, truth: MaskSet, executor: Executor, at_once: int, listener: Listener) -> StackModel:
        """Return the model of this plan: from its file, or fitted, class by class, and kept."""
        e, plan = self.store.ensemble, self.digest(truth)
        if self.file.exists() and not self.overwrite:
            there = StackModel.load(self.file)
            if there.plan != plan:
                item = f"{self.file} was fitted on other members, truth, folds or options"
                fix = "pass another --model or --out, or replace it with --force"
                raise MismatchError("stack-differs", "cannot resume a stack of another run", item=item, fix=fix)
            return there
        split, prior = self.samples_of_folds, features.prior([m.member for m in e.members], e.classes)
        part = self.file.with_name(f"{self.file.name}.part")
        kept = KeptFits(part, plan, (len(split), prior.size), self.overwrite)
        fold_of = np.empty(len(e.samples), np.int64)
        for k, fold in enumerate(split):
            fold_of[fold] = k
        todo = [c for c, name in enumerate(e.classes) if name not in kept]
        for at in range(0, len(todo), at_once):
            some_of = todo[at : at + at_once]
            work = DrawRows(e.inputs, tuple(some_of), self.seed, per_stratum(len(e.samples)))
            items = items_with_truth(e.samples, truth, e.classes)
            drawn: list[list[Rows]] = list(executor.map(work, items, "drawing cells", listener))
            by_name = {e.classes[c]: [rows[k] for rows in drawn] for k, c in enumerate(some_of)}
            fits = executor.map(FitClass(fold_of, prior), Items(list(by_name), by_name.pop), "fitting", listener)
            for c, fit in zip(some_of, fits, strict=True):
                kept.add(e.classes[c], fit)
        model = self._model([kept[name] for name in e.classes], plan)
        model.save(self.file)
        kept.remove()
        return model

    def _model(self, fits: Sequence[ClassFit], plan: str) -> StackModel:
        e = self.store.ensemble
        folds = tuple(tuple(e.samples[s] for s in fold.tolist()) for fold in self.samples_of_folds)
        by_fold = np.stack([fit.by_fold for fit in fits], axis=1)
        of_all = np.stack([fit.of_all for fit in fits])
        strengths = tuple(fit.strengths for fit in fits)
        return StackModel(e.records, e.classes, e.activation, folds, by_fold, of_all, strengths, plan)

    def digest(self, truth: MaskSet) -> str:
        """Digest all that a fit depends on."""
        e = self.store.ensemble
        facts: dict[str, Any] = {
            "members": [[m.name, m.fingerprint] for m in e.records],
            "classes": list(e.classes),
            "features": [*self.features, *features.SCALES, features.NEAR],
            "rows": per_stratum(len(e.samples)),
            "folds": [[e.samples[s] for s in fold.tolist()] for fold in self.samples_of_folds],
            "seed": self.seed,
        }
        found = hashlib.sha256(strict_json.dump(facts))
        for sample in sorted(e.samples):
            for runs in (*(truth[sample, name] for name in e.classes), truth.void(sample)):
                found.update(b"|" if runs is None else runs.starts.tobytes() + runs.ends.tobytes())
        return found.hexdigest()

    def _room(self, jobs: int | None, memory: int | None) -> tuple[int, int]:
        """Return how many classes are fitted at a time, and in how many threads, within a budget of bytes.

        Raises
        ------
        ResourceError
            Not even one class and thread fit.
        """
        e = self.store.ensemble
        classes, sample = len(e.classes), self.store.bytes_at_work
        cells = self.store.bytes_of_sample // (2 * classes)  # of the grid
        drawn = min(cells, STRATA * per_stratum(len(e.samples)))
        rows = len(e.samples) * drawn * (4 * len(self.features) + 12)
        held, each = projected.held(), sample + 3 * rows  # rows are joined, and cut into folds, while they are fitted
        projected.check(memory, held + each + rows, "fit a stack")
        threads = self.store.threads(jobs, None)
        if memory is not None:
            threads = min(threads, int((memory - held - rows) // each))
        room = _ROOM if memory is None else memory - held - threads * each
        return max(1, min(classes, int(room // rows))), threads


def _check_apart(mine: tuple[str, str | os.PathLike[str]], other: tuple[str, str | os.PathLike[str]]) -> None:
    """Refuse one path for what is written and for something else."""
    if os.path.realpath(mine[1]) == os.path.realpath(other[1]):
        item, fix = f"{os.fspath(mine[1])!r} is {mine[0]} and {other[0]}", "pass another path for one of them"
        raise UsageError("output-is-input", "cannot write over what a stack reads or writes", item=item, fix=fix)


def fit_stack(
    ensemble: Ensemble,
    truth: MaskSet,
    out: str | os.PathLike[str],
    folds: int | str = "auto",
    groups: Groups = None,
    seed: int = 0,
    model: str | os.PathLike[str] | None = None,
    member: str = "stack",
    overwrite: bool = False,
    jobs: int | None = None,
    executor: Given = None,
    memory: int | None = None,
    listener: Listener = nobody,
) -> Stack:
    """Fit a second stage on members' logits, and write its out-of-fold logits as a store, a member like others.

    A regularised logistic regression of each class sees of every cell the members' logits there and around it, the
    other classes' scores there and nearby, and area and peak of the class's fused mask (docs/concepts.md#stacking).
    The logits of a sample come from a fit without the samples of its fold, so thresholds that are tuned on the store
    hold for new samples. What `Stack.apply` writes of other samples is by a fit of all samples.

    Parameters
    ----------
    ensemble : members of distinct names; how it is fused makes no difference.
    truth : masks of exactly the ensemble's samples and classes.
    out : path of the store of out-of-fold logits; an unfinished one is resumed.
    folds : number of folds, 3 or more; "auto": five, or one for each group where these are fewer.
    groups, seed : as for `tune_thresholds`.
    model : path of the model's file, JSON; default: that of the store, with the suffix `.stack.json`.
    member : name of the store as a member.
    overwrite : replace what is there.
    jobs, executor, listener : as for `Ensemble.vote`. The result never depends on them.
    memory : bytes; classes are fitted some at a time where all at once do not fit.

    Returns
    -------
    Stack
        Its `.apply(ensemble, out)` writes the logits of other samples, `.scores` says what the stack is worth.

    Raises
    ------
    UsageError
        Fewer than 3 folds or groups; `out` is a member; members of one name.
    MismatchError
        Truth of other classes, samples or sizes; what is there was fitted on something else.
    IncompleteError
        Samples without truth.
    ResourceError
        The disk or the budget of memory is too small.

    Warns
    -----
    UserWarning
        The stack does not beat the soft mean out of fold.
    """
    check_kind("the ensemble", ensemble, Ensemble)
    check_kind("the truth", truth, MaskSet)
    where = chosen(executor, jobs, listener)
    if memory is not None:
        check_number("memory", memory, "pass bytes above 0, such as 2 * 10**9", above=0)
    stacking = Stacking(ensemble, out, folds, groups, seed, model, member, overwrite)
    stack, _ = stacking.run(truth, jobs, memory, listener, where if executor is not None else None)
    for caution in stack.scores.warnings() if stack.scores else []:
        warn(caution)
    return stack
