"""What every format keeps, the smallest one too; `python -m pytest tests/test_formats_registry.py` says when one is done."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest

import ensemble_kit as ek
import toy_format
from ensemble_kit import formats
from ensemble_kit.cli.common import Common
from ensemble_kit.cli.convert import convert
from ensemble_kit.formats.dialects import PRESETS
from ensemble_kit.formats.maskformat import MaskFormat, suffix_of
from ensemble_kit.formats.reading import read_masks, recognise
from ensemble_kit.formats.registry import FORMATS, named
from ensemble_kit.formats.writing import fits, kind_of_output, rehearse, write_masks
from ensemble_kit.spec.georeference import GeoReference

READ_ONLY = ["cvat", "label-studio", "coco-panoptic", "sa-1b"]
"""Tested with files of other programs in tests/cases/test_foreign.py."""
VOLUMES = [name for name, known in FORMATS.items() if 2 not in known.ranks]
"""Tested in tests/test_volume_files.py and tests/test_volume_writing.py."""
EVERY = {name: known for name, known in FORMATS.items() if name not in READ_ONLY + VOLUMES} | {"toy": toy_format.FORMAT}
SCENES = {"geotiff", "class-geotiffs"}
"""They hold georeferenced images."""
SHAPES = {"0": (3, 4), "1": (3, 4)}
"""Names that a lone `.npy`, which holds none, gives too."""


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> MaskFormat:
    monkeypatch.setitem(FORMATS, "toy", toy_format.FORMAT)
    return toy_format.FORMAT


@pytest.fixture(params=EVERY, ids=list(EVERY))
def known(request: pytest.FixtureRequest, toy: MaskFormat) -> MaskFormat:
    return FORMATS[request.param]


def masks_for(known: MaskFormat) -> ek.MaskSet:
    """Masks that no format refuses: classes apart, and those that a dialect fixes."""
    fixed = {"severstal": "1234", "severstal-train": "1234", "clouds": ("Fish", "Flower", "Gravel", "Sugar")}
    dialect = PRESETS.get(known.name)
    classes = fixed.get(known.name, ("mask",) if dialect and dialect.by_sample else ("x", "y"))
    at = np.arange(12).reshape(3, 4)
    masks = ek.MaskSet({(s, c): ek.encode((at + int(s)) % 5 == k) for s in SHAPES for k, c in enumerate(classes)})
    if known.name not in SCENES:
        return masks
    reference = GeoReference("", (10, 0, 0, 0, -10, 0))
    return masks.arranged(["0"] if known.suffix else masks.samples, masks.classes).with_geometry(
        dict.fromkeys(SHAPES, reference)
    )


def target(known: MaskFormat, folder: Path) -> Path:
    return folder / f"m{known.suffix}"


def test_every_module_of_a_format_is_registered() -> None:
    modules = [
        importlib.import_module(f"ensemble_kit.formats.{m.name}") for m in pkgutil.iter_modules(formats.__path__)
    ]
    found = [m.FORMAT for m in modules if hasattr(m, "FORMAT")]
    assert len(found) >= 6
    assert all(FORMATS.get(f.name) is f for f in found)


def test_what_is_written_comes_back(known: MaskFormat, tmp_path: Path) -> None:
    masks, path = masks_for(known), target(known, tmp_path)
    write_masks(masks, path, known)
    for chosen in (known, known.name):
        back = read_masks(path, chosen, SHAPES, masks.classes)
        assert (dict(back), back.samples, back.classes) == (dict(masks), masks.samples, masks.classes)
    turned = read_masks(path, known, SHAPES, masks.classes[::-1])
    assert turned.classes == masks.classes[::-1]
    assert dict(turned) == dict(masks) or known.name == "npy"  # holds no names: the classes that are passed name them
    if known.name != "severstal-train":  # which leaves out the rows of empty masks
        with pytest.raises(ek.EnskError) as caught:
            read_masks(path, known, SHAPES, [*masks.classes, "another"])
        assert caught.value.code in {"classes-missing", "classes-too-many", "rows-missing", "stack-shape"}


def test_the_kinds_of_paths_are_told_apart(known: MaskFormat, tmp_path: Path) -> None:
    masks, path = masks_for(known), target(known, tmp_path)
    write_masks(masks, path, known)
    assert (known.write is None) <= (known.build is not None)
    assert known.may_be(folder=path.is_dir())
    assert path.is_dir() == bool(known.builder(path)) == (not known.suffix)
    assert fits(known, path)
    assert not fits(known, tmp_path / ("m.csv" if known.suffix != ".csv" else "m.json"))
    assert kind_of_output(path).suffix == known.suffix
    other = tmp_path / "other"
    other.mkdir() if not path.is_dir() else other.write_text("")
    if not known.may_be(folder=other.is_dir()):
        with pytest.raises(ek.UsageError, match=f"cannot read masks as {known.name}"):
            read_masks(other, known)


@pytest.mark.parametrize("name", READ_ONLY)
def test_a_format_that_is_only_read_says_which_are_written(name: str, tmp_path: Path) -> None:
    assert not FORMATS[name].writes
    with pytest.raises(ek.UsageError, match=r"is only read .* one of handbone, ") as caught:
        rehearse(masks_for(FORMATS[name]), tmp_path / "m", name)
    assert name not in str(caught.value).rpartition("one of")[2]
    assert not list(tmp_path.iterdir())


def test_contents_tell_the_format(known: MaskFormat, tmp_path: Path) -> None:
    path = target(known, tmp_path)
    write_masks(masks_for(known), path, known)
    try:
        assert recognise(path) is (FORMATS["handbone"] if known.name == "csv" else known)
    except ek.UsageError as error:
        assert (error.code, known.suffix) == ("format-ambiguous", ".csv")  # dialects that share a header


def test_a_sample_submission_gives_the_order(known: MaskFormat, tmp_path: Path) -> None:
    masks, path, like = masks_for(known), target(known, tmp_path), tmp_path / "like.csv"
    turned = masks.arranged(masks.samples[::-1], masks.classes[::-1])
    write_masks(turned, like, known if known.suffix == ".csv" else "handbone")
    write_masks(masks, path, known, like=like)
    names = masks.classes[::-1]
    back = read_masks(path, known, SHAPES, names)
    if known.name == "npy":
        assert [back["0", name] for name in names] == [masks["1", name] for name in names]
    else:
        assert (back.samples, dict(back)) == (masks.samples[::-1], dict(masks))


def test_what_cannot_be_written_is_refused_before_any_work(known: MaskFormat, tmp_path: Path) -> None:
    for odd in (ek.MaskSet({}), ek.MaskSet({("", "x"): ek.Runs.empty((1, 1))})):
        with pytest.raises(ek.UsageError) as caught:
            rehearse(odd, target(known, tmp_path), known)
        assert caught.value.code in {"masks-none", "name-invalid"}
    rehearse(masks_for(known), target(known, tmp_path), known)
    assert not list(tmp_path.iterdir())


def test_a_new_format_is_one_module_and_an_entry(
    toy: MaskFormat, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once it is registered, its suffix and its contents tell it everywhere, in commands too."""
    masks = masks_for(toy)
    masks.write(tmp_path / "m.toy")
    assert (tmp_path / "m.toy").read_text() == "toy masks\n0|x|3|4|1 1 6 1 11 1\n0|y|3|4|2 1 7 1 12 1\n1|x|3|4|5 1 10 1\n1|y|3|4|1 1 6 1 11 1\n"  # fmt: skip
    assert dict(ek.read_masks(tmp_path / "m.toy")) == dict(masks)
    convert(tmp_path / "m.toy", Common(), tmp_path / "m.json")
    convert(tmp_path / "m.json", Common(), tmp_path / "again.toy")
    assert (tmp_path / "again.toy").read_bytes() == (tmp_path / "m.toy").read_bytes()
    with pytest.raises(ek.UsageError, match="toy"):
        named("nonsense")


def test_a_format_needs_no_registration_to_be_passed(tmp_path: Path) -> None:
    masks = masks_for(toy_format.FORMAT)
    write_masks(masks, tmp_path / "m", toy_format.FORMAT)
    assert dict(read_masks(tmp_path / "m", toy_format.FORMAT)) == dict(masks)
    assert "toy" not in FORMATS


@pytest.mark.parametrize(
    ("name", "suffix"), [("a.NII.GZ", ".nii.gz"), ("a.gz", ".gz"), ("a.b.tar", ".tar"), ("a", ""), (".csv", ".csv")]
)
def test_the_longest_known_suffix_counts(name: str, suffix: str) -> None:
    assert suffix_of(Path("x.csv", name), ["", ".csv", ".gz", ".nii.gz"]) == suffix
