"""Generate hands in the competition's layout: python generate.py data --people 12 --test-people 4 --size 512."""

from __future__ import annotations

import argparse
from pathlib import Path

from hand_bones.command import run
from hand_bones.generator import generate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--people", type=int, required=True, help="two images each")
    parser.add_argument("--test-people", type=int, default=0)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    a = parser.parse_args()
    generate(a.root, people=a.people, test_people=a.test_people, size=a.size, seed=a.seed, jobs=a.jobs)
    print(f"{a.root}: {2 * a.people} hands to train on, {2 * a.test_people} to test on, {a.size} x {a.size}")


if __name__ == "__main__":
    run(main)
