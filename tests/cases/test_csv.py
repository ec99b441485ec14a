"""F1 to F5 and F12: CSVs of competitions, as people have them, by the command line; the right value from NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import ensemble_kit as ek
from cases.csvs import KINDS, NUCLEI, numbers, put, read
from cases.running import ensk, refused

SHIPS = np.zeros((768, 768), bool)
SHIPS[10:60, 5:8] = True
SHIP = "3851 50 4619 50 5387 50"


def ships(folder: Path) -> Path:
    np.savez(folder / "p.npz", samples=["a"], classes=["x"], masks=SHIPS[None, None])
    return folder / "p.npz"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--format", "airbus"], SHIP),
        (["--format", "dsb2018"], SHIP),
        (["--csv", "order=F,base=1,offsets=absolute"], SHIP),
        (["--csv", "order=F,base=1,offsets=absolute,id=ImageId,rle=EncodedPixels,empty=-1,rows=mask"], SHIP),
        (["--format", "siim", "--csv", "base=1,offsets=absolute"], SHIP),
        (["--format", "siim"], "3850 50 718 50 718 50"),
        (["--csv", "base=0,offsets=relative"], "3850 50 718 50 718 50"),
        (["--format", "airbus", "--csv", "order=C"], numbers(SHIPS, "C", 1)),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_F1_like_with_a_header_that_competitions_share(tmp_path: Path, options: list[str], wanted: str) -> None:
    like = put(tmp_path / "s.csv", KINDS + "a,\n")
    write = ["convert", ships(tmp_path), "--like", like, "--out", tmp_path / "o.csv"]
    assert "--format airbus" in refused("format-ambiguous", 2, *write)
    assert not (tmp_path / "o.csv").exists()
    ensk(*write, *options)
    assert (tmp_path / "o.csv").read_text() == f"{KINDS}a,{wanted}\n"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["airbus", "dsb2018", "csv"])
def test_F2_what_rows_do_not_settle_is_asked_about(tmp_path: Path, form: str) -> None:
    source, out = put(tmp_path / "in.csv", f"{KINDS}a,{SHIP}\n"), tmp_path / "o.npz"
    convert = ["convert", source, "--image-size", 768, "--out", out]
    said = refused("format-ambiguous", 2, *convert)
    assert all(name in said for name in ("--from siim", "--from airbus", "--from dsb2018", "base=0|1"))
    how = ["--from-csv", "base=1,offsets=absolute"] if form == "csv" else ["--from", form]
    ensk(*convert, *how)
    assert np.array_equal(np.load(out)["masks"][0, 0], SHIPS)
    said = refused("csv-columns", 2, *convert, "--force", "--from", "hubmap")  # which once said "pass --format siim"
    assert "--from-csv id=ImageId,rle=EncodedPixels" in said
    ensk(*convert, "--force", "--from", "hubmap", "--from-csv", "id=ImageId,rle=EncodedPixels")
    assert np.array_equal(np.load(out)["masks"][0, 0], SHIPS)


@pytest.mark.parametrize(
    ("rows", "told", "wanted"),
    [
        (f"a,{SHIP}\nb,1 768\nb,4000 2 4768 2\n", "airbus or dsb2018", SHIPS),  # several rows of an image
        ("a,3850 50 718 50 718 50\n", "CSV as siim", SHIPS),  # starts that are not sorted where they are absolute
        ("a,3850 150\nb,-1\n", "CSV as siim", None),  # its mark of an empty mask
        ("a,500000 1 589000 2\n", "airbus or dsb2018", None),  # beyond the image where starts are relative
    ],
    ids=["several rows of one image", "unsorted", "a mark of empty", "beyond the image"],
)
def test_F2_rows_that_fit_one_dialect_settle_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: str, told: str, wanted: np.ndarray | None
) -> None:
    source, out = put(tmp_path / "in.csv", KINDS + rows), tmp_path / "o.npz"
    ensk("convert", source, "--image-size", 768, "--out", out)
    assert told in capsys.readouterr().err
    if wanted is not None:
        assert np.array_equal(np.load(out)["masks"][0, 0], wanted)


@pytest.mark.slow
def test_F2_one_damaged_row_does_not_make_another_dialect_of_a_file(tmp_path: Path) -> None:
    """Ten rows are absolute, one of them unsorted: read as relative they all fit, but nine of ten speak against it."""
    rows = [f"{k},{1 + k} 2 {5 + k} 2 {9 + k} 2" for k in range(10)]
    source = put(tmp_path / "in.csv", KINDS + "\n".join([*rows, "bad,9 2 1 2"]) + "\n")
    assert "airbus" in refused("format-ambiguous", 2, "inspect", source, "--image-size", 768)
    rows = [f"{k},{500 + k} 2 {800 + k} 2 {900 + k} 2" for k in range(10)]
    source = put(tmp_path / "in.csv", KINDS + "\n".join([*rows, "bad,9 2 1 2"]) + "\n")
    assert "line 12, sample 'bad'" in refused("rle-invalid", 3, "inspect", source, "--image-size", 32)


@pytest.mark.slow
def test_F3_from_names_the_format_of_mask_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = [np.arange(20).reshape(4, 5) % 7 < k for k in (2, 3, 4)]
    files = [put(tmp_path / f"{k}.csv", f"id,rle\na,{numbers(m, 'F', 1)}\n") for k, m in enumerate(masks)]
    wanted = numbers(sum(m.astype(int) for m in masks) >= 2, "F", 1)
    vote = ["vote", *files, "--image-size", "4x5", "--out", tmp_path / "o.csv"]
    assert "--from hubmap" in refused("format-ambiguous", 2, *vote)
    ensk(*vote, "--from", "hubmap", "--format", "hubmap")
    assert read(tmp_path / "o.csv") == {"a": [wanted]}
    assert "0.csv: CSV as hubmap: id, rle; pixels down columns from 1" in capsys.readouterr().err
    rows = put(tmp_path / "1.csv", f"id,rle\na,{numbers(masks[1], 'C', 0)}\n")
    each = ["--from", "hubmap", "--from", "sennet", "--from", "hubmap"]
    options = ["--from-csv", "order=F", "--from-csv", "base=0", "--from-csv", "order=F"]
    ensk(*vote, *each, *options, "--format", "hubmap", "--force")
    assert read(tmp_path / "o.csv") == {"a": [wanted]}
    assert "given 2 times, for 3 mask files" in refused("option-invalid", 2, *vote, *each[:4], "--force")
    names = put(tmp_path / "c.txt", "x\n")
    own = put(tmp_path / "own.csv", f"image_name,class,rle\na,x,{numbers(masks[1], 'C', 1)}\n")
    truth = put(tmp_path / "truth.csv", f"id,rle\na,{numbers(masks[1], 'C', 1)}\n")
    score = ["score", own, "--image-size", "4x5", "--classes", names, "--json", "--val"]
    assert "--val-format sennet" in refused("format-ambiguous", 2, *score, truth)
    capsys.readouterr()
    ensk(*score, rows, "--val-format", "sennet", "--val-csv", "base=0")
    assert '"mean": 1.0' in capsys.readouterr().out


@pytest.mark.slow
def test_F3_the_truth_of_a_tuning(tmp_path: Path, make_store) -> None:
    z = np.where(np.arange(64).reshape(1, 8, 8) % 3 == 0, 5, -5).astype(np.float16)
    store = make_store({"a": z}, (8, 8), ("x",))
    truth = put(tmp_path / "t.csv", f"id,rle\na,{numbers(z[0] > 0, 'F', 1)}\n")
    tune = ["tune-thresholds", store.path, "--val", truth, "--out", tmp_path / "s.json", "--folds", 0]
    assert "--from hubmap" in refused("format-ambiguous", 2, *tune)
    for option in ("--from", "--format", "--val-format"):
        ensk(*tune, option, "hubmap", "--force")
        assert ek.ThresholdSet.load(tmp_path / "s.json").score == 1
    for option in ("--csv", "--from-csv", "--val-csv"):
        ensk(*tune, option, "id=id,rle=rle,order=F", "--force")
        assert ek.ThresholdSet.load(tmp_path / "s.json").score == 1


@pytest.mark.slow
def test_F4_further_columns_and_the_index_of_pandas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.arange(20).reshape(4, 5) % 7 < 3
    text = f",id,conf,predicted\n0,a,.5,{numbers(mask, 'F', 1)}\n1,b,.1,\n"
    source, out = put(tmp_path / "in.csv", text), tmp_path / "o.npz"
    convert = ["convert", source, "--image-size", "4x5", "--out", out]
    assert "--from hubmap-kidney-submission" in refused("format-ambiguous", 2, *convert)
    for options in (["--csv", "id=id,rle=predicted,order=F"], ["--from", "hubmap-kidney-submission"],
                    ["--from", "hubmap", "--from-csv", "rle=predicted"]):  # fmt: skip
        ensk(*convert, *options, "--force")
        assert np.array_equal(np.load(out)["masks"][0, 0], mask)
        said = capsys.readouterr().err
        assert "column 'conf' left out" in said
        assert "column '' left out, as the index that pandas wrote" in said


def test_F4_the_train_file_of_sartorius(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row a cell, columns of what it is; the sizes are in it too."""
    cells = np.zeros((2, 40, 60), bool)
    cells[0, 3:9, 4:20], cells[1, 20:30, 30:50] = True, True
    head = "id,annotation,width,height,cell_type,plate_time,sample_date,sample_id,elapsed_timedelta\n"
    row = "{},{},60,40,{},11h30m00s,2019-06-16,x,0 days 11:30:00\n"
    source = put(tmp_path / "train.csv", head + "".join(row.format("a", numbers(c, "C", 1), "astro") for c in cells))
    ensk("convert", source, "--image-size", source, "--out", tmp_path / "o.npz")
    assert np.array_equal(np.load(tmp_path / "o.npz")["masks"][0, 0], cells.any(0))
    assert "CSV as sartorius: id, annotation; pixels along rows from 1; a row an object" in capsys.readouterr().err
    ensk("convert", source, "--image-size", source, "--from-csv", "class=cell_type", "--out", tmp_path / "c.json")
    assert ek.read_masks(tmp_path / "c.json").classes == ("astro",)


