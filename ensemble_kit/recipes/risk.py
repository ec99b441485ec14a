"""Control of a risk as a call, for notebooks: `control_risk`."""

from __future__ import annotations

from collections.abc import Iterable

from ensemble_kit.decisions.rule import Rule
from ensemble_kit.decisions.rules import parse_rules
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import check_kind, warn
from ensemble_kit.execution.choosing import Given, chosen
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.recipes.controlling import Controlling
from ensemble_kit.spec.risk import Over, Risk
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.folds import Groups
from ensemble_kit.tuning.statistics import Statistics


def control_risk(
    ensemble: Ensemble,
    truth: MaskSet,
    alpha: float,
    delta: float | None = None,
    over: Over = "class",
    groups: Groups = None,
    base: ThresholdSet | None = None,
    rules: Iterable[Rule | str] | Rule | str | None = None,
    statistics: Statistics | None = None,
    jobs: int | None = None,
    executor: Given = None,
    listener: Listener = nobody,
) -> ThresholdSet:
    """Find the highest threshold of every class at which masks are known to miss no more than a share of the truth.

    What is bounded is the false negative rate: the share of a class's true pixels that its mask misses, 0 where the
    truth is empty; its mean over the images of a group is one loss. Levels are exact over all 65,536, at full image
    resolution, from counts (docs/concepts.md#rule-13-risk). After rules the samples are voted 18 times.

    Parameters
    ----------
    truth : masks of exactly the ensemble's samples and classes. Nothing else may have been tuned, and no network
        trained, on these samples.
    alpha, delta, over : see `Risk`. Without delta the expected share that is missed is at most alpha, and 1 / alpha - 1
        groups are needed; with it the share is at most alpha with probability 1 - delta over calibrations.
    groups : as for `tune_thresholds`; samples that are not independent, such as the images of a patient, count once.
    base : a tuned set whose fusion is used, and whose rules; it must have been tuned on other samples.
    rules : post-processing after which the risk is bounded; None: that of `base`. Only rules that leave more of a
        larger mask.
    statistics : of this ensemble and truth, from an earlier call; without them the stores are counted.
    jobs, executor, listener : as for `tune_thresholds`.

    Returns
    -------
    ThresholdSet
        Its `.guarantee` says what is bounded, and on how many groups; `str(guarantee)` in words.

    Raises
    ------
    IncompleteError
        Too few groups, or rules that remove too much at every threshold; samples without truth.
    MismatchError
        Samples or groups that `base` was tuned on; truth of other classes, samples or image sizes.
    UsageError
        An option that is out of range, or a rule after which a lower threshold may miss more.

    Warns
    -----
    UserWarning
        A member that is right nowhere; a base that does not record its samples. Classes of which little is known
        stand in the report of the set.
    """
    check_kind("the ensemble", ensemble, Ensemble)
    check_kind("the truth", truth, MaskSet)
    if base is not None:
        check_kind("the base", base, ThresholdSet)
        ensemble = ensemble.as_tuned(base)
    known = None if rules is None else tuple(parse_rules(rules))
    controlling = Controlling(ensemble, Risk(alpha, delta, over), groups, base, known)
    for caution in controlling.warnings():
        warn(caution)
    tuned = controlling.run(truth, statistics, None, chosen(executor, jobs, listener), jobs, listener)
    for caution in tuned.doubts:
        warn(caution)
    return tuned.set
