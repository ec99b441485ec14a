"""L: signals and kills at any moment of a command. It ends at once, its output is whole or absent, and the next run goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import grounds
import harness as h
import numpy as np
import pytest
from loaded import Child, Ended, Loaded

import ensemble_kit as ek

pytestmark = pytest.mark.slow

ground, work = grounds.ground, grounds.work

ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
LATEST = 2.0
"""Seconds within which a signalled command must be gone."""


class Case(NamedTuple):
    """A command that is signalled while it works, on stores of one format, and what it writes."""

    command: tuple[str, ...]
    out: str
    form: str = "one grid"
    signals: tuple[signal.Signals, ...] = (signal.SIGTERM,)

    @property
    def name(self) -> str:
        return f"{self.command[0]}, {self.form}"


def vote(form: str, *signals: signal.Signals) -> Case:
    return Case(("vote", f"{form}.zarr", f"{form}2.zarr", "--out", "work/o.npz"), "work/o.npz", form, signals)


def tune(form: str, *signals: signal.Signals) -> Case:
    command = (
        "tune-thresholds",
        f"{form}.zarr",
        f"{form}2.zarr",
        "--val",
        f"{form}.npz",
        "--folds",
        "3",
        "--out",
        "work/s.json",
    )
    return Case(command, "work/s.json", form, signals)


def dump(form: str, *signals: signal.Signals) -> Case:
    model = ("arrays", "--scenes", "scenes.csv")
    if form != "scenes":
        model = ("net:Net", "--batch-size", "1", "--size", "24x32" if form == "one grid" else "native")
    command = ("dump-logits", *model, "--images", "images", "--classes", "classes.txt", "--out", "work/n.zarr")
    return Case(command, "work/n.zarr", form, signals)


OTHERS = ("grids", "volumes", "scenes")
CASES = [
    vote("one grid", *ENDS), tune("one grid", *ENDS), dump("one grid", *ENDS),
    Case(("convert", "one grid.npz", "--out", "work/masks"), "work/masks", signals=tuple(ENDS)),
    *(vote(form, signal.SIGTERM) for form in OTHERS), *(tune(form, signal.SIGTERM) for form in OTHERS),
    dump("grids", signal.SIGTERM), dump("scenes", signal.SIGTERM),
]  # fmt: skip
"""How a command ends does not depend on the format: all signals on one of them, one on the others."""


@pytest.fixture(scope="module")
def loaded(ground: Path) -> Iterator[Loaded]:
    first = [case.command for case in CASES if case.command[0] != "dump-logits"]
    outs = [tuple(w.replace("work/", f"first{k}") for w in command) for k, command in enumerate(first)]
    started = Loaded(ground, *outs)
    yield started
    started.close()


@pytest.fixture(scope="module")
def undisturbed(ground: Path, loaded: Loaded) -> Callable[[Case], tuple[dict[str, bytes], float]]:
    """What a command writes when nothing comes between, and the seconds that it computes; it is run once."""

    @cache
    def run(case: Case) -> tuple[dict[str, bytes], float]:
        ended = loaded.run(*case.command)
        assert ended.code == 0, ended.err
        return content(ground / case.out), ended.seconds

    return run


def cold(ground: Path, *command: str, **env: str) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
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
            if p.is_file() and "manifest" not in p.parts and p != path / "zarr.json"}  # fmt: skip


def remove(path: Path) -> None:
    if path.exists():
        (shutil.rmtree if path.is_dir() else os.unlink)(path)


def signalled(child: Child, number: int) -> Ended:
    """Signal a command, and check how it ends."""
    below, began = children(child.pid), time.monotonic()
    try:
        os.kill(child.pid, number)
    except ProcessLookupError:  # it was done
        return child.wait()
    ended = child.wait(20)
    took = time.monotonic() - began
    assert took < LATEST + 1.0, f"{took:.1f} s"  # a second for a machine that is shared
    assert not any(Path(f"/proc/{pid}").exists() for pid in below)
    if ended.code != 0:
        check_end(ended.code, ended.err, number)
    return ended


def reached(loaded: Loaded, case: Case, span: float, number: signal.Signals) -> Child:
    """Signal a command after seconds of its work; sooner in another run, where it was done by then."""
    while True:
        child = loaded.start(*case.command, "--force")
        child.reach(span)
        if child.alive():
            os.kill(child.pid, number)
            return child
        assert child.wait().code == 0
        span /= 2


def check_end(code: int, err: str, number: int) -> None:
    assert code == ENDS[signal.Signals(number)], err
    assert "Traceback" not in err
    assert f"ended by {signal.Signals(number).name}" in err


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_signal_at_any_moment(
    ground: Path, work: Path, loaded: Loaded, undisturbed: Callable[[Case], tuple[dict[str, bytes], float]], case: Case
) -> None:
    """Its exit code, within 2 s, no worker left; the final name is absent or whole; the next run ends the same.

    Moments are drawn from each part of the work in turn, by the seconds that the command has computed.
    """
    wanted, span = undisturbed(case)
    out, draw, ended = ground / case.out, random.Random(case.name), list[int]()
    aims = [(k, number) for k, number in enumerate(case.signals * (2 if len(case.signals) > 1 else 3))]
    for k, number in aims:
        remove(out)
        child = loaded.start(*case.command)
        child.reach(span * 0.97 * (k + draw.random()) / len(aims))
        ended.append(signalled(child, number).code)
        if out.exists() and case.command[0] != "dump-logits":
            assert content(out) == wanted
            remove(out)
        elif out.exists():
            assert not ek.LogitStore(out).verify().damaged
    again = loaded.run(*case.command)
    assert again.code == 0, again.err
    assert content(out) == wanted
    assert not h.leftovers(work)
    assert sum(code != 0 for code in ended) > len(ended) // 2, ended


@pytest.mark.parametrize("case", [vote("scenes"), tune("one grid"), dump("grids")], ids=lambda c: c.name)
def test_a_signal_while_a_command_starts(ground: Path, work: Path, case: Case) -> None:
    """A process of its own, in its first tenths of a second: Python's own end before it listens, ours then."""
    draw = random.Random(case.name)
    for number in ENDS:
        process = cold(ground, *case.command)
        time.sleep(0.4 * draw.random())
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
        if process.returncode != -number:
            check_end(process.returncode, err, number)
        assert not (ground / case.out).exists()
    assert not h.leftovers(work)


