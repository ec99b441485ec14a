"""Pixels whose winner factors can change: the same values and contenders as where whole rows are evaluated."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import ensemble_kit as ek
from ensemble_kit.kernels import factors as kernels
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.fusion import Fusion, integer_weights
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.spec.mean import PROBABILITY
from ensemble_kit.tuning.contenders import RATIOS, room_of

Values = list[np.ndarray]


class InMemory:
    """A softmax member of one sample, whose logits (C, h, w) are in memory."""

    activation = "softmax"

    def __init__(self, member: str, classes: tuple[str, ...], logits: np.ndarray, image: tuple[int, int]) -> None:
        self.member, self.classes, self._logits, self._image = member, classes, logits, image

    def read(self, sample: str) -> np.ndarray:
        return self._logits

    def placement(self, sample: str) -> Placement:
        return Placement.of(self._logits.shape[1:], self._image)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(2, 9), st.integers(1, 3), st.integers(1, 200), st.sampled_from([0.5, 4, 40]))
def test_open_pixels_have_the_values_of_whole_rows(
    seed: int, classes: int, members: int, width: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    image = int(rng.integers(1, 9)), width
    grids = [tuple(rng.integers(1, 40, 2).tolist()) for _ in range(members)]
    logits = [rng.normal(0, spread, (classes, *grid)).astype(np.float16) for grid in grids]
    logits[0].ravel()[:: max(7, logits[0].size // 3)] = rng.choice([np.inf, -np.inf, 0, 65504])
    scores = fused(logits, image)
    truth = rng.integers(0, classes + 1, image).astype(np.uint16)
    decided = np.zeros((classes + 1, classes), np.int64)
    masks, void = ManyRuns.of([ek.encode(truth == c) for c in range(classes)]), Runs.empty(image)
    parts = list(scores.open_values(masks, void, RATIOS[0], decided))
    values, labels = np.concatenate([v for v, _ in parts], axis=1), np.concatenate([t for _, t in parts])
    whole, room = scores.values(0, image[0]).reshape(classes, -1), room_of(RATIOS[0], adds=False)
    found = []
    for v, t in ((values, labels), (whole, truth.ravel())):
        counts = np.zeros_like(decided) if v is whole else decided
        doubt = np.zeros((room.shifts.size - 1, classes, classes), np.int32)
        far = np.zeros((*doubt.shape, 2), np.int32)
        found.append((*kernels.gather(v, t, room, counts, far, doubt), counts, far, doubt))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def fused(logits: Values, image: tuple[int, int]) -> FusedSample:
    """One sample of softmax members whose logits (C, h, w) are in memory."""
    names, classes = tuple(f"m{m}" for m in range(len(logits))), tuple(f"c{k}" for k in range(len(logits[0])))
    members = tuple(InMemory(name, classes, z, image) for name, z in zip(names, logits, strict=True))
    weights = (integer_weights([1.0] * len(names), names),) * len(classes)
    fusion = Fusion(PROBABILITY, "logits", names, weights, (1.0,) * len(names))
    return open_sample(Inputs(members, classes, fusion), "x")
