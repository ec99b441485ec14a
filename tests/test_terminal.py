"""What a user sees: real processes of `ensk` on a pseudo-terminal, with widths, colours, signals and closed streams."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len

import ensemble_kit as ek
import warm
from ensemble_kit.cli import bar, progress
from ensemble_kit.cli.bar import Bar
from ensemble_kit.cli.progress import Pace
from ensemble_kit.execution.events import Progress
from pseudo import COLOUR, TERMINALS, Terminal, screen

pytestmark = pytest.mark.slow

NAMES = ("[red]radius[/red]", "[/]", "骨格", "a longer name of a class", ":smile:")
IDS = tuple(f"hand {k}.png" for k in range(6))
SIZE = (32, 24)

NET = """
import os, sys, time, warnings
import torch

class Net(torch.nn.Module):
    seen = 0
    def forward(self, x):
        Net.seen += 1
        time.sleep(float(os.environ.get("ENSK_WAIT", "0")))
        if os.environ.get("ENSK_CHATTY"):
            print("printed", Net.seen)
            print("begun …", end="", file=sys.stderr, flush=True)
            warnings.warn(f"warned {Net.seen}")
        return x[:, :2] * 9 - 4
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, masks, a threshold set, images and a network."""
    folder = tmp_path_factory.mktemp("terminal")
    draw = np.random.default_rng(5)
    with ek.LogitWriter(folder / "m.zarr", NAMES, IDS, (8, 6)) as out:
        for name in IDS:
            out.write(name, (draw.normal(size=(len(NAMES), 8, 6)) * 5).astype("f2"), SIZE)
    ensemble = ek.Ensemble([folder / "m.zarr"])
    truth = ensemble.vote(0.4)
    truth.write(folder / "truth.npz")
    ensemble.vote(0.6).write(folder / "masks.npz")
    ek.tune_thresholds(ensemble, truth, folds=3).save(folder / "set.json")
    ek.tune_thresholds(ensemble, truth, folds=0).save(folder / "other.json")
    (folder / "net.py").write_text(NET)
    (folder / "classes.txt").write_text("radius\nulna\n")
    from PIL import Image

    (folder / "images").mkdir()
    for k in range(6):
        Image.fromarray(draw.integers(0, 255, (24, 32, 3), np.uint8)).save(folder / "images" / f"{k:02}.png")
    return folder


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    while TERMINALS:
        shown = TERMINALS.pop()
        shown.close()
        shown.process.kill()
        shown.process.communicate()


DUMP = (
    "dump-logits",
    "net:Net",
    "--images",
    "images",
    "--classes",
    "classes.txt",
    "--size",
    "24x32",
    "--batch-size",
    "1",
)
ANSWERS: dict[str, tuple[str, ...]] = {
    "a store": ("inspect", "m.zarr"),
    "masks": ("inspect", "masks.npz"),
    "a set": ("inspect", "set.json"),
    "two sets": ("inspect", "set.json", "other.json"),
    "a score": ("score", "masks.npz", "--val", "truth.npz"),
    "a machine": ("doctor",),
    "a tuned set": ("tune-thresholds", "m.zarr", "--val", "truth.npz", "--folds", "3", "--compare", "m.zarr",
                    "--out", "new.json", "--force"),
}  # fmt: skip
"""Each command that answers with a table."""
SLOW = {"a machine": pytest.mark.slow}  # it imports torch and OpenCV to see whether they can be


def piped(place: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return warm.ensk(*command, cwd=place, env=os.environ | env)


def words(text: str) -> set[str]:
    return set(text.replace("─", "").split())


def sleepy(place: Path, out: str, wait: float = 0.3, **options: Any) -> Terminal:
    """Start a dump of six images that takes its time."""
    env = {"ENSK_WAIT": str(wait), "PYTHONPATH": os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])}
    return Terminal(*DUMP, "--out", out, cwd=place, env=env | options.pop("env", {}), **options)


# --- tables ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [pytest.param(command, id=name, marks=SLOW.get(name, ())) for name, command in ANSWERS.items()],
)
def test_a_table_loses_nothing_at_any_width(place: Path, command: tuple[str, ...]) -> None:
    plain = piped(place, *command)
    assert plain.returncode == 0, plain.stderr
    assert "\x1b" not in plain.stdout
    for width in (40, 100):
        shown = Terminal(*command, width=width, cwd=place, stderr=subprocess.DEVNULL)
        assert shown.end() == 0, shown.text
        assert COLOUR.search(shown.text)
        assert max(map(cell_len, shown.screen)) <= width
        told = "\n".join(line for line in plain.stdout.splitlines() if "disk free" not in line)  # others write too
        lost = words(told) - words("\n".join(shown.screen))
        folded = "".join(row.split(" ")[-1] for row in shown.screen)  # a fingerprint, say, over two lines
        assert not [w for w in lost if w not in folded], shown.screen


def test_a_wide_table_becomes_tables_that_begin_with_the_class(place: Path) -> None:
    shown = Terminal("inspect", "set.json", width=50, cwd=place)
    assert shown.end() == 0
    for name in NAMES:
        assert sum(row.startswith(name[:6]) for row in shown.screen) > 1, shown.screen
    shown = Terminal("inspect", "set.json", width=26, cwd=place)
    assert shown.end() == 0
    assert sum("threshold" in row for row in shown.screen) >= len(NAMES), shown.screen


def test_names_are_not_taken_for_markup_or_escapes(place: Path) -> None:
    named = ("[red]x[/red]", "[/]", "[bold", ":smile:", "\x1b[31mred", "a\u202etxt", "http://x.y", "bell\x07")
    masks = ek.MaskSet({("[b]i[/b]", n): ek.Runs([1], [5], (3, 4)) for n in named})
    masks.write(place / "named.npz")
    shown = Terminal("inspect", "named.npz", width=120, cwd=place)
    assert shown.end() == 0
    rows = [row.split("  ")[0] for row in shown.screen]
    for name in (
        "[red]x[/red]",
        "[/]",
        "[bold",
        ":smile:",
        "\\u001b[31mred",
        "a\\u202etxt",
        "http://x.y",
        "bell\\u0007",
    ):
        assert name in rows, shown.screen
    assert "\x1b]" not in shown.text  # links


def test_json_is_the_same_everywhere(place: Path) -> None:
    shown = Terminal("inspect", "set.json", "--json", width=40, cwd=place)
    assert shown.end() == 0
    assert shown.text == piped(place, "inspect", "set.json", "--json").stdout
    assert json.loads(shown.text)["kind"] == "threshold set"


# --- environment ----------------------------------------------------------------------------------------------


def test_no_color(place: Path) -> None:
    for command in (ANSWERS["a set"], ("vote", "m.zarr", "--out", "o.csv", "--force")):
        shown = Terminal(*command, cwd=place, env={"NO_COLOR": "1"})
        assert shown.end() == 0
        assert not COLOUR.search(shown.text)
        assert COLOUR.search(coloured(place, command))


def coloured(place: Path, command: tuple[str, ...]) -> str:
    shown = Terminal(*command, cwd=place)
    assert shown.end() == 0
    return shown.text


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": "unknown"}, {"FORCE_COLOR": ""}], ids=str)
def test_a_dumb_terminal_gets_plain_text(place: Path, env: dict[str, str]) -> None:
    shown = Terminal(*ANSWERS["a set"], cwd=place, env=env, width=40)
    assert shown.end() == 0
    assert shown.text == piped(place, *ANSWERS["a set"]).stdout
    shown = Terminal("verify", "m.zarr", cwd=place, env=env)
    assert shown.end() == 0
    assert "\x1b" not in shown.text
    assert "\r" not in shown.text
    assert "verifying 6/6 · " in shown.text


def test_force_color_and_columns(place: Path) -> None:
    forced = piped(place, "inspect", "set.json", FORCE_COLOR="1", TERM="xterm-256color", COLUMNS="40")
    assert COLOUR.search(forced.stdout)
    assert max(map(len, screen(forced.stdout, 200))) <= 40
    log = piped(place, "verify", "m.zarr", FORCE_COLOR="1", TERM="xterm-256color")
    assert log.stderr.startswith("verifying 6/6 · ")  # colours may be forced, a cursor that goes back may not
    shown = Terminal("inspect", "set.json", width=140, cwd=place, env={"COLUMNS": "40"})
    assert shown.end() == 0
    assert max(map(len, shown.screen)) <= 40


def test_a_locale_without_lines_and_dots(place: Path) -> None:
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for command in (ANSWERS["masks"], ("verify", "m.zarr")):
        shown = Terminal(*command, cwd=place, env=env)
        assert shown.end() == 0
        assert shown.text.isascii()


def test_each_stream_is_judged_by_itself(place: Path) -> None:
    shown = Terminal("verify", "m.zarr", cwd=place, stdout=subprocess.PIPE)
    assert shown.end() == 0
    assert shown.others[0] == piped(place, "verify", "m.zarr").stdout
    assert "━" in shown.text
    shown = Terminal(*ANSWERS["a tuned set"], cwd=place, stderr=subprocess.PIPE)
    assert shown.end() == 0
    assert "warning: " in shown.others[1]
    assert "\x1b" not in shown.others[1]
    assert COLOUR.search(shown.text)


def test_rich_is_imported_for_a_terminal_only(place: Path) -> None:
    """Beyond what `import typer` brings: typer 0.16 imports rich itself."""
    code = "import sys, typer; before = 'rich' in sys.modules; from ensemble_kit.cli.app import _run\n"
    code += "_run(['inspect', 'set.json']); _run(['verify', 'm.zarr'])\n"
    code += "print(before or 'rich' not in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("True\n")


# --- errors and quiet -----------------------------------------------------------------------------------------


def test_an_error_is_one_line_that_can_be_searched(place: Path) -> None:
    shown = Terminal("inspect", "nothing.zarr", "--debug", width=40, cwd=place)
    plain = piped(place, "inspect", "nothing.zarr")
    assert shown.end() == plain.returncode != 0
    assert shown.text.splitlines()[-1] == plain.stderr.strip()
    assert plain.stderr.startswith("error[")
    assert " · fix: " in plain.stderr


def test_quiet_shows_no_bar(place: Path) -> None:
    shown = Terminal("vote", "m.zarr", "--out", "q.csv", "--force", "-q", cwd=place)
    assert (shown.end(), shown.text) == (0, "")


# --- the bar --------------------------------------------------------------------------------------------------


def test_a_bar_is_drawn_and_ended(place: Path) -> None:
    shown = sleepy(place, "bar.zarr")
    assert shown.end() == 0, shown.text
    assert shown.text.count("\r\x1b[K") > 3
    assert "?25l" not in shown.text  # the cursor is never hidden
    (line,) = [row for row in shown.screen if "━" in row]
    assert line.startswith("dumping ━")
    assert " 6/6 · " in line
    assert "samples/s" in line
    assert "ETA" not in line
    assert shown.screen[-2:] == ["wrote 6 samples, 18.4 KB, to bar.zarr", ""]
    assert "ETA 0:0" in shown.text


def test_a_narrow_bar(place: Path) -> None:
    shown = Terminal("verify", "m.zarr", width=40, cwd=place, stdout=subprocess.DEVNULL)
    assert shown.end() == 0, shown.text
    first, second, end = shown.screen
    assert first.startswith("verifying ━")
    assert first.endswith("━ 6/6")
    assert re.fullmatch(r"[\d.]+ samples/s · \d+ B|[\d.]+ samples/s · [\d.]+ KB", second)
    assert end == ""


def test_what_a_network_prints_goes_above_the_bar(place: Path) -> None:
    shown = sleepy(place, "chatty.zarr", env={"ENSK_CHATTY": "1"})
    assert shown.end() == 0, shown.text
    for k in range(1, 7):
        assert f"printed {k}" in shown.screen
        assert [row for row in shown.screen if row.startswith("begun …") and row.endswith(f"UserWarning: warned {k}")]
    assert len([row for row in shown.screen if "━" in row]) == 1, shown.screen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_leaves_the_terminal_as_it_was(place: Path, number: int) -> None:
    shown = sleepy(place, f"{number}.zarr", wait=0.4, width=60)
    before = termios.tcgetattr(shown.master)
    shown.until(lambda text: re.search("[1-4]/6", text))
    shown.process.send_signal(number)
    shown.until(lambda text: "ended by" in text, 30)
    assert termios.tcgetattr(shown.master) == before
    assert shown.end() == 128 + number
    assert "?25l" not in shown.text
    assert shown.text.endswith("\n")
    assert f"ended by {signal.Signals(number).name}; " in "\n".join(shown.screen)
    assert [row for row in shown.screen if row.startswith("dumping ━") and "ended" not in row]
    assert "Traceback" not in shown.text


def test_a_terminal_that_goes_away_does_not_end_the_work(place: Path) -> None:
    shown = sleepy(place, "alone.zarr", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    shown.until(lambda text: re.search("[1-4]/6", text))
    shown.close()
    assert shown.process.wait(180) == 0
    assert ek.LogitStore(place / "alone.zarr").complete


class Screen(io.StringIO):
    """A terminal in this process."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_events_may_come_from_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bar, "EVERY", 0.0)
    monkeypatch.setenv("COLUMNS", "60")
    stream = Screen()

    def work(k: int) -> None:
        for n in range(100):
            listen(Progress("counting", n, 100, n, note=f"thread {k}"))
            if not n % 10:
                sys.stderr.write(f"{k} at {n}\n")  # in one piece, which `print` is not

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        with Bar(stream) as listen:
            threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
            [t.start() for t in threads]
            [t.join() for t in threads]
            listen(Progress("counting", 100, 100, 100))
            kept = sys.stderr
        print("later", file=kept)
    rows = screen(stream.getvalue(), 60)
    assert rows[-3].startswith("counting ━")
    assert rows[-2:] == ["later", ""]
    for k in range(4):
        assert [r for r in rows if r.startswith(f"{k} at")] == [f"{k} at {n}" for n in range(0, 100, 10)]


