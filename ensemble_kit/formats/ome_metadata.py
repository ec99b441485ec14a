"""What OME-Zarr 0.5 says of label images: axes, scales, colours and classes (https://ngff.openmicroscopy.org/0.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ensemble_kit import strict_json
from ensemble_kit.formats.ome_arrays import META
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import Shape
from ensemble_kit.spec.georeference import WorldGeometry
from ensemble_kit.spec.label_table import Colour

VERSION = "0.5"


def write_group(folder: Path, **ome: Any) -> None:
    """Make the folder of a zarr group, with what OME-Zarr says of it."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"ome": {"version": VERSION} | ome}
    (folder / META).write_bytes(strict_json.dump({"zarr_format": 3, "node_type": "group", "attributes": about}))


def label_image(
    name: str, spacing: Sequence[float], steps: Sequence[Shape], geometry: WorldGeometry | None
) -> dict[str, Any]:
    """Describe the resolutions of a label image: the key `multiscales`.

    Parameters
    ----------
    spacing : of the pixels along the axes, in the geometry's unit.
    steps : of each resolution, in pixels.
    """
    unit = {"unit": "millimeter"} if isinstance(geometry, Geometry) else {}
    axes = [{"name": name, "type": "space"} | unit for name in "zyx"[-len(spacing) :]]
    scales = [[float(s * p) for s, p in zip(step, spacing, strict=True)] for step in steps]
    datasets = [
        {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for k, scale in enumerate(scales)
    ]
    how = {"description": "every second pixel along an axis that is halved", "method": "ensemble_kit"}
    return {"multiscales": [{"name": name, "axes": axes, "datasets": datasets, "type": "nearest", "metadata": how}]}


def colours(names: Mapping[int, str], shown: Mapping[int, Colour], hidden: int) -> dict[str, Any]:
    """Say the colour and the class of each value: the key `image-label`.

    Parameters
    ----------
    names : what each value means.
    shown : the colour of each.
    hidden : the value of pixels without a class, which are not drawn; 0 is not drawn either.
    """
    told = names if hidden in names else {hidden: "no class", **names}
    rgba = [
        {"label-value": value, "rgba": [*shown.get(value, (0, 0, 0)), 255 if value != hidden and value else 0]}
        for value in told
    ]
    properties = [{"label-value": value, "class": name} for value, name in told.items()]
    about = {"version": VERSION, "colors": rgba, "properties": properties, "source": {"image": "../../"}}
    return {"image-label": about}