def test_F4_what_like_wrote_is_read_again(tmp_path: Path) -> None:
    like = put(tmp_path / "like.csv", "id,predicted\na,\n")
    options = "id=id,rle=predicted,order=F,empty=-"
    ensk("convert", ships(tmp_path), "--like", like, "--csv", options, "--out", tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == f"id,predicted\na,{SHIP}\n"
    ensk("convert", tmp_path / "o.csv", "--csv", options, "--image-size", "768x768", "--out", tmp_path / "o.npz")
    assert np.array_equal(np.load(tmp_path / "o.npz")["masks"][0, 0], SHIPS)


def nuclei(name: str) -> np.ndarray:
    return np.asarray(Image.open(NUCLEI / "masks" / f"{name}.png")) == 1


@pytest.mark.slow
def test_F5_rows_of_objects_are_united(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real rows, a nucleus each; in five images nuclei overlap."""
    ensk("convert", NUCLEI / "labels.csv", "--image-size", NUCLEI / "masks", "--out", tmp_path / "o.csv", "--format",
         "dsb2018", "--like", NUCLEI / "labels.csv")  # fmt: skip
    said = capsys.readouterr().err
    assert "CSV as airbus or dsb2018" in said
    assert "544 objects in 5 masks; objects of 5 masks overlap, by 8 pixels" in said
    written = read(tmp_path / "o.csv")
    assert list(written) == list(read(NUCLEI / "labels.csv"))
    for name, rows in written.items():
        labels, count = ndimage.label(nuclei(name), np.ones((3, 3)))
        assert rows == [numbers(labels == k + 1, "F", 1) for k in range(count)]
    sizes = {name: nuclei(name).shape for name in written}
    back = ek.read_masks(tmp_path / "o.csv", image_size=sizes)
    assert all(np.array_equal(back[name, "mask"].decode(), nuclei(name)) for name in written)


@pytest.mark.slow
def test_F5_a_row_a_mask_is_not_united_unasked(tmp_path: Path) -> None:
    source = put(tmp_path / "in.csv", "image_name,class,rle\na,x,1 2\na,x,2 3\nb,y,4 1\n")
    inspect = ["inspect", source, "--image-size", "2x4"]
    assert "rows=object" in refused("row-doubled", 3, *inspect)
    ensk(*inspect, "--csv", "rows=object")
    masks = ek.read_masks(source, image_size=(2, 4), csv={"rows": "object"})
    assert {key: runs.text() for key, runs in masks.items()} == {
        ("a", "x"): "1 4", ("a", "y"): "", ("b", "x"): "", ("b", "y"): "4 1",
    }  # fmt: skip
    assert "3 objects in 2 masks; objects of 1 mask overlap, by 1 pixel" in str(masks.rule)


def test_F5_an_image_without_objects_has_a_blank_row(tmp_path: Path) -> None:
    none = ek.MaskSet({("a", "x"): ek.Runs.empty((2, 2)), ("b", "x"): ek.encode([[1, 0], [0, 1]])})
    none.write(tmp_path / "o.csv", format="airbus")
    assert (tmp_path / "o.csv").read_text() == KINDS + "a,\nb,1 1 4 1\n"  # pixels that touch by a corner are one object


@pytest.mark.slow
def test_F12_sizes_of_images(tmp_path: Path) -> None:
    masks = {"a.png": np.arange(20).reshape(4, 5) % 3 == 0, "b.png": np.arange(9).reshape(3, 3) % 2 == 0}
    rows = "".join(f"{name},x,{numbers(m, 'C', 1)}\n" for name, m in masks.items())
    source, out = put(tmp_path / "in.csv", "image_name,class,rle\n" + rows), tmp_path / "o.json"
    (tmp_path / "images").mkdir()
    for name, m in masks.items():
        Image.fromarray(m.astype(np.uint8)).save(tmp_path / "images" / name)
    tables = {
        "plain.csv": "sample,height,width\na.png,4,5\nb.png,3,3\n",
        "turned.csv": "Width,Height,file_name,fold\n5,4,a.png,1\n3,3,b.png,2\n5,4,a.png,1\n",
        "hubmap.csv": "id,organ,img_height,img_width\na.png,lung,4,5\nb.png,lung,3,3\n",
        "third.csv": "what,height,width\na.png,4,5\nb.png,3,3\n",
    }
    paths = [put(tmp_path / name, text) for name, text in tables.items()]
    for size in (*paths, tmp_path / "images"):
        ensk("convert", source, "--image-size", size, "--out", out, "--force")
        back = ek.read_masks(out)
        assert all(np.array_equal(back[name, "x"].decode(), m) for name, m in masks.items())
    convert = ["convert", source, "--out", out, "--force", "--image-size"]
    assert "sample,height,width" in refused("image-size-columns", 2, *convert, put(tmp_path / "n.csv", "a,b\n1,2\n"))
    twice = put(tmp_path / "t.csv", "sample,height,width\na.png,4,5\na.png,5,4\n")
    assert "5 x 4, and 4 x 5 before" in refused("image-size-invalid", 3, *convert, twice)
    assert "line 2" in refused("image-size-invalid", 3, *convert, put(tmp_path / "z.csv", "id,height,width\na,4.0,5\n"))
    refused("option-invalid", 2, *convert, tmp_path / "absent.csv")
    one = put(tmp_path / "one.csv", "image_name,class,rle\nb.png,x,1 1\n")
    ensk("convert", one, "--out", out, "--force", "--image-size", 3)
    assert ek.read_masks(out).image_size("b.png") == (3, 3)
