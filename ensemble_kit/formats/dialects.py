"""Dialects of submission CSVs: frozen values, and the presets of known competitions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ensemble_kit.errors import UsageError, some
from ensemble_kit.formats.table import read_table
from ensemble_kit.masks.rle import Order
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.geometry import Shape


@dataclass(frozen=True)
class Dialect:
    """How one kind of CSV holds masks: one row a (sample, class), or one a sample.

    Parameters
    ----------
    name : what `format=` calls it.
    columns : the header: the id column, then the class column where there is one, then the column of runs.
    template : how sample and class are joined in the id column, such as `{sample}_{class}`; None where the id is
        the sample. A joined id is split by the known class names, never by the separator alone: sample and class
        may hold it.
    order : "C" numbers pixels along rows, "F" down columns.
    base : number of the first pixel, 0 or 1.
    relative : each start counts from the end of the run before it; only the first has the base.
    empty : what stands for an empty mask. Blank is always read as empty too.
    classes : class names that the competition fixes; () where the file or the user says them.
    sparse : whether a (sample, class) without a row is an empty mask; otherwise it is an error.
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
        joined_well = self.template is None or all(self.template.count(n) == 1 for n in ("{sample}", "{class}"))
        if len(self.columns) not in {2, 3} or not joined_well or (self.template and len(self.columns) == 3):
            item = f"columns {self.columns!r}, template {self.template!r}"
            fix = (
                "pass (id, class, runs), or (id, runs) and perhaps a template that holds {sample} and {class} once each"
            )
            raise UsageError("dialect-invalid", "cannot use a CSV dialect", item=item, fix=fix)

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

    def parse(self, text: str, shape: Shape) -> Runs:
        """Read the column of runs."""
        if self.empty and text == self.empty:
            return Runs.empty(shape)
        return Runs.parse(text, shape, order=self.order, base=self.base, relative=self.relative)


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


def columns_of(header: Sequence[str], dialect: Dialect, path: Path, renamed: bool = False) -> tuple[int, ...]:
    """Find the dialect's columns in a header, whatever their order; return their numbers.

    Parameters
    ----------
    renamed : whether as many columns of other names are taken for the dialect's, in its order.

    Raises
    ------
    UsageError
        The header has other columns.
    """
    if sorted(header) == sorted(dialect.columns):
        return tuple(header.index(name) for name in dialect.columns)
    if renamed and len(header) == len(dialect.columns):
        return tuple(range(len(header)))
    others = [name for name in with_columns(header) if name != dialect.name]
    columns = f"its columns are {','.join(header)[:200]}, {dialect.name!r} has {','.join(dialect.columns)}"
    fix = f"pass --format {others[0]}" if others else "name the columns so, or pass another --format"
    raise UsageError("csv-columns", "cannot read a CSV file in this dialect", item=f"{path}: {columns}", fix=fix)


def recognise(path: Path) -> Dialect:
    """Return the preset that has the columns of a CSV's header.

    Raises
    ------
    UsageError
        No preset has these columns, or several have.
    """
    header, what = read_table(path).header, "cannot tell the dialect of a CSV file"
    names = with_columns(header)
    if len(names) > 1:
        item = f"{path}: the columns {','.join(header)} are those of {some(names)}"
        fix = f"name it: --format {names[0]} (format={names[0]!r})"
        raise UsageError("format-ambiguous", what, item=item, fix=fix)
    if not names:
        item = f"{path}: no preset has the columns {','.join(header)[:200]}"
        fix = f"name the columns as one of the presets does: {', '.join(PRESETS)}"
        raise UsageError("format-unknown", what, item=item, fix=fix)
    return PRESETS[names[0]]