def test_a_signal_while_the_main_thread_computes(work: Path, loaded: Loaded) -> None:
    """One step of Python that takes a minute, as a network's forward pass can: the watch ends it all the same."""
    child = loaded.start(*CASES[2].command, ENSK_WAIT="90")
    child.reach(0.6)
    assert signalled(child, signal.SIGTERM).code == 143
    assert not (work / "n.zarr").exists() or not ek.LogitStore(work / "n.zarr").verify().damaged


def test_a_second_signal_ends_it_at_once(work: Path, loaded: Loaded) -> None:
    child = loaded.start(*CASES[2].command, ENSK_WAIT="90")
    child.reach(0.6)
    began = time.monotonic()
    os.kill(child.pid, signal.SIGINT)
    time.sleep(0.1)
    os.kill(child.pid, signal.SIGTERM)
    ended = child.wait(20)
    assert ended.code in {130, -15, 143}
    assert time.monotonic() - began < 1.2
    assert "Traceback" not in ended.err
    assert not h.leftovers(work)


@pytest.mark.parametrize("number", ENDS, ids=lambda n: n.name)
@pytest.mark.parametrize("module", ["typer", "threading"])
def test_a_signal_while_modules_are_imported(tmp_path: Path, number: int, module: str) -> None:
    """The first tenths of a second of a command are imports; a module that signals itself stands for any of them."""
    (tmp_path / f"{module}.py").write_text(f"import os; os.kill(os.getpid(), {int(number)}); raise SystemExit(9)")
    process = cold(tmp_path, "doctor")
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


DROPS = {
    "a library": """
        try:
            signalled()
        except BaseException:
            pass""",
    "a library, inside another error": """
        class Name:
            def __set_name__(self, owner, name):
                signalled()
        try:
            type("Named", (), {"name": Name()})
        except RuntimeError:
            pass""",
}
"""What catches what is raised for a signal, and forgets it."""


