"""Samples that are nearly the same, such as frames of a video: found by their ids and their true masks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.errors import Caution
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST = 200  # samples whose masks are compared
_POINTS = {2: (32, 32), 3: (8, 16, 16)}  # at which a mask is looked up, by its rank
_SHUFFLES = 200
_GROUPS = 3  # the fewest that can be cross-validated
_PAIRS, _WHOLE = 5, 4  # the fewest pairs, and classes of a pair, that say anything
_SURE, _LARGE = 5.0, 0.8  # standard errors above chance; standard deviations between means ("large" by Cohen, 1988)
_SIDES = "[LRlr]|[Ll]eft|[Rr]ight|LEFT|RIGHT"
_END = r"(?=[_. /\\-]|$)"


class Family(NamedTuple):
    """A way to read families from ids.

    Parameters
    ----------
    pattern : regular expression whose first group names the family.
    mirrored : regular expression of the samples that may be mirrored within a family; None where none is.
    """

    pattern: str
    mirrored: str | None = None


def near_duplicates(truth: MaskSet) -> list[Caution]:
    """Suggest `--groups` where ids differ in a number or a side, and the masks of such samples are much more alike.

    Two samples are compared by where their masks are (at 1,024 points, less the mean over samples) and by the areas of
    their classes (logarithms, of masks that do not touch an edge of the image; standardised by class): both as
    correlations. Pairs of a family are much more alike where the mean of theirs is 5 standard errors above that of
    families that are shuffled, and 0.8 standard deviations above that of other pairs.
    """
    found = [(family, names) for family in _readings(truth.samples) if (names := _named(family, truth.samples))]
    if not found:
        return []
    chosen = _chosen([names for _, names in found], len(truth.samples)).tolist()
    samples = [truth.samples[k] for k in chosen]
    seen, areas = _maps(truth, samples), _areas_alike(truth, samples)
    told: tuple[Family, list[str], float, float] | None = None
    apart = np.arange(len(samples))  # so far nobody is of one family
    for family, names in sorted(found, key=lambda f: -len(set(f[1]))):
        index = np.unique([names[k] for k in chosen], return_inverse=True)[1]
        pairs = (index[:, None] == index) & (apart[:, None] != apart)
        ways = [areas, _maps_alike(seen)]
        if family.mirrored is not None:
            mirrored, right = seen.copy(), [k for k, s in enumerate(samples) if re.search(family.mirrored, s)]
            mirrored[right] = seen[right][..., ::-1]
            ways.append(_maps_alike(mirrored))
        judged = [means for alike in ways if (means := _compared(alike, index, pairs)) is not None]
        if judged:
            told, apart = (family, names, *max(judged, key=lambda j: j[0] - j[1])), index
    return [] if told is None else [_caution(*told, truth.samples)]


def _caution(family: Family, names: list[str], within: float, others: float, samples: Sequence[str]) -> Caution:
    count = Counter(names)
    largest = count.most_common(1)[0][0]
    a, b = [s for s, name in zip(samples, names, strict=True) if name == largest][:2]
    doubt = (
        f"samples such as {a!r} and {b!r} are much alike: places or areas of their true masks correlate by "
        f"{within:.2f}, those of other pairs by {others:.2f}. Where folds part them, scores out of fold are too high"
    )
    fix = f"pass --groups '{family.pattern}', which makes {len(count)} groups of {len(samples)} samples"
    if len(count) < _GROUPS:
        fix = (
            f"their ids make only {len(count)} groups: pass a CSV file of sample,group (--groups FILE) that cuts each "
        )
        fix += "into stretches of neighbours"
    return Caution(doubt, fix)


def _readings(samples: Sequence[str]) -> Iterator[Family]:
    """Yield ways to read families from ids that end alike, most of which do not fit."""
    ends = {m[0] if (m := re.search(r"(?:\.[A-Za-z][A-Za-z0-9]*)+$", s)) else "" for s in samples}
    end = re.escape(ends.pop()) if len(ends) == 1 else r"(?:\.[A-Za-z][A-Za-z0-9]*)*"
    for separator in ("_", "-", r"\.", " ", "/", r"\\"):
        yield Family(f"^(.+){separator}[A-Za-z]*[0-9]+{end}$")
        yield Family(f"^([^{separator}]+){separator}.*[0-9]+{end}$")
        yield Family(f"^[A-Za-z]*[0-9]+{separator}(.*[A-Za-z].*){end}$")
        yield Family(f"^(.+?){separator}(?:{_SIDES}){_END}", f"{separator}(?:[Rr]|[Rr]ight|RIGHT){_END}")
        yield Family(f"^(?:{_SIDES}){separator}(.+){end}$", "^[Rr]")
    yield Family(f"^(.*?[0-9]+)[A-Za-z]+[0-9]+{end}$")
    yield Family(f"^(.*[0-9])[LRlr]{_END}", f"[Rr]{_END}")
    yield Family("^(.+?)(?:[Ll]eft|[Rr]ight)", "[Rr]ight")


def _named(family: Family, samples: Sequence[str]) -> list[str]:
    """Name the family of every sample; nothing where an id does not fit, or too few samples share a family."""
    form, names = re.compile(family.pattern), list[str]()
    for sample in samples:
        found = form.search(sample)
        if found is None:  # most readings end at the first sample
            return []
        names.append(found[1])
    count = Counter(names)
    shared = sum(n for n in count.values() if n > 1)
    return names if len(count) > 1 and shared * 2 >= len(samples) else []


def _chosen(readings: Sequence[Sequence[str]], n: int) -> NDArray[np.int64]:
    """Choose up to 200 samples, families of the coarsest reading whole."""
    names = min(readings, key=lambda r: len(set(r)))
    if n <= _MOST:
        return np.arange(n)
    order = np.random.default_rng(0).permutation(sorted(set(names))).tolist()
    rank = {name: k for k, name in enumerate(order)}
    by_family = sorted(range(n), key=lambda k: (rank[names[k]], k))
    least = max(1, _MOST // 4)  # of one family, so that there are at least four
    kept: list[int] = []
    taken: dict[str, int] = {}
    for k in by_family:
        if len(kept) < _MOST and taken.get(names[k], 0) < least:
            kept.append(k)
            taken[names[k]] = taken.get(names[k], 0) + 1
    return np.array(sorted(kept))


def _maps(truth: MaskSet, samples: Sequence[str]) -> NDArray[np.float32]:
    """Look all masks up at the points of an even grid: float32 (samples, classes, y, x), 0 or 1; or (…, z, y, x)."""
    first = truth[samples[0], truth.classes[0]]
    counts = _POINTS[len(first.shape)]
    out = np.zeros((len(samples), len(truth.classes), *counts), np.float32)
    for k, sample in enumerate(samples):
        for c, name in enumerate(truth.classes):
            runs = truth[sample, name]
            axes = [(2 * np.arange(n) + 1) * size // (2 * n) for n, size in zip(counts, runs.shape, strict=True)]
            at = np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), runs.shape).reshape(-1)
            out[k, c] = _holds(runs, at).reshape(counts)
    return out


def _maps_alike(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Correlate samples by where their masks are: (samples, samples)."""
    flat = maps.reshape(len(maps), -1)
    flat = flat - flat.mean(0)
    flat /= np.maximum(np.sqrt((flat**2).sum(1, keepdims=True)), 1e-9)
    return (flat @ flat.T).astype(np.float64)


