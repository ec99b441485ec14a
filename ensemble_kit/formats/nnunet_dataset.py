"""What an nnU-Net dataset.json says of classes: labels that exclude each other, or regions that overlap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kit import strict_json
from ensemble_kit.errors import DamagedError, IncompleteError, some

if TYPE_CHECKING:
    from ensemble_kit.spec.fusion import Activation

IGNORE = "ignore"
"""How nnU-Net calls the label of voxels that do not count."""


@dataclass(frozen=True)
class Dataset:
    """The classes of a dataset, which are the heads of its networks.

    Parameters
    ----------
    heads : values of label maps that each class stands for, by its name, in the order of the networks' outputs.
    activation : "softmax" of labels, "sigmoid" of regions.
    paint : of regions, the value that each is drawn with, later ones over those before (`regions_class_order`).
    ignore : value of voxels that do not count; None where there is none.
    ending : suffix of the files of images and labels, such as `.nii.gz`.

    Examples
    --------
    >>> about = {"labels": {"background": 0, "WT": [1, 2], "TC": 2}, "regions_class_order": [1, 2]}
    >>> dataset = Dataset.of(about | {"file_ending": ".nii.gz"}, "dataset.json")
    >>> dataset.classes, dataset.activation, dataset.painting
    (('WT', 'TC'), 'sigmoid', 'WT=1,TC=2')
    """

    heads: Mapping[str, tuple[int, ...]]
    activation: Activation
    paint: Mapping[str, int]
    ignore: int | None
    ending: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the heads."""
        return tuple(self.heads)

    @property
    def painting(self) -> str:
        """What `--paint` takes to draw regions as nnU-Net does; "" of labels."""
        return ",".join(f"{name}={value}" for name, value in self.paint.items())

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """Read the dataset.json of a folder.

        Raises
        ------
        IncompleteError
            There is none.
        DamagedError
            Its labels are not as nnU-Net 2 has them.
        """
        path = folder / "dataset.json"
        if not path.is_file():
            item = f"{str(folder)!r} has no dataset.json"
            fix = "copy the dataset.json of the model beside its predictions: it names the classes"
            raise IncompleteError("nnunet-folder", "cannot read a folder of nnU-Net", item=item, fix=fix)
        return cls.of(strict_json.load(path), str(path))

    @classmethod
    def of(cls, about: Any, where: str) -> Dataset:
        """Read the content of a dataset.json."""
        labels = about.get("labels") if isinstance(about, dict) else None
        if not isinstance(labels, dict) or not labels:
            raise _damaged(where, "it has no labels", "write labels as {name: value}, background 0")
        values = {name: _values(value) for name, value in labels.items()}
        odd = [name for name, own in values.items() if not own]
        if odd:
            fix = "write labels as {name: value} or {name: [value, …]}, as nnU-Net 2 has them, not values by name"
            raise _damaged(where, f"the labels {some(odd)} have no whole numbers as values", fix)
        if values.get("background") != (0,):
            raise _damaged(where, "background is not the label 0", 'write "background": 0')
        ending = about.get("file_ending", ".nii.gz")
        ignored = values.pop(IGNORE, (None,))[0]
        if any(len(set(own)) > 1 for own in values.values()):
            regions = {name: own for name, own in values.items() if set(own) != {0}}
            return cls(regions, "sigmoid", _painted(about, regions, where), ignored, str(ending))
        heads = {name: own[:1] for name, own in sorted(values.items(), key=lambda pair: pair[1][0])}
        if [own[0] for own in heads.values()] != list(range(len(heads))):
            item = f"the values of its labels are {', '.join(str(own[0]) for own in heads.values())}"
            raise _damaged(where, item, "count labels from 0 without a gap, each value once, as nnU-Net needs them")
        return cls(heads, "softmax", {}, ignored, str(ending))


def _values(value: Any) -> tuple[int, ...]:
    """Read a label or a region; () where it is neither."""
    found = value if isinstance(value, list) else [value]
    return tuple(found) if all(type(v) is int and v >= 0 for v in found) else ()


def _painted(about: Mapping[str, Any], regions: Mapping[str, object], where: str) -> dict[str, int]:
    order = about.get("regions_class_order")
    if not isinstance(order, list) or len(order) != len(regions) or not all(type(v) is int for v in order):
        item = f"regions_class_order is {order!r} of {len(regions)} regions: {some(regions)}"
        raise _damaged(where, item, "write the value that each region is drawn with, in their order")
    return dict(zip(regions, order, strict=True))


def _damaged(where: str, why: str, fix: str) -> DamagedError:
    return DamagedError("nnunet-dataset", "cannot read the classes of nnU-Net", item=f"{where}: {why}", fix=fix)
