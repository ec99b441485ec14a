"""`ensk verify`: its three ends, in a real process."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import warm
from ensemble_kit.logits.writer import LogitWriter

IDS = ["a.png", "b.png", "c.png"]


def ensk(*arguments: str) -> subprocess.CompletedProcess[str]:
    return warm.run("-W", "error", "-m", "ensemble_kit", *arguments)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with LogitWriter(tmp_path / "unet.zarr", ["x", "y"], IDS, (4, 4)) as out:
        for k, name in enumerate(IDS):
            out.write(name, np.full((2, 4, 4), -1.0 - k), (8, 8))
    return tmp_path / "unet.zarr"


@pytest.mark.slow
def test_sound(store: Path) -> None:
    done = ensk("verify", str(store), "-q")
    assert done.returncode == 0, done.stderr
    assert "all 3 samples are sound" in done.stdout
    assert done.stderr == ""
    told = json.loads(ensk("verify", str(store), "--json").stdout)
    assert told["sound"] is True
    assert told["checked"] == told["samples"] == 3
    assert "192" in ensk("verify", str(store), "--dry-run", "--json").stdout


def test_damaged(store: Path) -> None:
    chunk = store / "logits/c.1.0.0.0"
    chunk.write_bytes(bytes([chunk.read_bytes()[0] ^ 1]) + chunk.read_bytes()[1:])
    done = ensk("verify", str(store))
    assert done.returncode == 3
    assert done.stdout == "damaged  b.png  logits/c.1.0.0.0  bytes were changed in class 'x'\n"
    assert "error[store-damaged]" in done.stderr
    assert f"fix: run `ensk repair {store}`, which moves aside" in done.stderr
    done = ensk("verify", str(store), "--json")
    assert (done.returncode, json.loads(done.stdout)["damaged"][0]["sample"]) == (3, "b.png")


def test_missing(tmp_path: Path) -> None:
    with LogitWriter(tmp_path / "m.zarr", ["x"], IDS, (4, 4)) as out:
        out.write(IDS[1], np.full((1, 4, 4), -1.0), (8, 8))
    done = ensk("verify", str(tmp_path / "m.zarr"), "--json")
    assert (done.returncode, json.loads(done.stdout)["missing"]) == (4, ["a.png", "c.png"])
    assert "error[store-incomplete]" in done.stderr


def test_nothing_there(tmp_path: Path) -> None:
    done = ensk("verify", str(tmp_path / "none.zarr"), "--json")
    assert (done.returncode, done.stdout) == (4, "")
    assert "store-missing" in done.stderr
