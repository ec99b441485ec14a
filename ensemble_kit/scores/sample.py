"""`FusedSample`: one sample of fused members, decided and counted exactly: of any rank, with or without windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import UsageError
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.once import once
from ensemble_kit.scores import exclusive, layouts, leads, space
from ensemble_kit.scores.inputs import check_one_image
from ensemble_kit.scores.level_counts import LevelCounts
from ensemble_kit.scores.open_pixels import VOID, truth_of
from ensemble_kit.scores.raster import Raster, Source
from ensemble_kit.scores.sources import GridSource, MemberSource, finest
from ensemble_kit.spec.fusion import Upsample
from ensemble_kit.spec.mean import LEVELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.kernels.arguments import Scoring
    from ensemble_kit.kernels.space import Certain, Space
    from ensemble_kit.scores.inputs import Inputs

_SCORES = 1 << 18
"""Scores of undecided pixels that are evaluated at a time."""


class FusedSample:
    """One sample of fused members; nothing is read or fused yet.

    Every pixel is evaluated row by row by `kernels.rows`, of a volume a few slices at a time, so that memory does not
    depend on its depth. Subclasses decide most pixels without; see `scores.fusing`.
    """

    def __init__(self, inputs: Inputs, sample: str, upsample: Upsample | None = None) -> None:
        inputs = inputs.heard
        self.inputs, self.sample = inputs, sample
        self._own = [m.placement(sample) for m in inputs.members]
        self.image = self._own[0].image
        check_one_image(inputs, sample, self._own)
        self._upsample: Upsample = upsample or inputs.fusion.upsample
        self.decided: dict[int, tuple[int, Runs]] = {}
        """The lowest level at which each class was decided so far, by its number, and the mask."""

    @property
    def rows(self) -> int:
        """Rows of pixels, of a volume through all its slices."""
        return math.prod(self.image[:-1])

    @property
    def covered(self) -> bool:
        """Whether some member has a say at every pixel."""
        return self._boxes.cover

    @once
    def _boxes(self) -> space.Boxes:
        return space.boxes([p.solid for p in self._own])

    @once
    def _sources(self) -> list[MemberSource]:
        upsample = self._upsample
        return [MemberSource(self.inputs, m, self.sample, p, upsample) for m, p in enumerate(self._own)]

    @once
    def _scoring(self) -> Scoring:
        fusion = self.inputs.fusion
        how = fusion.temperatures, fusion.mean, self._upsample == "logits"
        return layouts.scoring(layouts.Recipe(self._sources[0].kind, *how))

    @once
    def _by_member(self) -> Raster:
        """The members over the image's pixels, whatever is interpolated."""
        from ensemble_kit.kernels import tables

        table = tables.exponentials()  # empty or not, it is read-only: one type
        table = table if self._sources[0].kind == "shares" else table[:0]
        return Raster(self._sources, self._scoring, table, self._laid_out(self._sources, self._weights(self._boxes)))

    @once
    def _raster(self) -> Raster:
        """The members, or with upsample="scores" each set of members fused on its grid, over the image's pixels."""
        if self._upsample == "logits":
            return self._by_member
        from ensemble_kit.kernels import tables

        fusion, cut = self.inputs.fusion, self._boxes
        weights = self._weights(cut)
        sources = [self._on_grid(which, weights[s]) for s, which in enumerate(cut.members)]
        scoring = layouts.scoring(
            layouts.Recipe("scores", (1.0,) * len(sources), fusion.mean, interpolate_members=False)
        )
        own = 65536 * np.eye(len(sources), dtype=np.int64)[:, None] * weights.any(axis=2, keepdims=True)
        return Raster(sources, scoring, tables.exponentials()[:0], self._laid_out(sources, own))

    def _laid_out(self, sources: Sequence[Source], weights: NDArray[np.int64]) -> Space:
        return space.of_image([s.placement for s in sources], self._boxes, weights, space.outside(self.inputs))

    def _weights(self, cut: space.Boxes) -> NDArray[np.int64]:
        """Weights of each set of members, int64 (sets, C, M)."""
        return np.array([self.inputs.fusion.among(which) for which in cut.members], np.int64)

    def _on_grid(self, which: Sequence[int], weights: NDArray[np.int64]) -> Source:
        """Fuse a set of members on the grid of the finest."""
        fusion, members = self.inputs.fusion, [self._sources[m] for m in which]
        temperatures = tuple([fusion.temperatures[m] for m in which])
        recipe = layouts.Recipe(members[0].kind, temperatures, fusion.mean, interpolate_members=False)
        return GridSource(members, layouts.scoring(recipe), np.take(weights, which, axis=1))

    def values(self, first_row: int, stop_row: int) -> NDArray[np.int64]:
        """Evaluate rows: int64 (C, rows, W), the fused level × 65536 before it is rounded (rule 10).

        It is 0 where no member has a say, but that of a class that is the background there.
        """
        from ensemble_kit.kernels import rows as kernels

        out = np.empty((len(self.inputs.classes), stop_row - first_row, self.image[-1]), np.int64)
        for first, stop in self._raster.slabs(first_row, stop_row):
            laid = self._raster.laid(first, stop)
            found = kernels.values(first, stop, *laid.arguments)
            np.maximum(found, 0, out=out[:, first - first_row : stop - first_row])
        return out

    def open_values(
        self, truth: ManyRuns, void: Runs, ratio: int, decided: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint16]]]:
        """Evaluate the pixels that are not void, some rows at a time, but for those that no factor can change.

        Pixels that are the true class's at any factors within 2^ratio of each other may be counted instead.

        Parameters
        ----------
        truth : masks of all classes, none over another.
        decided : int64 (C + 1, C), pixels by truth and winner; added to.

        Yields
        ------
        int64 (C, n), as `values`, and uint16 (n,), their truth: the number of classes where they have none.

        Raises
        ------
        MismatchError
            Pixels where no member has a say, and no class is called background.
        """
        from ensemble_kit.kernels import settled

        C, width = len(self.inputs.classes), self.image[-1]
        if not self.covered and space.outside(self.inputs).max() < 0:
            raise space.undecided_outside(self.sample, "cannot tune factors")
        step, certain = max(1, _SCORES // (C * width)), leads.to_keep(C, ratio, self.inputs.fusion.mean.of_logits)
        for begin, end in self._raster.slabs():
            laid = self._raster.laid(begin, end)
            leading = laid.leading(self._bounds_of_leads)
            for first in range(begin, end, step):
                stop = min(first + step, end)
                labels, counts = truth_of(truth, void, first, stop, width)
                labels[~counts] = VOID
                drawn = labels.reshape(-1, width)
                yield settled.open_values(first, stop, leading, certain, drawn, VOID, *laid.arguments, decided)

    def disagreement(self, first_row: int, stop_row: int, most_bits: float) -> tuple[NDArray[np.uint16], ...]:
        """Evaluate how far members disagree in some rows, as `kernels.disagreement` returns it."""
        from ensemble_kit.kernels import disagreement as kernels
        from ensemble_kit.kernels import tables

        joint, most = self.inputs.activation == "softmax", int(most_bits * 2**40)
        table, parts = tables.entropies(not joint), []
        for first, stop in self._by_member.slabs(first_row, stop_row):
            laid = self._by_member.laid(first, stop)  # keeps the codes alive
            parts.append(kernels.disagreement(first, stop, table, most, joint, *laid.arguments))
        variance, information = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
        return variance, information

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

        of_shares = self.inputs.fusion.mean.of_logits and self.inputs.activation == "softmax"
        shares = tables.exponentials() if of_shares else tables.exponentials()[:0]
        rule, own = self._scales(factors), least or 0
        lead = leads.lead_of_share(own, len(factors)) if of_shares and own else 0
        certain = leads.to_win(*rule, 0 if of_shares else own, LEVELS if lead is None else lead)
        return self._by_slab(kernels.winners, certain, *rule, own, shares)

    def _scales(self, factors: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What values are multiplied by, and what is added, int64 (C,)."""
        from ensemble_kit.kernels import tables

        scales = np.array(factors, np.int64)
        if self.inputs.fusion.mean.of_logits:
            return np.ones_like(scales), tables.offsets(scales)
        return scales, np.zeros_like(scales)

    def claims(self, levels: Sequence[int]) -> ManyRuns:
        """Give each pixel to the class of the largest value among those whose level reaches theirs, if any (rule 10).

        Parameters
        ----------
        levels : one for each of `inputs.classes`; 65536 is never reached.
        """
        from ensemble_kit.kernels import rows as kernels

        wanted = np.array(levels, np.int64)
        certain = leads.to_settle(wanted, np.arange(len(levels)), len(levels), alone=True)
        return self._by_slab(kernels.claims, certain, wanted)

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
        from ensemble_kit.kernels import bounded_rows, rows

        wanted = np.array(tuple(levels), np.int64), np.array(tuple(levels.values()), np.int64)
        if not self._raster.alone:
            certain = leads.to_settle(wanted[1], wanted[0], len(self.inputs.classes))
            return self._by_slab(rows.decide, certain, *wanted)
        parts = []
        for first, stop in self._raster.slabs():
            laid = self._raster.laid(first, stop)  # keeps the codes alive
            parts.append(ManyRuns(*bounded_rows.decide(first, stop, *wanted, *self._raster.bounded(laid))))
        return ManyRuns.continued(parts)

    @once
    def _bounds_of_leads(self) -> leads.Bounds | None:
        """What leads of cells tell of pixels, if anything."""
        kind, scoring = self._sources[0].kind, self._scoring
        return leads.bounds_of(self.inputs, kind, scoring) if self._raster.all_heard else None

    def _by_slab(self, decide: Callable[..., tuple[NDArray[np.int64], ...]], certain: Certain, *given: Any) -> ManyRuns:
        """Decide slab by slab with a kernel of `kernels.rows`, and join the runs."""
        parts = []
        for first, stop in self._raster.slabs():
            laid = self._raster.laid(first, stop)
            leading = laid.leading(self._bounds_of_leads)
            parts.append(ManyRuns(*decide(first, stop, *given, leading, certain, *laid.arguments)))
        return ManyRuns.continued(parts)

    def counts(self, bands: Mapping[int, tuple[int, int]], truth: Sequence[Runs] | None = None) -> LevelCounts:
        """Count pixels by effective level, in the bands `{class number: (low, high)}`, in one call.

        Parameters
        ----------
        truth : for each of these classes, the mask whose pixels are counted, too; without, there is none.
        """
        truth = [Runs.trusted(_NONE, self.image)] * len(bands) if truth is None else truth
        wanted = np.array([(c, *band) for c, band in bands.items()], np.int64)
        return LevelCounts.joined(list(exclusive.counts(wanted, ManyRuns.of(truth), self._raster)))

    def pixels(self, c: int, runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
        """Evaluate the pixels of a mask one by one: their positions, ascending, and effective levels of class `c`."""
        return self.pixels_of([c], [runs])[0]

    def pixels_of(
        self, classes: Sequence[int], masks: Sequence[Runs]
    ) -> list[tuple[NDArray[np.int64], NDArray[np.uint16]]]:
        """Evaluate pixels of several classes as `pixels` does of one, each at those of its own mask."""
        from ensemble_kit.kernels import bounded_rows, rows

        wanted, all_masks, W = np.array(classes, np.int64), ManyRuns.of(masks), self.image[-1]
        parts: list[list[tuple[NDArray[np.int64], NDArray[np.uint16]]]] = [[_NO_PIXELS] for _ in classes]
        for first, stop in self._raster.slabs():
            own = all_masks.between(first * W, stop * W)
            if own.starts.size:
                laid = self._raster.laid(first, stop)
                if self._raster.alone:
                    members, scoring, _, pixels = laid.arguments
                    cuts, *found = bounded_rows.levels_within(wanted, *own, members, scoring, pixels)
                else:
                    cuts, *found = rows.levels_within(first, stop, wanted, *own, *laid.arguments)
                for part, a, b in zip(parts, *(cuts[k : len(parts) + k].tolist() for k in (0, 1)), strict=True):
                    part.append((found[0][a:b], found[1][a:b]))
        return [tuple(np.concatenate(each) for each in zip(*part, strict=True)) for part in parts]  # type: ignore[misc]

    def levels(self) -> NDArray[np.uint16]:
        """Fuse all classes on the finest grid, uint16 (C, *grid), as upsample="scores" does before it interpolates.

        Raises
        ------
        UsageError
            Members of several windows, for which no grid lies over all pixels.
        """
        if len(self._boxes.members) > 1:
            raise UsageError(
                "windows-differ",
                "cannot fuse members on one grid",
                item=f"sample {self.sample!r}: its members saw different windows of the image",
                fix="decide at the image's size (ensk vote, Ensemble.vote), where each is fused in its window",
            )
        kept = self if self._upsample == "scores" else type(self)(self.inputs, self.sample, "scores")
        place = finest(self._own)
        source = kept._on_grid(range(len(self._own)), kept._weights(kept._boxes)[0])
        out = np.zeros((len(self.inputs.classes), *place.grid), np.uint16)
        cells = source.codes(0, source.placement.box.shape[0])
        out[:, *place.box.slices] = cells if len(place.grid) == 3 else cells[:, 0]
        return out


_NONE = np.zeros(0, np.int64), np.zeros(0, np.int64)
_NO_PIXELS = np.zeros(0, np.int64), np.zeros(0, np.uint16)
