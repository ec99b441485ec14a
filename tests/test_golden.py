"""Answers that no change of the code's structure may change: bytes of CSV files and sets, kept as digests.

`golden/` holds the demo's stores as one machine dumped them (networks' floats differ between processors), and the
digests. `python tests/test_golden.py` writes the digests anew: only where an answer is meant to change.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import secrets
import shutil
import socket
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from conftest import write_store
from ensemble_kit.cli.app import app

GOLDEN = Path(__file__).parent / "golden"
DIGESTS = GOLDEN / "digests.json"
DEMO = Path(__file__).parent.parent / "ensemble_kit" / "demo" / "data"
NETWORKS = ("unet", "fpn", "dilated")
CLASSES = ("skull", "rib", "ulna", "tibia")


def ensk(*arguments: object) -> None:
    app([*map(str, arguments), "-q"], standalone_mode=False)


def demo(split: str) -> list[Path]:
    return [GOLDEN / f"{name}_{split}.zip" for name in NETWORKS]


def drawn(seed: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Logits with regions and ties, the same on every machine: integers, enlarged by repetition and averaged."""
    C, h, w = shape
    coarse = np.random.default_rng(seed).integers(-96, 97, (C, h // 4 + 2, w // 4 + 2))
    fine = coarse.repeat(4, axis=1).repeat(4, axis=2)
    smooth = sum(np.roll(fine, (y, x), (1, 2)) for y in range(4) for x in range(4))
    return (smooth[:, 4 : 4 + h, 4 : 4 + w] / 256).astype(np.float16)


def stores(folder: Path, grids: tuple[tuple[int, int], ...], activation: str, boxes: bool = False) -> list[Path]:
    paths = []
    for m, grid in enumerate(grids):
        samples = {f"s{k}.png": drawn(100 * m + k, (4, *grid)) for k in range(5)}
        sizes = {name: (61 + 7 * k, 50 + 9 * k) for k, name in enumerate(samples)}
        box = dict.fromkeys(samples, (2, 0, grid[0] - 3, grid[1] - 1)) if boxes else None
        paths.append(folder / f"{activation}{m}_{grid[0]}.zarr")
        write_store(paths[-1], samples, sizes, CLASSES, box, activation=activation, member=f"m{m}")
    return paths


def softmax(folder: Path) -> Path:
    members = stores(folder, ((24, 20), (24, 20)), "softmax")
    options = "--soft", "--thresholds", "0.4", "--weights", "2,1", "--upsample", "scores"
    ensk("vote", *members, *options, "--out", folder / "out.csv")
    return folder / "out.csv"


def two_grids(folder: Path) -> Path:
    members = stores(folder, ((24, 20), (40, 36), (33, 48)), "sigmoid", boxes=True)
    ensk("vote", *members, "--thresholds", "0.45", "--weights", "3,1,2", "--out", folder / "out.csv")
    return folder / "out.csv"


def two_grids_scores(folder: Path) -> Path:
    members = stores(folder, ((24, 20), (40, 36)), "sigmoid", boxes=True)
    options = "--upsample", "scores", "--mean", "power:0.5"
    ensk("vote", *members, *options, "--rule", "drop-small:9", "--rule", "gate:0.6,20", "--out", folder / "out.csv")
    return folder / "out.csv"


def logit_mean(folder: Path) -> Path:
    members = stores(folder, ((24, 20), (24, 20)), "sigmoid")
    ensk("vote", *members, "--mean", "logit", "--temperatures", "1.5,0.7", "--out", folder / "out.csv")
    return folder / "out.csv"


def rank_rule(folder: Path) -> Path:
    ensk("vote", *demo("test"), "--decide", "rank", "--rank-temperature", "1.3", "--out", folder / "out.csv")
    return folder / "out.csv"


def tuned(folder: Path, *options: str, members: list[Path] | None = None) -> Path:
    out = folder / f"set{len(list(folder.glob('set*')))}.json"
    ensk("tune-thresholds", *(members or demo("val")), "--val", DEMO / "val" / "masks", *options, "--out", out)
    return out


def demo_set(folder: Path) -> Path:
    return tuned(folder)


def searched_set(folder: Path) -> Path:
    return tuned(folder, "--search", "weights,mean", "--trials", "5", "--folds", "3", "--metric", "iou", "--rank")


def set_with_rules(folder: Path) -> Path:
    return tuned(folder, "--search", "post", "--trials", "8", "--folds", "3")


def greedy_set(folder: Path) -> Path:
    return tuned(folder, "--search", "greedy", "--objective", "pooled", "--folds", "0")


def submission(folder: Path) -> Path:
    ensk("vote", *demo("test"), "--soft", "--thresholds", tuned(folder), "--out", folder / "out.csv")
    return folder / "out.csv"


def with_rules(folder: Path) -> Path:
    ensk("vote", *demo("test"), "--soft", "--thresholds", set_with_rules(folder), "--out", folder / "out.csv")
    return folder / "out.csv"


def hard(folder: Path) -> Path:
    sets = [tuned(folder, "--no-shrink", members=[store]) for store in demo("val")]
    options = [option for one in sets for option in ("--thresholds", one)]
    ensk("vote", *demo("test"), "--hard", *options, "--weights", "2,1,1", "--ties", "on", "--out", folder / "out.csv")
    return folder / "out.csv"


def bytes_of_stores(folder: Path) -> Path:
    """Digests of every file of stores, written under fixed ids: what one version writes, every other reads."""
    numbers = itertools.count()
    with (
        patch.object(secrets, "token_hex", lambda n: f"{next(numbers):0{2 * n}x}"),
        patch.object(uuid, "uuid4", lambda: uuid.UUID(int=next(numbers))),
        patch.object(socket, "gethostname", lambda: "host"),
        patch.object(os, "getpid", lambda: 7),
    ):
        for activation, options in (("sigmoid", {"clamp": 3.5}), ("softmax", {"member": "é"})):
            path = folder / f"{activation}.zarr"
            logits = {f"s{k}.png": drawn(k, (4, 24, 20)) for k in range(18)}
            sizes = {name: (61 + k, 50) for k, name in enumerate(logits)}
            box = dict.fromkeys(logits, (2, 0, 21, 19))
            about = {"created": "2026-11-23", "model": "drawn"}
            write_store(path, logits, sizes, CLASSES, box, activation=activation, provenance=about, **options)
    names = "sample", "class"  # for xarray: newer than these digests, compared with zarr's own in test_xarray.py
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.parent.name not in names)
    out = folder / "digests.txt"
    out.write_text("\n".join(f"{p.relative_to(folder)} {digest(p)}" for p in files))
    return out


CASES: tuple[Callable[[Path], Path], ...] = (
    softmax, two_grids, two_grids_scores, logit_mean, rank_rule, demo_set, searched_set, set_with_rules, greedy_set,
    submission, with_rules, hard, bytes_of_stores,
)  # fmt: skip


def digest(path: Path) -> str:
    """Digest a file; of a set without its date, the versions of what made it, and the digests of single samples."""
    raw = path.read_bytes()
    if path.suffix == ".json" and "created" in json.loads(raw):
        content = json.loads(raw)
        del content["created"], content["search"]["versions"], content["validation"]["seen"]
        raw = json.dumps(content, sort_keys=True).encode()
    return hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("case", CASES, ids=[case.__name__ for case in CASES])
def test_answers_are_golden(case: Callable[[Path], Path], tmp_path: Path) -> None:
    assert digest(case(tmp_path)) == json.loads(DIGESTS.read_text())[case.__name__]


if __name__ == "__main__":
    found = {}
    for case in CASES:
        folder = Path(sys.argv[1]) / case.__name__
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        found[case.__name__] = digest(case(folder))
    DIGESTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
