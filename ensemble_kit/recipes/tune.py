"""Tuning as a call, for notebooks: what is maximised by default, and `tune_thresholds`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from ensemble_kit.decisions.rule import Rule
from ensemble_kit.decisions.rules import parse_rules
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import check_kind, check_number, warn
from ensemble_kit.execution.choosing import Given, chosen
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.recipes.together import choice_of
from ensemble_kit.recipes.tuning import Decide, Folds, Tuning, decides_by_argmax
from ensemble_kit.spec.scoring import Convention, Empty, Measure, Objective
from ensemble_kit.thresholds.crossed import Choice
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.contenders import ContenderTable
from ensemble_kit.tuning.folds import Groups
from ensemble_kit.tuning.search.plan import Search
from ensemble_kit.tuning.statistics import Statistics


def measure_of(
    by_argmax: bool, objective: Objective | None, metric: str | None, eps: float, empty: Empty | None
) -> Measure:
    """Return what is maximised; by default the mean Dice of thresholds, and of argmax mIoU.

    mIoU leaves out a class that occurs in no sample; elsewhere two empty masks count 1.
    """
    usual = ("pooled", "iou") if by_argmax else ("mean", "dice")
    what = (objective or usual[0], metric or usual[1])
    absent: Empty = "skip" if by_argmax and what == usual else 1
    return Measure(cast("Objective", what[0]), what[1], Convention(eps, absent if empty is None else empty))


def tune_thresholds(
    ensemble: Ensemble,
    truth: MaskSet,
    objective: Objective | None = None,
    empty: Empty | None = None,
    eps: float = 0.0,
    folds: Folds = None,
    groups: Groups = None,
    search: Search | str | Sequence[str] | None = None,
    seed: int = 0,
    metric: str | None = None,
    shrink: bool | None = None,
    statistics: Statistics | ContenderTable | None = None,
    jobs: int | None = None,
    executor: Given = None,
    listener: Listener = nobody,
    decide: Decide | None = None,
    background: str | None = None,
    least: float | None = None,
    shared: bool = False,
    rules: Iterable[Rule | str] | Rule | str = (),
    choose: Choice | None = None,
) -> ThresholdSet:
    """Find the best threshold of every class over all 65,536 levels, at full image resolution; or factors of argmax.

    Softmax members are decided by argmax, so their classes get factors: each is the best over all from 1/128 to 128
    while the others stand, in sweeps over the classes until one gains less than 1e-5.

    Parameters
    ----------
    truth : masks of exactly the ensemble's samples and classes.
    objective : "mean" maximises each class's mean score over samples; "pooled" its score with pixels pooled. Default:
        "mean", for argmax "pooled".
    empty, eps : the convention, as for `dice`; default of empty: 1, but "skip" for mIoU, the default of argmax.
    folds : number of folds of a cross-validation, 3 or more; None gives the plain optimum without one; "auto" gives
        five, or one for each group if these are fewer, and none below three groups, as `ensk tune-thresholds` does.
    groups : what must not be on both sides of a split: a mapping of sample to group, or a regular expression whose
        first group names it.
    search : what else to search, with the exact best thresholds inside every trial: a `Search`, or the text of its
        `what`, such as "weights,mean", "greedy" or "compete,least-area"; fusions begin with the uniform ensemble.
    seed : of the folds and the bootstrap.
    metric : "dice", "iou", or F-beta as "f2", "f0.5". Default: "dice", for argmax "iou", so that the score is mIoU.
    shrink, shared : older spellings: True is choose="shrunk", False "own"; shared=True is choose="shared".
    statistics : of this ensemble and truth, from an earlier call; without them the stores are counted.
    jobs : threads over samples; default: every core. The result never depends on it.
    executor : where the work runs: a `distributed.Client`, any `concurrent.futures` executor; default: threads of
        this process. The bytes are the same everywhere.
    decide : "threshold" or "argmax". Default: argmax of softmax members, otherwise thresholds.
    background : with argmax, a class that wins pixels, but whose mask is not written and not scored; the truth may
        lack it.
    least : with argmax, probability in [0, 1] that a pixel's class must reach, or the pixel has no class; the set
        records it. Factors are tuned, and scored out of fold, without it; `.score` is with it.
    rules : `compete`, `nested` and `least-area`, in this order, values or texts such as "compete:0.8", that the set
        will hold: each threshold is the best under them, given those of the classes that enclose its own. Other rules
        are searched (`search="post"`) or passed to the vote.
    choose : how thresholds are chosen. "bagged": the mean of a class's best thresholds over 200 draws of the groups,
        or 0.5 for all where these gain nothing above noise out of fold;
        "own": its best one; "shrunk": that, where its gain out of fold is above noise, else the shared threshold, or
        0.5 where that gains nothing; "shared": the best one for all classes. Factors of argmax: "own" or "shrunk", with
        factor 1 for the shared threshold. Default: "bagged" with folds ("shrunk" of factors), "own" without.

    Returns
    -------
    ThresholdSet
        Its `.score` is exactly what the same metric gives on `ensemble.vote(set)`.

    Raises
    ------
    IncompleteError
        Samples without truth.
    MismatchError
        Truth of other classes, samples or image sizes, with argmax of two classes at a pixel; statistics of
        something else.
    UsageError
        An option that is out of range or unknown.

    Warns
    -----
    UserWarning
        With folds: identical samples may stand on two sides of a split; with "auto": too few groups for folds. A
        member that is right nowhere.
    """
    check_kind("the ensemble", ensemble, Ensemble)
    check_kind("the truth", truth, MaskSet)
    if folds is not None and folds != "auto":
        fix = "pass 3 or more, 'auto', or None for none"
        check_number("folds", folds, fix, least=0, whole=True, what="cannot make folds", code="folds-invalid")
    wanted = None if search is None else Search.of(search)
    measure = measure_of(decides_by_argmax(ensemble, decide), objective, metric, eps, empty)
    tuning = Tuning(
        ensemble,
        measure,
        folds,
        groups,
        seed,
        choice_of(choose, shrink, shared),
        wanted,
        decide=decide,
        background=background,
        least=least,
        rules=parse_rules(rules),
    )
    for caution in tuning.warnings():
        warn(caution)
    tuned = tuning.run(truth, statistics, None, chosen(executor, jobs, listener), jobs, listener)
    for caution in tuned.doubts:
        warn(caution)
    return tuned.set
