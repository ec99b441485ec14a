"""Voted masks on their way to a file: how they are to be written, and what is said of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.label_options import label_maps, say_geometry_lost, say_written
from ensemble_kit.cli.options import warn_of_formulas
from ensemble_kit.errors import MismatchError
from ensemble_kit.remote.copies import as_path, local
from ensemble_kit.remote.urls import url_of

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
    format, csv, like, labels, paint, like_image, spacing : as the options of these names.
    id : the form that ids of samples are brought to; None: they stay as they are.
    """

    format: str | None = None
    csv: str | None = None
    like: Path | None = None
    labels: str | None = None
    paint: str | None = None
    id: str | None = None
    like_image: Path | None = None
    spacing: str | None = None

    def target(self, out: Path) -> Format | None:
        """Return the format to write; None is told by the name of `out`."""
        from ensemble_kit.formats.csv_options import CsvOptions
        from ensemble_kit.formats.writing import for_csv, for_labels

        maps = label_maps(self.labels, paint=self.paint, like_image=self.like_image, spacing=self.spacing)
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

    def recorded(self) -> dict[str, str]:
        """Return the options that were given, of files their digests: parts of equal ones are written alike."""
        digests = {name: _digest(path) for name, path in self.files().items()}
        return {k: str(v) for k, v in asdict(self).items() if v is not None} | digests

    def files(self) -> dict[str, str]:
        """Return where the files among the options are, from any folder."""
        from ensemble_kit.formats.dialects import PRESETS

        labels = None if self.labels in PRESETS else self.labels
        given = {"like": self.like, "labels": labels, "like_image": self.like_image}
        return {k: url_of(path) or str(Path(path).absolute()) for k, path in given.items() if path is not None}

    def over(self, recorded: Mapping[str, str], files: Mapping[str, str]) -> Writing:
        """Return how parts are written that were made with other options, where these do not say it.

        Parameters
        ----------
        recorded, files : of the parts; what describes their format holds for no other one.

        Raises
        ------
        MismatchError
            A file is gone, or another one than when the parts were made.
        """
        own = {k: v for k, v in asdict(self).items() if v is not None}
        theirs = {k: v for k, v in recorded.items() if self.format is None or k in _OF_ANY_FORMAT}
        for name in [k for k in theirs if k in files and k not in own]:
            path = theirs[name] = files[name]
            if _digest(path) != recorded[name]:
                item = f"--{name} {path} is not the file that they were made with"
                fix = "put the former file back" + (", or pass --like with another" if name == "like" else "")
                item = item.replace("--like_image", "--like-image")
                raise MismatchError("parts-differ", "cannot merge parts", item=item, fix=fix)
        given: dict[str, Any] = {**theirs, **own}
        return Writing(**given | {k: as_path(given[k]) for k in ("like", "like_image") if k in given})


_OF_ANY_FORMAT = {"like", "id", "like_image", "spacing"}


def _digest(path: str) -> str:
    """Digest a file, or of a folder the names and sizes of its files."""
    from ensemble_kit.dumping.sources import digest_of

    found = local(path)
    if not found.is_dir():
        return digest_of(found)
    files = sorted((p.relative_to(found).as_posix(), p.stat().st_size) for p in found.rglob("*") if p.is_file())
    return hashlib.sha256(repr(files).encode()).hexdigest()[:32]


@dataclass
class MasksOut:
    """Masks, and the file that they are written to.

    Parameters
    ----------
    voted : masks under the ids of the members.
    overlaps : whether exclusive classes are decided each by itself, so that it is said how they cover the pixels.
    soft : whether stores were fused: then pixels are void where scenes hold no data alone, which the stores say, and
        formats without void leave them without a class.
    """

    voted: Masks
    writing: Writing
    out: Path
    overlaps: bool = False
    soft: bool = False
    masks: Masks = field(init=False)
    _telling: Telling | None = field(init=False)
    _covering: Covering = field(init=False)

    def __post_init__(self) -> None:
        from ensemble_kit.formats.writing import telling_of
        from ensemble_kit.masks.cover import Covering

        kind = self.writing.kind(self.out)
        voted = self.voted.without_void() if self.soft and not kind.holds_void else self.voted
        self.masks, self._covering = self.writing.renamed(voted, self.out), Covering()
        self._telling = telling_of(self.masks, kind, self.writing.like)

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
        say_geometry_lost(common, self.masks, self.writing.kind(self.out), self.out)
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
