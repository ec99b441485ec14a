"""Inputs that can be read in two ways: what makes each, the readings that are offered, and the option of each.

`make` writes files into a folder and returns the arguments of a command. Without an option the command must refuse and
name every reading; with the options of one it must do its work. Other kinds of input add their own tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import ensemble_kit as ek

Arguments = list[object]


@dataclass(frozen=True)
class Situation:
    """One ambiguous input.

    Parameters
    ----------
    id : its name.
    make : writes it, and returns a command.
    readings : the words that the error must say, and the options that choose the reading.
    code, exit_code : of the error.
    """

    id: str
    make: Callable[[Path], Arguments]
    readings: Mapping[str, Arguments]
    code: str = "format-ambiguous"
    exit_code: int = 2


def _read(text: str, *more: object) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        (folder / "in.csv").write_text(text)
        (folder / "classes.txt").write_text("x\n")
        return ["convert", folder / "in.csv", "--image-size", 32, "--out", folder / "out.npz", *more]

    return make


def _like(text: str) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        (folder / "like.csv").write_text(text)
        masks = ek.MaskSet({("a", "x"): ek.encode(np.eye(32, dtype=bool))})
        masks.write(folder / "in.npz")
        return ["convert", folder / "in.npz", "--like", folder / "like.csv", "--out", folder / "out.csv"]

    return make


def _score(folder: Path) -> Arguments:
    (folder / "own.csv").write_text("image_name,class,rle\na,x,1 2\n")
    (folder / "truth.csv").write_text("id,rle\na,1 2\n")
    (folder / "classes.txt").write_text("x\n")
    names = ["--classes", folder / "classes.txt"]
    return ["score", folder / "own.csv", "--val", folder / "truth.csv", "--image-size", "4x5", *names]


def _vote(folder: Path) -> Arguments:
    for name in ("one.csv", "two.csv"):
        (folder / name).write_text("id,rle\na,1 2\n")
    return ["vote", folder / "one.csv", folder / "two.csv", "--image-size", "4x5", "--out", folder / "out.csv"]


def _write(folder: Path) -> Arguments:
    ek.MaskSet({("a", "x"): ek.encode(np.eye(32, dtype=bool))}).write(folder / "in.npz")
    return ["convert", folder / "in.npz", "--csv", "id=ImageId,rle=EncodedPixels", "--out", folder / "out.csv"]


def _inspect(text: str) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        (folder / "in.csv").write_text(text)
        return ["inspect", folder / "in.csv", "--image-size", 32]

    return make


KINDS = "ImageId,EncodedPixels\n"
CSVS = (
    Situation(
        "ImageId,EncodedPixels, rows fit all",
        _read(KINDS + "a,33 2 66 2\n"),
        {
            "siim (down columns from 0, each start from the end": ["--from", "siim"],
            "airbus and dsb2018 (down columns from 1, a row an object)": ["--from", "airbus"],
            "dsb2018": ["--from", "dsb2018"],
            "--from-csv base=0|1,offsets=absolute|relative": ["--from-csv", "base=1,offsets=absolute"],
        },
    ),
    Situation(
        "ImageId,EncodedPixels, no runs",
        _read(KINDS + "a,\nb,\n"),
        {"siim": ["--from", "siim"], "airbus": ["--from", "airbus"], "dsb2018": ["--from", "dsb2018"]},
    ),
    Situation(
        "ImageId,EncodedPixels as --like",
        _like(KINDS + "a,\n"),
        {
            "--format siim": ["--format", "siim"],
            "--format airbus": ["--format", "airbus"],
            "--format dsb2018": ["--format", "dsb2018"],
            "--csv base=0|1,offsets=absolute|relative": ["--csv", "base=1,offsets=absolute"],
        },
    ),
    Situation(
        "id,rle",
        _read("id,rle\na_x,1 2\n"),
        {
            "kaggle (down columns from 1, ids {image}_{class})": ["--from", "kaggle", "--classes", "classes.txt"],
            "hubmap (down columns from 1)": ["--from", "hubmap"],
            "sennet (along rows from 1)": ["--from", "sennet"],
            "--from-csv order=C|F,template={image}|{image}_{class}": ["--from-csv", "order=C,template={image}"],
        },
    ),
    Situation(
        "id,rle with a class and ids that may hold it",
        _read("id,rle\na_x,1 2\n", "--classes", "classes.txt"),
        {"kaggle": ["--from", "kaggle"], "hubmap": ["--from", "hubmap"], "sennet": ["--from", "sennet"]},
    ),
    Situation(
        "id,rle as --like",
        _like("id,rle\na,\n"),
        {"--format hubmap": ["--format", "hubmap"], "--format sennet": ["--format", "sennet"]},
    ),
    Situation(
        "id,rle as truth",
        _score,
        {
            "--val-format hubmap": ["--val-format", "hubmap"],
            "--val-format sennet": ["--val-format", "sennet"],
            "--val-csv order=C|F": ["--val-csv", "order=F,template={image}"],
        },
    ),
    Situation(
        "id,rle in a vote",
        _vote,
        {"--from hubmap": ["--from", "hubmap"], "--from-csv": ["--from-csv", "order=C,template={image}"]},
    ),
    Situation(
        "id,predicted",
        _inspect("id,predicted\na,1 2\n"),
        {
            "sartorius-submission (along rows": ["--from", "sartorius-submission"],
            "hubmap-kidney-submission (down columns": ["--from", "hubmap-kidney-submission"],
            "--from-csv order=C|F": ["--from-csv", "order=C"],
        },
    ),
    Situation(
        "columns to write that several presets have",
        _write,
        {
            "siim (down columns from 0": ["--format", "siim"],
            "airbus and dsb2018 (down columns from 1, a row an object)": ["--format", "airbus"],
            "offsets=absolute|relative": ["--csv", "id=ImageId,rle=EncodedPixels,order=F,base=1,offsets=absolute"],
        },
    ),
    Situation(
        "a further column that may hold classes",
        _inspect("id,class,rle\na,x,1 2\n"),
        {
            "with class=class": ["--csv", "id=id,class=class,rle=rle,order=C"],
            "or without": ["--csv", "id=id,rle=rle,order=F"],
        },
    ),
    Situation(
        "columns of no preset",
        _inspect("picture,mask\na,1 2\n"),
        {
            "--from-csv order=C,id=picture,rle=mask (pixels are numbered along rows)": [
                "--from-csv",
                "id=picture,rle=mask,order=C",
            ],
            "--from-csv order=F,id=picture,rle=mask (down columns)": ["--from-csv", "id=picture,rle=mask,order=F"],
        },
        "format-unknown",
    ),
)
