"""What parts depend on beside stores: files of options, groups, names, folders; and what a part takes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from ensemble_kit.execution.parts import Part
from ensemble_kit.recipes.part_file import path_of
from trying import ensk, put, refused

IDS = tuple(f"s{k}" for k in range(6))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A member, softmax, one that is sigmoid, and a truth of the latter."""
    tmp, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(5)
    for activation in ("softmax", "sigmoid"):
        logits = {s: smooth_logits(rng, (2, 8, 8), 3.0) for s in IDS}
        write_store(tmp / f"{activation}.zarr", logits, (16, 16), ("x", "y"), activation=activation)
    ek.Ensemble(tmp / "sigmoid.zarr").vote(0.4).write(tmp / "val.npz")
    return tmp


def halves(out: Path, *command: object, option: str = "--out") -> None:
    for part in ("1/2", "2/2"):
        ensk(*command, option, out, "--part", part)


FILES: dict[str, tuple[str, tuple[str, ...], str, str, str]] = {
    "the order of a sample submission": (
        "sigmoid",
        ("--like", "like.csv"),
        "out.csv",
        "image_name,class,rle\n" + "".join(f"{s},{c},\n" for s in reversed(IDS) for c in "xy"),
        "image_name,class,rle\n" + "".join(f"{s},{c},\n" for s in IDS for c in "xy"),
    ),
    "a table of labels": (
        "softmax",
        ("--format", "label-map", "--labels", "labels.json"),
        "out",
        '{"7": "x", "9": "y"}',
        '{"7": "x", "8": "y"}',
    ),
}


@pytest.mark.parametrize(("store", "options", "name", "text", "other"), FILES.values(), ids=FILES)
def test_files_of_options_are_found_from_any_folder_and_known_by_their_content(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    store: str,
    options: tuple[str, ...],
    name: str,
    text: str,
    other: str,
) -> None:
    """Parts record them by digest, so that the same file under another path is the same plan."""
    first, second = tmp_path / "first", tmp_path / "second"
    file = put(first / options[-1], text)
    put(second / options[-1], text)
    vote = ["vote", made / f"{store}.zarr", *options, "--out", tmp_path / name, "--part"]
    monkeypatch.chdir(first)
    ensk("vote", made / f"{store}.zarr", *options, "--out", tmp_path / f"whole-{name}")
    ensk(*vote, "1/2")
    monkeypatch.chdir(second)
    ensk(*vote, "2/2")
    monkeypatch.chdir(tmp_path)
    ensk("merge", name, "--out", f"merged-{name}")

    def content(path: Path) -> list[bytes]:
        return [p.read_bytes() for p in (sorted(path.iterdir()) if path.is_dir() else [path])]

    assert content(tmp_path / f"merged-{name}") == content(tmp_path / f"whole-{name}")
    file.write_text(other)
    with refused(ek.MismatchError, "parts-differ", f"{file} is not the file that they were made with"):
        ensk("merge", name, "--out", f"again-{name}")
    file.unlink()
    with refused(ek.MismatchError, "parts-differ", str(file)):
        ensk("merge", name, "--out", f"again-{name}")
    monkeypatch.chdir(second)
    (second / options[-1]).write_text(other)
    with refused(ek.UsageError, "output-exists", "another run"):
        ensk(*vote, "2/2")
    ensk(
        "merge",
        tmp_path / name,
        "--out",
        "other.npz",
        *(("--format", "npz") if store == "softmax" else ("--like", options[-1])),
    )


def test_counts_of_other_groups_are_another_plan(made: Path, tmp_path: Path) -> None:
    """Groups choose the folds, and these the levels that are kept: two groupings merged would be neither."""
    tune = ["tune-thresholds", made / "sigmoid.zarr", "--val", made / "val.npz", "--folds", "3"]
    for k, groups in ((1, "s(.)"), (2, "(s)")):
        ensk(*tune, "--statistics", tmp_path / "counts.npz", "--part", f"{k}/2", "--groups", groups)
    with refused(ek.MismatchError, "parts-differ", "groups is"):
        ensk("merge", tmp_path / "counts.npz", "--out", tmp_path / "counts.npz")