def _areas_alike(truth: MaskSet, samples: Sequence[str]) -> NDArray[np.float64]:
    """Correlate samples by the areas of the classes that both have whole; NaN where these are fewer than four."""
    masks = [[truth[sample, name] for name in truth.classes] for sample in samples]
    whole = np.array([[_is_whole(runs) for runs in row] for row in masks])
    areas = np.log(np.maximum([[runs.area for runs in row] for row in masks], 1))
    there = np.maximum(whole.sum(0), 1)
    means = (areas * whole).sum(0) / there
    spreads = np.sqrt(((areas - means) ** 2 * whole).sum(0) / there)
    z = np.where(whole, (areas - means) / np.maximum(spreads, 1e-9), 0.0)
    both = whole.astype(np.float64)
    n, sums, squares = both @ both.T, z @ both.T, z**2 @ both.T
    with np.errstate(all="ignore"):
        spread = np.sqrt((squares - sums**2 / n) * (squares.T - sums.T**2 / n))
        return np.where((n >= _WHOLE) & (spread > 0), (z @ z.T - sums * sums.T / n) / spread, np.nan)


def _is_whole(runs: Runs) -> bool:
    """Tell whether a mask is not empty and touches no edge, beyond which the rest of it may lie."""
    if not runs.starts.size:
        return False
    width, size = runs.shape[-1], int(np.prod(runs.shape))
    edge = runs.starts[0] < width or runs.ends[-1] > size - width
    return not (edge or (runs.starts % width == 0).any() or (runs.ends % width == 0).any())


def _holds(runs: Runs, at: NDArray[np.int64]) -> NDArray[np.bool_]:
    if not runs.starts.size:
        return np.zeros(at.size, bool)
    k = np.searchsorted(runs.starts, at, side="right") - 1
    return (k >= 0) & (at < runs.ends[np.maximum(k, 0)])


def _compared(
    alike: NDArray[np.float64], index: NDArray[np.int64], pairs: NDArray[np.bool_]
) -> tuple[float, float] | None:
    """Return the mean correlation of the pairs, and of others; None where the first is not much larger."""
    known = np.triu(np.isfinite(alike), 1)
    own, other = alike[pairs & known], alike[(index[:, None] != index) & known]
    if own.size < _PAIRS or other.size < _PAIRS:
        return None
    within, across = float(own.mean()), float(other.mean())
    rng, chance = np.random.default_rng(0), []
    first, second = np.nonzero(np.triu(pairs, 1))
    for _ in range(_SHUFFLES):
        order = rng.permutation(len(index))
        drawn = alike[order[first], order[second]]
        drawn = drawn[np.isfinite(drawn)]
        chance.append(float(drawn.mean()) if drawn.size else across)
    sure = within - float(np.mean(chance)) > _SURE * float(np.std(chance))
    return (within, across) if sure and within - across > _LARGE * float(other.std()) else None
