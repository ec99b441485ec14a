"""`ImageSample`: one sample of members that saw a whole image of two axes, laid out for the fast kernels."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.once import once
from ensemble_kit.scores import argmax, class_maps, layouts
from ensemble_kit.scores.encoding import Encoded, encode
from ensemble_kit.scores.level_counts import LevelCounts
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.scores.sources import HeldSource
from ensemble_kit.spec.geometry import Placement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ensemble_kit.kernels.arguments import Axes, Members, Pixels, Scoring


class ImageSample(FusedSample):
    """One sample of members that all saw the whole image: what the kernels need, laid out once.

    Members of one grid are decided by `kernels.cells`, which reads their logits once and at memory speed; members
    whose grids differ, or an image narrower than the grid, by `kernels.block_walks`.
    """

    @once
    def _encoded(self) -> Encoded:
        return encode(self.inputs, self.sample, self._own, self._upsample)

    @once
    def _by_class(self) -> NDArray[np.int64]:
        """Weights, int64 (C, M)."""
        return layouts.weights(self.inputs.fusion.weights)

    @property
    def _placements(self) -> Sequence[Placement]:
        return self._encoded.placements

    @property
    def _recipe(self) -> layouts.Recipe:
        return self._encoded.recipe

    @once
    def _scoring(self) -> Scoring:
        return layouts.scoring(self._recipe)

    @once
    def _members(self) -> Members:
        codes, placements, order, _ = self._encoded
        return layouts.members(codes, placements, order, self._by_class)

    @once
    def _pixels(self) -> Pixels | None:
        """Pixels behind the cells that members share; None where their boxes differ, or are wider than the image."""
        first = self._placements[0].box.shape
        if any(p.box.shape != first for p in self._placements) or first[1] > self.image[1]:
            return None
        return layouts.pixels(first, self.image)

    @once
    def _axes(self) -> Axes:
        return layouts.axes(tuple([p.box.shape for p in self._placements]), self.image)

    @once
    def _bounds(self) -> dict[int, tuple[NDArray[np.uint16], NDArray[np.uint16]]]:
        return {}

    def _block_arguments(self, c: int) -> tuple[Any, ...]:
        """What `kernels.block_walks` takes of class `c`: the bounds of its blocks, then what evaluates its pixels."""
        from ensemble_kit.kernels import blocks

        laid = c, self._members, self._scoring, self._axes
        if c not in self._bounds:
            self._bounds[c] = blocks.block_bounds(*laid)
        return self._bounds[c], *laid

    @once
    def _sources(self) -> list[HeldSource]:  # type: ignore[override]
        codes, placements, order, recipe = self._encoded
        return [HeldSource(c, p, own, recipe.codes) for c, p, own in zip(codes, placements, order.T, strict=True)]

    def _on_grid(self, which: Sequence[int], weights: NDArray[np.int64]) -> HeldSource:  # noqa: ARG002 - all members
        levels = self.levels()
        return HeldSource(levels, self._placements[0], np.arange(len(levels)), "scores")

    @property
    def _of_shares(self) -> bool:
        return self._recipe.codes == "shares"

    def winners(self, factors: Sequence[int], least: int | None = None) -> ManyRuns:
        """Give each pixel to the class of the largest `F_c · w_c`, by the fast kernels where they hold."""
        weights, offsets = self._scales(factors)
        fast = argmax.contest(self.inputs, self.sample, self._own, self._upsample, weights, offsets, least or 0)
        if fast is not None:
            return argmax.winners(fast)
        of_shares = self.inputs.fusion.mean.of_logits and self.inputs.activation == "softmax"
        if self._of_shares or (least and of_shares):
            return super().winners(factors, least)
        rule = weights, offsets, least or 0
        if not self._recipe.interpolate_members:
            order = np.arange(len(weights))[:, None]
            return class_maps.winners([self.levels()], self._placements[:1], order, 65536 + 0 * order, None, *rule)
        maps, table = class_maps.of_members(self._encoded), self._scoring.score_table
        return class_maps.winners(maps, self._placements, self._encoded.order, self._by_class, table, *rule)

    def _decide(self, levels: Mapping[int, int]) -> ManyRuns:
        from ensemble_kit.kernels import block_walks, cells

        classes, wanted = np.array(tuple(levels), np.int64), np.array(tuple(levels.values()), np.int64)
        if self._of_shares:
            return super()._decide(levels)
        if self._pixels is None:
            decided = [block_walks.decide(level, *self._block_arguments(c)) for c, level in levels.items()]
            return ManyRuns.of([Runs.trusted(runs, self.image) for runs in decided])
        edges = tuple(levels.values())
        reach = layouts.reach(self._recipe, edges, edges)
        return ManyRuns(*cells.decide(classes, wanted, reach, self._members, self._scoring, self._pixels))

    def counts(self, bands: Mapping[int, tuple[int, int]], truth: Sequence[Runs] | None = None) -> LevelCounts:
        """Count pixels by effective level, by the fast kernels where they hold."""
        from ensemble_kit.kernels import block_walks, cell_counts

        truth = [Runs.empty(self.image)] * len(bands) if truth is None else truth
        if self._of_shares:
            return super().counts(bands, truth)
        if self._pixels is None:
            return LevelCounts.joined(
                [
                    block_walks.count(*bands[c], t.starts, t.ends, *self._block_arguments(c))
                    for c, t in zip(bands, truth, strict=True)
                ]
            )
        edges, kind = tuple(bands.values()), np.uint32 if self.image[0] * self.image[1] < 1 << 32 else np.int64
        return LevelCounts(
            *cell_counts.count(
                np.array(tuple(bands)),
                np.array(edges),
                *ManyRuns.of(truth),
                np.zeros(2 * cell_counts.HIT, kind),
                layouts.reach(self._recipe, tuple([low for low, _ in edges]), tuple([high for _, high in edges])),
                self._members,
                self._scoring,
                self._pixels,
            )
        )

    def pixels_of(
        self, classes: Sequence[int], masks: Sequence[Runs]
    ) -> list[tuple[NDArray[np.int64], NDArray[np.uint16]]]:
        """Evaluate pixels of several classes, each at those of its own mask, by the fast kernels where they hold."""
        from ensemble_kit.kernels import sizes

        if self._of_shares:
            return super().pixels_of(classes, masks)
        wanted = np.array(classes, np.int64), *ManyRuns.of(masks)
        cuts, positions, levels = sizes.levels_within(*wanted, self._members, self._scoring, self._axes)
        return [(positions[a:b], levels[a:b]) for a, b in pairwise(cuts.tolist())]

    def levels(self) -> NDArray[np.uint16]:
        """Fuse all classes on the finest grid, uint16 (C, h, w)."""
        from ensemble_kit.kernels import fuse

        if self._recipe.interpolate_members:
            return ImageSample(self.inputs, self.sample, "scores").levels()
        out = np.empty((len(self._by_class), *self._placements[0].grid), np.uint16)
        scored = self._recipe.codes == "scores" and out[0].size >= fuse.LANES
        for c, weights in enumerate(self._by_class):
            class_maps = [codes[k] for codes, k in zip(self._encoded.codes, self._encoded.order[c], strict=True)]
            addresses = np.array([m.__array_interface__["data"][0] for m in class_maps], np.int64)
            if scored:
                fuse.fuse_scores(addresses, weights, out[c].reshape(-1))
            else:
                fuse.fuse_grid(addresses, weights, self._scoring, out[c].reshape(-1))
        return out
