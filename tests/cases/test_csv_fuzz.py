"""Bytes that nobody wrote: mutations of real CSVs end in an error that names the file, or in what the bytes say."""

from __future__ import annotations

import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from cases.csvs import KINDS, NUCLEI
from ensemble_kit.recipes.masks import sizes_from

FILES = {
    "objects": (NUCLEI / "labels.csv").read_bytes()[:3000].rpartition(b"\n")[0] + b"\n",
    "one a class": b'image_name,class,rle\n"a,1",x,1 2 5 3\n"a,1",y,\nb,x,7 1\nb,y,1 12\n',
    "joined": b"id,rle\r\na_x,1 2 5 3\r\na_y,1 1\r\nb_x,\r\nb_y,7 1\r\n",
    "relative": b"ImageId, EncodedPixels\na, 1 2 5 3\nb, -1\nc, 0 7 2 2\n",
    "index": b",id,predicted,conf\n0,a,1 2 5 3,.5\n1,a,20 2,.5\n2,b,,\n",
    "marked": b"\xef\xbb\xbfid,annotation,cell_type\na,1 2,astro\na,9 3,astro\nb,4 1,cort\n",
    "sizes": b"sample,height,width\na,4,5\nb,3,3\n",
}
HOW = {"joined": "kaggle", "relative": "siim", "index": "sartorius-submission"}
SIZE = (520, 700)


def reads(path: Path, raw: bytes, how: str | None, options: str | None = None) -> ek.MaskSet | None:
    """Read bytes as masks; None where they are refused, as they have to be, by the file's name."""
    path.write_bytes(raw)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ek.read_masks(path, format=how, image_size=SIZE, classes=["x", "y"] if how == "kaggle" else None,
                                 csv=options)  # fmt: skip
    except ek.EnskError as error:
        assert path.name in str(error)
        assert len(str(error)) < 3000
        return None


@st.composite
def mutated(draw: st.DrawFn, raw: bytes) -> bytes:
    out = bytearray(raw)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(out)))
        end = min(len(out), at + draw(st.integers(0, 12)))
        new = draw(st.sampled_from([b"", b"0", b"-1", b" ", b",", b'"', b"\n", b"\r", b"\0", b"\xff", b"9" * 20, b"=",
                                    b"\xef\xbb\xbf", b"x", bytes(out[at:end]) * 2, draw(st.binary(max_size=4))]))  # fmt: skip
        out[at:end] = new
    return bytes(out)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_mutations_are_read_or_refused_by_name(tmp_path, name, data):
    raw = data.draw(mutated(FILES[name]))
    how = data.draw(st.sampled_from([None, HOW.get(name)]))
    options = data.draw(st.sampled_from([None, "rows=object", "order=F,base=0", "id=id,rle=predicted,order=C"]))
    masks = reads(tmp_path / "m.csv", raw, how, options)
    assert masks is None or len(masks) > 0
    try:
        sizes_from(tmp_path / "m.csv")
    except ek.EnskError as error:
        assert "m.csv" in str(error)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in FILES if n != "sizes"])
def test_a_file_that_was_cut_is_no_result(tmp_path, name):
    """But where it was cut between two rows of a format that leaves rows out: no byte tells."""
    raw, how = FILES[name], HOW.get(name)
    whole = reads(tmp_path / "m.csv", raw, how)
    assert whole is not None
    holes = name in {"objects", "index", "marked", "relative"}
    step = max(1, len(raw) // 400)
    for size in range(0, len(raw), step):
        masks = reads(tmp_path / "m.csv", raw[:size], how)
        between = raw[:size].endswith((b"\n", b"\r")) and raw.count(b"\n", 0, size) >= (1 if holes else 2)
        assert masks is None or between, raw[:size][-40:]


@given(raw=st.binary(max_size=80), how=st.sampled_from([None, "airbus", "siim", "kaggle", "csv"]))
def test_arbitrary_bytes_behind_a_header(tmp_path, raw, how):
    for head in (KINDS, "id,rle\n", "a,b\n"):
        reads(tmp_path / "m.csv", head.encode() + raw, how)


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["mask", "object"])
def test_memory_is_a_multiple_of_the_file(tmp_path, rows):
    """Not of the images: these have 10^12 pixels each."""
    path, random = tmp_path / "m.csv", np.random.default_rng(0)
    with path.open("w") as out:
        out.write("id,part,runs\n")
        for k in range(400):
            starts = np.cumsum(random.integers(2, 90, 2000))
            out.write(f"{k},x," + " ".join(f"{s} 1" for s in starts) + "\n")
    options = f"id=id,class=part,rle=runs,order=C,rows={rows}"
    ek.read_masks(path, image_size=(10**6, 10**6), csv=options)  # kernels are loaded
    tracemalloc.start()
    try:
        ek.read_masks(path, image_size=(10**6, 10**6), csv=options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * path.stat().st_size + 2**24, peak / path.stat().st_size
