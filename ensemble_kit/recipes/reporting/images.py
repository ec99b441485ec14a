"""The images below the masks: found by sample, read in the pixels that are pictured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.dumping.images import find_images, image_size, read_image
from ensemble_kit.errors import IncompleteError, MismatchError, some
from ensemble_kit.formats.volume_files import name_of, open_volume, volumes_under
from ensemble_kit.masks.drawing import to_eight_bits
from ensemble_kit.masks.idforms import FORMS, in_form
from ensemble_kit.recipes.reporting.slices import Slice
from ensemble_kit.reports.pictures import smaller
from ensemble_kit.spec.geometry import Shape, as_text

if TYPE_CHECKING:
    from numpy.typing import NDArray


def images_for(folder: Path, samples: Sequence[str], volumes: bool) -> dict[str, Path]:
    """Find the image of each sample, by the form of ids in which most of them meet.

    Raises
    ------
    IncompleteError
        No image is called as a sample is.
    """
    if volumes:
        paths = [folder / file for file in volumes_under(folder)]
        named = [{name_of(path.name): path for path in paths}, {path.name: path for path in paths}]
        # nnU-Net numbers channels: case_0000.nii.gz is the first of case
        named.append({name.removesuffix("_0000"): path for name, path in named[0].items() if name.endswith("_0000")})
    else:
        paths, named = find_images(folder), []
        for form in FORMS:
            names: dict[str, list[Path]] = {}
            for path in paths:
                names.setdefault(in_form(path.relative_to(folder).as_posix(), form), []).append(path)
            named.append({name: own[0] for name, own in names.items() if len(own) == 1})
    ours = [{s: files[s] for s in samples if s in files} for files in named]
    ours += [{s: files[in_form(s, "stem")] for s in samples if in_form(s, "stem") in files} for files in named]
    best = max(ours, key=len)
    if not best:
        item = f"{str(folder)!r} holds {some(sorted(named[0]), 3) or 'no image'}, samples are {some(samples, 3)}"
        fix = "pass the folder of the images that the masks are of"
        raise IncompleteError("images-missing", "cannot find the images of samples", item=item, fix=fix)
    return best


def sizes_of(folder: Path) -> dict[str, Shape]:
    """Read the sizes of the images or volumes of a folder, at any depth, by name and stem, where these are unique."""
    if volumes := volumes_under(folder):
        found = [(Path(file).name, name_of(Path(file).name), open_volume(folder / file).shape) for file in volumes]
    else:
        found = [(path.name, in_form(path.name, "stem"), image_size(path)) for path in find_images(folder)]
    sizes: dict[str, set[Shape]] = {}
    for name, stem, size in found:
        for key in {name, stem}:
            sizes.setdefault(key, set()).add(size)
    return {key: own.pop() for key, own in sizes.items() if len(own) == 1}


def pixels(path: Path, sample: str, shape: Shape, slices: Sequence[Slice]) -> list[NDArray[np.uint8]]:
    """Read what is pictured of an image: uint8 (h, w) or RGB (h, w, 3), one for each slice.

    Raises
    ------
    MismatchError
        The image is not of the masks' size.
    """
    if len(shape) == 2:
        image = read_image(path, scaled=True)
        _check(path, sample, image.shape[:2], shape)
        return [smaller(to_eight_bits(image), one.size) for one in slices]
    volume = open_volume(path)
    _check(path, sample, volume.shape, shape)
    found: list[NDArray[Any]] = [np.zeros(one.size) for one in slices]
    for z, (channel, values) in enumerate(volume.slices()):
        if channel or z >= shape[0]:
            break
        for one, out in zip(slices, found, strict=True):
            at = np.flatnonzero(one.axes[0] == z)
            if at.size and one.across == 0:
                out[:] = values[np.ix_(one.axes[1], one.axes[2])]
            elif at.size:
                out[at[0]] = values[np.ix_(one.axes[1], one.axes[2])].reshape(-1)
    return [to_eight_bits(image) for image in found]


def _check(path: Path, sample: str, found: Sequence[int], shape: Shape) -> None:
    if tuple(found) != tuple(shape):
        raise MismatchError(
            "image-size-differs",
            "cannot draw masks on another image",
            item=f"{str(path)!r} has {as_text(tuple(found))} pixels, the masks of sample {sample!r} {as_text(shape)}",
            fix="pass the images that the masks were made for, or leave --images out",
        )
