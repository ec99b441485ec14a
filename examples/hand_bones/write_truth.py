"""Turn polygons into the kit's masks at the original size: python write_truth.py data train truth.csv --fold 0.

For `ensk tune-thresholds --val`, `ensk score --val` and `ensk convert`; without a fold all images of the split.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hand_bones import splits
from hand_bones.command import run
from hand_bones.generator import TRUTH
from hand_bones.layout import read_layout, removals_of
from hand_bones.truth import truth_masks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("split", choices=("train", "test"))
    parser.add_argument("out", type=Path, help="a .csv in the competition's dialect, or any path that ensk knows")
    parser.add_argument("--splits", type=Path, default=Path("splits.csv"))
    parser.add_argument("--fold", type=int)
    parser.add_argument("--removals", type=Path, help="of the training images; without it ROOT/removals.txt")
    a = parser.parse_args()
    if a.split == "train":
        records = read_layout(a.root, "train", removals=removals_of(a.root, a.removals))
    else:
        records = read_layout(a.root, "test", annotations=a.root / TRUTH)
    if a.fold is not None:
        _, records = splits.parts(records, splits.read_splits(a.splits), a.fold)
    masks = truth_masks(records)
    masks.write(a.out, format="handbone" if a.out.suffix == ".csv" else None)
    print(f"{a.out}: {len(masks.samples)} images, {len(masks.classes)} classes")


if __name__ == "__main__":
    run(main)