@pytest.mark.parametrize("by", DROPS)
def test_a_signal_that_is_caught_and_forgotten(by: str) -> None:
    """The command would go on, and end well where it ends sooner than it is killed."""
    code = f"""
import os, time
from ensemble_kit.cli import signals

def signalled():
    os.kill(os.getpid(), 15)
    time.sleep(9)

try:
    signals.listen()
    if True: {DROPS[by]}
    time.sleep(0.7)
except signals.Signalled as error:
    signals.end(error.number)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert (ran.returncode, ran.stderr) == (143, "\nended by SIGTERM; run the same command again to continue\n")


def onnx_model(path: Path, *nodes: Any) -> Path:
    """A network of images (n, 3, h, w) whose two logits are made by `nodes` of the name `x`."""
    onnx = pytest.importorskip("onnx")
    tensor, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes, "net", [tensor("x", kind, ["n", 3, "h", "w"])], [tensor("y", kind, ["n", 2, "h", "w"])]
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_model_that_never_ends(work: Path, loaded: Loaded) -> None:
    """No time is guessed in which a network must answer: a signal ends the loop that nothing else does."""
    onnx = pytest.importorskip("onnx")
    node, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    pair = [1, 2, 32, 32]
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
    child = loaded.start("dump-logits", "work/loop.onnx", "--images", "images", "--classes", "classes.txt", "--size", "32x32",
                       "--batch-size", "1", "--out", "work/n.zarr")  # fmt: skip
    child.reach(2.0)
    assert signalled(child, signal.SIGTERM).code == 143
    assert not (work / "n.zarr").exists() or len(ek.LogitStore(work / "n.zarr").missing) == 16


def test_a_model_that_asks_for_terabytes(work: Path, loaded: Loaded) -> None:
    onnx = pytest.importorskip("onnx")
    node, numbers = onnx.helper.make_node, onnx.numpy_helper.from_array
    size = node("Constant", [], ["size"], value=numbers(np.array([1, 2, 2**20, 2**20])))
    onnx_model(work / "bomb.onnx", size, node("ConstantOfShape", ["size"], ["y"]))
    ended = loaded.run("dump-logits", "work/bomb.onnx", "--images", "images", "--classes", "classes.txt", "--size", "32x32",
                     "--out", "work/n.zarr")  # fmt: skip
    h.judge(h.Ran(ended.code, "", ended.err), 5, "model-memory", "00.png", "Failed to allocate memory")
    assert "\x1b" not in ended.err


def test_the_demo_is_ended_too(loaded: Loaded, tmp_path: Path) -> None:
    child = loaded.start("demo", "--out", tmp_path / "out")
    child.reach(1.0)
    assert signalled(child, signal.SIGTERM).code == 143
    assert not (tmp_path / "out" / "submission_hard.csv").exists()


def test_killed_and_run_again(
    ground: Path, work: Path, loaded: Loaded, undisturbed: Callable[[Case], tuple[dict[str, bytes], float]]
) -> None:
    """SIGKILL, as the kernel sends it when memory ends."""
    case = CASES[0]
    wanted, span = undisturbed(case)
    for part in (0.4, 0.8):
        assert reached(loaded, case, span * part, signal.SIGKILL).wait().code == -signal.SIGKILL
    ended = loaded.run(*case.command, "--force")
    assert ended.code == 0, ended.err
    assert content(ground / case.out) == wanted
    assert not h.leftovers(work)


def test_suspended_and_continued(
    ground: Path, work: Path, loaded: Loaded, undisturbed: Callable[[Case], tuple[dict[str, bytes], float]]
) -> None:
    wanted, span = undisturbed(CASES[0])
    child = reached(loaded, CASES[0], span / 2, signal.SIGSTOP)
    time.sleep(0.5)
    os.kill(child.pid, signal.SIGCONT)
    ended = child.wait()
    assert ended.code == 0, ended.err
    assert content(ground / CASES[0].out) == wanted
