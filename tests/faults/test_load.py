"""L: signals at any moment, closed and full streams, little memory, odd environments."""

from __future__ import annotations

import gc
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import harness as h
import numpy as np
import pytest

import ensemble_kit as ek

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
WAIT = {"ENSK_WAIT": "0.1"}
"""Slows the network down, a sample."""
LATEST = 2.0
"""Seconds within which a signalled command must be gone."""
NET = """
import time, os, torch
class Net(torch.nn.Module):
    def forward(self, x):
        wait = float(os.environ.get("ENSK_WAIT", "0"))
        if wait > 5:
            torch.randn(int(wait) * 1500, 1500) @ torch.randn(1500, 1500)  # one step of Python
        time.sleep(min(wait, 0.2))
        return torch.cat([x.mean(1, keepdim=True) * 9 - 4, 3 - x[:, :1] * 7], 1)
"""


class Case(NamedTuple):
    """A command that is signalled while it works, and what it writes."""

    id: str
    name: str
    command: tuple[str, ...]
    out: str


CASES = [
    Case("L06", "vote", ("vote", "big.zarr", "big2.zarr", "--out", "work/o.csv"), "work/o.csv"),
    Case("L06", "tune-thresholds", ("tune-thresholds", "big.zarr", "big2.zarr", "--val", "big.npz", "--folds", "3", "--out",
                                    "work/s.json"), "work/s.json"),
    Case("L06", "convert", ("convert", "big.npz", "--out", "work/masks"), "work/masks"),
    Case("L06", "dump-logits", ("dump-logits", "net:Net", "--images", "images", "--classes", "classes.txt", "--size", "24x32", "--batch-size",
                                "1", "--out", "work/n.zarr"), "work/n.zarr"),
]  # fmt: skip
ALONE = {
    "L02": "test_little_memory_is_an_error_and_never_a_wrong_result",
    "L03": "test_killed_and_run_again",
    "L05": "test_many_chunks_open_at_once",
    "L06": "test_the_demo_is_ended_too",
    "L07": "test_a_second_signal_ends_it_at_once",
    "L08": "test_a_reader_that_goes_away",
    "L09": "test_streams_that_are_closed_or_full",
    "L10": "test_no_terminal_no_colour_no_locale",
    "L11": "test_arguments_that_mean_nothing",
    "L12": "test_other_ways_to_start_python",
    "L13": "test_no_home",
    "L14": "test_odd_paths",
    "L15": "test_without_torch_and_onnxruntime",
    "L16": "test_a_disk_that_fills_while_voting",
    "L17": "test_hours_of_work_grow_nothing",
    "L18": "test_one_core",
    "L19": "test_suspended_and_continued",
    "L01": "test_memory_does_not_grow_with_samples",
}
ELSEWHERE = {
    "L20": "faults/test_store_at_rest.py::test_the_first_release_is_read",
    "L16": "test_formats_files.py::test_a_full_disk_is_named",
    "L04": "faults/test_rle.py::test_planes_beyond_32_bits",
}
NOT_HERE: dict[str, str] = {}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores and masks that take a second or two to work on, and images with a network."""
    folder = tmp_path_factory.mktemp("ground")
    ids, plane, draw = [f"s{k:03}" for k in range(60)], (1536, 1536), np.random.default_rng(0)
    for name in ("big", "big2"):
        with ek.LogitWriter(folder / f"{name}.zarr", h.CLASSES, ids, (64, 64)) as out:
            for s in ids:
                coarse = draw.normal(size=(2, 8, 8)) * 5
                out.write(s, coarse.repeat(8, 1).repeat(8, 2).astype("f4"), plane)
    ek.Ensemble([folder / "big.zarr"]).vote(0.45).write(folder / "big.npz")
    (folder / "net.py").write_text(NET)
    (folder / "classes.txt").write_text("radius\nulna\n")
    from PIL import Image

    (folder / "images").mkdir()
    for k in range(12):
        Image.fromarray(draw.integers(0, 255, (24, 32, 3), np.uint8)).save(folder / "images" / f"{k:02}.png")
    return folder


@pytest.fixture(scope="module")
def undisturbed(ground: Path) -> Callable[[Case], tuple[dict[str, bytes], float]]:
    """What a command writes when nothing comes between, and its seconds; it is run once."""

    @cache
    def run(case: Case) -> tuple[dict[str, bytes], float]:
        (ground / "work").mkdir(exist_ok=True)
        began = time.monotonic()
        process = start(ground, case.command, **WAIT)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        span, out = time.monotonic() - began, content(ground / case.out)
        shutil.rmtree(ground / "work")
        (ground / "work").mkdir()
        return out, span

    return run


@pytest.fixture
def work(ground: Path) -> Path:
    shutil.rmtree(ground / "work", ignore_errors=True)
    (ground / "work").mkdir()
    return ground / "work"


def start(ground: Path, command: tuple[str, ...], **env: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, [str(ground), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen([*h.COMMAND, *command], cwd=ground, env={**os.environ, "PYTHONPATH": path, **env},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


def children(pid: int) -> list[int]:
    """Every process below one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found += [int(stat.parent.name), *children(int(stat.parent.name))]
    return found


