"""Compare ways to choose thresholds and weights on the demo's networks: in-sample, out of fold, and on test images.

Writes the table of docs/performance.md. The 40 images that no network was trained on choose; the authors' 40 test
images, which chose nothing, judge. Every figure is exact: what a set reports in-sample is what its vote scores.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

import ensemble_kit as ek
from ensemble_kit.decisions.rank import RankRule
from ensemble_kit.dumping import Recipe, dump_logits
from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.formats.classes import read_classes
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.calibration import rank_scores
from ensemble_kit.tuning.common_level import common_level
from ensemble_kit.tuning.counting import statistics_for
from ensemble_kit.tuning.curve import Curve
from ensemble_kit.tuning.exact import tune_from
from ensemble_kit.tuning.folds import make_folds
from ensemble_kit.tuning.search.plan import Search

sys.path.insert(0, str(Path(__file__).parent))
from train import read_masks, split

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "ensemble_kit" / "demo" / "data"
NETWORKS = ("unet", "fpn", "dilated")
FOLDS, SEED = 5, 0
Row = tuple[str, float, float, float]


def dumped(data: Path, part: str, names: list[str], work: Path) -> ek.Ensemble:
    """Dump the three networks' logits of some images and open them as one ensemble."""
    images = work / part
    images.mkdir()
    for name in names:
        shutil.copyfile(data / "images" / name, images / name)
    classes = read_classes(SHIPPED / "classes.txt")
    recipe = Recipe(Preprocess.load(SHIPPED / "preprocess.json"))
    stores = []
    for name in NETWORKS:
        out = work / f"{name}_{part}.zarr"
        weights = SHIPPED / "weights" / f"{name}.pt"
        dump_logits(f"ensemble_kit.demo.networks:{name}", images, classes, out, recipe, weights=weights)
        stores.append(out)
    return ek.Ensemble(stores)


def truth_of(data: Path, ens: ek.Ensemble) -> ek.MaskSet:
    """Read the authors' masks of an ensemble's samples, with the derived class."""
    drawn = {s: read_masks(data / "masks" / s) for s in ens.samples}
    order = read_classes(SHIPPED / "classes.txt")
    return ek.MaskSet({(s, c): ek.encode(drawn[s][k]) for s in ens.samples for k, c in enumerate(order)})


def rows(val: ek.Ensemble, truth: ek.MaskSet, test: ek.Ensemble, test_truth: ek.MaskSet, trials: int) -> list[Row]:
    """Tune in every way and judge each."""

    def judged(masks: ek.MaskSet) -> float:
        return ek.dice(masks, test_truth).mean

    measure = Measure()
    counts = statistics_for(val, truth, measure, FOLDS, seed=SEED)
    own = tune_from(counts, val, measure, FOLDS, seed=SEED, choose="own")
    shrunk, bagged = (tune_from(counts, val, measure, FOLDS, seed=SEED, choose=c) for c in ("shrunk", "bagged"))
    scores = own.validation.crossed.scores
    parts = make_folds(val.samples, FOLDS, None, SEED)
    shared = common_level([Curve(t, measure, parts) for t in counts.tables], range(FOLDS)) / 65535
    out = [
        ("0.5 for every class", ek.dice(val.vote(), truth).mean, scores["half"], judged(test.vote())),
        ("one shared threshold", ek.dice(val.vote(shared), truth).mean, scores["shared"], judged(test.vote(shared))),
        ("per class, exact", own.score, scores["own"], judged(test.vote(own))),
        *(
            (name, found.score, found.validation.crossed.scores["tuned"], judged(test.vote(found)))
            for name, found in (("per class, only where it gains", shrunk), ("per class, bagged (the default)", bagged))
        ),
    ]
    searches = {"greedy members, per class": "greedy", f"joint search of weights, {trials} trials, per class": None}
    for name, what in searches.items():
        search = what or Search(("weights",), trials=trials)
        found = ek.tune_thresholds(val, truth, folds=FOLDS, seed=SEED, search=search, choose="own")
        on_test = judged(test.as_tuned(found).vote(found))
        out.append((name, found.score, found.validation.crossed.scores["tuned"], on_test))
    ranked = rank_scores(val, truth, measure).score  # nothing is trained: out of fold by itself
    out.append(("rank rule per image (RankSEG)", ranked, ranked, judged(test.vote(RankRule()))))
    return out


def table(found: list[Row]) -> str:
    """Write the rows as Markdown, the best of each column marked."""
    best = [max(row[k] for row in found) for k in (1, 2, 3)]

    def cell(value: float, top: float) -> str:
        text = "–" if math.isnan(value) else f"{value:.4f}"
        return f"**{text}**" if value == top else text

    lines = ["| mean of the three networks, soft | in-sample | out of fold | 40 test images |", "|---|---|---|---|"]
    for name, *values in found:
        lines.append(f"| {name} | {' | '.join(cell(v, b) for v, b in zip(values, best, strict=True))} |")
    return "\n".join(lines)


def main() -> None:
    """Dump, tune, judge, and replace the table between the marks of docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the usgra folder, with train/ and test/")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--page", type=Path, default=ROOT / "docs/performance.md")
    args = parser.parse_args()
    held_out = split(sorted(p.name for p in (args.data / "train/images").glob("*.png")))[1]
    with tempfile.TemporaryDirectory() as work:
        val = dumped(args.data / "train", "val", held_out, Path(work))
        test_names = sorted(p.name for p in (args.data / "test/images").glob("*.png"))
        test = dumped(args.data / "test", "test", test_names, Path(work))
        truths = truth_of(args.data / "train", val), truth_of(args.data / "test", test)
        text = table(rows(val, truths[0], test, truths[1], args.trials))
    print(text)
    page = args.page.read_text()
    args.page.write_text(
        re.sub(r"(<!-- usgra -->\n).*?(<!-- /usgra -->)", lambda m: f"{m[1]}{text}\n{m[2]}", page, flags=re.DOTALL)
    )


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
