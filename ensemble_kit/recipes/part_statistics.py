"""The counts of a tuning, by parts: each counts its share of the samples, and together they are the whole's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ensemble_kit import __version__
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.events import Listener
from ensemble_kit.execution.executor import Executor
from ensemble_kit.execution.parts import joined
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.recipes.part_file import PartFile, fitting, measure_of
from ensemble_kit.recipes.part_masks import digest_of_names
from ensemble_kit.recipes.tuning_memory import room_for_factors, room_for_thresholds
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.tuning import class_statistics, contenders
from ensemble_kit.tuning.class_statistics import Band, ClassStatistics
from ensemble_kit.tuning.contenders import RATIOS, ContenderTable
from ensemble_kit.tuning.counting import folds_of, reaches, unions_of, widened
from ensemble_kit.tuning.folds import group_of
from ensemble_kit.tuning.gathering import exclusive_truth, gather
from ensemble_kit.tuning.statistics import Statistics, check_truth, count, source_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.ensemble import Ensemble
    from ensemble_kit.recipes.tuning import Tuning

KIND = "statistics"


def plan_of(tuning: Tuning, truth: MaskSet) -> dict[str, Any]:
    """Say what all parts of a tuning count, after the checks of a whole run.

    Raises
    ------
    IncompleteError, MismatchError
        Truth that does not fit the ensemble.
    """
    e = tuning.ensemble
    truth = e.without_nodata(truth)
    if tuning.by_argmax:
        truth = exclusive_truth(e, truth, tuning.background)
    else:
        check_truth(e, truth)
    return {
        "command": "tune-thresholds",
        "source": source_of(e, truth),
        "samples": len(e.samples),
        "decide": "argmax" if tuning.by_argmax else "threshold",
        "background": tuning.background,
        "measure": asdict(tuning.measure),
        "folds": tuning.split,
        "groups": digest_of_names(group_of(e.samples, tuning.groups)),
        "seed": tuning.seed,
        "version": __version__,
    }


def check_memory(tuning: Tuning, own: Ensemble, truth: MaskSet, budget: int | None, jobs: int | None) -> None:
    """Refuse a budget of bytes that the counts of a share do not fit.

    Parameters
    ----------
    own : the ensemble on the share.

    Raises
    ------
    ResourceError
        It names what they take.
    """
    if budget is None:
        return
    if tuning.by_argmax:
        full = exclusive_truth(tuning.ensemble, truth, tuning.background)
        room_for_factors(budget, own, full, None, jobs)
    else:
        room_for_thresholds(budget, own, truth, None, jobs, tuning.measure, band=(0, LEVELS))


def count_part(
    tuning: Tuning, own: Ensemble, truth: MaskSet, executor: Executor, listener: Listener
) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
    """Count a share of the samples, and return the head and arrays of its `PartFile`.

    Thresholds are counted at every level, since the band that suffices depends on all samples; `merged` narrows it.
    Factors are counted as a whole run counts first, for ratios up to 32.

    Parameters
    ----------
    own : the ensemble on the share.
    """
    e = tuning.ensemble
    truth = e.without_nodata(truth)
    if tuning.by_argmax:
        full = exclusive_truth(e, truth, tuning.background)
        theirs = full.arranged(own.samples, full.classes)
        counted: Statistics | ContenderTable = gather(own, theirs, RATIOS[0], tuning.background, executor, listener)
    else:
        theirs, every = truth.arranged(own.samples, truth.classes), range(len(e.classes))
        tables = count(own, theirs, dict.fromkeys(every, (0, LEVELS)), executor, listener)
        counted = Statistics(own.samples, e.classes, tuple(tables[c] for c in every), "")
    head, arrays = counted.unpacked()
    names = dict(zip(e.samples, group_of(e.samples, tuning.groups), strict=True))
    return {**head, "groups": [names[s] for s in own.samples]}, arrays


def merged(parts: Sequence[PartFile]) -> Statistics | ContenderTable:
    """Put the counts of all parts together; `parts` are those of one plan, in order.

    Returns
    -------
    Statistics | ContenderTable
        What a whole run keeps: of thresholds the band of levels in which its best ones are certain; of factors what
        it counts first, which a tuning widens where it does not suffice.
    """
    plan = parts[0].plan
    with fitting("merge statistics"):
        if plan["decide"] == "argmax":
            tables = [ContenderTable.packed(p.head, p.arrays.__getitem__) for p in parts]
            return replace(contenders.joined(tables), source=plan["source"])
        return _narrowed([Statistics.packed(p.head, p.arrays.__getitem__) for p in parts], parts)


def _narrowed(counted: Sequence[Statistics], parts: Sequence[PartFile]) -> Statistics:
    """Join the samples of every class, and keep the bands that a whole run counts."""
    plan, samples = parts[0].plan, tuple(joined([s.samples for s in counted]))
    groups = dict(zip(samples, joined([p.head["groups"] for p in parts]), strict=True))
    tables = [class_statistics.joined(own) for own in zip(*(s.tables for s in counted), strict=True)]
    measure = measure_of(plan)
    split, _ = folds_of(samples, plan["folds"], groups, plan["seed"])

    def take(bands: Mapping[int, Band]) -> dict[int, ClassStatistics]:
        return {c: tables[c].narrowed(*band) for c, band in bands.items()}

    found = widened(reaches([measure], split, unions_of(split), cores()), len(tables), take)
    return Statistics(samples, counted[0].classes, found, plan["source"])
