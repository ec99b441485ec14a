"""Cross-validation: thresholds judged on samples that did not choose them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble_kit.thresholds.crossed import ClassFolds, CrossValidation
from ensemble_kit.tuning.choosing import Chooser, Chosen, Outcome, Outcomes, without
from ensemble_kit.tuning.resampling import Pair


def cross_validate(chooser: Chooser, classes: Sequence[str]) -> tuple[CrossValidation, Chosen]:
    """Choose thresholds on all folds but one and judge them on that one, for every fold; then choose on all samples.

    What a way of choosing decides it decides inside each fold on the other folds alone (nested). A class that no
    sample has counts in no gain: only its false pixels would speak.

    Parameters
    ----------
    classes : their names.

    Returns
    -------
    What it found, and the levels that all samples choose.
    """
    curves, truth, measure, every = chooser.curves, chooser.truth, chooser.measure, chooser.every
    ways = ("tuned", "itself", "own", "shared", "half")
    filled, levels = Outcomes(ways, truth.shape, [curves[0].folds[k] for k in every]), list[list[int]]()
    rests = [without(k, every) for k in every]
    found = [(rest, chooser.on(rest), chooser.shared(rest)) for rest in rests]
    for c, curve in enumerate(curves):
        levels.append([chosen.own[c] for _, chosen, _ in found])
        own = [chooser.own(c, rest, chosen.common) for rest, chosen, _ in found]
        tuned_at, shared_at = ([chosen.levels[c] for _, chosen, _ in found], [shared for *_, shared in found])
        filled.put(c, curve, [tuned_at, levels[c], own, shared_at, [chooser.half] * len(found)])
    outcomes = filled.by_way()
    final = chooser.on(every)
    seen, picks = truth.sum(axis=1) > 0, [slice(c, c + 1) for c in range(len(truth))]
    half, common = outcomes["half"].counts(seen), outcomes["shared" if final.shares else "half"]
    tuned, itself = outcomes["tuned"], outcomes.pop("itself")
    pairs: list[Pair] = [(tuned.counts(seen), half, truth[seen]), (tuned.counts(), None, truth)]
    pairs += [(itself.counts(p), common.counts(p), truth[p]) for p in picks]
    decides = chooser.choose in {"bagged", "shrunk"}
    if decides:  # each fold decides for itself, and all samples may decide otherwise
        decided = Outcome(*(np.empty_like(truth) for _ in range(2)))
        for c, kept in enumerate(final.keeps):
            source = itself if kept else common
            decided.tp[c], decided.pred[c] = source.tp[c], source.pred[c]
        pairs.append((decided.counts(seen), half, truth[seen]))
    gain, score, *gains = chooser.judge.intervals(measure, pairs)
    as_decided = gains[len(picks)] if decides else None
    of_class = [measure.of_class(tp, pred, true) for tp, pred, true in zip(tuned.tp, tuned.pred, truth, strict=True)]
    folds = {
        name: ClassFolds(tuple(levels[c]), gains[c], final.keeps[c], of_class[c]) for c, name in enumerate(classes)
    }
    scores = {name: measure.of_all(o.tp, o.pred, truth) for name, o in outcomes.items()}
    shrink, groups = chooser.choose == "shrunk", len(set(chooser.names))
    crossed = CrossValidation(len(every), groups, shrink, scores, gain, final.common, folds, as_decided, score)
    return crossed, final
