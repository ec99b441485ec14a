from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hand_bones.layout import Record, read_layout
from hand_bones.splits import make_splits, parts, read_splits, table, write_groups, write_splits

import ensemble_kit as ek


def people(count: int, bent: int) -> list[Record]:
    """Records of `count` persons with two hands each, the first `bent` of them bent."""
    return [
        Record(f"ID{p:03d}", f"image{p}{side}.png", Path(), None, "train", p < bent)
        for p in range(count)
        for side in "LR"
    ]


@pytest.mark.parametrize(("count", "bent", "folds"), [(50, 6, 5), (12, 1, 3), (40, 20, 4)])
def test_no_person_is_on_both_sides_and_bent_wrists_are_even(count, bent, folds):
    records = people(count, bent)
    splits = make_splits(records, folds, seed=1)
    assert set(splits) == {r.image_id for r in records}
    for fold in range(folds):
        train, held_out = parts(records, splits, fold)
        assert not {r.person for r in train} & {r.person for r in held_out}
        assert len(train) + len(held_out) == 2 * count
        assert abs(len(held_out) - 2 * count / folds) <= 4
        assert abs(sum(r.bent for r in held_out) - 2 * bent / folds) < 2


def test_a_seed_deals_the_same_folds_and_another_deals_others():
    records = people(30, 4)
    assert make_splits(records, 5, seed=1) == make_splits(records, 5, seed=1)
    assert make_splits(records, 5, seed=1) != make_splits(records, 5, seed=2)


def test_splits_come_back_from_their_file(hands, tmp_path):
    records = read_layout(hands, "train")
    splits = make_splits(records, 3)
    write_splits(tmp_path / "splits.csv", records, splits)
    assert read_splits(tmp_path / "splits.csv") == splits
    assert table(records, splits).splitlines()[0].split() == ["fold", "images", "persons", "bent"]
    assert sum(int(line.split()[-1]) for line in table(records, splits).splitlines()[1:]) == 2


def test_groups_are_what_the_kit_reads(hands, tmp_path):
    from ensemble_kit.tuning.folds import read_groups

    records = read_layout(hands, "train")
    write_groups(tmp_path / "groups.csv", records)
    assert read_groups(str(tmp_path / "groups.csv")) == {r.image_id: r.person for r in records}


@pytest.mark.parametrize("folds", [1, 13])
def test_more_folds_than_persons_are_refused(folds):
    with pytest.raises(ek.UsageError, match=f"{folds} folds of 12 persons"):
        make_splits(people(12, 2), folds)


def test_an_image_of_unknown_bend_is_named():
    records = people(4, 1)
    with pytest.raises(ek.IncompleteError, match=records[2].image_id):
        make_splits([replace(r, bent=None) if k == 2 else r for k, r in enumerate(records)], 2)


def test_splits_of_other_data_are_refused():
    records = people(6, 1)
    splits = make_splits(records, 3)
    with pytest.raises(ek.MismatchError, match="2 images without a fold"):
        parts(records + people(7, 0)[-2:], splits, 0)
    with pytest.raises(ek.MismatchError, match="0 held out"):
        parts([r for r in records if splits[r.image_id] != 2], splits, 2)
    with pytest.raises(ek.UsageError, match=r"fold 9.*: 0, 1, 2"):
        parts(records, splits, 9)
    with pytest.raises(ek.MismatchError, match="1 persons on both sides"):
        parts(
            records, splits | {records[0].image_id: (splits[records[0].image_id] + 1) % 3}, splits[records[0].image_id]
        )


@pytest.mark.parametrize("text", ["image_id,person\na,b\n", "image_id,fold\na,x\n", "image_id,fold\na,1\na,1\n"])
def test_a_file_that_holds_no_splits_is_refused(tmp_path, text):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ek.DamagedError, match=r"s\.csv"):
        read_splits(tmp_path / "s.csv")


def test_splits_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ek.IncompleteError, match=r"nope\.csv"):
        read_splits(tmp_path / "nope.csv")
    (tmp_path / "s.csv").write_bytes(b"image_id,fold\n\xff,1\n")
    with pytest.raises(ek.DamagedError, match=r"s\.csv"):
        read_splits(tmp_path / "s.csv")


def test_splits_that_cannot_be_written_leave_the_old_ones(tmp_path):
    records = people(4, 1)
    path = tmp_path / "new" / "splits.csv"
    write_splits(path, records, make_splits(records, 2))
    old = path.read_bytes()
    with pytest.raises(KeyError):
        write_splits(path, records, {records[0].image_id: 0})
    assert path.read_bytes() == old
