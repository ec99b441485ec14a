"""From nothing to a scored submission, in one command: python run.py --out hand-bones-out.

Generates 24 small hands, trains three networks of different families one after the other, dumps their logits (one of
them through ONNX), tunes thresholds, votes soft and hard, draws, and prints the scored table. Ended and started again,
it goes on.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import torch
from hand_bones import command, networks, queue
from hand_bones.classes import CARPALS, CLASSES, FINGERS
from hand_bones.config import Config
from hand_bones.images import read_size

import ensemble_kit as ek

HERE = Path(__file__).resolve().parent
NETWORKS = ("unet", "segformer", "upernet")
THROUGH_ONNX = "upernet"
PEOPLE, TEST_PEOPLE, SEED, FOLDS = 9, 3, 21, 3
GROUPS = {"all 29": CLASSES, "fingers": FINGERS, "carpals": CARPALS, "radius, ulna": ("Radius", "Ulna")}
MARKS = "<!-- measured -->", "<!-- /measured -->"


@dataclass
class Run:
    """Runs commands, shows them as a person types them, and keeps how long each kind took.

    Attributes
    ----------
    again : whether an earlier start made the data; `seconds` are of this start alone.
    """

    again: bool
    seconds: dict[str, float] = field(default_factory=dict)

    def __call__(self, what: str, program: str, *arguments: object) -> None:
        words = list(map(str, arguments))
        ensk = Path(sys.executable).with_name("ensk")
        begin, shown = (
            ([ensk], "ensk") if program == "ensk" else ([sys.executable, "-u", HERE / program], f"python {program}")
        )
        print(f"\n$ {shown} {shlex.join(words)}", flush=True)
        start = time.perf_counter()
        ended = subprocess.run([*begin, *words], check=False)  # noqa: S603 - the kit and this folder's scripts
        if ended.returncode:
            sys.exit(ended.returncode)
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - start


def make_data(run: Run, data: Path, size: int) -> None:
    """Generate the hands and divide them, in a folder that gets its name when it is complete; what is there is kept."""
    if data.exists():
        check_data(data, size)
    else:
        partial = data.with_name(f".{data.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        people = ("--people", PEOPLE, "--test-people", TEST_PEOPLE)
        run("hands", "generate.py", partial, *people, "--size", size, "--seed", SEED)
        files = ("--out", partial / "splits.csv", "--groups", partial / "groups.csv")
        run("folds and truth", "make_splits.py", partial, "--folds", FOLDS, *files)
        partial.rename(data)
    run("folds and truth", "write_truth.py", data, "test", data / "test.csv")
    fold = ("--splits", data / "splits.csv", "--fold", 0)
    run("folds and truth", "write_truth.py", data, "train", data / "val.csv", *fold)


def check_data(data: Path, size: int) -> None:
    """Refuse data that no run of this size made."""
    image = min((data / "train" / "DCM").glob("*/*.png"), default=None)
    found = read_size(image) if image is not None and (data / "splits.csv").is_file() else None
    if found != (size, size):
        raise ek.MismatchError(
            "run-differs",
            "cannot go on with the data of another run",
            item=f"{data}: " + (f"{found[0]} x {found[1]}, not {size} x {size}" if found else "no images or no splits"),
            fix="pass the --size of its first start, or another --out",
        )


def train(run: Run, out: Path, epochs: int | None) -> None:
    """Queue the configurations that are in no folder of the queue, and train them."""
    root, experiments = out / "queue", out / "experiments"
    folders = [root / name for name in (queue.QUEUE, queue.RUNNING, queue.DONE)]
    folders[0].mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NETWORKS):
        file = f"{number}-{name}.json"
        if not any((folder / file).exists() for folder in folders):
            config = Config.load(HERE / "configs" / "small" / f"{name}.json")
            (folders[0] / file).write_text(config.but(epochs=epochs or config.epochs).to_json(), encoding="utf-8")
    run("training", "run_queue.py", root, "--data", out / "data", "--experiments", experiments)


def dump(run: Run, out: Path) -> None:
    """Dump the logits of the test images: two networks in torch, one as ONNX."""
    places = ("--experiments", out / "experiments")
    for name in NETWORKS:
        options: tuple[object, ...] = ()
        if name == THROUGH_ONNX:
            run("logits of the test images", "export.py", "--exp", name, *places)
            options = ("--onnx",)
        data = ("--data", out / "data")
        run("logits of the test images", "inference.py", "--exp", name, "--save_logits", *data, *places, *options)


def combine(run: Run, out: Path) -> None:
    """Tune on the fold that validates, then vote on the test images, soft and hard."""
    val, test = ([out / "experiments" / name / f"{part}.zarr" for name in NETWORKS] for part in ("val", "test"))
    truth, groups = ("--val", out / "data" / "val.csv"), ("--groups", out / "data" / "groups.csv")
    thresholds = ("--thresholds", out / "thresholds.json")
    run("tuning", "ensk", "tune-thresholds", *val, *truth, *groups, "--folds", 3, "--out", thresholds[1], "--force")
    run("votes", "ensk", "vote", *test, "--soft", *thresholds, "--out", out / "submission.csv", "--force")
    run("votes", "ensk", "vote", *test, "--hard", "--out", out / "hard.csv", "--force")


def draw(run: Run, out: Path) -> None:
    """Draw the submission on its first image, where it errs, and where the networks disagree."""
    test, submission = out / "data" / "test" / "DCM", out / "submission.csv"
    sample = min(path.name for path in test.rglob("*.png"))
    one = ("--images", test, "--sample", sample, "--out", out / "pictures", "--force")
    run("pictures", "ensk", "draw", "overlay", submission, *one)
    run("pictures", "ensk", "draw", "errors", submission, "--val", out / "data" / "test.csv", *one)
    stores = [out / "experiments" / name / "test.zarr" for name in NETWORKS]
    run("pictures", "ensk", "draw", "disputed", *stores, *one)


def dice(masks: ek.MaskSet, truth: ek.MaskSet) -> list[float]:
    """Measure the mean Dice of each group of classes, both empty counting 1."""
    per_class = ek.dice(masks, truth).per_class
    return [sum(per_class[c] for c in group) / len(group) for group in GROUPS.values()]


def scores(out: Path, size: int) -> dict[str, list[float]]:
    """Score every network and every vote: the validation's mean, then the test's groups."""
    found: dict[str, list[float]] = {}
    tuned = ek.ThresholdSet.load(out / "thresholds.json")
    for part in ("val", "test"):
        truth = ek.read_masks(out / "data" / f"{part}.csv", format="handbone", image_size=(size, size))
        stores = [out / "experiments" / name / f"{part}.zarr" for name in NETWORKS]
        alone = {f"{name} alone": ek.Ensemble([store]).vote(0.5) for name, store in zip(NETWORKS, stores, strict=True)}
        votes = {
            **alone,
            "soft vote": ek.Ensemble(stores).vote(0.5),
            "soft vote, tuned": ek.Ensemble(stores).vote(tuned),
            "hard vote, 2 of 3": ek.hard_vote(list(alone.values())),
        }
        for name, masks in votes.items():
            measured = dice(masks, truth)
            found.setdefault(name, []).extend(measured[:1] if part == "val" else measured)
    return found


def report(out: Path, size: int, run: Run) -> str:
    """Write what was measured, on what and where, as Markdown."""
    heads = ["mean Dice", "validation", *(f"test: {group}" for group in GROUPS)]
    rows = [[name, *(f"{value:.4f}" for value in values)] for name, values in scores(out, size).items()]
    hands = {part: len(list((out / "data" / part / "DCM").rglob("*.png"))) for part in ("train", "test")}
    networks = "; ".join(f"{name}, {parameters(out / 'experiments' / name):,} parameters" for name in NETWORKS)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    times = ", ".join(f"{what} {s:.0f} s" for what, s in run.seconds.items())
    whole = "since it was started again, without what earlier starts took" if run.again else "in all"
    table = "\n".join("| " + " | ".join(row) + " |" for row in [heads, ["---", *["---:"] * (len(heads) - 1)], *rows])
    return (
        f"{table}\n\n"
        f"{hands['train']} hands to train and validate on, {hands['test']} to test on, {size} × {size}; the thresholds "
        "of the tuned row were chosen on the very images of its validation figure. "
        f"Networks, from random weights: {networks}.\n\n"
        f"Measured on {cores()} CPU cores ({platform.machine()}), {device}, torch {torch.__version__}: "
        f"{times}; {sum(run.seconds.values()):.0f} s {whole}.\n"
    )


def parameters(folder: Path) -> int:
    """Count the trained parameters of an experiment's network."""
    config = Config.load(folder / "config.json")
    return sum(p.numel() for p in networks.build(config.model, len(CLASSES), pretrained=False).parameters())


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_readme(readme: Path, table: str, picture: Path) -> None:
    """Put the table between the marks of README, and the picture beside it."""
    if not cv2.imwrite(str(readme.with_name("errors.jpg")), cv2.imread(str(picture))):
        raise OSError(f"cannot write {readme.with_name('errors.jpg')}")
    table += "\n![Where the submission is right, errs and misses](errors.jpg)\n"
    head, _, rest = readme.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, foot = rest.partition(MARKS[1])
    readme.write_text(f"{head}{MARKS[0]}\n{table}{MARKS[1]}{foot}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("hand-bones-out"))
    parser.add_argument("--size", type=int, default=512, help="side of the generated images")
    parser.add_argument("--epochs", type=int, help="fewer than the configurations' own, for a trial")
    parser.add_argument("--readme", type=Path, help="put the measured table between the marks of this file")
    a = parser.parse_args()
    run = Run(again=(a.out / "data").exists())
    make_data(run, a.out / "data", a.size)
    train(run, a.out, a.epochs)
    dump(run, a.out)
    combine(run, a.out)
    draw(run, a.out)
    table = report(a.out, a.size, run)
    print(f"\n{table}\nsubmission: {a.out / 'submission.csv'}; pictures: {a.out / 'pictures'}")
    if a.readme:
        (picture,) = (a.out / "pictures").glob("*_errors.png")
        write_readme(a.readme, table, picture)


if __name__ == "__main__":
    command.run(main)
