"""Dialects of submission CSVs: frozen values, and the presets of known competitions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ensemble_kit.errors import UsageError
from ensemble_kit.masks.rle import Order
from ensemble_kit.masks.runs import Runs


@dataclass(frozen=True)
class Dialect:
    """How one kind of CSV writes masks: one row a (sample, class), or one a sample.

    Parameters
    ----------
    name : what `format=` calls it.
    columns : the header: the id column, then the class column where there is one, then the column of runs.
    template : how sample and class are joined in the id column, such as `{sample}_{class}`; None where the id is
        the sample. A joined id is taken apart by the known class names, never by the separator alone: both parts
        may hold it.
    order : "C" numbers pixels along rows, "F" down columns.
    base : number of the first pixel, 0 or 1.
    relative : each start counts from the end of the run before it; only the first has the base.
    empty : what stands for an empty mask. Blank is always read as empty too.
    classes : class names that the competition fixes; () where the file or the caller says them.
    sparse : a (sample, class) without a row is an empty mask; otherwise it is an error.
    """

    name: str
    columns: tuple[str, ...]
    template: str | None = None
    order: Order = "C"
    base: Literal[0, 1] = 1
    relative: bool = False
    empty: str = ""
    classes: tuple[str, ...] = ()
    sparse: bool = False

    def __post_init__(self) -> None:
        joined_well = self.template is None or all(self.template.count(p) == 1 for p in ("{sample}", "{class}"))
        if len(self.columns) not in {2, 3} or not joined_well or (self.template and len(self.columns) == 3):
            raise UsageError(
                "dialect-invalid",
                "cannot use a CSV dialect",
                item=f"columns {self.columns!r}, template {self.template!r}",
                fix="pass (id, class, runs), or (id, runs) with or without a template that holds "
                "{sample} and {class} once each",
            )

    @property
    def by_sample(self) -> bool:
        """Tell whether a row holds a sample's only mask."""
        return len(self.columns) == 2 and self.template is None

    def join(self, sample: str, name: str) -> str:
        """Write the id column of a (sample, class)."""
        if self.template is None:
            return sample
        head, foot = self.template.split("{sample}")
        return head.replace("{class}", name) + sample + foot.replace("{class}", name)

    def parse(self, text: str, shape: tuple[int, int]) -> Runs:
        """Read the column of runs."""
        if self.empty and text == self.empty:
            return Runs.empty(shape)
        return Runs.parse(text, shape, order=self.order, base=self.base, relative=self.relative)


class Splitter:
    """Takes joined ids apart by the known classes (and samples, where they are known).

    The parts around each class are looked up by length, so that the cost does not grow with the number of classes.
    """

    def __init__(self, dialect: Dialect, classes: Iterable[str], samples: frozenset[str] | None = None) -> None:
        self._samples = samples
        self._around: dict[tuple[str, str], str] = {}
        for name in classes:
            head, foot = (part.replace("{class}", name) for part in (dialect.template or "{sample}").split("{sample}"))
            self._around[head, foot] = name
        self._lengths = sorted({(len(head), len(foot)) for head, foot in self._around})

    def candidates(self, joined: str) -> list[tuple[str, str]]:
        """Return every (sample, class) that the id can mean."""
        found = []
        for head, foot in self._lengths:
            end = len(joined) - foot
            name = self._around.get((joined[:head], joined[end:])) if end > head else None
            if name is not None and (self._samples is None or joined[head:end] in self._samples):
                found.append((joined[head:end], name))
        return found


_ALL = (
    # Boostcamp hand-bone segmentation: `mask.flatten()`, first pixel 1, blank where nothing was found.
    Dialect("handbone", ("image_name", "class", "rle")),
    # The form most Kaggle competitions share: "numbered from top to bottom, then left to right", one-indexed.
    Dialect("kaggle", ("id", "rle"), template="{sample}_{class}", order="F"),
    # Severstal steel defects: submission `0002cc93b.jpg_1`; its train.csv has a row for each defect only.
    Dialect(
        "severstal",
        ("ImageId_ClassId", "EncodedPixels"),
        template="{sample}_{class}",
        order="F",
        classes=("1", "2", "3", "4"),
    ),
    Dialect(
        "severstal-train", ("ImageId", "ClassId", "EncodedPixels"), order="F", classes=("1", "2", "3", "4"), sparse=True
    ),
    # Understanding clouds from satellite images: `0011165.jpg_Fish`, masks of 350 x 525.
    Dialect(
        "clouds",
        ("Image_Label", "EncodedPixels"),
        template="{sample}_{class}",
        order="F",
        classes=("Fish", "Flower", "Gravel", "Sugar"),
    ),
    # SIIM-ACR pneumothorax: its mask_functions.py counts from 0 down columns, each start from the end of the run
    # before; -1 is empty. (Its train-rle.csv writes a space before names and values: strip it first.)
    Dialect("siim", ("ImageId", "EncodedPixels"), order="F", base=0, relative=True, empty="-1"),
    # Carvana image masking: "numbered from left to right, then top to bottom", one-indexed, one car an image.
    Dialect("carvana", ("img", "rle_mask")),
    # HuBMAP + HPA 2022: one functional tissue unit an image, top to bottom first. The kidney competition of 2021
    # is the same with the column `predicted`: pass its sample submission as `like`.
    Dialect("hubmap", ("id", "rle"), order="F"),
    # UW-Madison GI tract: train.csv decodes with `reshape(H, W)`, so along rows; the submission's last column is
    # called `predicted`.
    Dialect("uwmadison", ("id", "class", "segmentation")),
    Dialect("uwmadison-submission", ("id", "class", "predicted")),
    # Google contrails: the official notebook flattens the transpose, so down columns; `-` is empty.
    Dialect("contrails", ("record_id", "encoded_pixels"), order="F", empty="-"),
    # SenNet + HOA kidney vessels: `mask.flatten()`, first pixel 1; a scorer without blanks, so `1 0` is empty.
    Dialect("sennet", ("id", "rle"), empty="1 0"),
)

PRESETS: dict[str, Dialect] = {dialect.name: dialect for dialect in _ALL}


def with_columns(header: Iterable[str]) -> list[str]:
    """Return the names of the presets that have these columns, in any order."""
    columns = sorted(header)
    return [name for name, dialect in PRESETS.items() if sorted(dialect.columns) == columns]
