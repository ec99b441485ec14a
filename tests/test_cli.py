"""The command line, in processes of its own, on the demo's networks and images."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ensemble_kit as ek
import warm
from ensemble_kit.cli import app, warming
from ensemble_kit.cli.commands import COMMANDS

pytestmark = pytest.mark.slow

ENSK = Path(sys.executable).with_name("ensk")
DATA = Path(ek.__file__).parent / "demo" / "data"
NETWORKS = ("unet", "fpn", "dilated")
Ran = subprocess.CompletedProcess[str]


def ensk(*arguments: object, cwd: Path | None = None) -> Ran:
    return warm.ensk(*arguments, cwd=cwd)


def started(*arguments: object) -> Ran:
    """Run the script that is installed."""
    return subprocess.run([ENSK, *map(str, arguments)], capture_output=True, text=True, check=False)


def fails(code: int, name: str, *arguments: object, cwd: Path | None = None) -> str:
    """Run, expect this exit code and an error of this name in three parts, without a traceback; return stderr."""
    ran = ensk(*arguments, cwd=cwd)
    assert ran.returncode == code, ran.stderr
    assert f"error[{name}] " in ran.stderr
    assert " · fix: " in ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stderr


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that one run of `ensk demo` leaves."""
    out = tmp_path_factory.mktemp("demo") / "out"
    ran = started("demo", "--out", out, "--json")
    assert ran.returncode == 0, ran.stderr
    (out / "demo-result.json").write_text(ran.stdout)
    (out / "demo-talk.txt").write_text(ran.stderr)
    return out


def test_demo_runs_the_whole_chain(demo: Path) -> None:
    result = json.loads((demo / "demo-result.json").read_text())
    assert result["seconds"] < 120
    assert len(result["scores"]) == 7
    assert all(f"$ {line}" in (demo / "demo-talk.txt").read_text() for line in result["commands"])
    truth = ek.read_masks(demo / "data/test/masks")
    sizes = {s: truth.image_size(s) for s in truth.samples}
    for name, file in (
        ("mean of the three, soft tuned", "submission"),
        ("mean of the three, hard vote", "submission_hard"),
    ):
        masks = ek.read_masks(demo / f"{file}.csv", image_size=sizes, classes=truth.classes)
        assert ek.dice(masks, truth).mean == result["scores"][name]["mean"]


def test_a_printed_command_gives_the_same_bytes(demo: Path, tmp_path: Path) -> None:
    line = next(c for c in json.loads((demo / "demo-result.json").read_text())["commands"] if "submission.csv" in c)
    ran = started(*[a if not a.endswith(".csv") else tmp_path / "again.csv" for a in line.split()[1:]])
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "again.csv").read_bytes() == (demo / "submission.csv").read_bytes()


