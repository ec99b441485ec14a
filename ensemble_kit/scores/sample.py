"""`FusedSample`: one sample of an ensemble, laid out for the kernels that decide and count it."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ensemble_kit.errors import MismatchError
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.fusion import Upsample
from ensemble_kit.spec.geometry import Shape, as_text
from ensemble_kit.spec.mean import LOGIT, Mean, levels_of_q

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ensemble_kit.scores.inputs import Inputs

Scale = Literal["levels", "q", "ready"]
"""What a code becomes: the level of an fp16 logit, its `q`, or what it is already (softmax, resampled scores)."""


class FusedSample:
    """One sample of fused members: what the kernels need, laid out once; nothing is fused yet.

    Members of one grid (`_cells`) are decided by `kernels.cells`, which reads their logits once and at memory speed;
    members whose grids differ, or an image narrower than the grid, by the blocks of `kernels.fuse`.
    """

    def __init__(self, inputs: Inputs, sample: str, upsample: Upsample | None = None) -> None:
        fusion, members = inputs.fusion, inputs.members
        self.inputs, self.sample = inputs, sample
        self._placements = [m.placement(sample) for m in members]
        H, W = self._placements[0].image
        self.image = H, W
        for member, place in zip(members, self._placements, strict=True):
            if place.image != self.image:
                raise MismatchError(
                    "image-size-differs",
                    "cannot fuse members that saw images of different sizes",
                    item=f"sample {sample!r}: {as_text(self.image)} in {members[0].member!r}, "
                    f"{as_text(place.image)} in {member.member!r}",
                    fix="dump both members from the same images",
                )
        self._interpolate_members = (upsample or fusion.upsample) == "logits"
        self._q_becomes_level, self._mean = self._interpolate_members and not fusion.mean.of_logits, fusion.mean
        self._temperatures = fusion.temperatures
        own_classes = tuple([m.classes for m in members])
        if inputs.activation == "softmax":
            self._scale: Scale = "ready"
            power, order = fusion.mean.scale, _order(own_classes, inputs.classes).T
            self._codes = [
                power[_softmax(m.read(sample), t)[own]]
                for m, t, own in zip(members, fusion.temperatures, order, strict=True)
            ]
            own_classes = (inputs.classes,) * len(members)
        else:
            self._scale = "q" if self._interpolate_members or fusion.mean.of_logits else "levels"
            self._codes = [np.ascontiguousarray(m.read(sample)).view(np.uint16) for m in members]
        self._order, self._weights = _order(own_classes, inputs.classes), _weights(fusion.weights)
        if not self._interpolate_members and any(
            (p.grid, p.box) != (self._placements[0].grid, self._placements[0].box) for p in self._placements
        ):
            self._to_finest_grid()
        self._scales = _scales(self._scale, self._temperatures, self._q_becomes_level, self._mean)

    def _codes_from(self, low: tuple[int, ...], high: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return _codes_from(self._scale, self._temperatures, self._q_becomes_level, self._mean, low, high)

    def _to_finest_grid(self) -> None:
        """Interpolate every member's scores to the box of the member with the most cells (docs/concepts.md, rule 3)."""
        from ensemble_kit.kernels import fuse, tables

        scales = _scales(self._scale, self._temperatures, False, self._mean)
        finest = max(self._placements, key=lambda p: p.grid[0] * p.grid[1])  # the first of equals: names are sorted
        box, moved = finest.box, []
        for m, (codes, placement, order) in enumerate(zip(self._codes, self._placements, self._order.T, strict=True)):
            out = np.zeros((len(order), *finest.grid), np.uint16)
            inside = out[:, *box.slices]
            own = placement.box
            rows, row_fractions = tables.axis(own.shape[0], box.shape[0])
            cols, col_fractions = tables.axis(own.shape[1], box.shape[1])
            for k, c in enumerate(order):
                cells = scales.tables[scales.table_of[m]][codes[c][own.slices]]
                fuse.resample(
                    np.ascontiguousarray(cells),
                    rows,
                    row_fractions,
                    own.shape[0] - 1,
                    cols,
                    col_fractions,
                    own.shape[1] - 1,
                    inside[k],
                )
            moved.append(out)
        self._codes, self._scale = moved, "ready"
        self._placements = [finest] * len(moved)
        self._order = np.repeat(np.arange(len(self._order))[:, None], len(moved), axis=1)

    @cached_property
    def _laid(self) -> tuple[Any, ...] | None:
        """What the kernels of one grid take of every class; where members' grids differ, or are too wide, None."""
        first = self._placements[0].box.shape
        if any(p.box.shape != first for p in self._placements) or first[1] > self.image[1]:
            return None
        # a sample is told where its members lie, and `self._codes` keeps the memory alive
        class_maps = np.array(
            [
                (
                    c.__array_interface__["data"][0] + 2 * p.offset,
                    2 * p.grid[0] * p.grid[1],
                    p.grid[1],
                )
                for c, p in zip(self._codes, self._placements, strict=True)
            ],
            np.int64,
        )
        return (
            class_maps,
            self._order,
            self._weights,
            *self._scales.arrays,
            *_pixels(first, self.image),
            self._interpolate_members,
        )

    def runs(self, c: int, level: int) -> Runs:
        """Decide class number `c`: on iff the pixel's value is at least `level`."""
        return self.decide({c: level}).mask(0, self.image)

    def decide(self, levels: Mapping[int, int]) -> ManyRuns:
        """Decide several classes, `{class number: level}`, in one call; the masks are in this order."""
        from ensemble_kit.kernels import cells, fuse

        if self._laid is None:
            blocks = self._blocks
            decided = [fuse.threshold_runs(level, *blocks.plan(c)) for c, level in levels.items()]
            return ManyRuns.of([Runs.trusted(runs, self.image) for runs in decided])
        wanted = tuple(levels.values())
        return ManyRuns(
            *cells.decide(
                np.array(tuple(levels), np.int64),
                np.array(wanted, np.int64),
                *self._codes_from(wanted, wanted),
                *self._laid,
            )
        )

    def counts(self, bands: Mapping[int, tuple[int, int]], truth: Sequence[Runs] | None = None) -> LevelCounts:
        """Count pixels by effective level, in the bands `{class number: (low, high)}`, in one call.

        Parameters
        ----------
        truth : for each of these classes, the mask whose pixels are counted, too; without, there is none.
        """
        from ensemble_kit.kernels import cell_counts

        truth = [Runs.empty(self.image)] * len(bands) if truth is None else truth
        if self._laid is None:
            return LevelCounts.joined([self._blocks.counts(c, t, *bands[c]) for c, t in zip(bands, truth, strict=True)])
        edges, kind = tuple(bands.values()), np.uint32 if self.image[0] * self.image[1] < 1 << 32 else np.int64
        codes = self._codes_from(tuple([low for low, _ in edges]), tuple([high for _, high in edges]))
        return LevelCounts(
            *cell_counts.count(
                np.array(tuple(bands)),
                np.array(edges),
                *ManyRuns.of(truth),
                np.zeros((65536, 2), np.int64),
                np.empty(0, kind),
                *codes,
                *self._laid,
            )
        )

    def pixels(self, c: int, runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
        """Evaluate the pixels of a mask one by one: their positions, ascending, and effective levels of class `c`."""
        from ensemble_kit.kernels import sizes

        return sizes.levels_within(runs.starts, runs.ends, *self._blocks.evaluation(c))

    def levels(self) -> NDArray[np.uint16]:
        """Fuse all classes on the finest grid, uint16 (C, h, w); of a sample opened with upsample="scores"."""
        from ensemble_kit.kernels import fuse

        out = np.empty((len(self._weights), *self._placements[0].grid), np.uint16)
        tables = self._scales.by_member
        for c, weights in enumerate(self._weights):
            class_maps = [codes[k] for codes, k in zip(self._codes, self._order[c], strict=True)]
            addresses = np.array([p.__array_interface__["data"][0] for p in class_maps], np.int64)
            fuse.fuse_grid(addresses, tables, weights, out[c].reshape(-1))
        return out

    @cached_property
    def _blocks(self) -> _Blocks:
        return _Blocks(self)


class LevelCounts(NamedTuple):
    """Pixels and truth pixels of several classes of one sample, by level.

    Parameters
    ----------
    offsets : int64 (n + 1,); the k-th class has the entries `offsets[k]:offsets[k+1]` of the next three.
    levels : uint16, the levels of the band that occur, ascending within a class.
    pred, tp : uint32, for images of 2^32 pixels int64: pixels, and truth pixels, at that level and above.
    above, above_tp : int64 (n,), those above the band.
    """

    offsets: NDArray[np.int64]
    levels: NDArray[np.uint16]
    pred: NDArray[Any]
    tp: NDArray[Any]
    above: NDArray[np.int64]
    above_tp: NDArray[np.int64]

    def of(self, k: int) -> tuple[NDArray[np.uint16], NDArray[Any], NDArray[Any], int, int]:
        """Return the k-th class's levels, pred, tp, above and above_tp."""
        own = slice(self.offsets[k], self.offsets[k + 1])
        return self.levels[own], self.pred[own], self.tp[own], int(self.above[k]), int(self.above_tp[k])

    @classmethod
    def joined(cls, classes: Sequence[tuple[Any, ...]]) -> LevelCounts:
        """Join classes, each as `of` returns it."""
        levels, pred, tp, above, above_tp = zip(*classes, strict=True)
        return cls(
            np.cumsum([0, *(v.size for v in levels)]),
            np.concatenate(levels),
            np.concatenate(pred),
            np.concatenate(tp),
            np.array(above),
            np.array(above_tp),
        )


class _Blocks:
    """The arrays that the kernels of `fuse.py` take, for members of several grids."""

    def __init__(self, sample: FusedSample) -> None:
        from ensemble_kit.kernels import fuse, tables

        self._sample = sample
        H, W = sample.image
        boxes = [p.box for p in sample._placements]
        vertical = [tables.axis(b.shape[0], H) for b in boxes]
        horizontal = [tables.axis(b.shape[1], W) for b in boxes]
        self._rows, self._row_fractions = np.stack([i for i, _ in vertical]), np.stack([f for _, f in vertical])
        self._cols, self._col_fractions = np.stack([i for i, _ in horizontal]), np.stack([f for _, f in horizontal])
        self._last = np.array([(b.shape[0] - 1, b.shape[1] - 1) for b in boxes], np.int64)
        self._corners = np.array([2 * p.offset for p in sample._placements])
        self._sizes = np.array([2 * p.grid[0] * p.grid[1] for p in sample._placements])
        self._addresses = np.array([c.__array_interface__["data"][0] for c in sample._codes]) + self._corners
        self._widths = np.array([p.grid[1] for p in sample._placements])
        self._shape = (-(-H // fuse.BLOCK), -(-W // fuse.BLOCK))
        self._bounds: dict[int, tuple[NDArray[np.uint16], NDArray[np.uint16]]] = {}
        self._tables = sample._scales.by_member

    def counts(self, c: int, truth: Runs, low: int, high: int) -> tuple[Any, ...]:
        """Count one class, as `LevelCounts.of` returns it."""
        from ensemble_kit.kernels import fuse

        levels, pixels, hits, above, above_tp = fuse.level_counts(low, high, truth.starts, truth.ends, *self.plan(c))
        pred, tp = (v[::-1].cumsum()[::-1] + more for v, more in ((pixels, above), (hits, above_tp)))
        return levels, pred, tp, above, above_tp

    def _at(self, c: int) -> NDArray[np.int64]:
        """Where each member's box of class `c` begins."""
        return self._addresses + self._sample._order[c] * self._sizes

    def plan(self, c: int) -> tuple[Any, ...]:
        """Return what the walking kernels take for class `c`: bounds of its blocks, then the evaluation's arrays."""
        from ensemble_kit.kernels import fuse, tables

        s = self._sample
        if c not in self._bounds:
            lower, upper = np.empty(self._shape, np.uint16), np.empty(self._shape, np.uint16)
            fuse.block_bounds(
                self._at(c),
                self._widths,
                tables.key_masks(s._scales.float_codes),
                self._rows,
                self._cols,
                self._last,
                s._scales.bounds_by_member,
                s._weights[c],
                lower,
                upper,
            )
            self._bounds[c] = lower, upper
        return (*self._bounds[c], *self.evaluation(c))

    def evaluation(self, c: int) -> tuple[Any, ...]:
        """Return what evaluates pixels of class `c`: the second part of `plan`."""
        s = self._sample
        return (
            self._at(c),
            self._widths,
            self._tables,
            s._scales.score_table,
            s._weights[c],
            self._rows,
            self._row_fractions,
            self._cols,
            self._col_fractions,
            self._last,
            s._interpolate_members,
        )


class _Scales(NamedTuple):
    """What codes become, the same for every sample of an ensemble.

    Parameters
    ----------
    tables : uint16 (T, 65536), score by code; members of one temperature share one, which keeps it in cache.
    table_of : int64 (M,), which table is each member's.
    score_table : uint16 (65536,), what an interpolated score becomes.
    bounds : uint16 (T, 65536), what a score becomes in the end, by key: codes in the order of their scores.
    float_codes : codes are those of fp16, sign and magnitude, and not scores already.
    """

    tables: NDArray[np.uint16]
    table_of: NDArray[np.int64]
    score_table: NDArray[np.uint16]
    bounds: NDArray[np.uint16]
    float_codes: bool

    @property
    def arrays(self) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.uint16]]:
        return self.tables, self.table_of, self.score_table

    @property
    def by_member(self) -> NDArray[np.uint16]:
        return self.tables[self.table_of]

    @property
    def bounds_by_member(self) -> NDArray[np.uint16]:
        return self.bounds[self.table_of]


@lru_cache(maxsize=16)
def _scales(scale: Scale, temperatures: tuple[float, ...], q_becomes_level: bool, mean: Mean) -> _Scales:
    from ensemble_kit.kernels import tables

    power = mean.scale  # the identity, but for mean="power:R"
    kinds = (1.0,) if scale == "ready" else tuple(dict.fromkeys(temperatures))
    made = [
        tables.identity() if scale == "ready" else tables.fp16_q(t) if scale == "q" else power[tables.fp16_levels(t)]
        for t in kinds
    ]
    table = levels_of_q(mean if q_becomes_level else LOGIT)
    order = tables.identity() if scale == "ready" else tables.fp16_codes_in_order()
    table_of = np.array([0 if scale == "ready" else kinds.index(t) for t in temperatures], np.int64)
    return _Scales(np.stack(made), table_of, table, np.stack([table[t[order]] for t in made]), scale != "ready")


@lru_cache(maxsize=256)
def _codes_from(
    scale: Scale,
    temperatures: tuple[float, ...],
    q_becomes_level: bool,
    mean: Mean,
    low: tuple[int, ...],
    high: tuple[int, ...],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First code and span, (n, 2, M) each, of the codes whose score is at least each low and each high level.

    They are one interval on the circle of 65,536: fp16's positive codes rise from +0, and its negative ones, from
    -0 on, follow the largest positive. A span of -1 says that there are none.
    """
    scales, wanted = _scales(scale, temperatures, q_becomes_level, mean), np.array([low, high], np.int64).T
    lowest, highest = (-0x7C01, 0x7C00) if scales.float_codes else (-0x8000, 0x7FFF)  # from -inf to +inf, without NaN
    firsts, spans = [], []
    for bounds in scales.bounds:
        key = np.searchsorted(bounds[lowest + 0x8000 : highest + 0x8001], wanted) + lowest
        if scales.float_codes:
            first = np.maximum(key, 0)
            span = np.where(key >= 0, 0x7FFF - key, (key ^ 0x7FFF) & 0xFFFF)
        else:
            first, span = key + 0x8000, 0x7FFF - key
        firsts.append(first)
        spans.append(np.where(key > highest, -1, span))
    return tuple(np.ascontiguousarray(np.stack(v, axis=2)[..., scales.table_of]) for v in (firsts, spans))  # type: ignore[return-value]


@lru_cache(maxsize=256)
def _pixels(box: Shape, image: Shape) -> tuple[NDArray[np.int64], ...]:
    """Pixels behind the cells: `row_at`, `row_fractions`, `col_at`, `col_fractions` of `kernels.cells.decide`."""
    from ensemble_kit.kernels import tables

    out: tuple[NDArray[np.int64], ...] = ()
    for n_in, n_out in zip(box, image, strict=True):
        near, fractions = tables.axis(n_in, n_out)
        out += np.searchsorted(near, np.arange(n_in + 1)), fractions
    return out


def _softmax(logits: NDArray[np.float16], temperature: float) -> NDArray[np.uint16]:
    from ensemble_kit.kernels import fuse

    flat = logits.reshape(logits.shape[0], -1).astype(np.float32)
    out = np.empty(flat.shape, np.uint16)
    fuse.softmax_levels(flat, temperature, out)
    return out.reshape(logits.shape)


@lru_cache(maxsize=64)
def _order(members: tuple[tuple[str, ...], ...], classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Where each of `classes` stands in each member, int64 (C, M)."""
    return np.array([[own.index(name) for own in members] for name in classes], np.int64)


@lru_cache(maxsize=16)
def _weights(weights: tuple[tuple[int, ...], ...]) -> NDArray[np.int64]:
    return np.array(weights, np.int64)
