"""`open_sample`: one sample of an ensemble, in the fastest way that holds for it; every way gives the same bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensemble_kit.errors import MismatchError
from ensemble_kit.scores.image_sample import ImageSample
from ensemble_kit.scores.mosaics import mosaic_of
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.scores.volume_sample import VolumeSample
from ensemble_kit.scores.windowed import WindowedSample

if TYPE_CHECKING:
    from ensemble_kit.scores.inputs import Inputs
    from ensemble_kit.spec.fusion import Upsample


def open_sample(inputs: Inputs, sample: str, upsample: Upsample | None = None) -> FusedSample:
    """Open a sample for decisions and counts, without reading or fusing anything yet.

    Parameters
    ----------
    upsample : what is interpolated from grid to image; default: as the fusion has it.

    Raises
    ------
    MismatchError
        Members that saw images of different sizes, or images and volumes.
    """
    if is_whole_image(inputs, sample):
        return ImageSample(inputs, sample, upsample)
    places = [m.placement(sample) for m in inputs.heard.members]
    windows = {p.window for p in places}
    if len(windows) == 1 and None not in windows:
        return WindowedSample(inputs, sample, upsample, open_sample)
    for member in inputs.heard.members:
        if mosaic_of(member, sample) is not None:
            item = f"sample {sample!r}: {member.member!r} holds tiles of it, beside members that saw other windows"
            fix = "leave the members that saw windows out"
            raise MismatchError("whole-images-only", "cannot fuse tiles of a scene with windows", item=item, fix=fix)
    whole_volumes = windows == {None} and all(len(p.image) == 3 for p in places)
    return (VolumeSample if whole_volumes else FusedSample)(inputs, sample, upsample)


def is_whole_image(inputs: Inputs, sample: str) -> bool:
    """Tell whether a sample is an image of two axes that all members saw whole."""
    places = [m.placement(sample) for m in inputs.heard.members]
    return all(len(p.image) == 2 and p.window is None and not p.axes for p in places)
