"""How much of the truth is missed on new groups, against the share that `ensk tune-thresholds --risk fnr` allows.

    python tests/benchmarks/risks.py [--draws 2000] [--page docs/performance.md]

A population of groups of images is drawn: the share of an image's true pixels below each level depends on the image and on
its group. Of it groups are drawn to calibrate on, and the risk at the level that the kit finds is that of the whole
population, exactly. Where MAPIE is installed, its choice among 100 thresholds is compared with ours too.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tables

from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.spec.risk import Risk
from ensemble_kit.tuning.class_statistics import ClassStatistics
from ensemble_kit.tuning.risk import Control

PIXELS = 61  # a prime, so that no sum of losses meets alpha exactly, where MAPIE asks for less than alpha


class Population(NamedTuple):
    """Images of groups: the levels of each image's true pixels, int64 (groups, images, PIXELS); -1 in images without."""

    levels: np.ndarray

    @property
    def risks(self) -> np.ndarray:
        """The mean loss at every level, float64 (65537,): of an image the share below it, over all images."""
        has = self.levels[self.levels >= 0]
        return np.cumsum(np.bincount(has + 1, minlength=LEVELS + 1)) / self.levels.size


def drawn(
    rng: np.random.Generator, groups: int, images: int, spread: tuple[float, float, float], absent: float
) -> Population:
    """Draw a population; `spread` is how much groups, images and pixels differ, `absent` how many images are without."""
    shape = groups, images
    middle = 1.2 + spread[0] * rng.normal(size=(groups, 1, 1)) + spread[1] * rng.normal(size=(*shape, 1))
    z = middle + spread[2] * rng.normal(size=(*shape, PIXELS))
    levels = np.floor(65535 / (1 + np.exp(-z)) + 0.5).astype(np.int64)
    levels[rng.random(shape) < absent] = -1
    return Population(levels)


def counted(images: np.ndarray) -> ClassStatistics:
    """Count the true pixels at and above every level of some images, int64 (images, PIXELS)."""
    parts = [np.unique(own[own >= 0], return_counts=True) for own in images]
    above = np.zeros(len(parts), np.int64)
    tp = np.concatenate([np.cumsum(n[::-1])[::-1] for _, n in parts]).astype(np.uint32)
    offsets = np.cumsum([0, *(n.size for n, _ in parts)])
    levels = np.concatenate([n for n, _ in parts]).astype(np.uint16)
    truth = np.array([n.sum() for _, n in parts], np.int64)
    return ClassStatistics(0, LEVELS, offsets, levels, tp, tp, above, above, truth)


def chosen(risk: Risk, images: np.ndarray, groups: np.ndarray) -> int:
    """Return the level that the kit finds."""
    return int(Control(risk, groups).levels([counted(images)])[0])


def judged(population: Population, risk: Risk, groups: int, draws: int, apart: bool = False) -> tuple[float, float]:
    """Return the mean risk over draws of calibration groups, and the share of draws with a risk above alpha.

    Parameters
    ----------
    apart : whether each image counts as a group, although images of one group are alike.
    """
    every, true = population.levels, population.risks
    found = []
    for seed in range(draws):
        own = every[np.random.default_rng(seed).choice(len(every), groups, replace=False)]
        images = own.reshape(-1, PIXELS)
        numbers = np.arange(len(images)) if apart else np.repeat(np.arange(groups), own.shape[1])
        found.append(float(true[chosen(risk, images, numbers)]))
    return float(np.mean(found)), float(np.mean(np.array(found) > risk.alpha))


def agree(population: Population, draws: int) -> None:
    """Compare with MAPIE's choice among 100 thresholds, where it is installed: ours lies at it or in the next step."""
    try:
        from mapie.risk_control.methods import find_best_predict_param, get_r_hat_plus
    except ModuleNotFoundError:
        return
    grid = np.arange(100)[:, None] / 100
    for seed in range(draws):
        own = population.levels[np.random.default_rng(seed).choice(len(population.levels), 60, replace=False), 0]
        below = (own[:, None, :] < np.floor(65535 * grid + 0.5)) & (own >= 0)[:, None, :]
        _, bounds = get_r_hat_plus(below.mean(2), grid[:, 0], "crc", None, None, None)
        theirs = float(find_best_predict_param(grid[:, 0], bounds, np.array([0.1]))[0])
        ours = chosen(Risk(0.1), own, np.arange(len(own))) / 65535
        assert theirs <= ours + 1e-4 and ours < theirs + 0.01 + 1e-4, (seed, theirs, ours)
    print(f"MAPIE's choice among 100 thresholds: ours, or the step below it, in all of {draws} draws")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--page", type=Path, default=tables.PAGE, help="its table between the marks is replaced")
    options = parser.parse_args()
    rng = np.random.default_rng(20261128)
    alone = drawn(rng, 20_000, 1, (0.0, 0.8, 1.5), 0.0)
    whole = drawn(rng, 20_000, 1, (0.0, 2.0, 0.2), 0.0)
    patients = drawn(rng, 10_000, 5, (2.0, 0.8, 0.5), 0.3)
    settings = [
        ("images, a part of each missed", alone, Risk(0.1), 9, False),
        ("images, a part of each missed", alone, Risk(0.1), 50, False),
        ("images, a part of each missed", alone, Risk(0.1, delta=0.1), 50, False),
        ("images, found or missed", whole, Risk(0.1), 9, False),
        ("images, found or missed", whole, Risk(0.1), 50, False),
        ("images, found or missed", whole, Risk(0.05), 100, False),
        ("images, found or missed", whole, Risk(0.1, delta=0.1), 50, False),
        ("images, found or missed", whole, Risk(0.1, delta=0.1), 200, False),
        ("patients of 5 images, 30 % without the class", patients, Risk(0.1), 20, False),
        ("patients of 5 images, 30 % without the class", patients, Risk(0.1, delta=0.1), 60, False),
        ("the same, each image taken for a group", patients, Risk(0.1), 20, True),
        ("the same, each image taken for a group", patients, Risk(0.1, delta=0.1), 60, True),
    ]
    lines = [
        "| calibrated on | groups | alpha | delta | risk, mean | draws above alpha |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, population, risk, groups, apart in settings:
        mean, above = judged(population, risk, groups, options.draws, apart)
        delta = "" if risk.delta is None else f"{risk.delta:g}"
        lines.append(f"| {name} | {groups} | {risk.alpha:g} | {delta} | {mean:.4f} | {above:.1%} |")
        print(lines[-1], flush=True)
    agree(alone, 200)
    tables.put(options.page, "risks", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
