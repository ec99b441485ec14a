"""A page by parts: each tells of its share of the samples, and together they are what the page of all is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit import __version__
from ensemble_kit.decisions.review import Review
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import EnskError, ResourceError
from ensemble_kit.execution.events import Listener
from ensemble_kit.execution.executor import Executor
from ensemble_kit.execution.parts import Part, joined
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.recipes.made_store import record_of
from ensemble_kit.recipes.part_file import LATER, PartFile, fitting, measure_of
from ensemble_kit.recipes.part_masks import digest_of, digest_of_names, packed, recorded, unpacked, whole_of
from ensemble_kit.recipes.reporting.curves import ClassCurve, Counts, counted, has_curves
from ensemble_kit.recipes.reporting.distances import Distances, distances_of, spacings_of
from ensemble_kit.recipes.reporting.material import Material, of_masks, of_vote
from ensemble_kit.recipes.reporting.rules import Effect
from ensemble_kit.recipes.reporting.voted import Voted
from ensemble_kit.recipes.vote import SoftVote
from ensemble_kit.remote.copies import as_path
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds import file
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.class_statistics import ARRAYS, ClassStatistics, is_sound
from ensemble_kit.tuning.class_statistics import joined as joined_tables
from ensemble_kit.tuning.folds import Groups, group_of
from ensemble_kit.tuning.shift import Measured

if TYPE_CHECKING:
    from numpy.typing import NDArray

KIND = "page"
_SETS = ("masks", "truth", "plain")
_SIDES = ("validation", "test")


@dataclass(frozen=True)
class PageOptions:
    """What a page is asked to tell of, beside the samples.

    Parameters
    ----------
    hd95 : whether surfaces are measured, where there is a truth.
    """

    measure: Measure
    tuned: ThresholdSet | None
    groups: Groups
    seed: int
    hd95: bool

    def plan(self, samples: Sequence[str], truth: MaskSet | None, more: Mapping[str, Any]) -> dict[str, Any]:
        """Say what all parts are asked for: equal plans give equal pages.

        Parameters
        ----------
        samples : of all parts.
        more : what is told of, and how it is drawn.
        """
        decided = None if self.tuned is None else json.dumps(self.tuned.to_dict(), sort_keys=True)
        plan = {
            "command": "report",
            **more,
            "truth": None if truth is None else digest_of(truth),
            "set": None if decided is None else hashlib.sha256(decided.encode()).hexdigest(),
            "measure": asdict(self.measure),
            "groups": None if self.groups is None else digest_of_names(group_of(samples, self.groups)),
            "seed": self.seed,
            "hd95": self.hd95,
            "version": __version__,
        }
        return dict(json.loads(json.dumps(plan)))  # as the file of another part has it

    def to_dict(self) -> dict[str, Any]:
        """Return as JSON values what the plan does not say in full."""
        tuned = None if self.tuned is None else {"content": self.tuned.to_dict(), "path": str(self.tuned.path)}
        return {"tuned": tuned, "groups": dict(self.groups) if isinstance(self.groups, Mapping) else self.groups}


@dataclass(frozen=True)
class Share:
    """What a page tells of some of its samples.

    Parameters
    ----------
    material : without curves.
    counts : what the curves are drawn of, of these samples.
    """

    material: Material
    counts: Mapping[str, Counts]


def plan_of_stores(vote: SoftVote, test: Ensemble | None) -> dict[str, Any]:
    """Say which stores are told of, and how they are decided."""
    compared = None if test is None else {**record_of(test), "samples": digest_of_names(test.samples)}
    return {**recorded(vote), "compared": compared}


def share_of_stores(
    vote: SoftVote, truth: MaskSet | None, test: Ensemble | None, options: PageOptions, part: Part, executor: Executor,
    listener: Listener,
) -> Share:  # fmt: skip
    """Gather what stores tell of a share of the samples.

    Parameters
    ----------
    vote, truth, test : of all samples.
    """
    m = of_vote(vote, truth, options.measure, test, options.groups, options.seed, executor, listener, part)
    counts = dict[str, Counts]()
    if m.masks is not None and m.truth is not None and has_curves(vote, options.measure):
        for name, own in counted(vote.on(m.masks.samples), m.truth, executor, listener):
            counts[name] = replace(own, table=_in_a_file(own.table))
    known = None if truth is None else spacings_of(vote.names(), truth)
    return Share(_measured(m, options.hd95, known, listener), counts)


def _in_a_file(table: ClassStatistics) -> ClassStatistics:
    """Return counts in a temporary file, or as they are where there is no room for one."""
    try:
        return table.spilled()
    except ResourceError:
        return table


def share_of_masks(
    named: Mapping[str, MaskSet], truth: MaskSet | None, options: PageOptions, part: Part, listener: Listener
) -> Share:
    """Gather what mask files tell of a share of the samples.

    Parameters
    ----------
    named, truth : of all samples, which `names_of_masks` found to fit each other.
    """
    samples = part.share(next(iter(named.values())).samples)
    ours = {name: masks.arranged(samples, masks.classes) for name, masks in named.items()}
    own = None if truth is None else truth.arranged(samples, truth.classes)
    known = None
    if truth is not None:
        whole = names_of_masks(named, truth, options)
        known = spacings_of(whole, truth)
    m = of_masks(ours, own, options.measure, options.tuned, options.groups, options.seed)
    return Share(_measured(m, options.hd95, known, listener), {})


def names_of_masks(named: Mapping[str, MaskSet], truth: MaskSet | None, options: PageOptions) -> MaskSet:
    """Return the answer to come, empty, after the checks of a whole run."""
    empty = {name: MaskSet.empty(masks.extent) for name, masks in named.items()}
    theirs = None if truth is None else MaskSet.empty(truth.extent)
    m = of_masks(empty, theirs, options.measure, options.tuned, options.groups, options.seed)
    assert m.masks is not None
    if truth is not None:
        m.scores_of(m.masks)
    return m.masks


def _measured(m: Material, hd95: bool, known: Mapping[str, Sequence[float]] | None, listener: Listener) -> Material:
    if not hd95 or m.masks is None or m.truth is None:
        return m
    return replace(m, distances=distances_of(m.masks, m.truth, known, listener))


def packed_share(share: Share, options: PageOptions, page: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the head and arrays of a share's `PartFile`.

    Parameters
    ----------
    page : what the page says of its command, as JSON values.
    """
    m, arrays = share.material, dict[str, Any]()
    head: dict[str, Any] = {"sets": {}, "members": list(m.members), "about": options.to_dict(), "page": dict(page)}
    sets = {name: getattr(m, name) for name in _SETS} | dict(zip(_keys(m.members), m.members.values(), strict=True))
    for name, masks in sets.items():
        if masks is not None:
            head["sets"][name], own = packed(masks)
            arrays |= {f"{name}.{key}": value for key, value in own.items()}
    head["voted"] = None if m.voted is None else m.voted.to_dict()
    head |= {"left_out": m.left_out, "rule": m.rule, "effects": [(e.rule, e.classes) for e in m.effects]}
    arrays |= {f"effect.{k}": e.figures for k, e in enumerate(m.effects)}
    head["expected"] = None if m.expected is None else [m.expected.classes, m.expected.rule]
    if m.expected is not None:
        arrays["expected"] = m.expected.expected
    head["measured"] = None if m.measured is None else [m.measured.classes, m.measured.undecided]
    if m.measured is not None:
        arrays |= {side: getattr(m.measured, side) for side in _SIDES}
    head["unit"] = None if m.distances is None else m.distances.unit
    if m.distances is not None:
        arrays["distances"] = m.distances.values
    head["curves"] = [(name, own.level, own.table.low, own.table.high) for name, own in share.counts.items()]
    for c, counts in enumerate(share.counts.values()):
        arrays |= {f"{LATER}{name}.{c}": getattr(counts.table, name) for name in ARRAYS}
    return head, arrays


