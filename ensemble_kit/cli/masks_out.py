"""Voted masks on their way to a file: how they are to be written, and what is said of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.label_options import label_maps, say_written
from ensemble_kit.cli.options import warn_of_formulas

if TYPE_CHECKING:
    from ensemble_kit.formats.maskformat import MaskFormat, Telling
    from ensemble_kit.formats.registry import Format
    from ensemble_kit.masks.cover import Covering
    from ensemble_kit.masks.stream import Masks


@dataclass(frozen=True)
class Writing:
    """How masks are written, in the words of the options.

    Parameters
    ----------
    format, csv, like, labels, paint : as the options of these names.
    id : the form that ids of samples are brought to; None: they stay as they are.
    """

    format: str | None = None
    csv: str | None = None
    like: Path | None = None
    labels: str | None = None
    paint: str | None = None
    id: str | None = None

    def target(self, out: Path) -> Format | None:
        """Return the format to write; None is told by the name of `out`."""
        from ensemble_kit.formats.csv_options import CsvOptions
        from ensemble_kit.formats.writing import for_csv, for_labels

        maps = label_maps(self.labels, paint=self.paint)
        return for_csv(out, for_labels(out, self.format, self.like, maps), self.like, CsvOptions.of(self.csv))

    def kind(self, out: Path) -> MaskFormat:
        """Return the format that is written, told by the name of `out` if by nothing else."""
        from ensemble_kit.formats.registry import named
        from ensemble_kit.formats.writing import kind_of_output

        target = self.target(out)
        return kind_of_output(out, self.like) if target is None else named(target)

    def renamed(self, masks: Masks, out: Path) -> Masks:
        """Bring masks to the ids that are written."""
        from ensemble_kit.masks.idforms import check_form
        from ensemble_kit.recipes.masks import renamed

        return renamed(masks, None if self.id is None else check_form(self.id), self.like, self.target(out))

    def rehearse(self, names: Masks, out: Path, force: bool) -> Masks:
        """Refuse before any work what cannot be written, and return the masks to come under their new ids."""
        from ensemble_kit.formats.writing import rehearse

        ours = self.renamed(names, out)
        rehearse(ours, out, self.target(out), self.like, force)
        return ours

    def to_dict(self) -> dict[str, Any]:
        """Return the options that were given, as JSON values."""
        return {k: str(v) for k, v in asdict(self).items() if v is not None}

    @classmethod
    def of(cls, values: dict[str, Any]) -> Writing:
        """Read what `to_dict` wrote."""
        given = {k: str(v) for k, v in values.items()}
        like = given.pop("like", None)
        return cls(**given, like=None if like is None else Path(like))


@dataclass
class MasksOut:
    """Masks, and the file that they are written to.

    Parameters
    ----------
    voted : masks under the ids of the members.
    overlaps : whether exclusive classes are decided each by itself, so that it is said how they cover the pixels.
    """

    voted: Masks
    writing: Writing
    out: Path
    overlaps: bool = False
    masks: Masks = field(init=False)
    _telling: Telling | None = field(init=False)
    _covering: Covering = field(init=False)

    def __post_init__(self) -> None:
        from ensemble_kit.formats.writing import telling_of
        from ensemble_kit.masks.cover import Covering

        self.masks, self._covering = self.writing.renamed(self.voted, self.out), Covering()
        self._telling = telling_of(self.masks, self.writing.kind(self.out), self.writing.like)

    def write(self) -> None:
        """Make the masks, if they are still to be made, and write them."""
        from ensemble_kit.formats.writing import write_masks

        looks = [*([] if self._telling is None else [self._telling.add])]
        looks += [self._covering.add] if self.overlaps else []
        target = self.writing.target(self.out)
        write_masks(self.masks.watched(*looks), self.out, format=target, like=self.writing.like, force=True)

    def tell(self, common: Common) -> dict[str, Any]:
        """Say how they were written and what they are, and return it by name."""
        from ensemble_kit.decisions.partition import TOLD

        if TOLD in (self.masks.rule or ""):
            common.say(f"post-processing: {TOLD}")
        say_written(common, self._telling, self.out)
        warn_of_formulas(common, self.masks, self.out)
        values: dict[str, Any] = {"samples": len(self.masks.samples), "classes": list(self.masks.classes)}
        if self.overlaps:
            shares = self._covering.shares
            common.say(f"softmax stores, but not decided by argmax: {shares}")
            values |= {"without_class": shares.none, "several_classes": shares.several}
            values["legend"] = "without_class, several_classes: shares of the pixels of all samples, 0 to 1"
        return values

    def say_where(self, common: Common) -> None:
        """Say where they are."""
        common.say(f"wrote {self.out}: {len(self.masks.samples)} samples x {len(self.masks.classes)} classes")
