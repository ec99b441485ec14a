"""Train every configuration of a folder: python run_queue.py QUEUE --data data; put JSON files into QUEUE/queue/."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from hand_bones import command, queue

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="holds queue/, and gets running/, done/ and failed/")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--experiments", type=Path, default=Path("experiments"))
    parser.add_argument("--lightning", action="store_true", help="train with train_lightning.py")
    parser.add_argument("options", nargs="*", help="after --: further options of the training, such as --debug")
    a = parser.parse_args()
    # threads that wait sleep: on two cores that others used too a step took 0.45 s so, and 1 to 3 s with spinning ones
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    script = HERE / ("train_lightning.py" if a.lightning else "train.py")

    def training(config: Path) -> list[str]:
        paths = ("--data", a.data, "--experiments", a.experiments)
        return [
            sys.executable,
            "-u",
            str(script),
            str(config),
            *map(str, paths),
            *a.options,
        ]  # -u: the log grows as it goes

    if not queue.run(a.root, training):
        sys.exit(1)


if __name__ == "__main__":
    command.run(main)
