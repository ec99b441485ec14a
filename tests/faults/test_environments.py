"""L: closed and full streams, pipes, locales, odd paths, missing packages: where and how a command is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness as h
import numpy as np
import pytest
from PIL import Image

import ensemble_kit as ek
import warm

pytestmark = pytest.mark.slow

SEVERAL = """
import json, sys
from ensemble_kit.cli.app import _run
for words in json.loads(sys.argv[1]):
    print(_run(words), flush=True)
    print("===", file=sys.stderr, flush=True)
"""


def several(*commands: tuple[object, ...], options: tuple[str, ...] = (), **how: Any) -> list[h.Ran]:
    """Run commands one after the other in one process of their own."""
    words = json.dumps([[str(w) for w in command] for command in commands])
    ran = subprocess.run(
        [sys.executable, *options, "-c", SEVERAL, words], capture_output=True, text=True, timeout=120, **how
    )
    assert ran.returncode == 0, ran.stderr
    codes = [int(line) for line in ran.stdout.splitlines() if line.isdecimal()]
    return [h.Ran(code, "", err) for code, err in zip(codes, ran.stderr.split("===\n"), strict=False)]


SHELL = f"{sys.executable} -m ensemble_kit"


def piped(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell whose `ensk` is a warm process, with the shell's streams."""
    path = os.pathsep.join([str(warm.commands()), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-c", line], cwd=cwd, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120
    )


def shell(line: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line.replace("ensk", SHELL)], cwd=cwd, env={**os.environ, **env},
                          capture_output=True, text=True, timeout=120)  # fmt: skip


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("ensk inspect m.zarr > /dev/full", 5, "error[write-failed]"),
        ("ensk inspect m.zarr >&-", 5, "error[write-failed]"),
        ("ensk inspect m.zarr --json >&-", 5, "error[write-failed]"),
        ("ensk inspect m.zarr 2>&-", 0, ""),
        ("ensk inspect m.zarr 2> /dev/full", 0, ""),
        ("ensk inspect m.zarr <&-", 0, ""),
        ("ensk inspect m.zarr <&- >&- 2>&-", 5, ""),
        ("ensk nothing 2> /dev/full", 2, ""),
        ("ensk vote m.zarr --out o.csv --force >&- 2>&-", 0, ""),
        ("ensk vote m.zarr --out - > /dev/full", 5, "error[write-failed]"),
    ],
)
def test_streams_that_are_closed_or_full(tmp_path: Path, line: str, code: int, words: str) -> None:
    h.make(tmp_path / "m.zarr")
    ran = shell(line, tmp_path)
    assert ran.returncode == code, ran.stderr
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "Exception ignored" not in ran.stderr
    if "o.csv" in line:
        masks = dict(ek.read_masks(tmp_path / "o.csv", image_size=h.PLANE))
        assert masks == dict(ek.Ensemble([tmp_path / "m.zarr"]).vote(0.5))  # no talk has come into the file


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    h.masks(ids=tuple(f"i{k}" for k in range(500))).write(tmp_path / "m.npz")
    for line in (
        "ensk inspect m.npz | head -1",
        "ensk convert m.npz --out - | head -1",
        "ensk inspect m.npz --json | true",
    ):
        ran = piped(f"{line}; exit ${{PIPESTATUS[0]}}", tmp_path)
        assert ran.returncode in {0, 141}, ran.stderr
        assert ran.stderr.replace("\n", "").find("rror") < 0, ran.stderr
    ran = piped(
        "ensk vote m.zarr --out o.csv 2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}",
        Path(h.make(tmp_path / "m.zarr")).parent,
    )
    assert ran.returncode == 0
    assert (tmp_path / "o.csv").exists()  # that nobody listens does not end the work


def test_no_terminal_no_colour_no_locale(tmp_path: Path) -> None:
    with ek.LogitWriter(tmp_path / "m.zarr", ["Handwurzelknöchel", "骨"], ["é"], h.GRID) as out:
        out.write("é", h.logits()[0], h.PLANE)
    plain = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "NO_COLOR": "1",
        "COLUMNS": "10",
        "TERM": "dumb",
    }
    for extra in ("", " --json"):
        ran = shell(f"ensk inspect m.zarr{extra}", tmp_path, **plain)
        assert ran.returncode == 0, ran.stderr
        assert "\x1b" not in ran.stdout
        assert ran.stdout.isascii()
        if extra:
            assert json.loads(ran.stdout)["classes"][1] == "骨"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "no command"), (("vot",), "vot"), (("vote", "--ouT", "x"), "--out"), (("vote", "m.zarr"), "--out"),
     (("vote", "m.zarr", "--out", "o.csv", "--jobs", "none"), "--jobs"), (("vote", "m.zarr", "--out", "o.csv", "--jobs", "0"), "--jobs"),
     (("doctor", "--memory", "lots"), "lots")],
)  # fmt: skip
def test_arguments_that_mean_nothing(arguments: tuple[str, ...], words: str) -> None:
    ran = h.ensk(*arguments)
    assert ran.code == 2
    assert words in ran.err + ran.out if arguments else True
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("options", [("-O",), ("-X", "dev", "-W", "error")], ids=" ".join)
def test_other_ways_to_start_python(tmp_path: Path, options: tuple[str, ...]) -> None:
    commands: list[tuple[object, ...]] = []
    for form in h.each_form():
        store, hurt = (h.make(tmp_path / f"{form.name}{k}.zarr") for k in range(2))
        h.chunk(hurt).unlink()
        commands += [
            ("vote", store, "--out", tmp_path / f"{form.name}.npz", "-q"),
            ("verify", store, "-q"),
            ("verify", hurt),
        ]
    ended = several(*commands, options=options)
    assert [ran.code for ran in ended] == [0, 0, 3] * len(h.FORMS), [ran.err for ran in ended]
    for ran in ended[2::3]:
        h.judge(ran, 3, "store-damaged", h.IDS[h.VICTIM])


