"""Dialects of CSV: every preset against an independent encoder, options, and what files tell of themselves."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

import ensemble_kit as ek
from cases.csvs import MASK, numbers, put
from cases.running import ensk, refused
from ensemble_kit.errors import EnskWarning
from ensemble_kit.formats.csv_options import CsvOptions, shell
from ensemble_kit.formats.dialects import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_against_an_independent_encoder(tmp_path: Path, name: str) -> None:
    """Written rows are the encoder's, and the encoder's rows are read."""
    d = PRESETS[name]
    classes = d.classes or (("mask",) if d.by_sample else ("x", "y"))
    arrays = {(s, c): np.roll(MASK, 5 * k, 1) if (s, k) != ("b.png", 0) else MASK & False
              for s in ("a_1.png", "b.png") for k, c in enumerate(classes)}  # fmt: skip
    rows = []
    for (sample, c), mask in arrays.items():
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        parts = [labels == k + 1 for k in range(count)] or [mask] if d.rows == "object" else [mask]
        texts = [numbers(part, d.order, d.base, d.relative) or d.empty for part in parts]
        ids = [sample, c] if len(d.columns) == 3 else [f"{sample}_{c}" if d.template else sample]
        rows += [",".join([*ids, text]) for text in texts]
    wanted = "\n".join([",".join(d.columns), *rows]) + "\n"
    ek.MaskSet({key: ek.encode(mask) for key, mask in arrays.items()}).write(tmp_path / "o.csv", format=name)
    assert (tmp_path / "o.csv").read_text() == wanted
    back = ek.read_masks(tmp_path / "o.csv", format=name, image_size=MASK.shape, classes=classes)
    assert all(np.array_equal(back[key].decode(), mask) for key, mask in arrays.items())
    turned = "order=F" if d.order == "C" else "order=C"
    with pytest.warns(EnskWarning, match="most starts are the"):  # the self-check of the order
        ek.read_masks(tmp_path / "o.csv", format=name, image_size=MASK.shape, classes=classes, csv=turned)


def test_the_order_is_checked_by_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = put(tmp_path / "in.csv", f"img,rle_mask\na,{numbers(MASK, 'F', 1)}\n")
    ensk("inspect", source, "--image-size", "24x40")
    said = capsys.readouterr().err
    assert "warning: " in said
    assert "read along rows, but most starts are the height apart" in said
    assert "order=F" in said
    ensk("inspect", source, "--image-size", "24x40", "--csv", "order=F")
    assert "warning" not in capsys.readouterr().err
    square = put(tmp_path / "square.csv", f"img,rle_mask\na,{numbers(np.pad(MASK, ((0, 16), (0, 0))), 'F', 1)}\n")
    ensk("inspect", square, "--image-size", 40)  # both sides are 40: starts tell nothing
    assert "warning" not in capsys.readouterr().err


def test_the_file_of_siim_has_spaces_and_several_rows(tmp_path: Path) -> None:
    """As it is published: a space behind each comma, several rows of some images, -1 where there is nothing."""
    mask, other = MASK, np.roll(MASK, 9, 0)
    rows = [("a", mask), ("a", other), ("b", MASK & False)]
    text = "ImageId, EncodedPixels\n" + "".join(f"{s}, {numbers(m, 'F', 0, True) or '-1'}\n" for s, m in rows)
    source = put(tmp_path / "in.csv", text)
    with pytest.raises(ek.DamagedError, match="rows=object"):
        ek.read_masks(source, format="siim", image_size=MASK.shape)
    masks = ek.read_masks(source, format="siim", image_size=MASK.shape, csv="rows=object")
    assert np.array_equal(masks["a", "mask"].decode(), mask | other)
    assert not masks["b", "mask"]
    assert "spaces behind commas left out" in str(masks.rule)


def test_classes_and_samples_tell_joined_ids(tmp_path: Path) -> None:
    """With them no id can be read in two ways, so that nothing is asked."""
    source = put(tmp_path / "in.csv", "id,rle\na_x,1 2\na_y,\n")
    assert ek.read_masks(source, image_size=(4, 5), classes=["x", "y"]).samples == ("a",)
    single = put(tmp_path / "one.csv", "id,rle\na_x,1 2\n")
    assert ek.read_masks(single, image_size={"a": (4, 5)}, classes=["x"]).samples == ("a",)
    with pytest.raises(ek.UsageError, match="'hubmap', 'sennet', and the rows"):
        ek.read_masks(single, image_size={"a_x": (4, 5)}, classes=["x"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("order=X", "--csv order 'X'"),
        ("base=2", "--csv base '2'"),
        ("offsets=both", "--csv offsets 'both'"),
        ("rows=2", "--csv rows '2'"),
        ("colour=red", "there is no 'colour'"),
        ("order=F,order=C", "'order' stands twice"),
        ("order", "'order' is not KEY=VALUE"),
        ("template={image}", None),
        ("template={image}_{class}", None),
        ("template={class}", "template='{class}'"),
        ("id=", "id= names no column"),
        ("class=c,template={image}_{class}", "columns ('image_name', 'c', 'rle')"),
        ('"rle=a,b",id=x', None),
    ],
)
def test_options_that_cannot_mean_anything(tmp_path: Path, text: str, said: str | None) -> None:
    masks = ek.MaskSet({("a", "x"): ek.encode(MASK)})
    if said is None:
        masks.write(tmp_path / "o.csv", csv=text)
        return
    with pytest.raises(ek.UsageError) as caught:
        masks.write(tmp_path / "o.csv", csv=text)
    assert said in str(caught.value)
    assert not (tmp_path / "o.csv").exists()


def _npz(folder: Path) -> Path:
    ek.MaskSet({("a", "x"): ek.encode(MASK)}).write(folder / "p.npz")
    return folder / "p.npz"


@pytest.mark.slow
def test_options_of_another_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ek.UsageError, match="--csv order=F with the format 'npz'"):
        ek.read_masks(_npz(tmp_path), csv="order=F", format="npz")
    convert = ["convert", _npz(tmp_path), "--out", tmp_path / "o.json"]
    refused("option-idle", 2, *convert, "--csv", "order=F")


def test_a_file_without_a_header(tmp_path: Path) -> None:
    source = put(tmp_path / "in.csv", "a.png,bone,1 2\nb.png,bone,\n")
    assert "is a row, not a header" in refused("csv-header", 2, "inspect", source, "--image-size", 4)
    put(source, "image_name,class,rle\n" + source.read_text())
    ensk("inspect", source, "--image-size", 4)


def test_a_table_of_other_classes_is_not_severstals(tmp_path: Path) -> None:
    """A file with its columns and more, whose classes it does not have."""
    source = put(tmp_path / "in.csv", "ImageId,EncodedPixels,Height,Width,ClassId\na,1 2,4,5,6_20\na,9 2,4,5,31\n")
    said = refused("format-unknown", 2, "inspect", source, "--image-size", source)
    assert "'6_20' is not one of its classes" in said
    ensk("inspect", source, "--image-size", source, "--csv", "id=ImageId,class=ClassId,rle=EncodedPixels,order=F")


def test_a_mask_that_fills_a_spreadsheets_cell(tmp_path: Path) -> None:
    text = " ".join(f"{k} 1" for k in range(10001, 18191, 2)) + " 20001 1"
    text = text[8 * ((len(text) - 32767) // 8) :]
    text = f"1 {'1' * (32767 - len(text) - 3)} {text}" if len(text) < 32767 else text
    put(tmp_path / "in.csv", f"image_name,class,rle\na,x,{text}\n")
    assert len(text) == 32767
    with pytest.warns(EnskWarning, match="exactly 32767 characters"):
        ek.read_masks(tmp_path / "in.csv", image_size=(200, 200))


@pytest.mark.parametrize(
    ("order", "along"), [("C", "width apart, as they are along rows"), ("F", "height apart, as they are down columns")]
)
def test_what_rows_say_of_the_order_is_told_but_not_taken(tmp_path: Path, order: str, along: str) -> None:
    source = put(tmp_path / "in.csv", f"id,rle\na,{numbers(MASK, order, 1)}\n")
    with pytest.raises(ek.UsageError, match=f"most starts are the {along}"):
        ek.read_masks(source, image_size=MASK.shape)


@pytest.mark.slow
@pytest.mark.parametrize("mark", ["nan", "None", "-1", "1 0", "0"])
def test_another_mark_of_an_empty_mask(tmp_path: Path, mark: str) -> None:
    source = put(tmp_path / "in.csv", f"img,rle_mask\na,{numbers(MASK, 'C', 1)}\nb,{mark}\n")
    said = refused("rle-invalid", 3, "inspect", source, "--image-size", "24x40")
    option = f"'empty={mark}'" if " " in mark else f"empty={mark}"
    assert f"if '{mark}' stands for an empty mask, pass --from-csv {option}" in said
    masks = ek.read_masks(source, image_size=MASK.shape, csv={"empty": mark})
    assert not masks["b", "mask"]
    masks.write(tmp_path / "o.csv", format="carvana", csv={"empty": mark})
    assert (tmp_path / "o.csv").read_bytes() == source.read_bytes()


@pytest.mark.slow
def test_masks_without_a_row(tmp_path: Path) -> None:
    source = put(tmp_path / "in.csv", "image_name,class,rle\na,x,1 2\nb,y,3 1\n")
    assert "--from-csv rows=object" in refused("rows-missing", 4, "inspect", source, "--image-size", 4)
    masks = ek.read_masks(source, image_size=(4, 4), csv="rows=object")
    assert {key: runs.text() for key, runs in masks.items() if runs} == {("a", "x"): "1 2", ("b", "y"): "3 1"}


def test_a_table_of_files_is_no_table_of_masks(tmp_path: Path) -> None:
    source = put(tmp_path / "in.csv", "image,mask\na.jpg,masks/a.png\nb.jpg,masks/b.png\n")
    with pytest.raises(ek.UsageError, match=r"column 'mask' names files, such as 'masks/a\.png'"):
        ek.read_masks(source, image_size=(4, 4))


@pytest.mark.slow
def test_options_of_csv_for_an_output_of_another_format(tmp_path: Path) -> None:
    masks = ek.MaskSet({("a", "x"): ek.encode(MASK)})
    for out in ("o.json", "folder"):
        with pytest.raises(ek.UsageError, match="--csv order=F with the format"):
            masks.write(tmp_path / out, csv="order=F")
        assert not (tmp_path / out).exists()


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
options = st.builds(
    CsvOptions,
    order=st.sampled_from([None, "C", "F"]),
    base=st.sampled_from([None, 0, 1]),
    offsets=st.sampled_from([None, "absolute", "relative"]),
    id=st.none() | texts,
    class_=st.none() | texts,
    rle=st.none() | texts,
    empty=st.none() | texts,
    rows=st.sampled_from([None, "mask", "object"]),
)


@given(options)
def test_options_are_read_as_they_are_written(said: CsvOptions) -> None:
    assert CsvOptions.of(str(said)) == said
    assert CsvOptions.of(shlex.split(shell(said))[0] if said else "order=C") == (said or CsvOptions(order="C"))
