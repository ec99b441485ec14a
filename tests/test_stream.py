"""Masks that are made while they are written: the bytes of those that are held, in every format."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
import toy_format
from ensemble_kit import strict_json
from ensemble_kit.formats.dialects import PRESETS
from ensemble_kit.formats.maskformat import MaskFormat
from ensemble_kit.formats.registry import FORMATS
from ensemble_kit.formats.writing import rehearse, telling_of, write_masks
from ensemble_kit.masks.cover import Covering, cover
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.stream import Masks, MaskStream, pieces_of
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.georeference import GeoReference

SAMPLES = {f"s{k}": (3 + k % 3, 4) for k in range(7)}
WRITTEN = {name: known for name, known in FORMATS.items() if known.writes} | {"toy": toy_format.FORMAT}
RANKED = {f"{name} {rank}D": (known, rank) for name, known in WRITTEN.items() for rank in sorted(known.ranks)}
PLACE, SCENE = Geometry.of(np.diag([0.8, 0.8, 5, 1])), GeoReference("", (10, 0, 0, 0, -10, 0))
SCENES = {"geotiff", "class-geotiffs"}


def masks_for(known: MaskFormat, sizes: dict[str, tuple[int, int]] | None = None, rank: int = 2) -> ek.MaskSet:
    """Masks that the format takes: classes apart, those that a dialect fixes, of one size where it has to be."""
    dialect = PRESETS.get(known.name)
    classes = (dialect and dialect.classes) or (("mask",) if dialect and dialect.by_sample else ("x", "y"))
    sizes = sizes or (dict.fromkeys(SAMPLES, (3, 4)) if known.name == "npy" else SAMPLES)
    depth = (2,) * (rank - 2)
    masks = ek.MaskSet(
        {
            (s, c): ek.encode((np.arange(h * w * 2 ** (rank - 2)).reshape(*depth, h, w) * 7 + j) % 5 == k)
            for j, (s, (h, w)) in enumerate(sizes.items())
            for k, c in enumerate(classes)
        }
    )
    place = SCENE if known.name in SCENES else PLACE if rank == 3 else None
    return masks if place is None else masks.with_geometry(dict.fromkeys(masks.samples, place))


def ending(known: MaskFormat) -> str:
    """What a path with several samples ends in: files of volumes and scenes hold one."""
    return known.suffix if 2 in known.ranks and known.name not in SCENES else ""


def stream_of(masks: ek.MaskSet, asked: list[str] | None = None, size: int = 2) -> MaskStream:
    """A stream that gives some samples at a time, and notes which were asked for."""

    def make(samples: Sequence[str]) -> Iterator[ek.MaskSet]:
        for k in range(0, len(samples), size):
            if asked is not None:
                asked.extend(samples[k : k + size])
            yield masks.arranged(samples[k : k + size], masks.classes)

    return MaskStream(masks.extent, make, masks.rule)


def content(path: Path) -> dict[str, bytes]:
    """What stands at a path, a file or a folder."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in files}


@pytest.mark.parametrize("order", ["own", "like", "like, rows apart"])
@pytest.mark.parametrize(("known", "rank"), RANKED.values(), ids=RANKED)
def test_a_stream_is_written_as_the_set_is(known: MaskFormat, rank: int, order: str, tmp_path: Path) -> None:
    masks, like, asked = masks_for(known, rank=rank), None, list[str]()
    samples = masks.samples
    if order != "own":
        like, dialect = tmp_path / "like.csv", known if known.name in PRESETS else FORMATS["handbone"]
        samples = masks.samples[::-1]
        write_masks(masks_for(known).arranged(samples, masks.classes[::-1]), like, dialect)
        if order == "like, rows apart":
            header, *rows = like.read_text().splitlines(keepends=True)
            like.write_text("".join([header, *rows[::2], *rows[1::2]]))
    for name, given_masks in (("set", masks), ("stream", stream_of(masks, asked))):
        write_masks(given_masks, tmp_path / f"{name}{ending(known)}", known, like=like)
    assert content(tmp_path / f"set{ending(known)}") == content(tmp_path / f"stream{ending(known)}")
    apart = order == "like, rows apart" and known.suffix == ".csv" and len(masks.classes) > 1
    assert known.in_pieces(masks, like) == (not apart and known is not toy_format.FORMAT)
    assert asked == list(masks.samples if apart else samples if order == "like" else asked)
    assert sorted(asked) == sorted(masks.samples)  # each once


@pytest.mark.parametrize(("known", "rank"), RANKED.values(), ids=RANKED)
def test_pieces_are_written_as_they_come(known: MaskFormat, rank: int, tmp_path: Path) -> None:
    """No format but one that says so holds pieces back: each is gone when the next one is made."""
    masks, alive, most = masks_for(known, rank=rank), list[int](), 0

    def make(samples: Sequence[str]) -> Iterator[ek.MaskSet]:
        nonlocal most
        for sample in samples:
            piece = masks.arranged([sample], masks.classes)
            alive.append(1)
            weakref.finalize(piece, alive.pop)
            most = max(most, len(alive))
            yield piece
            del piece

    write_masks(MaskStream(masks.extent, make), tmp_path / f"m{ending(known)}", known)
    assert most <= 3 if known.in_pieces(masks, None) else most == len(SAMPLES)
    assert known.in_pieces(masks, None) == (known is not toy_format.FORMAT)


@pytest.mark.parametrize(("known", "rank"), RANKED.values(), ids=RANKED)
def test_a_rehearsal_makes_no_mask(known: MaskFormat, rank: int, tmp_path: Path) -> None:
    asked = list[str]()
    rehearse(stream_of(masks_for(known, rank=rank), asked), tmp_path / f"m{ending(known)}", known)
    assert not asked
    assert not list(tmp_path.iterdir())