def content(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {"": path.read_bytes()}
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*")
            if p.is_file() and "manifest" not in p.parts and p.name != "zarr.json"}  # fmt: skip


def signalled(ground: Path, case: Case, number: int, wait: float, **env: str) -> int:
    """Start a command, signal it, and check how it ends. Return its exit code."""
    process = start(ground, case.command, **env)
    time.sleep(wait)
    below = children(process.pid)
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    took = time.monotonic() - began
    assert took < LATEST + 1.0, f"{case.name}: {took:.1f} s"  # a second for a machine that is shared
    assert not any(Path(f"/proc/{pid}").exists() for pid in below)
    if process.returncode in {0, -number}:  # it was done, or Python had not come to our handler yet
        return process.returncode
    assert process.returncode == ENDS[signal.Signals(number)], err
    assert "Traceback" not in err
    assert f"ended by {signal.Signals(number).name}" in err
    return process.returncode


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDS, ids=lambda n: n.name)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_signal_at_any_moment(
    ground: Path, work: Path, undisturbed: Callable[[Case], tuple[dict[str, bytes], float]], case: Case, number: int
) -> None:
    """Its exit code, within 2 s, no worker left; the final name is absent or whole; the next run ends the same."""
    wanted, span = undisturbed(case)
    out = ground / case.out
    draw, ended = random.Random(number * 100 + len(case.name)), []
    for _ in range(4):
        ended.append(signalled(ground, case, number, 0.1 + (span - 0.1) * 0.95 * draw.random(), **WAIT))
        if out.exists() and case.name != "dump-logits":
            assert content(out) == wanted
            (shutil.rmtree if out.is_dir() else os.unlink)(out)
        elif out.exists():
            assert not ek.LogitStore(out).verify().damaged
    again = start(ground, case.command, **WAIT)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert content(out) == wanted
    assert not h.leftovers(work)
    assert ENDS[signal.Signals(number)] in ended, ended


def test_a_signal_while_the_main_thread_computes(ground: Path, work: Path) -> None:
    """One step of Python that takes a minute, as a network's forward pass can: the watch ends it all the same."""
    assert signalled(ground, CASES[3], signal.SIGTERM, 4.0, ENSK_WAIT="90") == 143
    assert not (work / "n.zarr").exists() or not ek.LogitStore(work / "n.zarr").verify().damaged


def test_a_signal_while_threads_compute(ground: Path, work: Path) -> None:
    assert signalled(ground, CASES[0], signal.SIGINT, 1.2) in {130, 0}
    assert not (work / "o.csv").exists() or len((work / "o.csv").read_text().splitlines()) == 121


@pytest.mark.parametrize("number", ENDS, ids=lambda n: n.name)
@pytest.mark.parametrize("module", ["typer", "threading"])
def test_a_signal_while_modules_are_imported(tmp_path: Path, number: int, module: str) -> None:
    """The first tenths of a second of a command are imports; a module that signals itself stands for any of them."""
    (tmp_path / f"{module}.py").write_text(f"import os; os.kill(os.getpid(), {int(number)}); raise SystemExit(9)")
    process = start(tmp_path, ("doctor",))
    _, err = process.communicate(timeout=60)
    assert process.returncode == ENDS[signal.Signals(number)], err
    assert err == f"\nended by {signal.Signals(number).name}; run the same command again to continue\n"


