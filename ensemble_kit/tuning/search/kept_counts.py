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
from ensemble_kit.tuning.statistics import count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FUSIONS = 3
"""Fusions whose counts are held: equal weights, what all samples chose, and what one fold did."""


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
        return {c: held[c].of_samples(samples).in_band(low, high) for c, (low, high) in bands.items()}


def _joined(band: Band, held: ClassStatistics | None) -> Band:
    """Return the band that holds two."""
    return band if held is None else (min(band[0], held.low), max(band[1], held.high))
