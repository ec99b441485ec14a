"""`FusedSample`: one sample of fused members, laid out for the kernels that decide and count it."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import MismatchError
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores import argmax, class_maps, exclusive, layouts
from ensemble_kit.scores.encoding import Encoded, encode
from ensemble_kit.spec.fusion import Upsample
from ensemble_kit.spec.geometry import Placement, as_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ensemble_kit.kernels.arguments import Axes, Members, Pixels, Scoring
    from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.level_counts import LevelCounts


class FusedSample:
    """One sample of fused members: what the kernels need, laid out once; nothing is fused yet.

    Members of one grid are decided by `kernels.cells`, which reads their logits once and at memory speed; members
    whose grids differ, or an image narrower than the grid, by `kernels.block_walks`.
    """

    def __init__(self, inputs: Inputs, sample: str, upsample: Upsample | None = None) -> None:
        inputs = inputs.heard
        fusion, members = inputs.fusion, inputs.members
        self.inputs, self.sample = inputs, sample
        self._own = [m.placement(sample) for m in members]
        H, W = self._own[0].image
        self.image = H, W
        for member, placement in zip(members, self._own, strict=True):
            if placement.image != self.image:
                raise MismatchError(
                    "image-size-differs",
                    "cannot fuse members that saw images of different sizes",
                    item=f"sample {sample!r}: {as_text(self.image)} in {members[0].member!r}, "
                    f"{as_text(placement.image)} in {member.member!r}",
                    fix="dump both members from the same images",
                )
        self._upsample: Upsample = upsample or fusion.upsample
        self.decided: dict[int, tuple[int, Runs]] = {}
        """The lowest level at which each class was decided so far, by its number, and the mask."""
        self._weights = layouts.weights(fusion.weights)

    @cached_property
    def _encoded(self) -> Encoded:
        return encode(self.inputs, self.sample, self._own, self._upsample)

    @property
    def _placements(self) -> Sequence[Placement]:
        return self._encoded.placements

    @property
    def _recipe(self) -> layouts.Recipe:
        return self._encoded.recipe

    @cached_property
    def _scoring(self) -> Scoring:
        return layouts.scoring(self._recipe)

    @cached_property
    def _members(self) -> Members:
        codes, placements, order, _ = self._encoded
        return layouts.members(codes, placements, order, self._weights)

    @cached_property
    def _pixels(self) -> Pixels | None:
        """Pixels behind the cells that members share; None where their boxes differ, or are wider than the image."""
        first = self._placements[0].box.shape
        if any(p.box.shape != first for p in self._placements) or first[1] > self.image[1]:
            return None
        return layouts.pixels(first, self.image)

    @cached_property
    def _axes(self) -> Axes:
        return layouts.axes(tuple([p.box.shape for p in self._placements]), self.image)

    @cached_property
    def _bounds(self) -> dict[int, tuple[NDArray[np.uint16], NDArray[np.uint16]]]:
        return {}

    def _block_arguments(self, c: int) -> tuple[Any, ...]:
        """What `kernels.block_walks` takes of class `c`: the bounds of its blocks, then what evaluates its pixels."""
        from ensemble_kit.kernels import blocks

        laid = c, self._members, self._scoring, self._axes
        if c not in self._bounds:
            self._bounds[c] = blocks.block_bounds(*laid)
        return self._bounds[c], *laid

    @cached_property
    def _whole(self) -> tuple[Any, ...]:
        """What `kernels.rows` takes: members, scoring, the exponentials that make shares, axes."""
        from ensemble_kit.kernels import tables

        table = tables.exponentials() if self._of_shares else np.empty(0, np.int64)
        return self._members, self._scoring, table, self._axes

    @property
    def _of_shares(self) -> bool:
        return self._recipe.codes == "shares"

    def values(self, first_row: int, stop_row: int) -> NDArray[np.int64]:
        """Evaluate rows of the image: int64 (C, rows, W), the fused level × 65536 before it is rounded (rule 10)."""
        from ensemble_kit.kernels import rows as kernels

        return np.asarray(kernels.values(first_row, stop_row, *self._whole))

    def disagreement(self, first_row: int, stop_row: int, most_bits: float) -> tuple[NDArray[np.uint16], ...]:
        """Evaluate how far members disagree in rows of the image, as `kernels.disagreement` returns it."""
        from ensemble_kit.kernels import disagreement as kernels
        from ensemble_kit.kernels import tables

        joint, most = self.inputs.activation == "softmax", int(most_bits * 2**40)
        laid = tables.entropies(not joint), most, joint, *self._whole
        variance, information = kernels.disagreement(first_row, stop_row, *laid)
        return variance, information

    def leaders(self, ratio: int) -> tuple[NDArray[np.int16], ...]:
        """Find for each member the class that has 2^ratio times any other's score in each cell, or -1."""
        from ensemble_kit.kernels import settled

        margin = exclusive.margin(self.inputs, self._recipe.codes, ratio)
        found = tuple([np.full(last + 1, -1, np.int16) for last in self._axes.last])
        for m, out in enumerate(found):
            if margin is not None:
                settled.leaders(m, self._members, margin, out)
        return found

    def open_values(
        self,
        first_row: int,
        stop_row: int,
        leaders: tuple[NDArray[np.int16], ...],
        truth: NDArray[np.uint16],
        void: int,
        decided: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
        """Evaluate the pixels of some rows, but those that all members give to their true class, which are counted.

        Parameters
        ----------
        leaders : as `leaders` returns them.
        truth : uint16 (H, W), the class of every pixel, their number where there is none.
        void : the truth of pixels that do not count.
        decided : int64 (C + 1, C), pixels by truth and winner; added to.

        Returns
        -------
        int64 (C, n), as `values`, and uint16 (n,), their truth.
        """
        from ensemble_kit.kernels import settled

        values, labels = settled.open_values(first_row, stop_row, leaders, truth, void, *self._whole, decided)
        return values, labels

    def winners(self, factors: Sequence[int], least: int | None = None) -> ManyRuns:
        """Give each pixel to the class of the largest `F_c · w_c`, ties to the first one (rule 10).

        Parameters
        ----------
        factors : integers, 65536 for 1, one for each of `inputs.classes`.
        least : level that the winner must reach, or the pixel has no class; of exclusive classes with mean="logit"
            that of its share of the fused logits.

        Returns
        -------
        ManyRuns
            The masks of all classes, each pixel in at most one.
        """
        from ensemble_kit.kernels import rows as kernels
        from ensemble_kit.kernels import tables

        scales, of_logits = np.array(factors, np.int64), self.inputs.fusion.mean.of_logits
        weights, offsets = (
            (np.ones_like(scales), tables.offsets(scales)) if of_logits else (scales, np.zeros_like(scales))
        )
        fast = argmax.contest(self.inputs, self.sample, self._own, self._upsample, weights, offsets, least or 0)
        if fast is not None:
            return argmax.winners(fast)
        of_shares = of_logits and self.inputs.activation == "softmax"
        if self._of_shares or (least and of_shares):
            shares = tables.exponentials() if of_shares else np.empty(0, np.int64)
            return ManyRuns(*kernels.winners(weights, offsets, least or 0, shares, *self._whole))
        rule = weights, offsets, least or 0
        if not self._recipe.interpolate_members:
            order = np.arange(len(weights))[:, None]
            return class_maps.winners([self.levels()], self._placements[:1], order, 65536 + 0 * order, None, *rule)
        maps, table = class_maps.of_members(self._encoded), self._scoring.score_table
        return class_maps.winners(maps, self._placements, self._encoded.order, self._weights, table, *rule)

    def claims(self, levels: Sequence[int]) -> ManyRuns:
        """Give each pixel to the class of the largest value among those whose level reaches theirs, if any (rule 10).

        Parameters
        ----------
        levels : one for each of `inputs.classes`; 65536 is never reached.
        """
        from ensemble_kit.kernels import rows as kernels

        return ManyRuns(*kernels.claims(np.array(levels, np.int64), *self._whole))

    def runs(self, c: int, level: int) -> Runs:
        """Decide class number `c`: on iff the pixel's value is at least `level`."""
        return self.decide({c: level}).mask(0, self.image)

    def decide(self, levels: Mapping[int, int]) -> ManyRuns:
        """Decide several classes, `{class number: level}`, in one call; the masks are in this order."""
        found = self._decide(levels)
        for k, (c, level) in enumerate(levels.items()):
            if c not in self.decided or level < self.decided[c][0]:
                self.decided[c] = level, found.mask(k, self.image)
        return found

    def _decide(self, levels: Mapping[int, int]) -> ManyRuns:
        from ensemble_kit.kernels import block_walks, cells
        from ensemble_kit.kernels import rows as kernels

        classes, wanted = np.array(tuple(levels), np.int64), np.array(tuple(levels.values()), np.int64)
        if self._of_shares:
            return ManyRuns(*kernels.decide(classes, wanted, *self._whole))
        if self._pixels is None:
            decided = [block_walks.decide(level, *self._block_arguments(c)) for c, level in levels.items()]
            return ManyRuns.of([Runs.trusted(runs, self.image) for runs in decided])
        edges = tuple(levels.values())
        reach = layouts.reach(self._recipe, edges, edges)
        return ManyRuns(*cells.decide(classes, wanted, reach, self._members, self._scoring, self._pixels))

    def counts(self, bands: Mapping[int, tuple[int, int]], truth: Sequence[Runs] | None = None) -> LevelCounts:
        """Count pixels by effective level, in the bands `{class number: (low, high)}`, in one call.

        Parameters
        ----------
        truth : for each of these classes, the mask whose pixels are counted, too; without, there is none.
        """
        from ensemble_kit.kernels import block_walks, cell_counts

        truth = [Runs.empty(self.image)] * len(bands) if truth is None else truth
        if self._of_shares:
            wanted = np.array([(c, *band) for c, band in bands.items()], np.int64)
            return LevelCounts.joined(list(exclusive.counts(wanted, ManyRuns.of(truth), self._whole)))
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
                np.zeros((65536, 2), np.int64),
                np.empty(0, kind),
                layouts.reach(self._recipe, tuple([low for low, _ in edges]), tuple([high for _, high in edges])),
                self._members,
                self._scoring,
                self._pixels,
            )
        )

    def pixels(self, c: int, runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
        """Evaluate the pixels of a mask one by one: their positions, ascending, and effective levels of class `c`."""
        return self.pixels_of([c], [runs])[0]

    def pixels_of(
        self, classes: Sequence[int], masks: Sequence[Runs]
    ) -> list[tuple[NDArray[np.int64], NDArray[np.uint16]]]:
        """Evaluate pixels of several classes as `pixels` does of one, each at those of its own mask."""
        from ensemble_kit.kernels import rows as kernels
        from ensemble_kit.kernels import sizes

        wanted = np.array(classes, np.int64), *ManyRuns.of(masks)
        found = (
            kernels.levels_within(*wanted, *self._whole)
            if self._of_shares
            else sizes.levels_within(*wanted, self._members, self._scoring, self._axes)
        )
        cuts, positions, levels = found
        return [(positions[a:b], levels[a:b]) for a, b in pairwise(cuts.tolist())]

    def levels(self) -> NDArray[np.uint16]:
        """Fuse all classes on the finest grid, uint16 (C, h, w), as upsample="scores" does before it interpolates."""
        from ensemble_kit.kernels import fuse

        if self._recipe.interpolate_members:
            return FusedSample(self.inputs, self.sample, "scores").levels()
        out = np.empty((len(self._weights), *self._placements[0].grid), np.uint16)
        scored = self._recipe.codes == "scores" and out[0].size >= fuse.LANES
        for c, weights in enumerate(self._weights):
            class_maps = [codes[k] for codes, k in zip(self._encoded.codes, self._encoded.order[c], strict=True)]
            addresses = np.array([m.__array_interface__["data"][0] for m in class_maps], np.int64)
            if scored:
                fuse.fuse_scores(addresses, weights, out[c].reshape(-1))
            else:
                fuse.fuse_grid(addresses, weights, self._scoring, out[c].reshape(-1))
        return out