def test_a_signal_where_nothing_can_be_raised() -> None:
    """In a `__del__`, or in a callback of LLVM's, Python prints an exception and forgets it."""
    code = """
import os, time
from ensemble_kit.cli import signals
class Last:
    def __del__(self):
        os.kill(os.getpid(), 15)
        time.sleep(9)
signals.listen()
signals.say_at_end("best 0.5")
Last()
time.sleep(9)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert ran.returncode == 143
    assert ran.stderr == "\nbest 0.5\nended by SIGTERM; run the same command again to continue\n"


def test_a_second_signal_ends_it_at_once(ground: Path, work: Path) -> None:
    process = start(ground, CASES[3].command, ENSK_WAIT="90")
    time.sleep(4.0)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode in {130, -15, 143}
    assert time.monotonic() - began < 1.2
    assert "Traceback" not in err
    assert not h.leftovers(work)


def onnx_model(path: Path, *nodes: Any) -> Path:
    """A network of images (n, 3, h, w) whose two logits are made by `nodes` of the name `x`."""
    onnx = pytest.importorskip("onnx")
    tensor, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes, "net", [tensor("x", kind, ["n", 3, "h", "w"])], [tensor("y", kind, ["n", 2, "h", "w"])]
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_model_that_never_ends(ground: Path, work: Path) -> None:
    """No time is guessed in which a network must answer: a signal ends the loop that nothing else does."""
    onnx = pytest.importorskip("onnx")
    node, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    pair = [1, 2, 24, 32]
    body = onnx.helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Mul", ["v", "v"], ["w"])], "body",
        [tensor("i", onnx.TensorProto.INT64, []), tensor("go", onnx.TensorProto.BOOL, []), tensor("v", onnx.TensorProto.FLOAT, pair)],
        [tensor("on", onnx.TensorProto.BOOL, []), tensor("w", onnx.TensorProto.FLOAT, pair)],
    )  # fmt: skip
    numbers = onnx.numpy_helper.from_array
    constants = [node("Constant", [], [name], value=numbers(np.array(value)))
                 for name, value in (("most", 2**62), ("true", True), ("from", [0]), ("to", [2]), ("axis", [1]))]  # fmt: skip
    onnx_model(work / "loop.onnx", *constants, node("Slice", ["x", "from", "to", "axis"], ["half"]),
               node("Loop", ["most", "true", "half"], ["y"], body=body))  # fmt: skip
    command = ("dump-logits", "work/loop.onnx", "--images", "images", "--classes", "classes.txt", "--size", "24x32",
               "--batch-size", "1", "--out", "work/n.zarr")  # fmt: skip
    assert signalled(ground, Case("L06", "loop", command, ""), signal.SIGTERM, 4.0) == 143
    assert not (work / "n.zarr").exists() or len(ek.LogitStore(work / "n.zarr").missing) == 12


def test_a_model_that_asks_for_terabytes(ground: Path, work: Path) -> None:
    onnx = pytest.importorskip("onnx")
    node, numbers = onnx.helper.make_node, onnx.numpy_helper.from_array
    size = node("Constant", [], ["size"], value=numbers(np.array([1, 2, 2**20, 2**20])))
    onnx_model(work / "bomb.onnx", size, node("ConstantOfShape", ["size"], ["y"]))
    process = start(ground, ("dump-logits", "work/bomb.onnx", "--images", "images", "--classes", "classes.txt", "--size", "24x32",
                             "--out", "work/n.zarr"))  # fmt: skip
    _, err = process.communicate(timeout=60)
    h.judge(h.Ran(process.returncode, "", err), 3, "model-failed", "00.png", "Failed to allocate memory")
    assert "\x1b" not in err


@pytest.mark.slow
def test_the_demo_is_ended_too(tmp_path: Path) -> None:
    case = Case("L06", "demo", ("demo", "--out", str(tmp_path / "out")), "")
    assert signalled(tmp_path, case, signal.SIGTERM, 4.0) == 143
    assert not (tmp_path / "out" / "submission_hard.csv").exists()


def test_killed_and_run_again(ground: Path, work: Path) -> None:
    """SIGKILL, as the kernel sends it when memory ends."""
    case = CASES[0]
    for wait in (0.5, 1.0):
        process = start(ground, case.command)
        time.sleep(wait)
        process.kill()
        process.communicate()
    process = start(ground, (*case.command, "--force"))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert not h.leftovers(work)


def test_suspended_and_continued(ground: Path, work: Path) -> None:
    process = start(ground, CASES[0].command)
    time.sleep(0.6)
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.0)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert (work / "o.csv").exists()


SHELL = f"{sys.executable} -m ensemble_kit"


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
        ran = shell(f"{line}; exit ${{PIPESTATUS[0]}}", tmp_path)
        assert ran.returncode in {0, 141}, ran.stderr
        assert ran.stderr.replace("\n", "").find("rror") < 0, ran.stderr
    ran = shell(
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
    store = h.make(tmp_path / "m.zarr")
    code = "from ensemble_kit.cli.app import main; main()"
    for command in (("vote", store, "--out", tmp_path / "o.csv"), ("verify", store)):
        ran = subprocess.run(
            [sys.executable, *options, "-c", code, *map(str, command)], capture_output=True, text=True, timeout=120
        )
        assert ran.returncode == 0, ran.stderr
    h.chunk(store).unlink()
    ran = subprocess.run(
        [sys.executable, *options, "-c", code, "verify", str(store)], capture_output=True, text=True, timeout=120
    )
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
    from PIL import Image

    for k, name in enumerate(h.IDS):
        np.save(tmp_path / "arrays" / f"{Path(name).stem}.npy", h.logits()[k])
        Image.new("L", h.PLANE[::-1]).save(tmp_path / "images" / name)
    dump = ("--images", "images", "--classes", "classes.txt", "--force")
    for command in (
        ("tune-thresholds", "m.zarr", "--val", "val.csv", "--image-size", "32x24", "--out", "set.json"),
        ("vote", "m.zarr", "--thresholds", "set.json", "--out", "o.csv"),
        ("score", "o.csv", "--val", "val.csv", "--image-size", "32x24"),
        ("verify", "m.zarr"), ("inspect", "m.zarr"), ("doctor",),
        ("dump-logits", "arrays", *dump, "--out", "n.zarr"),
    ):  # fmt: skip
        process = start(tmp_path, command)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert ek.LogitStore(tmp_path / "n.zarr").fingerprint.strip()
    np.testing.assert_array_equal(
        ek.LogitStore(tmp_path / "n.zarr").read(h.IDS[1]), ek.LogitStore(store).read(h.IDS[1])
    )
    (tmp_path / "net.py").write_text("def build(): raise SystemExit(9)")
    (tmp_path / "net.onnx").write_bytes(b"x")
    (tmp_path / "net.pt2").write_bytes(b"PK\3\4")
    for model, words in (("net:build", "torch"), ("net.onnx", "ensemble_kit[onnx]"), ("net.pt2", "torch")):
        process = start(tmp_path, ("dump-logits", model, *dump, "--trust", "--size", "24x32", "--out", "x.zarr"))
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2, err
        assert "Traceback" not in err
        assert "pip install" in err.split(" · fix: ")[1]
        assert words in err.split(" · fix: ")[1]


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
    pasted = fix.replace("ensk", f"{shlex.quote(sys.executable)} -m ensemble_kit", 1)
    subprocess.run(pasted, shell=True, check=True, capture_output=True)
    assert out.exists()


@pytest.mark.slow
def test_many_chunks_open_at_once(tmp_path: Path) -> None:
    ids = [f"i{k:05}" for k in range(5000)]
    with ek.LogitWriter(tmp_path / "m.zarr", ["x"], ids, (2, 2)) as out:
        for name in ids:
            out.write(name, np.full((1, 2, 2), -3.0, np.float32), (4, 4))
    began = time.monotonic()
    assert ek.LogitStore(tmp_path / "m.zarr").complete
    assert time.monotonic() - began < 1.5


@h.needs_root
def test_a_disk_that_fills_while_voting(ground: Path, tmp_path: Path) -> None:
    before = ek.LogitStore(ground / "big.zarr").fingerprint
    with h.tmpfs(tmp_path / "room", "8k") as room:
        ran = h.ensk("vote", ground / "big.zarr", "--out", room / "o.csv")
        h.judge(ran, 5, "write-failed", "o.csv", "No space left")
        assert list(room.iterdir()) == []
    assert ek.LogitStore(ground / "big.zarr").fingerprint == before


def test_one_core(ground: Path, work: Path) -> None:
    if shutil.which("taskset") is None:
        pytest.skip("taskset is not installed")
    for name, before in (("one", ("taskset", "-c", "0")), ("all", ())):
        ran = h.spawn("vote", ground / "big.zarr", "--out", work / f"{name}.csv", before=before)
        assert ran.returncode == 0, ran.stderr
    assert (work / "one.csv").read_bytes() == (work / "all.csv").read_bytes()


LITTLE = """
import resource, sys
from ensemble_kit.cli.app import _run
import numpy, numba, ensemble_kit.ensemble, ensemble_kit.scores.sample, ensemble_kit.kernels.fuse, ensemble_kit.formats.writing
_run(["vote", sys.argv[1], "--out", sys.argv[2] + ".first.csv", "--jobs", "1", "-q"])  # kernels are loaded
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[3]), used + int(sys.argv[3])))
sys.exit(_run(["vote", sys.argv[1], "--out", sys.argv[2], "--jobs", "1", "-q"]))
"""


@pytest.mark.parametrize("room", [0, 1 << 20, 4 << 20, 64 << 20])
def test_little_memory_is_an_error_and_never_a_wrong_result(ground: Path, work: Path, room: int) -> None:
    out = work / "o.csv"
    ran = subprocess.run([sys.executable, "-c", LITTLE, str(ground / "big.zarr"), str(out), str(room)],
                         capture_output=True, text=True, timeout=120)  # fmt: skip
    assert ran.returncode in {0, 5}, ran.stderr
    assert "Traceback" not in ran.stderr
    if ran.returncode == 0:
        assert out.read_bytes() == (work / "o.csv.first.csv").read_bytes()
    else:
        assert "error[" in ran.stderr
        assert not out.exists()


PEAK = """
import resource, sys, ensemble_kit as ek
from ensemble_kit.decisions.decision import Vote
from ensemble_kit.execution.executor import Items, Threads
ens = ek.Ensemble(sys.argv[2:])
work = Vote(ens.inputs, ens.decision(0.46))
for masks in Threads(2).map(work, Items(ens.samples[:20]), "voting"): pass
first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for masks in Threads(2).map(work, Items(ens.samples * 10), "voting"): pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_samples(ground: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", PEAK, "x", str(ground / "big.zarr"), str(ground / "big2.zarr")],
                         capture_output=True, text=True, timeout=300)  # fmt: skip
    assert int(ran.stdout) < 40 << 10, ran.stderr


