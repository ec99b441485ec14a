"""The one command, on hands of 128 pixels and two epochs a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from run import Run, make_data

import ensemble_kit as ek

HERE = Path(__file__).parents[1]


def test_one_command_from_nothing_to_a_scored_table(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- measured -->\nold\n<!-- /measured -->\nafter\n")
    words = [
        sys.executable,
        HERE / "run.py",
        "--out",
        tmp_path / "out",
        "--size",
        "128",
        "--epochs",
        "2",
        "--readme",
        readme,
    ]
    ended = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    text = readme.read_text()
    assert text.startswith("before\n<!-- measured -->\n| mean Dice | validation | test: all 29 |")
    assert text.endswith("(errors.jpg)\n<!-- /measured -->\nafter\n")
    assert (tmp_path / "errors.jpg").read_bytes().startswith(b"\xff\xd8")
    assert "\nold\n" not in text
    assert text.split("<!-- measured -->\n")[1].split("\n![")[0] in ended.stdout
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert rows[2:] == [
        f"| {name}"
        for name in (
            "unet alone",
            "segformer alone",
            "upernet alone",
            "soft vote",
            "soft vote, tuned",
            "hard vote, 2 of 3",
        )
    ]
    for name in ("submission.csv", "hard.csv"):
        masks = ek.read_masks(tmp_path / "out" / name, format="handbone", image_size=(128, 128))
        assert (len(masks.samples), len(masks.classes)) == (6, 29)
    assert len(list((tmp_path / "out/pictures").glob("*.png"))) == 3
    assert sorted(path.name for path in (tmp_path / "out/queue/done").glob("*.json")) == [
        "0-unet.json",
        "1-segformer.json",
        "2-upernet.json",
    ]


def test_data_of_another_size_are_refused_and_a_broken_start_begins_anew(tmp_path: Path) -> None:
    data, left = tmp_path / "data", tmp_path / ".data.partial"
    (left / "train").mkdir(parents=True)  # as a start leaves it that was killed while it drew
    make_data(Run(again=False), data, 64)
    assert not left.exists()
    assert (data / "groups.csv").is_file()
    before = (data / "splits.csv").stat().st_mtime_ns
    make_data(Run(again=True), data, 64)
    assert (data / "splits.csv").stat().st_mtime_ns == before
    with pytest.raises(ek.MismatchError, match="64 x 64, not 128 x 128"):
        make_data(Run(again=True), data, 128)
    (data / "splits.csv").unlink()
    with pytest.raises(ek.MismatchError, match="no splits"):
        make_data(Run(again=True), data, 64)
