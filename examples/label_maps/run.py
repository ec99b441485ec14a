"""Dump, tune, vote and score the networks of train.py on images with label maps: every step is a command of `ensk`."""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from networks import CLASSES, FAMILIES

HERE = Path(__file__).parent
PARTS = ("validation", "test")


def ensk(*arguments: object) -> dict:
    """Run a command, showing it, and return its answer."""
    words = ["ensk", *map(str, arguments)]
    print(f"$ {shlex.join(words)}", flush=True)
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran = subprocess.run([*words, "--json"], cwd=HERE, env=env, check=False, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own command
    if ran.returncode:
        sys.exit(ran.returncode)
    return json.loads(ran.stdout)


def lay_out(data: Path, weights: Path, out: Path) -> None:
    """Copy validation images (train.py names them) and test images, with their label maps, to a folder each."""
    names = {"validation": (data / "train", (weights / "validation.txt").read_text().splitlines())}
    names["test"] = data / "test", [p.name for p in sorted((data / "test" / "images").glob("*.png"))]
    for part, (source, files) in names.items():
        for kind in ("images", "masks"):
            (out / part / kind).mkdir(parents=True)
            for name in files:
                shutil.copyfile(source / kind / name, out / part / kind / name)


def main() -> None:
    """Run the chain and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=list(CLASSES))
    parser.add_argument("--data", type=Path, required=True, help="the data set, with train/ and test/")
    parser.add_argument("--weights", type=Path, required=True, help="the folder that train.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--only", nargs="*", default=list(FAMILIES), choices=list(FAMILIES))
    args = parser.parse_args()
    data, weights, out = args.data.resolve(), args.weights.resolve(), args.out.resolve()
    lay_out(data, weights, out)
    classes = weights / "classes.txt"
    maps = ("--classes", classes, "--first-value", 0)  # value k is the k-th class, the first of them too

    stores = {}
    for part in PARTS:
        for family in args.only:
            stores[family, part] = out / f"{family}_{part}.zarr"
            ensk(
                "dump-logits", f"networks:{args.dataset}_{family}", "--weights", weights / f"{family}.pt",
                "--activation", "softmax", "--images", out / part / "images", "--classes", classes,
                "--preprocess", weights / "preprocess.json", "--member", family, "--out", stores[family, part],
            )  # fmt: skip
    validation, test = ([stores[f, part] for f in args.only] for part in PARTS)
    ensk("tune-thresholds", *validation, "--val", out / "validation" / "masks", *maps, "--out", out / "factors.json")

    votes = {
        **{f"{f} alone": ([stores[f, "test"]], ()) for f in args.only},
        "their mean": (test, ()),
        "their mean, each class at 0.5": (test, ("--decide", "threshold")),
        "their mean, factors tuned": (test, ("--thresholds", out / "factors.json")),
    }
    rows = []
    for k, (told, (members, options)) in enumerate(votes.items()):
        answer = out / f"answer_{k}"
        thresholded = "--decide" in options  # its masks may overlap, which a label map cannot hold
        ensk("vote", *members, *options, "--format", "npz" if thresholded else "label-map", "--out", answer)
        score = ensk("score", answer, "--val", out / "test" / "masks", *maps, "--metric", "iou")
        rows.append((told, score["pooled"], *score["pooled_per_class"].values()))
    names = ["mIoU", *score["pooled_per_class"]]
    print(f"\n| IoU pooled over {score['samples']} test images | {' | '.join(names)} |\n{'|---' * (len(names) + 1)}|")
    for told, *figures in rows:
        print(f"| {told} | {' | '.join(f'{v:.3f}' for v in figures)} |")


if __name__ == "__main__":
    main()
