"""`VolumeSample`: one sample of members that all saw a whole volume, most voxels of which are decided by bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensemble_kit.scores import volume_argmax, volume_thresholds
from ensemble_kit.scores.sample import FusedSample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ensemble_kit.masks.packed import ManyRuns


class VolumeSample(FusedSample):
    """One sample of volumes: a few slices of cells are read at a time, and no score of a whole slice is made.

    Exclusive classes are decided by `kernels.volume_argmax`, overlapping ones of members that share a grid by
    `kernels.cubes`; what these do not hold for is evaluated voxel by voxel.
    """

    def winners(self, factors: Sequence[int], least: int | None = None) -> ManyRuns:
        """Give each voxel to the class of the largest `F_c · w_c`, ties to the first one; see `FusedSample`."""
        given = self._own, self._upsample, *self._scales(factors)
        laid = volume_argmax.contest(self.inputs, self.sample, *given, least or 0)
        return super().winners(factors, least) if laid is None else volume_argmax.winners(laid)[0]

    def _decide(self, levels: Mapping[int, int]) -> ManyRuns:
        laid = volume_thresholds.lay(self.inputs, self.sample, self._own, self._upsample)
        return super()._decide(levels) if laid is None else volume_thresholds.decide(laid, levels)
