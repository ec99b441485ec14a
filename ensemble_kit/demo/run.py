"""The demo's road: real commands, run one after the other, then one table of what they reached."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble_kit.errors import UsageError
from ensemble_kit.formats.classes import read_classes
from ensemble_kit.formats.reading import read_masks
from ensemble_kit.metrics.overlap import Overlap, dice
from ensemble_kit.reports.report import Report

DATA = Path(__file__).with_name("data")
NETWORKS = ("unet", "fpn", "dilated")
THREE = "mean of the three"


@dataclass(frozen=True)
class Command:
    """Arguments of `ensk`, and the name under which the mask file it writes is scored, if any."""

    arguments: tuple[str, ...]
    scored_as: str | None = None

    @property
    def line(self) -> str:
        """The command as the user types it."""
        return shlex.join(["ensk", *self.arguments])

    @property
    def out(self) -> Path:
        """What the command writes."""
        return Path(self.arguments[self.arguments.index("--out") + 1])


@dataclass(frozen=True)
class Demo:
    """What `ensk demo` answers: values for --json, and a table to show."""

    values: dict[str, Any]
    report: Report


def commands(out: Path) -> list[Command]:
    """List the whole chain: dump, tune, vote; all below the folder `out`."""
    data = out / "data"
    val, test = ([str(out / f"{name}_{part}.zarr") for name in NETWORKS] for part in ("val", "test"))
    truth = str(data / "val" / "masks")

    def vote(stores: Sequence[str], name: str, scored_as: str, *options: str) -> Command:
        return Command(("vote", *stores, *options, "--out", str(out / f"{name}.csv")), scored_as)

    dumps = [
        Command(
            (
                "dump-logits",
                f"ensemble_kit.demo.networks:{name}",
                "--weights",
                str(data / "weights" / f"{name}.pt"),
                "--images",
                str(data / part / "images"),
                "--classes",
                str(data / "classes.txt"),
                "--preprocess",
                str(data / "preprocess.json"),
                "--member",
                name,
                "--out",
                str(out / f"{name}_{part}.zarr"),
            )
        )
        for part in ("val", "test")
        for name in NETWORKS
    ]
    tuned = [
        Command(("tune-thresholds", *stores, "--val", truth, "--out", str(out / f"{name}.json")))
        for name, stores in [("demo", val), *((n, [s]) for n, s in zip(NETWORKS, val, strict=True))]
    ]
    plain = ("tune-thresholds", *val, "--val", truth, "--no-shrink", "--out", str(out / "demo_plain.json"))
    tuned.append(Command(plain))
    own_sets = [option for name in NETWORKS for option in ("--thresholds", str(out / f"{name}.json"))]
    votes = [
        *(vote([s], n, f"{n} at 0.5", "--thresholds", "0.5") for n, s in zip(NETWORKS, test, strict=True)),
        vote(test, "soft_half", f"{THREE}, soft at 0.5", "--soft", "--thresholds", "0.5"),
        vote(test, "plain", f"{THREE}, soft, each class its optimum", "--thresholds", str(out / "demo_plain.json")),
        vote(test, "submission", f"{THREE}, soft tuned", "--soft", "--thresholds", str(out / "demo.json")),
        vote(test, "submission_hard", f"{THREE}, hard vote", "--hard", *own_sets),
    ]
    return [*dumps, *tuned, *votes]


def run(out: Path, execute: Callable[[Sequence[str]], None], say: Callable[[str], None], force: bool = False) -> Demo:
    """Run the chain into the folder `out` and score what it wrote against the test images' truth."""
    start = time.monotonic()
    _make_room(out, force)
    shutil.copytree(DATA, out / "data")
    plan = commands(out)
    for command in plan:
        say(f"$ {command.line}")
        execute(command.arguments)
    order = read_classes(out / "data" / "classes.txt")
    truth = read_masks(out / "data" / "test" / "masks", classes=order)
    sizes = {s: truth.image_size(s) for s in truth.samples}
    judged = [c for c in plan if c.scored_as]
    scores = {str(c.scored_as): dice(read_masks(c.out, image_size=sizes, classes=order), truth) for c in judged}
    seconds = time.monotonic() - start
    return Demo(
        {
            "seconds": round(seconds, 1),
            "submission": str(out / "submission.csv"),
            "commands": [c.line for c in plan],
            "scores": {name: {"mean": s.mean, **s.per_class} for name, s in scores.items()},
        },
        _report(scores, out, seconds),
    )


def _make_room(out: Path, force: bool) -> None:
    """Make the folder; what an earlier demo left is replaced (with --force where it came to its end), nothing else."""
    if out.exists():
        ours, ended = (out / "data" / "ATTRIBUTION.md").is_file(), (out / "submission_hard.csv").exists()
        if not ours or (ended and not force):
            raise UsageError(
                "output-exists",
                "cannot run the demo here",
                item=f"{str(out)!r} {'holds an earlier result' if ours else 'exists and is not a demo folder'}",
                fix="pass --force to replace it" if ours else "pass another --out",
            )
        shutil.rmtree(out)
    out.mkdir(parents=True)


def _report(scores: dict[str, Overlap], out: Path, seconds: float) -> Report:
    first = next(iter(scores.values()))
    rows = [
        [name, *(f"{score.per_class[c]:.4f}" for c in first.classes), f"{score.mean:.4f}"]
        for name, score in scores.items()
    ]
    title = f"Dice on {len(first.samples)} test images that no network saw ({first.convention})"
    return Report(
        title,
        ["", *first.classes, "mean"],
        rows,
        f"Each class the mean of its Dice over images, in the last column the mean over all pairs; {first.convention}.",
        [
            "As measured: few images, so neither the ensemble nor tuning need win on them.",
            f"The submission is {out / 'submission.csv'} ({seconds:.0f} s in all).",
            "Every command above can be run by itself; one whose output exists needs --force.",
        ],
    )
