"""`--search auto`: a ladder of settings, each step taken only where it gains above noise out of fold.

The choice itself is judged, too: it is made again without each fold and judged on that fold. All of it is read off
counts that one pass over the stores makes for each fusion, whatever the folds then choose.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import UsageError
from ensemble_kit.execution.cores import cores
from ensemble_kit.reports.report import Report
from ensemble_kit.spec.factors import ONE
from ensemble_kit.spec.mean import LOGIT, PROBABILITY
from ensemble_kit.strict_json import plain_number
from ensemble_kit.thresholds.crossed import ClassFolds, CrossValidation, Interval
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.folds import group_of, make_folds
from ensemble_kit.tuning.gathering import exclusive_truth
from ensemble_kit.tuning.resampling import Counts, Resampler
from ensemble_kit.tuning.search.bench import Bench
from ensemble_kit.tuning.search.factor_bench import FactorBench
from ensemble_kit.tuning.search.ladder import Candidate, Menu, chosen, climb, of_classes, out_of_fold
from ensemble_kit.tuning.search.task import Task
from ensemble_kit.tuning.search.threshold_bench import ThresholdBench
from ensemble_kit.tuning.statistics import check_truth
from ensemble_kit.tuning.truth import true_areas
from ensemble_kit.tuning.with_rules import RATIOS

RULES = ("drop-small:0.005%", "drop-small:0.02%", "drop-small:0.1%", "keep-largest", "fill-holes")
SMALL = ("least-area:0.02%", "least-area:0.1%")
"""Rules that are tried; the small ones where least areas are not fitted."""


def check(groups: int, folds: int | None) -> None:
    """Refuse a ladder that cannot be judged.

    Parameters
    ----------
    groups : of the samples.
    folds : None without a cross-validation.

    Raises
    ------
    UsageError
        Fewer than three groups, or no folds.
    """
    if folds is None:
        raise UsageError(
            "folds-invalid",
            "cannot search automatically",
            item=f"no folds of {groups} groups, and every step is judged out of fold",
            fix="pass folds='auto' (no --folds 0) and samples of three groups or more (--groups), or name what to "
            "search (--search weights,mean)",
        )


def menu_of(ensemble: Ensemble, by_argmax: bool, background: str | None = None) -> Menu:
    """Return what an ensemble allows to try: what the user chose, such as a mean, stays."""
    shares, several = ensemble.fusion.weights, len(ensemble.classes) > 1
    equal = all(max(row) - min(row) <= 1 for row in shares) and len(ensemble.members) > 1
    softmax = ensemble.activation == "softmax"
    means = () if ensemble.fusion.mean != PROBABILITY or (softmax and not by_argmax) else (str(LOGIT),)
    return Menu(
        ("fitted",) if by_argmax else ("fitted", "areas"),
        () if softmax or by_argmax or not several else tuple(ratio for ratio in RATIOS if ratio is not None),
        means if len(ensemble.members) > 1 and not (softmax and ensemble.lacking) else (),
        equal,
        (*RULES, *(SMALL if by_argmax else ())),
        () if background is not None else tuple(map(str, (PROBABILITY,) if softmax else (PROBABILITY, LOGIT))),
    )


def count_passes(menu: Menu, members: int) -> tuple[int, int]:
    """Return how many passes over the stores a ladder makes at least, and with every member left out but one."""
    least = 3 + bool(menu.ratios) + bool(menu.rank) + len(menu.means)
    if not menu.members:
        return least, least
    rounds = members * (members + 1) // 2 - 1
    return least + 2 * members, least + rounds + members


def tune(
    task: Task, folds: int, by_argmax: bool, background: str | None = None, at_once: int | None = None
) -> ThresholdSet:
    """Climb the ladder on all samples, judge the choice by making it again without each fold, and record both.

    Parameters
    ----------
    task : the ensemble with its own fusion, where the ladder begins.
    by_argmax : whether masks are decided by argmax, and not by thresholds.
    background : with argmax, a class that is not written and not scored.
    at_once : classes that a pass counts, for memory; default: all.

    Raises
    ------
    IncompleteError, MismatchError
        Truth that does not fit the ensemble.
    """
    e, measure, search = task.ensemble, task.measure, task.search
    truth = exclusive_truth(e, task.truth, background) if by_argmax else task.truth
    check_truth(e, truth)
    split, names = make_folds(e.samples, folds, task.groups, task.seed), group_of(e.samples, task.groups)
    deadline = None if search.timeout is None else time.monotonic() + search.timeout
    areas = true_areas(e.samples, truth, [name for name in e.classes if name != background])
    laid = e, truth, measure, areas, split, deadline, task.executor, task.listener, at_once
    bench: Bench = (
        FactorBench(*laid, background=background, jobs=task.jobs or cores()) if by_argmax else ThresholdBench(*laid)
    )
    menu, judge = menu_of(e, by_argmax, background), Resampler(names, task.seed)
    start, every = Candidate((1,) * len(e.members), str(e.fusion.mean)), tuple(range(folds))
    rungs = climb(bench, start, menu.steps(), judge, every, told=True)
    picked = [chosen(climb(bench, start, menu.steps(), judge, [j for j in every if j != k])).candidate for k in every]
    honest = np.zeros_like(areas), np.zeros_like(areas)
    for k, candidate in enumerate(picked):
        own = bench.counts(candidate, tuple(j for j in every if j != k))
        for out, found in zip(honest, own, strict=True):
            out[:, split[k]] = found[:, split[k]]
    base, best = out_of_fold(bench, start, every), chosen(rungs)
    score, at_start = (measure.of_all(*counts, areas) for counts in (honest, base))
    falls = score < at_start
    crossed = _crossed(
        bench, start if falls else best.candidate, base if falls else honest, base, judge, names, by_argmax
    )
    final = bench.recorded(start if falls else best.candidate, crossed, task.seed)
    members = e.fusion.members
    record: dict[str, Any] = {
        "ladder": [rung.to_dict(members, by_argmax) for rung in rungs],
        "chosen": (start if falls else best.candidate).told(members, by_argmax),
        "folds": [candidate.told(members, by_argmax) for candidate in picked],
        "out_of_fold": plain_number(score),
        "start_out_of_fold": plain_number(at_start),
        "fell_back": falls,
        "passes": bench.passes,
        "stopped": bench.stopped,
    }
    return replace(final, search={**final.search, "method": "auto", "what": ["auto"], "auto": record})


def _crossed(
    bench: Bench, candidate: Candidate, tuned: Counts, base: Counts, judge: Resampler, names: Sequence[str],
    by_argmax: bool,
) -> CrossValidation:  # fmt: skip
    """Describe the choice out of fold: scores of the whole procedure, and what each fold chose for every class."""
    measure, truth, every = bench.measure, bench.truth, range(len(bench.folds))
    values = [bench.values(candidate, tuple(j for j in every if j != k)) for k in every]
    some = np.any(truth, axis=1).reshape(-1)
    own, gains = out_of_fold(bench, candidate, every), dict[int, Interval]()
    for c, row in zip(bench.scored, range(len(truth)), strict=True):
        pick = slice(row, row + 1)
        gains[c] = judge.interval(measure, of_classes(own, pick), of_classes(base, pick), truth[pick])
    gain, classes = judge.interval(measure, of_classes(tuned, some), of_classes(base, some), truth[some]), {}
    for c, name in enumerate(bench.ensemble.classes):
        row = bench.scored.index(c) if c in gains else -1
        score = measure.of_class(tuned[0][row], tuned[1][row], truth[row]) if row >= 0 else float("nan")
        of_folds = tuple(v[c] for v in values)
        classes[name] = ClassFolds(of_folds, gains.get(c, Interval(0.0, 0.0, 0.0)), keeps=True, score=score)
    all_of = {"tuned": measure.of_all(*tuned, truth), "own": measure.of_all(*own, truth)}
    plain = measure.of_all(*base, truth)
    scores = (
        {**all_of, "one": plain}
        if by_argmax and candidate.kind != "rank"
        else {**all_of, "shared": plain, "half": plain}
    )
    half = ONE if by_argmax and candidate.kind != "rank" else bench.fused(candidate).level_of(0.5)
    known = judge.interval(measure, of_classes(tuned, some), None, truth[some])
    return CrossValidation(len(bench.folds), len(set(names)), False, scores, gain, half, classes, score=known)


def report(tuned: ThresholdSet) -> Report | None:
    """Show the ladder of a set as a table; None of a set that no ladder found."""
    record = tuned.search.get("auto")
    if record is None:
        return None
    rows = []
    for rung in record["ladder"]:
        gain = (
            "" if rung["gain"] is None else f"{rung['gain'][0]:+.4f} [{rung['gain'][1]:+.4f}, {rung['gain'][2]:+.4f}]"
        )
        taken = "" if rung["gain"] is None else "taken" if rung["taken"] else "–"
        rows.append([rung["step"], rung["setting"], f"{rung['out_of_fold']:.4f}", gain, taken])
    honest, start = record["out_of_fold"], record["start_out_of_fold"]
    lines = [
        f"Chosen: {record['chosen']}.",
        f"Out of fold, the choice made again without each fold: {honest:.4f}; the start {start:.4f}.",
        f"Folds chose: {'; '.join(dict.fromkeys(record['folds']))}.",
        f"{record['passes']} passes over the stores.",
    ]
    if record["fell_back"]:
        lines.append("The choice loses to the start out of fold, so the set is the start.")
    if record["stopped"]:
        lines.append("Time was up (--timeout) before every step was tried.")
    legend = (
        f"Each row is the best of a step: {tuned.measure.title} on samples that did not fit it, and its gain over the "
        "setting so far with a 95 % confidence interval. A step is taken where that gain exceeds one standard error."
    )
    return Report("Ladder", ["step", "setting", "out of fold", "gain", ""], rows, legend, lines)