def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    masks, out = masks_for(FORMATS["handbone"]), tmp_path / "m.csv"
    out.write_text("old")

    def make(samples: Sequence[str]) -> Iterator[ek.MaskSet]:
        yield masks.arranged(samples[:3], masks.classes)
        assert [p.read_bytes() for p in tmp_path.iterdir() if p != out] != []
        raise ek.DamagedError("chunk", "cannot read", item="the fourth", fix="repair it")

    with pytest.raises(ek.DamagedError, match="the fourth"):
        write_masks(MaskStream(masks.extent, make), out)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("m.csv", "old")]


def test_a_stream_in_parts_is_the_whole() -> None:
    masks = masks_for(FORMATS["coco"])
    for size in (1, 3, 100):
        whole = stream_of(masks, size=size).whole()
        assert (dict(whole), whole.samples, whole.classes) == (dict(masks), masks.samples, masks.classes)
    turned = stream_of(masks).arranged(masks.samples[4:1:-1], ("y", "x"))
    assert (turned.samples, turned.classes) == (("s4", "s3", "s2"), ("y", "x"))
    assert dict(turned.whole()) == dict(masks.arranged(("s4", "s3", "s2"), ("y", "x")))
    folders = masks.called({s: f"a/{s}.png" for s in masks.samples})
    assert dict(stream_of(folders).renamed("stem").whole()) == dict(masks)
    assert dict(stream_of(folders).arranged(["a/s3.png"], ["y"]).renamed("name").whole()) == {
        ("s3.png", "y"): masks["s3", "y"]
    }
    void = masks.from_labels({s: np.full((2, 2), 255 * (s == "b")) for s in "abc"}, ["x"], first_value=1)
    assert [stream_of(void, size=1).whole().void(s).area for s in "abc"] == [0, 4, 0]


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), max_size=600), st.integers(1, 3))
def test_pieces_hold_every_sample_once(areas: list[list[int]], classes: int) -> None:
    names = ("x", "y", "z")[:classes]
    masks = [ManyRuns.of([ek.encode(np.arange(4).reshape(2, 2) < a[k % 2]) for k in range(classes)]) for a in areas]
    pieces = list(pieces_of(((str(k), (2, 2), many) for k, many in enumerate(masks)), names))
    found = [(s, [p[s, c].area for c in names]) for p in pieces for s in p.samples]
    assert found == [(str(k), [a[j % 2] for j in range(classes)]) for k, a in enumerate(areas)]
    assert all(len(p) <= 256 + classes for p in pieces)


def test_what_is_said_comes_from_pieces_as_from_the_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    masks = ek.MaskSet({(s, c): ek.encode(rng.random((5, 6)) < 0.4) for s in SAMPLES for c in ("background", "b", "c")})
    counted = Covering()
    telling = [telling_of(masks, FORMATS["label-map"], None) for _ in range(2)]
    both: tuple[Masks, Masks] = (masks, stream_of(masks, size=1))
    for one, several in zip(telling, both, strict=True):
        assert one is not None
        for piece in several.watched(counted.add if several is not masks else len, one.add).pieces():
            assert piece
    assert counted.shares == cover(masks)
    first, second = telling
    assert first is not None
    assert second is not None
    assert first.told() == second.told()
    assert "as void (" in first.told()


def test_a_class_that_is_drawn_over_in_every_piece_is_told() -> None:
    from ensemble_kit.formats.label_meaning import LabelMaps
    from ensemble_kit.formats.registry import named

    full, half = ek.encode(np.ones((2, 2), bool)), ek.encode(np.eye(2, dtype=bool))
    masks = ek.MaskSet({(s, c): full if c == "b" or (c == "a" and s == "2") else half for s in "123" for c in "abc"})
    for order, hidden in (("a=1,b=2,c=3", "'a'"), ("b=1,a=2,c=3", None), ("a=1,c=2,b=3", "'a', 'c'")):
        paint = {part[0]: int(part[2]) for part in order.split(",")}
        telling = telling_of(stream_of(masks), named(LabelMaps(paint=paint)), None)
        assert telling is not None
        for piece in stream_of(masks, size=1).watched(telling.add).pieces():
            assert piece
        doubts = [caution.doubt for caution in telling.doubts()]
        assert doubts == ([] if hidden is None else [f"drawn over entirely, in every sample: {hidden}"])


def test_void_is_refused_in_any_piece(tmp_path: Path) -> None:
    masks = ek.MaskSet.from_labels({s: [[1, 255 if s == "c" else 0]] for s in "abc"}, ["x"], first_value=1)
    with pytest.raises(ek.MismatchError, match="1 pixel of 1 samples: 'c'"):
        write_masks(stream_of(masks, size=1), tmp_path / "m.csv")
    assert not list(tmp_path.iterdir())
    write_masks(stream_of(masks, size=1), tmp_path / "m.npz", "label-map")
    assert ek.read_masks(tmp_path / "m.npz").void("c").area == 1


def test_values_of_label_maps_are_told_in_the_order_that_is_written(tmp_path: Path) -> None:
    """A sample submission that names y before x gives y the value 1; what was said had x first."""
    known = FORMATS["label-map"]
    masks, like = masks_for(known), tmp_path / "like.csv"
    write_masks(masks.arranged(masks.samples, ("y", "x")), like)
    telling = telling_of(masks, known, like)
    write_masks(masks, tmp_path / "m", known, like=like)
    assert telling is not None
    assert "1 'y', 2 'x'" in telling.told()
    assert [c["name"] for c in strict_json.load(tmp_path / "m/index.json")["classes"]] == ["y", "x"]
    assert strict_json.load(tmp_path / "m/index.json")["classes"][0]["value"] == 1