def test_demo_keeps_what_is_not_its_own(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("years")
    fails(2, "output-exists", "demo", "--out", tmp_path / "work", "--force")
    assert (tmp_path / "work" / "thesis.txt").exists()
    fails(2, "output-exists", "demo", "--out", demo)


def test_the_road_from_the_command_line_is_the_road_from_python(demo: Path, tmp_path: Path) -> None:
    stores = [demo / f"{n}_test.zarr" for n in NETWORKS]
    ens = ek.Ensemble(stores)
    tuned = ek.ThresholdSet.load(demo / "demo.json")
    ens.as_tuned(tuned).vote(tuned).write(tmp_path / "python.csv", format="handbone")
    assert (tmp_path / "python.csv").read_bytes() == (demo / "submission.csv").read_bytes()


def test_tuned_score_is_the_score_of_the_vote(demo: Path, tmp_path: Path) -> None:
    stores = [demo / f"{n}_val.zarr" for n in NETWORKS]
    ran = started("tune-thresholds", *stores, "--val", demo / "data/val/masks", "--out", tmp_path / "t.json", "--json")
    assert ran.returncode == 0, ran.stderr
    printed = json.loads(ran.stdout)["validation"]["in_sample"]
    assert ensk("vote", *stores, "--thresholds", tmp_path / "t.json", "--out", tmp_path / "val.csv").returncode == 0
    scored = ensk("score", tmp_path / "val.csv", "--val", demo / "data/val/masks", "--json")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["mean"] == pytest.approx(printed, abs=1e-9)


def test_a_set_is_found_by_name(demo: Path, tmp_path: Path) -> None:
    stores = [demo / f"{n}_val.zarr" for n in NETWORKS]
    ran = ensk("tune-thresholds", *stores, "--val", demo / "data/val/masks", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "threshold" in ran.stdout
    written = list((tmp_path / "thresholds").glob("*.json"))
    assert [p.stem for p in written] == ["dilated+fpn+unet"]
    ran = ensk("vote", *stores, "--thresholds", "dilated+fpn+unet", "--out", "s.csv", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "'dilated+fpn+unet'" in fails(
        4, "set-missing", "vote", *stores, "--thresholds", "x", "--out", "t.csv", cwd=tmp_path
    )


def test_hard_vote_of_stores_and_files(demo: Path, tmp_path: Path) -> None:
    ran = ensk(
        "vote",
        demo / "unet.csv",
        demo / "fpn_test.zarr",
        demo / "dilated.csv",
        "--hard",
        "--out",
        tmp_path / "hard.csv",
    )
    assert ran.returncode == 0, ran.stderr
    assert "rule: on where ≥ 2 of 3" in ran.stderr
    masks = [ek.Ensemble([demo / f"{n}_test.zarr"]).vote(0.5) for n in NETWORKS]
    truth = ek.read_masks(demo / "data/test/masks")
    sizes = {s: truth.image_size(s) for s in truth.samples}
    assert ek.read_masks(tmp_path / "hard.csv", image_size=sizes, classes=truth.classes) == ek.hard_vote(masks)
    both = ensk("vote", demo / "unet.csv", demo / "fpn_test.zarr", "--out", tmp_path / "and.csv")
    assert both.returncode == 0, both.stderr
    assert "warning: rule: on where ≥ 2 of 2 (an exact half is off); this is an AND of the members" in both.stderr


def test_like_gives_the_order(demo: Path, tmp_path: Path) -> None:
    rows = rows_of(demo / "submission.csv")
    like = tmp_path / "sample.csv"
    with like.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([rows[0], *([r[0], r[1], ""] for r in reversed(rows[1:]))])
    stores = [demo / f"{n}_test.zarr" for n in NETWORKS]
    ran = ensk("vote", *stores, "--thresholds", demo / "demo.json", "--like", like, "--out", tmp_path / "s.csv")
    assert ran.returncode == 0, ran.stderr
    assert rows_of(tmp_path / "s.csv") == [rows[0], *reversed(rows[1:])]
    like.write_text("\n".join(like.read_text().splitlines()[:-3]) + "\n")
    fails(6, "rows-extra", "vote", *stores, "--like", like, "--out", tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()


def test_outputs_are_never_replaced_by_accident(demo: Path) -> None:
    before = (demo / "submission.csv").read_bytes()
    fails(2, "output-exists", "vote", demo / "unet_test.zarr", "--out", demo / "submission.csv")
    assert (demo / "submission.csv").read_bytes() == before


def test_dry_runs_write_nothing(demo: Path, tmp_path: Path) -> None:
    assert ensk("vote", demo / "unet_test.zarr", "--out", tmp_path / "a.csv", "--dry-run").returncode == 0
    assert ensk("vote", demo / "unet_test.zarr", "--hard", "--out", tmp_path / "a.csv", "--dry-run").returncode == 0
    val = demo / "data/val/masks"
    tune = ensk("tune-thresholds", demo / "unet_val.zarr", "--val", val, "--out", tmp_path / "a.json", "--dry-run")
    assert tune.returncode == 0, tune.stderr
    assert ensk("demo", "--out", tmp_path / "demo", "--dry-run", "--json").returncode == 0
    assert list(tmp_path.iterdir()) == []
    for how in ("--soft", "--hard"):
        store, images = demo / "unet_test.zarr", demo / "data/test/images"
        fails(2, "output-foreign", "vote", store, how, "--out", images, "--format", "png", "--dry-run")


def test_inspect_all_three_kinds(demo: Path) -> None:
    store = json.loads(ensk("inspect", demo / "unet_test.zarr", "--json").stdout)
    assert (store["member"], store["samples"], store["committed"]) == ("unet", 12, 12)
    found = json.loads(ensk("inspect", demo / "demo.json", "--json").stdout)
    assert found["kind"] == "threshold set"
    masks = json.loads(ensk("inspect", demo / "data/test/masks", "--json").stdout)
    assert (masks["samples"], set(masks["classes"])) == (12, {"nerve", "vessel", "any"})
    for path in ("unet_test.zarr", "demo.json", "data/test/masks"):
        assert ensk("inspect", demo / path).stdout.count("\n") > 4


def test_doctor() -> None:
    values = json.loads(started("doctor", "--json").stdout)
    assert values["versions"]["ensemble_kit"] == ek.__version__
    assert values["threads"] == len(os.sched_getaffinity(0))
    assert "numba" in ensk("doctor").stdout


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    warming.write_inputs(folder)
    return folder


@pytest.mark.parametrize("line", warming.COMMANDS)
def test_what_warms_the_kernels_runs(line: str, tiny: Path) -> None:
    ran = ensk(*line.split(), "-q", "--force", cwd=tiny)
    assert ran.returncode == 0, ran.stderr


def test_nothing_is_warmed_where_machine_code_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [ENSK, "doctor", "--warm"]
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "file")}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 5
    assert "error[cache-unusable] " in ran.stderr
    planned = json.loads(ensk("doctor", "--warm", "--dry-run", "--json").stdout)
    assert planned["commands"] == list(warming.COMMANDS)


def test_score_names_its_convention(demo: Path) -> None:
    ran = ensk("score", demo / "submission.csv", "--val", demo / "data/test/masks", "--empty", "skip", "--eps", "1e-4")
    assert ran.returncode == 0, ran.stderr
    assert "both empty are skipped, eps = 0.0001" in ran.stdout


@pytest.mark.parametrize(
    ("code", "name", "arguments"),
    [
        (2, "usage", ["vote"]),
        (2, "usage", ["vot"]),
        (2, "usage", ["vote", "x.zarr", "--out", "a.csv", "--quorom", "3"]),
        (2, "option-invalid", ["vote", "{demo}/unet_test.zarr", "--out", "{tmp}/a.csv", "--weights", "a,b"]),
        (2, "option-invalid", ["vote", "{demo}/unet_test.zarr", "--out", "{tmp}/a.csv", "--memory", "much"]),
        (2, "threshold-invalid", ["vote", "{demo}/unet_test.zarr", "--out", "{tmp}/a.csv", "--thresholds", "1.5"]),
        (2, "output-folder-missing", ["vote", "{demo}/unet_test.zarr", "--out", "{tmp}/no/a.csv"]),
        (2, "soft-needs-stores", ["vote", "{demo}/unet.csv", "--soft", "--out", "{tmp}/a.csv"]),
        (2, "quorum-invalid", ["vote", "{demo}/unet.csv", "{demo}/fpn.csv", "--quorum", "0", "--out", "{tmp}/a.csv"]),
        (6, "set-does-not-fit", ["vote", "{demo}/unet_test.zarr", "--thresholds", "{demo}/demo.json", "--out", "{tmp}/a.csv"]),
        (6, "set-does-not-fit", ["vote", "{demo}/unet_test.zarr", "--thresholds", "{demo}/fpn.json", "--out", "{tmp}/a.csv"]),
        (4, "truth-missing", ["tune-thresholds", "{demo}/unet_val.zarr", "--val", "{demo}/data/test/masks", "--out", "{tmp}/a.json"]),
        (2, "convention", ["score", "{demo}/unet.csv", "--val", "{demo}/data/test/masks", "--empty", "2"]),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_three_parts(
    code: int, name: str, arguments: list[str], demo: Path, tmp_path: Path
) -> None:
    told = fails(code, name, *[a.format(demo=demo, tmp=tmp_path) for a in arguments])
    assert len(told.strip().splitlines()[-1]) < 600
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(demo: Path, tmp_path: Path) -> None:
    ran = ensk("vote", demo / "unet_test.zarr", "--out", tmp_path / "a.csv", "--thresholds", "nothing", "--debug")
    assert ran.returncode == 4
    assert "Traceback" in ran.stderr


def test_terminal_escapes_are_not_printed(tmp_path: Path) -> None:
    ran = started("inspect", tmp_path / "\x1b[31mred")
    assert ran.returncode == 4
    assert "\x1b" not in ran.stderr


def test_help_is_quick() -> None:
    """Within 2.5 times `import typer`; medians of interleaved runs, by the processes' own CPU time."""
    ratio = measure(lambda: [str(ENSK), "--help"]) / measure(lambda: [sys.executable, "-c", "import typer"])
    assert ratio < 2.5


def test_a_command_imports_no_other() -> None:
    """Each pays for its own imports only."""
    code = "import sys; from ensemble_kit.cli.app import _run; _run(['explain', 'usage']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    modules = {f"ensemble_kit.cli.{name.replace('-', '_')}" for name in COMMANDS}
    assert modules.intersection(loaded) == {"ensemble_kit.cli.explain"}


def measure(command: Callable[[], list[str]]) -> float:
    times = []
    for _ in range(7):
        before = os.times()
        subprocess.run(command(), check=True, capture_output=True)
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return sorted(times)[3]


def test_a_signal_inside_another_error_is_still_the_signal() -> None:
    """Python 3.11 wraps what is raised while a class is made; a reader may then take it for a damaged file."""
    from ensemble_kit.cli import signals

    try:
        try:
            raise signals.Signalled(15)
        except BaseException as signalled:
            raise RuntimeError("Error calling __set_name__") from signalled
    except RuntimeError as wrapped:
        try:
            raise ek.DamagedError("stack-invalid", "cannot read", item=str(wrapped), fix="…") from None
        except ek.DamagedError as error:
            found = signals.signal_behind(error)
            assert found is not None
            assert found.number == 15
    assert signals.signal_behind(ValueError()) is None


def test_a_library_that_fails_without_a_word_is_short_of_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """An extension whose import gets no memory: Rust's of Pydantic, at a limit that has been met once."""
    assert app._exit_code(SystemError("error return without exception set")) == 5
    assert "error[memory]" in capsys.readouterr().err


def test_the_rank_rule_and_other_images_stand_beside_thresholds(demo: Path, tmp_path: Path) -> None:
    val, test = ([demo / f"{n}_{part}.zarr" for n in NETWORKS] for part in ("val", "test"))
    truth = demo / "data/val/masks"
    ran = ensk(
        "tune-thresholds", *val, "--val", truth, "--rank", "--json", "--compare", *test, "--out", tmp_path / "t.json"
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert 0 < told["rank"]["score"] < 1
    assert told["rank"]["scaling"] == told["search"]["scaling"]
    assert {c["name"] for c in told["shift"]["classes"]} == {"nerve", "vessel", "any"}
    ran = ensk("vote", *test, "--decide", "rank", "--thresholds", tmp_path / "t.json", "--out", tmp_path / "rank.csv")
    assert ran.returncode == 0, ran.stderr
