"""Options of `ensk tune-thresholds` alone."""

from pathlib import Path
from typing import Annotated

import typer

TuneDecideOption = Annotated[
    str | None,
    typer.Option(
        "--decide",
        help="threshold: tune the threshold of each class; argmax: the factor by which each class's score is "
        "multiplied before a pixel takes the largest. Default: argmax of softmax stores, else threshold.",
    ),
]
BackgroundClassOption = Annotated[
    str | None,
    typer.Option(
        "--background",
        metavar="CLASS",
        help="With argmax: a class that takes its pixels, but is not written and not scored.",
    ),
]
ObjectiveOption = Annotated[
    str | None,
    typer.Option(
        "--objective",
        help="mean: mean score over samples (default); pooled: of the pooled pixels (default with argmax).",
    ),
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        "--metric",
        help="dice (default), iou (with argmax default: mIoU), F-beta such as f2; or module:callable, a metric of "
        "your own that takes prediction and ground truth, two MaskSets (with --method optuna; its code is run).",
    ),
]
MethodOption = Annotated[
    str,
    typer.Option("--method", help="exact: the optimum over all levels; optuna: trials, for a metric of your own."),
]
SearchOption = Annotated[
    str | None,
    typer.Option(
        "--search",
        help="What else to search, separated by commas: weights, mean (its power), temperature, post (rules); "
        "or greedy (which members to take); compete and least-area, rules that are tuned exactly with the thresholds; "
        "or auto: all that helps, step by step, judged out of fold.",
    ),
]
RuleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        metavar="RULE",
        help="A rule that thresholds are tuned for and that the set will hold: compete:0.8, "
        "nested@WT,TC,ET or least-area:120 (0.05%; @CLASS for some); may be repeated, in this order.",
    ),
]
TrialsOption = Annotated[
    int, typer.Option("--trials", min=1, help="Trials of each study, including those of earlier runs.")
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", help="Seconds for all studies together; the best trial until then is taken."),
]
StorageOption = Annotated[
    str | None,
    typer.Option("--storage", help="Where studies are kept, such as sqlite:///study.db; run again to resume them."),
]
StudyOption = Annotated[str, typer.Option("--study", help="Name of the study in the storage.")]
SamplerOption = Annotated[str, typer.Option("--sampler", help="tpe, cmaes or grid.")]
EmptyOption = Annotated[
    str | None,
    typer.Option(
        "--empty",
        help="Score of a pair whose masks are both empty: 1, 0 or skip. Default: 1; skip for the mIoU of argmax.",
    ),
]
FoldsOption = Annotated[
    int | None, typer.Option("--folds", help="Folds of the cross-validation, 3 or more; 0: none. Default: 5.")
]
GroupsOption = Annotated[
    str | None,
    typer.Option(
        "--groups",
        help="Samples that stay in one fold: a CSV file of sample,group, or a regular expression whose first "
        "group is the group's name. Default: every sample is a group.",
    ),
]
ChooseOption = Annotated[
    str | None,
    typer.Option(
        "--choose",
        help="How thresholds are chosen. bagged (default): the mean of a class's best thresholds over draws of the "
        "groups; own: its best one (default with --folds 0); shrunk: that where it gains above noise, else one for all "
        "(default of argmax factors); shared: one for all classes.",
    ),
]
ShrinkOption = Annotated[
    bool | None, typer.Option("--shrink/--no-shrink", help="The same as --choose shrunk and --choose own.")
]
SharedOption = Annotated[bool, typer.Option("--shared", help="The same as --choose shared.")]
StatisticsOption = Annotated[
    Path | None,
    typer.Option("--statistics", help="File (.npz) that keeps the counts; a second run on it need not count."),
]
ComparedOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--compare",
        metavar="[NAME=]STORE...",
        help="The members' stores of other images, such as the test set, to compare their scores with validation, "
        "per class.",
    ),
]
RankOption = Annotated[bool, typer.Option("--rank", help="Evaluate the rank rule too (ensk vote --decide rank).")]
RiskOption = Annotated[
    str | None,
    typer.Option(
        "--risk",
        help="fnr: instead of the best thresholds, find the highest ones at which at most a known share of the truth "
        "is missed (--alpha, --delta). The samples must not have chosen anything else.",
    ),
]
AlphaOption = Annotated[float | None, typer.Option("--alpha", help="With --risk: the share that may be missed.")]
DeltaOption = Annotated[
    float | None,
    typer.Option(
        "--delta",
        help="With --risk: the chance at which a calibration may miss more than --alpha. Default: --alpha bounds the "
        "expected share.",
    ),
]
RiskOverOption = Annotated[
    str | None,
    typer.Option(
        "--risk-over",
        help="With --risk: class (default), each class by a threshold of its own; all: each image's worst class, by "
        "one threshold for all.",
    ),
]
RiskSetOption = Annotated[
    str | None,
    typer.Option(
        "--thresholds",
        metavar="SET",
        help="With --risk: a set tuned on other samples, whose fusion and rules are used. Default: equal weights.",
    ),
]
CalibrationOption = Annotated[
    bool,
    typer.Option(
        "--calibration",
        help="Report per class whether scores are probabilities: a reliability curve, ECE and Brier score. Takes "
        "another pass that counts all levels.",
    ),
]
