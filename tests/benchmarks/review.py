"""What tells which samples to look at first: the table of docs/concepts.md#expected-dice.

    python tests/benchmarks/review.py hands=FOLDER usgra=FOLDER...

A folder has `val/*.zarr` and `test/*.zarr`, one store a member, their truth `val.npz` and `test.npz`, and may have
`groups.csv` of sample,group. Out of fold, thresholds or factors are tuned on the other four of five folds; on test, on
all of val. Each figure is the rank correlation (Spearman) of a measure with true Dice, both a sample's mean over classes.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from tables import put

import ensemble_kit as ek
from ensemble_kit.decisions.decision import Decision, Vote
from ensemble_kit.decisions.rank import probabilities
from ensemble_kit.decisions.review import FLOOR, ExpectDice
from ensemble_kit.execution.executor import Item
from ensemble_kit.scores import disagreement, fused
from ensemble_kit.tuning.calibration import fit_temperature, level_histogram
from ensemble_kit.tuning.folds import make_folds, read_groups

PAGE = Path(__file__).resolve().parents[2] / "docs" / "concepts.md"
FOLDS = 5
MEASURES = {
    "expected": "**expected Dice**",
    "every p": "without the floor",
    "temperature": "with the floor, at a fitted temperature",
    "inside": "mean p inside alone",
    "level sets": "Dice with level sets",
    "members": "members' pairwise Dice",
    "information": "mutual information",
    "peak": "peak p",
    "area": "area",
}


@dataclass(frozen=True)
class Judge:
    """Measures of the masks of a sample, each (C,), and their true Dice."""

    ensemble: ek.Ensemble
    decision: Decision
    members: Sequence[tuple[ek.Ensemble, Decision]]
    temperature: float

    @classmethod
    def of(cls, ensemble: ek.Ensemble, truth: ek.MaskSet) -> Judge:
        """Tune on samples with truth."""
        tuned = ek.tune_thresholds(ensemble, truth)
        scaling = fit_temperature(level_histogram(ensemble, truth), ensemble.fusion.mean)
        alone = [ek.Ensemble([member]) for member in ensemble.members]
        decision = ensemble.decision(tuned)
        return cls(ensemble, decision, [(one, one.decision(decision)) for one in alone], scaling.temperature)

    def __call__(self, sample: str, truth: ek.MaskSet) -> tuple[dict[str, list[float]], list[float]]:
        inputs, kept = self.ensemble.inputs, self.decision.written(self.ensemble.classes)
        numbers = [inputs.classes.index(name) for name in kept]
        masks = _masks(self.ensemble, self.decision, sample)
        own = [_masks(one, decision, sample) for one, decision in self.members]
        levels = fused.image_levels(self.ensemble.sample(sample))[numbers]
        chances, scaled = probabilities(), probabilities(temperature=self.temperature)
        bits = disagreement.in_image(inputs, sample).information
        bits = (bits if len(bits) == len(inputs.classes) else np.repeat(bits, len(inputs.classes), 0))[numbers]
        found: dict[str, list[float]] = {name: [] for name in MEASURES}
        found["expected"] = ExpectDice(inputs, self.decision)(Item(sample))
        for k, mask in enumerate(masks):
            p, cooled, area = chances[levels[k]], scaled[levels[k]], int(mask.sum())
            seen = p >= FLOOR
            found["every p"].append(_soft(p, mask))
            found["temperature"].append(_soft(np.where(seen, cooled, 0), mask))
            found["inside"].append(_soft(np.where(mask, p, 0), mask) if area else 1 - p.max())
            found["level sets"].append(_of_level_sets(p, mask))
            pairs = [_dice(a[k], b[k]) for a, b in itertools.combinations(own, 2)]
            found["members"].append(float(np.mean(pairs)) if pairs else np.nan)
            found["information"].append(-float(bits[k][mask].mean() if area else bits[k].max()))
            found["peak"].append(float(p.max() if area else 1 - p.max()))
            found["area"].append(area)
        return found, [_dice(mask, truth[sample, name].decode()) for mask, name in zip(masks, kept, strict=True)]


def _masks(ensemble: ek.Ensemble, decision: Decision, sample: str) -> list[np.ndarray]:
    image, decided = Vote(ensemble.inputs, decision)(Item(sample))
    return [decided.mask(k, image).decode() for k in range(len(decision.written(ensemble.classes)))]


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    both = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / both if both else 1.0


def _soft(p: np.ndarray, mask: np.ndarray) -> float:
    return float(2 * p[mask].sum() / (mask.sum() + p.sum()) if mask.any() else 1 - p.max())


def _of_level_sets(p: np.ndarray, mask: np.ndarray, steps: int = 64) -> float:
    """The mean Dice with {p >= u}, u uniform: what is expected if all pixels go together."""
    u = (np.arange(steps) + 0.5) / steps
    every, inside = np.sort(p.reshape(-1)), np.sort(p[mask])
    truth, hits = every.size - np.searchsorted(every, u), inside.size - np.searchsorted(inside, u)
    both = truth + inside.size
    return float(np.where(both > 0, 2 * hits / np.maximum(both, 1), 1.0).mean())


def _judged(
    judge: Judge, samples: Iterable[str], truth: ek.MaskSet
) -> Iterator[tuple[dict[str, list[float]], list[float]]]:
    return (judge(sample, truth) for sample in samples)


def _row(found: list[tuple[dict[str, list[float]], list[float]]]) -> list[float]:
    """Spearman of each measure with true Dice, by sample; NaN of a measure that there is none of."""
    dice, out = np.array([np.mean(true) for _, true in found]), []
    for name in MEASURES:
        values = np.array([np.mean(measured[name]) for measured, _ in found])
        flat = np.isnan(values).any() or np.ptp(values) == 0
        out.append(float("nan") if flat else float(spearmanr(values, dice).statistic))
    return out


def main() -> None:
    """Print the table and put it into the page."""
    warnings.simplefilter("ignore")
    heads = [*MEASURES.values()]
    lines = [f"| set | samples | {' | '.join(heads)} |", f"|---|---:|{'---:|' * len(heads)}"]
    sums: list[list[float]] = []
    for argument in sys.argv[1:]:
        name, _, folder = argument.partition("=")
        parts = {part: ek.Ensemble(sorted((Path(folder) / part).glob("*.zarr"))) for part in ("val", "test")}
        truths = {part: ek.read_masks(Path(folder) / f"{part}.npz") for part in parts}
        groups = Path(folder) / "groups.csv"
        val, truth, out = parts["val"], truths["val"], []
        for fold in make_folds(val.samples, FOLDS, read_groups(str(groups)) if groups.exists() else None, 0):
            rest = [s for k, s in enumerate(val.samples) if k not in set(fold.tolist())]
            judge = Judge.of(val.on(rest), truth.arranged(rest, truth.classes))
            out += _judged(judge, [val.samples[k] for k in fold.tolist()], truth)
        judge, test = Judge.of(val, truth), parts["test"]
        on_test = Judge(
            test, judge.decision, [(ek.Ensemble([m]), judge.decision) for m in test.members], judge.temperature
        )
        tested = list(_judged(on_test, test.samples, truths["test"]))
        for where, found in (("out of fold", out), ("test", tested)):
            figures = _row(found)
            sums.append(figures)
            best = np.nanmax(figures)
            cells = ["—" if np.isnan(v) else f"**{v:.3f}**" if v == best else f"{v:.3f}" for v in figures]
            lines.append(f"| {name}, {where} | {len(found)} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    means = np.nanmean(np.array(sums), axis=0)
    lines.append(f"| mean | | {' | '.join(f'{v:.3f}' for v in means)} |")
    print("\n".join(lines))
    put(PAGE, "review", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