def test_without_torch_and_onnxruntime(tmp_path: Path) -> None:
    """Where they are not installed, everything but running networks works, and that says what to install."""
    for name in ("torch", "onnxruntime", "onnx"):
        (tmp_path / f"{name}.py").write_text(f'raise ModuleNotFoundError("No module named {name}", name="{name}")')
    store = h.make(tmp_path / "m.zarr")
    h.masks().write(tmp_path / "val.csv", format="handbone")
    (tmp_path / "arrays").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "classes.txt").write_text("\n".join(h.CLASSES))
    for k, name in enumerate(h.IDS):
        np.save(tmp_path / "arrays" / f"{Path(name).stem}.npy", h.logits()[k])
        Image.new("L", h.PLANE[::-1]).save(tmp_path / "images" / name)
    dump = ("--images", "images", "--classes", "classes.txt", "--force")
    how = {
        "cwd": tmp_path,
        "env": {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
    }
    ended = several(
        ("tune-thresholds", "m.zarr", "--val", "val.csv", "--image-size", "32x24", "--out", "set.json"),
        ("vote", "m.zarr", "--thresholds", "set.json", "--out", "o.csv"),
        ("score", "o.csv", "--val", "val.csv", "--image-size", "32x24"),
        ("verify", "m.zarr"), ("inspect", "m.zarr"), ("doctor",),
        ("dump-logits", "arrays", *dump, "--out", "n.zarr"), **how,
    )  # fmt: skip
    assert [ran.code for ran in ended] == [0] * 7, [ran.err for ran in ended]
    assert ek.LogitStore(tmp_path / "n.zarr").fingerprint.strip()
    np.testing.assert_array_equal(
        ek.LogitStore(tmp_path / "n.zarr").read(h.IDS[1]), ek.LogitStore(store).read(h.IDS[1])
    )
    (tmp_path / "net.py").write_text("def build(): raise SystemExit(9)")
    (tmp_path / "net.onnx").write_bytes(b"x")
    (tmp_path / "net.pt2").write_bytes(b"PK\3\4")
    models = {"net:build": "torch", "net.onnx": "ensemble_kit[onnx]", "net.pt2": "torch"}
    ended = several(
        *[("dump-logits", m, *dump, "--trust", "--size", "24x32", "--out", "x.zarr") for m in models], **how
    )
    for ran, words in zip(ended, models.values(), strict=True):
        assert ran.code == 2, ran.err
        assert "Traceback" not in ran.err
        assert "pip install" in ran.err.split(" · fix: ")[1]
        assert words in ran.err.split(" · fix: ")[1]


def test_no_home(tmp_path: Path) -> None:
    h.make(tmp_path / "m.zarr")
    ran = shell("env -u HOME -u XDG_CACHE_HOME ensk verify m.zarr", tmp_path)
    assert ran.returncode == 0, ran.stderr
    ran = shell("ensk verify m.zarr", tmp_path, HOME="/nowhere/at/all")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", ["a b", "-lead", "é骨", "q'u\"o", "100%", "$HOME", "a;b", "[x]*?"])
def test_odd_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).mkdir()
    store = h.make(tmp_path / name / f"{name}.zarr")
    out = tmp_path / name / f"{name}.csv"
    assert h.ensk("vote", store, "--out", out).code == 0
    assert out.exists()
    monkeypatch.chdir(tmp_path / name)
    ran = h.ensk("verify", "--", f"{name}.zarr")
    assert ran.code == 0, ran.err
    h.chunk(store).unlink()
    fix = h.ensk("verify", store).err.split(" · fix: run `")[1].split("`")[0]
    assert fix.startswith("ensk repair ")
    parsed = subprocess.run(["bash", "-c", f"printf '%s\\0' {fix}"], check=True, capture_output=True, text=True).stdout
    assert h.ensk(*parsed.rstrip("\0").split("\0")[1:]).code == 0
    assert ek.LogitStore(store).missing == [h.IDS[h.VICTIM]]
    assert out.exists()