def test_a_part_under_another_parts_name_is_not_taken_for_it(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    vote = ["vote", made / "sigmoid.zarr", "--out", out, "--part"]
    ensk(*vote, "1/2")
    shutil.copy(path_of(out, Part(1, 2)), path_of(out, Part(2, 2)))
    with refused(ek.UsageError, "output-exists", "is part 1/2 under another name", "--force"):
        ensk(*vote, "2/2")
    ensk(*vote, "2/2", "--force")
    ensk("merge", out, "--out", out)


def test_what_is_no_part_is_named(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with refused(ek.IncompleteError, "part-missing", "out.csv.part-1-of-2' does not exist", "--part"):
        ensk("merge", f"{out}.part-1-of-2", "--out", out)
    (tmp_path / "out.csv.part-1-of-2").mkdir()
    for path in (out, f"{out}.part-1-of-2"):
        with refused(ek.IncompleteError, "part-missing", "is not a part", "under the names that it gave them"):
            ensk("merge", path, "--out", out)
    with refused(ek.UsageError, "output-kind", "out.csv.part-1-of-2 is a folder"):
        ensk("vote", made / "sigmoid.zarr", "--out", out, "--part", "1/2")


@pytest.mark.parametrize("stream", ["-", "/dev/null"])
def test_a_part_needs_a_file(made: Path, stream: str) -> None:
    with refused(ek.UsageError, "option-invalid", f"--part 1/2 with --out {stream}"):
        ensk("vote", made / "sigmoid.zarr", "--out", stream, "--part", "1/2")
    assert not list(Path("/dev").glob("null.part*"))


def test_only_masks_go_to_standard_output(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A set, counts or scores were written to a file of the name -."""
    monkeypatch.chdir(tmp_path)
    val, store = made / "val.npz", made / "sigmoid.zarr"
    halves(tmp_path / "scores.json", "score", val, "--val", val)
    halves(tmp_path / "masks.csv", "vote", store)
    for command in (
        ("score", val, "--val", val),
        ("score", val, "--val", val, "--out", "s.json", "--by-sample", "-"),
        ("tune-thresholds", store, "--val", val),
        ("merge", "scores.json"),
    ):
        with (
            refused(ek.UsageError, "output-is-stdout", "./-")
            if "--out" not in command
            else pytest.raises(ek.UsageError)
        ):
            ensk(*command, *(() if "--out" in command else ("--out", "-")))
    ensk("vote", store, "--out", "whole.csv")
    capsys.readouterr()
    ensk("merge", "masks.csv", "--out", "-")
    assert capsys.readouterr().out == (tmp_path / "whole.csv").read_text()
    assert not (tmp_path / "-").exists()


def test_a_budget_holds_for_parts(made: Path, tmp_path: Path) -> None:
    """What it takes is projected, and refused; the bytes do not tell of a budget."""
    tune = ["tune-thresholds", made / "sigmoid.zarr", "--val", made / "val.npz", "--folds", "3", "--statistics"]
    halves(tmp_path / "counts.npz", *tune[:-1], option="--statistics")
    with refused(ek.ResourceError, "memory-budget", "--memory allows 1,000 bytes"):
        ensk(*tune, tmp_path / "little.npz", "--part", "1/2", "--memory", "1KB")
    from ensemble_kit.recipes import memory

    ensk(*tune, tmp_path / "within.npz", "--part", "1/2", "--memory", f"{memory.held() / 1e9 + 1:.1f}GB")
    within, plain = (path_of(tmp_path / name, Part(1, 2)).read_bytes() for name in ("within.npz", "counts.npz"))
    assert within == plain
