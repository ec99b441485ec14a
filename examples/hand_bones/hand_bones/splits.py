"""Folds by person, stratified by bent wrists, as the solution split."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from ensemble_kit import DamagedError, IncompleteError, MismatchError, UsageError
from hand_bones.layout import Record

COLUMNS = ("image_id", "person", "bent", "fold")


def make_splits(records: Sequence[Record], folds: int = 5, seed: int = 0) -> dict[str, int]:
    """Deal persons into folds: both hands of a person to one fold, bent wrists evenly over all.

    Returns
    -------
    {image_id: fold}, folds from 0.

    Raises
    ------
    UsageError
        Fewer than two folds, or fewer persons than folds.
    IncompleteError
        An image of which nobody knows whether its wrist is bent.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # type: ignore[import-untyped]

    unknown = [record.image_id for record in records if record.bent is None]
    if unknown:
        raise IncompleteError(
            "bent-missing",
            "cannot stratify by bent wrists",
            item=f"{len(unknown)} of {len(records)} images: {', '.join(unknown[:5])}",
            fix="give them a row with bent = 0 or 1 in meta.csv",
        )
    persons = len({record.person for record in records})
    if not 2 <= folds <= persons:
        raise UsageError(
            "folds-invalid",
            "cannot split",
            item=f"{folds} folds of {persons} persons",
            fix="ask for at least 2 folds and no more than there are persons",
        )
    bent = [int(bool(record.bent)) for record in records]
    with warnings.catch_warnings():  # fewer bent wrists than folds: then some folds have none, which `table` shows
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        dealt = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(
            bent, bent, [record.person for record in records]
        )
        return {records[k].image_id: fold for fold, (_, held_out) in enumerate(dealt) for k in held_out}


def parts(records: Sequence[Record], splits: Mapping[str, int], fold: int) -> tuple[list[Record], list[Record]]:
    """Divide records into those to train on and those of the fold that is held out.

    Raises
    ------
    UsageError
        A fold that the splits do not have.
    MismatchError
        A record without a fold, a fold without records, or a person on both sides.
    """
    if fold not in splits.values():
        raise UsageError(
            "fold-unknown",
            "cannot hold out a fold that is not there",
            item=f"fold {fold}",
            fix=f"use one of the folds of these splits: {', '.join(map(str, sorted(set(splits.values()))))}",
        )
    missing = [record.image_id for record in records if record.image_id not in splits]
    held_out = [record for record in records if splits.get(record.image_id) == fold]
    train = [record for record in records if splits.get(record.image_id, fold) != fold]
    shared = {record.person for record in train} & {record.person for record in held_out}
    if missing or shared or not held_out or not train:
        why = f"{len(missing)} images without a fold, {len(shared)} persons on both sides, {len(held_out)} held out"
        raise MismatchError(
            "splits-differ",
            "cannot divide the data by these splits",
            item=f"fold {fold} of {len(records)} images: {why}",
            fix="make the splits from this data, with make_splits.py",
        )
    return train, held_out


def write_splits(path: Path, records: Sequence[Record], splits: Mapping[str, int]) -> None:
    """Write splits as CSV: image_id, person, bent, fold. Until all is written the file is the old one, or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        rows.writerows((r.image_id, r.person, int(bool(r.bent)), splits[r.image_id]) for r in records)
    partial.replace(path)


def read_splits(path: Path) -> dict[str, int]:
    """Read what `write_splits` wrote: {image_id: fold}.

    Raises
    ------
    IncompleteError
        There is no such file.
    DamagedError
        It holds no splits, or an image twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        splits = {row["image_id"]: int(row["fold"]) for row in rows}
    except OSError as error:
        raise IncompleteError(
            "splits-missing",
            "cannot read splits",
            item=f"{path}: {error.strerror}",
            fix="make them with make_splits.py, and pass their file",
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    if len(splits) != len(rows):
        raise _damaged(path, "it names an image twice")
    return splits


def write_groups(path: Path, records: Sequence[Record]) -> None:
    """Write `sample,group` without a header, for `ensk tune-thresholds --groups`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows((record.image_id, record.person) for record in records)


def table(records: Sequence[Record], splits: Mapping[str, int]) -> str:
    """Show images, persons and bent wrists of every fold."""
    lines = [f"{'fold':>4} {'images':>7} {'persons':>8} {'bent':>5}"]
    for fold in sorted(set(splits.values())):
        mine = [record for record in records if splits[record.image_id] == fold]
        persons = len({record.person for record in mine})
        lines.append(f"{fold:>4} {len(mine):>7} {persons:>8} {sum(bool(record.bent) for record in mine):>5}")
    return "\n".join(lines)


def _damaged(path: Path, why: str) -> DamagedError:
    return DamagedError(
        "splits-invalid", "cannot read splits", item=f"{path}: {why}", fix="make them anew with make_splits.py"
    )
