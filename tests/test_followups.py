"""Printed fixes name what exists, and the reading of them as command lines; conftest follows those that tests provoke."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ensemble_kit as ek
import ensemble_kit.cli
from ensemble_kit.cli.app import app
from followups import Collector, commands, follow_ups, named_commands, named_options

CODES = json.loads((Path(ensemble_kit.cli.__file__).parent / "codes.json").read_text())
FIXES = sorted({way["fix"] for code in CODES.values() for way in code["raised"]})
OTHERS = {"--force-reinstall", "--no-deps", "--nthreads", "--help", "--save_probabilities", "--co"}
"""Options of pip, of dask worker, of nnU-Net and of rio, and one that every command has."""
VOTE = ["vote", "a.zarr", "--out", "o.csv", "--least", "0.5"]


def test_every_command_and_option_that_a_fix_names_exists() -> None:
    known = {o for options in commands().values() for o in (*options.valued, *options.flags)}
    fixes = [f for f in FIXES if "optuna storage" not in f]
    assert len(fixes) > 200
    unknown = {o: f for f in fixes for o in named_options(f) if o not in known | OTHERS}
    assert not unknown
    assert not {c: f for f in fixes for c in named_commands(f) if c not in commands()}


@pytest.mark.parametrize(
    ("fix", "lines"),
    [
        ("pass --decide argmax", [[[*VOTE, "--decide", "argmax"]]]),
        ("leave it out, or pass --decide argmax", [[["vote", "a.zarr", "--out", "o.csv"]], [[*VOTE, "--decide", "argmax"]]]),
        ("pass --first-value 0 or --first-value 1 (first_value=…), or --labels FILE",
         [[[*VOTE, "--first-value", "0"]], [[*VOTE, "--first-value", "1"]]]),
        ("pass --least 0.25, or --classes FILE", [[["vote", "a.zarr", "--out", "o.csv", "--least", "0.25"]]]),
        ("pass --force (force=True) to replace it, or another path", [[[*VOTE, "--force"]]]),
        ("pass --format label-map with --out FOLDER", []),
        ("pass another --out", []),
        ("run `ensk repair a.zarr`, or dump the store again with --force", [[["repair", "a.zarr"], VOTE]]),
        ("run the same `ensk dump-logits … --out a.zarr` again", []),
    ],
)  # fmt: skip
def test_a_fix_is_read_as_command_lines(fix: str, lines: list[list[list[str]]]) -> None:
    assert list(follow_ups(VOTE, "--least 0.5", fix)) == lines


def test_a_fix_that_leads_back_is_found(tmp_path: Path) -> None:
    line = ["inspect", f"{tmp_path}/gone.csv"]
    with pytest.raises(ek.EnskError) as caught:
        app(line, standalone_mode=False)
    again, another = Collector(), Collector()
    again.note(line, tmp_path, caught.value.code, caught.value.item, "pass --memory 1GB")
    another.note(line, tmp_path, caught.value.code, "another file", "pass --memory 1GB")
    another.follow(tmp_path)
    with pytest.raises(AssertionError, match="the same error again"):
        again.follow(tmp_path)
