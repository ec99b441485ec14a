"""What `ensk report` was asked to tell of, and how it is gathered and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.label_options import kept, label_maps, say_labels
from ensemble_kit.cli.options import class_names, csv_format, empty_value, fusing, refuse_idle, size_of_images
from ensemble_kit.cli.truth_options import TruthOptions
from ensemble_kit.cli.working import working
from ensemble_kit.decisions.rules import parse_rules
from ensemble_kit.errors import IncompleteError, UsageError
from ensemble_kit.execution.parts import WHOLE, Part
from ensemble_kit.masks.alignment import check_same_classes
from ensemble_kit.masks.idforms import check_form
from ensemble_kit.recipes import memory
from ensemble_kit.recipes.deciding import Deciding, Threshold
from ensemble_kit.recipes.hard_vote import check_files
from ensemble_kit.recipes.masks import formats_for, read_together
from ensemble_kit.recipes.members import MemberPaths, members_of, open_ensemble, paths_of
from ensemble_kit.recipes.reporting.images import sizes_of
from ensemble_kit.recipes.reporting.material import Material, of_masks, of_vote
from ensemble_kit.recipes.vote import SoftVote
from ensemble_kit.remote.copies import local
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.thresholds.finding import FOLDER, find
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.shift import check_comparable

if TYPE_CHECKING:
    from ensemble_kit.ensemble import Ensemble
    from ensemble_kit.formats.registry import Format
    from ensemble_kit.masks.maskset import MaskSet
    from ensemble_kit.tuning.folds import Groups


def split(members: Sequence[MemberPaths]) -> tuple[ThresholdSet | None, list[MemberPaths]]:
    """Tell the threshold set among the inputs, by its content or its name, from the stores and mask files."""
    sets, others = list[ThresholdSet](), list[MemberPaths]()
    for member in members:
        path = member.paths[0]
        if member.name is not None or member.is_store:
            others.append(member)
        elif path.is_file() and path.suffix.lower() == ".json" and _is_set(path):
            sets.append(ThresholdSet.load(path))
        elif path.exists() or "/" in str(path) or not _may_name_a_set(path):
            others.append(member)
        else:
            sets.append(ThresholdSet.load(find(str(path))))
    if len(sets) > 1:
        item, fix = f"{sets[0].path} and {sets[1].path} are two sets", "pass one; ensk inspect A B compares two"
        raise UsageError("report-inputs", "cannot report on two threshold sets", item=item, fix=fix)
    missing = [str(p) for m in others if not m.is_store for p in m.paths if not local(p).exists()]
    if missing:
        item, fix = f"{missing[0]} does not exist", "check the paths of the set, the stores and the mask files"
        raise IncompleteError("member-missing", "cannot report", item=item, fix=fix)
    return (sets[0] if sets else None), others


def _may_name_a_set(path: Path) -> bool:
    """Tell whether what does not exist can be a set of `thresholds/`: a word with the suffix of a set, or with none."""
    return path.suffix in {"", ".json"} or (FOLDER / f"{path}.json").is_file()


def _is_set(path: Path) -> bool:
    with path.open("rb") as file:
        return b'"ensk.thresholds/' in file.read(1 << 20)


@dataclass(frozen=True)
class Asked:
    """What the user asked for.

    Parameters
    ----------
    members : stores, or mask files; none for a page of a set alone.
    decided, fused : options of deciding and of fusing, by name; None where none was given.
    compared : stores of a test set.
    written : format of the mask files, and what differs from it in a CSV, as the user typed them.
    scored : options of scores, by name; None where none was given.
    """

    common: Common
    members: tuple[MemberPaths, ...]
    threshold: Threshold
    measure: Measure
    groups: Groups
    val: Path | None
    truth: TruthOptions
    decided: Mapping[str, Any]
    fused: Mapping[str, Any]
    compared: Sequence[Path] | None = None
    dask: str | None = None
    written: tuple[str | None, str | None] = (None, None)
    scored: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tuned(self) -> ThresholdSet | None:
        """The set that decides, if one does."""
        return self.threshold if isinstance(self.threshold, ThresholdSet) else None

    @property
    def format(self) -> Format | None:
        """The format of the mask files; None: it is recognised."""
        return csv_format(*self.written)

    def material(self, images: Path | None) -> Material:
        """Gather what the page tells of."""
        if not self.members:
            assert self.tuned is not None
            idle = {"val": self.val, "images": images, "compare": self.compared, "format": self.format}
            idle |= self._of_truth()
            refuse_idle("on a set alone", "pass the stores that it was tuned for, too", **idle, **self._of_stores)
            return Material(tuned=self.tuned, measure=self.measure)
        if not self.are_stores():
            return self.of_masks(images)
        common, (vote, truth, test) = self.common, self.stores()
        with working(common, self.dask) as executor, common.progress() as listener:
            return of_vote(vote, truth, self.measure, test, self.groups, common.seed, executor, listener)

    @property
    def _of_stores(self) -> dict[str, Any]:
        """The options that stores alone give an effect, by name."""
        return {name.replace("-", "_"): value for name, value in (*self.decided.items(), *self.fused.items())}

    def are_stores(self) -> bool:
        """Tell stores from mask files, and refuse both at once, and options that have no effect on them."""
        stores = [m.is_store for m in self.members]
        if any(stores) and not all(stores):
            item = f"{stores.count(True)} stores and {stores.count(False)} mask files"
            fix = "pass stores, whose vote is told of, or mask files (ensk vote makes them of stores)"
            raise UsageError("report-inputs", "cannot report on stores and masks at once", item=item, fix=fix)
        if all(stores):
            refuse_idle("with stores", "pass --val-format or --val-csv", format=self.format)
        else:
            refuse_idle("on mask files", "pass stores", compare=self.compared, dask=self.dask, **self._of_stores)
        return all(stores)

    def _of_truth(self, masks: bool = False) -> dict[str, Any]:
        """Return the options that a truth alone gives an effect, by name.

        Parameters
        ----------
        masks : whether mask files are read, to which options of label maps, classes and ids belong too.
        """
        t = self.truth
        own = {"val_format": t.format, "val_csv": t.csv, **self.scored}
        others = {"image_size": t.image_size, "classes": t.classes, "labels": t.labels, "first_value": t.first_value}
        others |= {"void": t.void, "only": t.only, "except": t.without, "id": t.id}
        return own if masks else own | others

    def vote(self) -> SoftVote:
        """Open the stores, and say how they are voted."""
        common, d = self.common, self.decided
        ensemble = open_ensemble(self.members, self.threshold, self._fusing)
        deciding = Deciding(self.threshold, d.get("decide"), d.get("background"), d.get("least"))
        vote = SoftVote.of(ensemble, deciding, parse_rules(d.get("rule") or []))
        for line in (deciding.assumed(ensemble), *vote.told()):
            if line is not None:
                common.say(line)
        for doubt in (*deciding.warnings(), *vote.doubts()):
            common.warn(doubt)
        return vote

    @property
    def _fusing(self) -> dict[str, Any]:
        names = ("mean", "upsample", "weights", "temperatures", "samples", "member-classes")
        return fusing(*(self.fused.get(name) for name in names))

    def true_masks(self, vote: SoftVote) -> MaskSet | None:
        """Read the truth of a vote's samples; None where none is given."""
        if self.val is None:
            refuse_idle("without a truth", "pass --val", **self._of_truth())
        background = getattr(vote.decision, "background", None)
        return None if self.val is None else self.truth.read(self.val, vote.ensemble, self.common, "report", background)

    def stores(self, part: Part = WHOLE) -> tuple[SoftVote, MaskSet | None, Ensemble | None]:
        """Open the stores and those of the test set, and read the truth.

        Parameters
        ----------
        part : the share of the samples that is going to be voted on, which must fit into memory.
        """
        common, vote, test = self.common, self.vote(), None
        ensemble = vote.ensemble
        if self.compared:
            test = open_ensemble(members_of(self.compared), self.threshold, self._fusing)
            check_comparable(ensemble, test)
        if common.memory is not None:
            times = len(ensemble.members) + 2  # the masks of each member alone, and of no tuning, are held beside
            own = ensemble if part.of == 1 else ensemble.on(part.share(ensemble.samples))
            masks = memory.of_vote(own, vote.decision, vote.rules, common.jobs) - memory.held_after_trial()
            memory.check(common.memory, memory.held() + times * masks, "report")
        return vote, self.true_masks(vote), test

    def of_masks(self, images: Path | None) -> Material:
        """Read mask files, and gather what they tell."""
        return of_masks(*self.masks(images), self.measure, self.tuned, self.groups, self.common.seed)

    def masks(self, images: Path | None) -> tuple[dict[str, MaskSet], MaskSet | None]:
        """Read mask files, and their truth; sizes that no file has are those of the images."""
        t, tuned = self.truth, self.tuned
        if self.val is None:
            refuse_idle("without a truth", "pass --val", **self._of_truth(masks=True))
        check_files(self.members)
        paths = [local(path) for path in paths_of(self.members)]
        given: list[Format | None] = [self.format] * len(paths)
        if self.val is not None:
            paths.append(local(self.val))
            given.append(csv_format(t.format, t.csv))
        memory.check(self.common.memory, memory.of_reading(paths), "report")
        formats = formats_for(paths, given, label_maps(t.labels, t.first_value, t.void))
        chooses = t.only is not None or t.without is not None
        flags: list[dict[str, str]] = [{}] * len(self.members) + [{"--from": "--val-format", "--from-csv": "--val-csv"}]
        sizes, form = size_of_images(t.image_size), None if t.id is None else check_form(t.id)
        read = partial(
            read_together, paths, formats, classes=class_names(t.classes), differ=chooses, flags=flags, id=form
        )
        try:
            sets = read(image_size=sizes)
        except UsageError as error:
            if images is None or sizes is not None or error.code != "image-size-missing":
                raise
            sets = read(image_size=sizes_of(images))
        say_labels(self.common, sets, paths)
        sets = kept(sets, t.only, t.without)
        if tuned is not None:
            names = ("the set", "the masks")
            written = [c for c in tuned.names if c != tuned.decision.background]
            check_same_classes(
                written,
                [c for c in sets[0].classes if c != tuned.decision.background],
                names,
                "cannot report",
                "pass the masks that this set decided",
            )
        truth = None if self.val is None else sets.pop()
        named = {m.label: masks for m, masks in zip(self.members, sets, strict=True)}
        if len(named) < len(sets):
            item, fix = f"{len(sets)} mask files have {len(named)} names", "call each by NAME=PATH"
            raise UsageError("member-ambiguous", "cannot tell members apart", item=item, fix=fix)
        return named, truth

    @property
    def title(self) -> str:
        """What the page is called: after the set, or after the members."""
        if self.tuned is not None and self.tuned.path is not None:
            return f"Report on {self.tuned.path.stem}"
        return f"Report on {' + '.join(m.label for m in self.members)}"

    def sources(self, images: Path | None) -> list[tuple[str, str]]:
        """List what was read: names and paths."""
        found = [("threshold set", str(self.tuned.path))] if self.tuned is not None else []
        found += [("member", str(m)) for m in self.members]
        found += [("test set", str(path)) for path in self.compared or []]
        return found + [
            (name, str(path)) for name, path in (("truth", self.val), ("images", images)) if path is not None
        ]


def convention_of(empty: str | None, eps: float, tuned: ThresholdSet | None) -> Convention | None:
    """Read `--empty` and `--eps`; None where neither is given."""
    if empty is None and not eps:
        return None
    own = Convention() if tuned is None else tuned.measure.convention
    return Convention(
        eps, own.empty if empty is None else "skip-truth" if empty == "skip-truth" else empty_value(empty)
    )
