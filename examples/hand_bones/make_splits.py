"""Deal persons into folds, bent wrists evenly: python make_splits.py data --folds 5 --out splits.csv."""

from __future__ import annotations

import argparse
from pathlib import Path

from hand_bones import splits
from hand_bones.command import run
from hand_bones.layout import read_layout, removals_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--removals", type=Path, help="a line an image: image_id reason; without it ROOT/removals.txt")
    parser.add_argument("--out", type=Path, default=Path("splits.csv"))
    parser.add_argument("--groups", type=Path, help="also write sample,group for ensk tune-thresholds --groups")
    a = parser.parse_args()
    records = read_layout(a.root, "train", removals=removals_of(a.root, a.removals))
    dealt = splits.make_splits(records, a.folds, a.seed)
    if a.groups:
        splits.write_groups(a.groups, records)
    splits.write_splits(a.out, records, dealt)
    print(splits.table(records, dealt))


if __name__ == "__main__":
    run(main)