@pytest.mark.parametrize("width", range(1, 60, 7))
def test_a_bar_at_any_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bar, "EVERY", 0.0)
    monkeypatch.setenv("COLUMNS", str(width))
    stream = Screen()
    event = Progress("searching", 3, 200, 3, bytes=10**9, note="best 0.912345 (trial 2), [red]first[/] 0.9")
    print("before", file=stream)
    with Bar(stream) as listen:
        listen(Progress("searching", 0, 200))
        for _ in range(3):
            listen(event)  # a frame is drawn over the lines of the one before
    rows = screen(stream.getvalue(), width)
    told = "".join(rows).replace(" ", "")
    assert "before" in told
    for fact in ("searching", "3/200", "trials/s", "ETA", "1.0GB", "best0.912345(trial2),[red]first[/]0.9"):
        assert told.count(fact) == 1, rows


def test_the_rate_is_of_what_is_being_done(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    pace = Pace()

    def facts(at: float, *event: Any) -> list[str]:
        clock[0] = at
        pace.hear(Progress(*event))
        return pace.facts()

    assert facts(100, "counting", 0, 10) == []
    assert facts(104, "counting", 8, 10, 8) == ["2.0 samples/s", "ETA 0:01"]
    assert facts(200, "voting", 5, 25, 0) == []  # another run; five were done before
    assert facts(210, "voting", 15, 25, 10) == ["1.0 samples/s", "ETA 0:10"]
    assert facts(300, "voting", 0, 25, 0) == []  # and once more
    assert facts(301, "voting", 25, 25, 25) == ["25.0 samples/s"]
