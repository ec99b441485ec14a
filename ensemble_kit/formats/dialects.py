"""Dialects of submission CSVs: frozen values, and the presets of known competitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ensemble_kit.errors import UsageError
from ensemble_kit.masks.rle import Order
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.geometry import Shape

Rows = Literal["mask", "object"]
"""What a row of a CSV holds: all of a mask, or one of its objects."""


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
    rows : "mask": a (sample, class) has one row. "object": it has one row an object; read, they are a union, and
        written, one row a connected component (pixels that touch by a corner are connected).
    sparse : whether a (sample, class) without a row is an empty mask; otherwise it is an error. With a row an object it
        always is.
    """

    name: str
    columns: tuple[str, ...]
    template: str | None = None
    order: Order = "C"
    base: Literal[0, 1] = 1
    relative: bool = False
    empty: str = ""
    classes: tuple[str, ...] = ()
    rows: Rows = "mask"
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

    @property
    def numbering(self) -> str:
        """How pixels are numbered, in words."""
        along = "along rows" if self.order == "C" else "down columns"
        return f"{along} from {self.base}{', each start from the end of the run before it' if self.relative else ''}"

    @property
    def ids_told(self) -> str:
        """How sample and class are joined in the id, in words; nothing where they are not."""
        return "" if self.template is None else f", ids {self.template.replace('{sample}', '{image}')}"

    @property
    def has_holes(self) -> bool:
        """Whether a (sample, class) without a row is an empty mask."""
        return self.sparse or self.rows == "object"

    def join(self, sample: str, name: str) -> str:
        """Write the id column of a (sample, class)."""
        head, foot = self.around(name)
        return head + sample + foot

    def around(self, name: str) -> tuple[str, str]:
        """Return what stands before and behind the sample in the ids of a class."""
        head, foot = (self.template or "{sample}").split("{sample}")
        return head.replace("{class}", name), foot.replace("{class}", name)

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
    # before; -1 is empty. Its train-rle.csv has several rows of some images: pass rows="object" for it.
    Dialect("siim", ("ImageId", "EncodedPixels"), order="F", base=0, relative=True, empty="-1"),
    # Airbus ship detection: `000155de5.jpg`, a row a ship, blank where there is none.
    Dialect("airbus", ("ImageId", "EncodedPixels"), order="F", rows="object"),
    # 2018 Data Science Bowl: a row a nucleus; the same but for its ids, which have no extension.
    Dialect("dsb2018", ("ImageId", "EncodedPixels"), order="F", rows="object"),
    # TGS salt identification: images of 101 x 101, ids without extension.
    Dialect("tgs", ("id", "rle_mask"), order="F"),
    # Sartorius cell instances: its train.csv has a row a cell, and columns of what the cell is; along rows.
    Dialect("sartorius", ("id", "annotation"), rows="object"),
    Dialect("sartorius-submission", ("id", "predicted"), rows="object"),
    # Carvana image masking: "numbered from left to right, then top to bottom", one-indexed, one car an image.
    Dialect("carvana", ("img", "rle_mask")),
    # HuBMAP + HPA 2022: one functional tissue unit an image, top to bottom first.
    Dialect("hubmap", ("id", "rle"), order="F"),
    # HuBMAP kidneys, 2021: the same by other names; its train.csv has `encoding`, its submission `predicted`.
    Dialect("hubmap-kidney", ("id", "encoding"), order="F"),
    Dialect("hubmap-kidney-submission", ("id", "predicted"), order="F"),
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