def merged(parts: Sequence[PartFile]) -> Material:
    """Put what all parts tell together; `parts` are those of one plan, in order.

    Their masks are held, and the counts of one class at a time.
    """
    with fitting("merge what a page tells of", AttributeError, AssertionError, EnskError):
        return _merged(parts)


def _merged(parts: Sequence[PartFile]) -> Material:
    head, measure = parts[0].head, measure_of(parts[0].plan)
    sets = {name: whole_of([_unpacked(p, name) for p in parts]) for name in head["sets"]}
    names = [str(name) for name in head["members"]]
    members = {name: sets[key] for name, key in zip(names, _keys(names), strict=True)}
    masks, about, voted = sets["masks"], head["about"], head["voted"]
    tuned = about["tuned"]
    effects = [
        Effect(str(rule), tuple(classes), np.sum([p.arrays[f"effect.{k}"] for p in parts], axis=0))
        for k, (rule, classes) in enumerate(head["effects"])
    ]
    expected = measured = distances = None
    if head["expected"] is not None:
        classes, rule = head["expected"]
        expected = Review(masks.samples, tuple(map(str, classes)), _rows(parts, "expected"), str(rule))
    if head["measured"] is not None:
        classes, (low, high) = head["measured"]
        ours, theirs = (_rows(parts, side) for side in _SIDES)
        measured = Measured(tuple(map(str, classes)), ours, theirs, (float(low), float(high)))
    if head["unit"] is not None:
        distances = Distances(_rows(parts, "distances"), str(head["unit"]))
    return Material(
        masks,
        sets.get("truth"),
        measure,
        None if tuned is None else ThresholdSet(**vars(file.decode(tuned["content"])), path=as_path(tuned["path"])),
        None if voted is None else Voted.from_dict(voted),
        members,
        sets.get("plain"),
        dict(_curves(parts, measure)),
        effects,
        expected,
        measured,
        distances,
        about["groups"],
        int(parts[0].plan["seed"]),
        None if head["rule"] is None else str(head["rule"]),
        int(head["left_out"]),
    )


def _keys(members: Mapping[str, Any] | Sequence[str]) -> list[str]:
    return [f"member{k}" for k in range(len(members))]


def _unpacked(part: PartFile, name: str) -> MaskSet:
    own = {key.removeprefix(f"{name}."): key for key in part.arrays if key.startswith(f"{name}.")}
    return unpacked(part.head["sets"][name], {short: part.arrays[key] for short, key in own.items()})


def _rows(parts: Sequence[PartFile], name: str) -> NDArray[np.float64]:
    """Put rows of samples back into their order."""
    return np.array(joined([list(p.arrays[name]) for p in parts]), np.float64)


def _curves(parts: Sequence[PartFile], measure: Measure) -> Iterator[tuple[str, ClassCurve]]:
    for c, (name, level, low, high) in enumerate(parts[0].head["curves"]):
        tables = []
        for part in parts:
            own: dict[str, Any] = {key: part.arrays[f"{LATER}{key}.{c}"] for key in ARRAYS}
            table = ClassStatistics(int(low), int(high), **own)
            if part.head["curves"][c] != parts[0].head["curves"][c] or not is_sound(table, own["truth"].size):
                raise ValueError(f"the counts of {name!r} are not those of a part")
            tables.append(table)
        yield str(name), Counts(joined_tables(tables), None if level is None else int(level)).drawn(measure)
