"""Train small networks on every set at hand, try every way to an answer, and write the ladders of docs/answers.md.

python run.py --data DATA --out answers-out [--set usgra --set hands] [--page ../../docs/answers.md]

Ended and started again, it goes on: stores and rows that are there are kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ladder
import members
import page
import torch
from checks import CHECKS
from rows import ROWS
from sets import SETS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder with usgra/, larynx/ and nuclei/; hands are generated")
    parser.add_argument("--out", type=Path, default=Path("answers-out"))
    parser.add_argument("--set", action="append", dest="sets", choices=list(SETS), help="these alone")
    parser.add_argument(
        "--again", action="append", default=[], choices=[*(r.key for r in ROWS), *CHECKS], help="measure anew"
    )
    parser.add_argument(
        "--without", action="append", default=[], choices=[r.key for r in ROWS], help="rows not to measure"
    )
    parser.add_argument("--threads", type=int, default=2, help="of training")
    parser.add_argument("--page", type=Path, help="put the tables between the marks of this file")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    sections, checks = {}, {}
    for name in a.sets or list(SETS):
        folder = a.out / name
        members.make(SETS[name], a.data, folder)
        found = ladder.climb(folder, again=a.again, without=a.without)
        sections[name] = page.section(SETS[name], folder, found)
        checks[name] = ladder.verify(folder, again=a.again)
        print(f"\n{sections[name]}")
    if a.page:
        page.write(a.page, sections, checks)


if __name__ == "__main__":
    main()