@pytest.mark.slow
def test_hours_of_work_grow_nothing(tmp_path: Path) -> None:
    """Dump, tune, vote, convert and score in one process, again and again: `make soak` for an hour, here for seconds.

    Descriptors and threads stay; memory of the second half stays within what its first rounds took, and 8 MiB.
    """
    h.masks().write(tmp_path / "val.csv", format="handbone")
    store, masks, given = (
        tmp_path / "m.zarr",
        tmp_path / "o.csv",
        ("--val", tmp_path / "val.csv", "--image-size", "32x24"),
    )
    marks: list[tuple[int, int, int]] = []
    until = time.monotonic() + float(os.environ.get("ENSK_SOAK", "4"))
    while time.monotonic() < until or len(marks) < 6:
        h.make(store, seed=len(marks) % 5, upto=3)
        h.make(store, seed=len(marks) % 5)
        for command in (
            ("tune-thresholds", store, *given, "--folds", "0", "--out", tmp_path / "set.json", "--force"),
            ("vote", store, "--thresholds", tmp_path / "set.json", "--out", masks, "--force"),
            ("convert", masks, "--image-size", "32x24", "--out", tmp_path / "o.npz", "--force"),
            ("score", masks, *given),
            ("verify", store),
        ):
            ran = h.ensk(*command)
            assert ran.code == 0, ran.err
        shutil.rmtree(store)
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        marks.append(
            (len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), pages * os.sysconf("SC_PAGE_SIZE"))
        )
    half = marks[len(marks) // 2 :]
    assert len({m[:2] for m in half}) == 1, half
    assert half[-1][2] - max(m[2] for m in marks[: len(marks) // 2]) < 8 << 20, [m[2] >> 20 for m in marks]
