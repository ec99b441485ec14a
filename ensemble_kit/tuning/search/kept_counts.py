"""`KeptCounts`: counts by level of the fusions that a search ends with, on all samples; folds take theirs of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.events import Listener
from ensemble_kit.execution.executor import Executor
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.fusion import Fusion
from ensemble_kit.tuning.class_statistics import Band, ClassStatistics
from ensemble_kit.tuning.count_file import CountFile
from ensemble_kit.tuning.statistics import count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FUSIONS = 3
"""Fusions whose counts are held: equal weights, what all samples chose, and what one fold did."""

_BY_LEVEL = ("levels", "pred", "tp")


@dataclass
class KeptCounts:
    """Counts of an ensemble under several fusions; each is counted once for all folds, while it is held.

    Parameters
    ----------
    ensemble, truth : of all samples.
    """

    ensemble: Ensemble
    truth: MaskSet
    executor: Executor
    listener: Listener
    _kept: dict[Fusion, dict[int, ClassStatistics]] = field(default_factory=dict)

    def keep(self, fusion: Fusion, tables: Mapping[int, ClassStatistics]) -> None:
        """Hold tables of classes; the fusion that was asked for longest ago makes room."""
        held = self._kept.pop(fusion, {})
        self._kept[fusion] = held | dict(tables)
        while len(self._kept) > FUSIONS:
            del self._kept[next(iter(self._kept))]

    def take(self, fusion: Fusion, bands: Mapping[int, Band], samples: NDArray[np.int64]) -> dict[int, ClassStatistics]:
        """Return counts of some classes, each in a band, of some samples by number: those that counting them gives."""
        held = self._kept.get(fusion, {})
        wider = {c: _joined(band, held.get(c)) for c, band in bands.items()}
        missing = {c: band for c, band in wider.items() if c not in held or band != (held[c].low, held[c].high)}
        found = {}
        if missing:
            fused = self.ensemble.with_fusion(fusion)
            found = count(fused, self.truth, missing, self.executor, self.listener)
        self.keep(fusion, found)
        held = self._kept[fusion]
        some = _of_samples({c: held[c] for c in bands}, samples)
        return {c: some[c].in_band(low, high) for c, (low, high) in bands.items()}


def _of_samples(tables: Mapping[int, ClassStatistics], samples: NDArray[np.int64]) -> dict[int, ClassStatistics]:
    """Return counts of some samples, by number; in a file, too, where those of all are, and there is room for it."""
    mapped = [t for t in tables.values() if t.mapped is not None and samples.size < t.truth.size]
    if len(mapped) < len(tables):
        return {c: t.of_samples(samples) for c, t in tables.items()}
    found, kinds = dict[int, ClassStatistics](), [getattr(mapped[0], name).dtype for name in _BY_LEVEL]
    try:
        file = CountFile(len(tables), kinds, max(t.levels.size for t in mapped))
        for k, (c, t) in enumerate(tables.items()):
            own = t.of_samples(samples)
            t.let_go()
            file.add(k, [getattr(own, name) for name in _BY_LEVEL])
            found[c] = own.placed(own.levels[:0].copy(), own.pred[:0].copy(), own.tp[:0].copy(), None)
        for k, (c, own) in enumerate(found.items()):
            arrays, place = file.arrays(k)
            levels, pred, tp = arrays
            found[c] = own.placed(levels, pred, tp, place)
    except OSError:
        return {c: t.of_samples(samples) for c, t in tables.items()}
    return found


def _joined(band: Band, held: ClassStatistics | None) -> Band:
    """Return the band that holds two."""
    return band if held is None else (min(band[0], held.low), max(band[1], held.high))
