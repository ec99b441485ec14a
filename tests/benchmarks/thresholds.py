"""Exact thresholds beside a pass of NumPy and an Optuna study, on the demo's networks and images: time, and Dice reached.

    python tests/benchmarks/thresholds.py [--trials 200] [--page docs/performance.md]

Everybody gets the same: for the study and the pass the fused level of every pixel is laid out in memory first, which is
not counted; the exact search starts from the stores. One thread, process-CPU time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import tables

import ensemble_kit as ek
from ensemble_kit.demo.run import DATA, NETWORKS
from ensemble_kit.dumping import Recipe, dump_logits
from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.formats.classes import read_classes
from ensemble_kit.kernels import reference


def stores(folder: Path) -> list[Path]:
    """Dump the demo's networks on its validation images."""
    recipe = Recipe(Preprocess.load(DATA / "preprocess.json"))
    out = []
    for name in NETWORKS:
        out.append(folder / f"{name}.zarr")
        weights = DATA / "weights" / f"{name}.pt"
        model = f"ensemble_kit.demo.networks:{name}"
        dump_logits(model, DATA / "val/images", read_classes(DATA / "classes.txt"), out[-1], recipe, weights=weights)
    return out


def planes(ens: ek.Ensemble) -> list[np.ndarray]:
    """Lay out the effective level of every pixel by the plain oracle: uint16 (C, H, W) of every sample."""
    weights = [list(w) for w in ens.fusion.weights]
    return [
        np.stack(
            [
                reference.image_from_logits(
                    [reference.q(m.read(s))[c] for m in ens.members], weights[c], ens.image_size(s), "probability"
                )
                for c in range(len(ens.classes))
            ]
        )
        for s in ens.samples
    ]


def rethreshold(levels: list[np.ndarray], truth: list[np.ndarray], cuts: np.ndarray) -> float:
    """Mean Dice at one vector of thresholds, as people compute it."""
    values = []
    for plane, mask in zip(levels, truth, strict=True):
        on = plane >= cuts[:, None, None]
        both, total = (on & mask).sum((1, 2)), on.sum((1, 2)) + mask.sum((1, 2))
        values.append(np.where(total == 0, 1.0, 2 * both / np.maximum(total, 1)))
    return float(np.mean(values))


def timed(work: Callable[[], float]) -> tuple[float, float]:
    begin = time.process_time()
    value = work()
    return time.process_time() - begin, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--page", type=Path, default=tables.PAGE, help="its table between the marks is replaced")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ens = ek.Ensemble(stores(Path(folder)))
        masks = ek.read_masks(DATA / "val/masks", classes=ens.classes)
        truth = [np.stack([masks[s, c].decode() for c in ens.classes]) for s in ens.samples]
        levels = planes(ens)
        half = np.full(len(ens.classes), 32768)
        rethreshold(levels, truth, half)
        ek.tune_thresholds(ens, masks, jobs=1)  # compiled, and the stores are in memory

        def study() -> float:
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            made = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
            made.optimize(
                lambda trial: rethreshold(
                    levels, truth, np.array([round(65535 * trial.suggest_float(c, 0.05, 0.95)) for c in ens.classes])
                ),
                n_trials=options.trials,
            )
            return made.best_value

        rows = [
            ("NumPy, one pass at 0.5", *timed(lambda: rethreshold(levels, truth, half))),
            (f"Optuna, {options.trials} trials of such a pass", *timed(study)),
            ("all 65,536 levels, exact", *timed(lambda: ek.tune_thresholds(ens, masks, jobs=1).score)),
        ]
    ours = rows[-1][1]
    lines = ["| search | CPU time | against ours | mean Dice reached, in-sample |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {1000 * t:.0f} ms | {t / ours:.1f} × | {value:.4f} |" for name, t, value in rows]
    shape = f"{len(ens.samples)} images x {len(ens.classes)} classes, three members"
    tables.put(options.page, "thresholds", "\n".join([f"{shape}.", "", *lines]) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
