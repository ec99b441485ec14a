"""F: tables of masks. Text stays text, and a file that is cut, doubled or short is never read as a whole one."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import harness as h
import pytest

import ensemble_kit as ek

HEAD = "image_name,class,rle\n"


class Case(NamedTuple):
    """A file, and how `ensk convert` must end on it."""

    id: str
    how: str
    raw: bytes
    code: int
    error: str
    named: str


CASES = [
    Case("F07", "UTF-16", (HEAD + "a,b,1 1\n").encode("utf-16"), 3, "csv-encoding", "UTF-16"),
    Case("F07", "UTF-32", (HEAD + "a,b,1 1\n").encode("utf-32"), 3, "csv-encoding", "UTF-32"),
    Case("F07", "Latin-1", (HEAD + "é.png,b,1 1\n").encode("latin-1"), 3, "csv-encoding", "0xe9 on line 2"),
    Case("F11", "a doubled header", b"image_name,rle,rle\na,1 1,1 1\n", 3, "csv-header-doubled", "'rle'"),
    Case("F13", "a field too few", (HEAD + "a,b,1 1\nc,d\n").encode(), 3, "csv-fields", "line 3 has 2 fields"),
    Case("F13", "a field too many", (HEAD + "a,b,1 1,9\n").encode(), 3, "csv-fields", "line 2 has 4 fields"),
    Case("F14", "the last line cut", (HEAD + "a,b,1 1\nc,d,1").encode(), 3, "csv-cut", "last line, 3"),
    Case("F15", "cut inside a quote", (HEAD + 'a,b,1 1\n"c,d,1 1\n').encode(), 3, "csv-quote", "line 3"),
    Case("F15", "text behind a quote", (HEAD + '"a"x,b,1 1\n').encode(), 3, "csv-quote", "line 2"),
    Case("F17", "semicolons", b"image_name;class;rle\na;b;1 1\n", 2, "csv-delimiter", "semicolons"),
    Case("F17", "tabs", b"image_name\tclass\trle\na\tb\t1 1\n", 2, "csv-delimiter", "tabs"),
    Case("F09", "a row missing", (HEAD + "a,x,1 1\na,y,1 1\nb,x,1 1\n").encode(), 4, "rows-missing", "('b', 'y')"),
    Case("F09", "a row doubled", (HEAD + "a,x,1 1\na,x,1 1\n").encode(), 3, "row-doubled", "line 2 and on line 3"),
    Case("F09", "a header only", HEAD.encode(), 4, "rows-missing", "header only"),
    Case("F09", "nothing", b"", 3, "csv-empty", "no header"),
    Case("F01", "a blank name", (HEAD + ",x,1 1\n").encode(), 3, "row-unnamed", "line 2"),
    Case(
        "F01", "an RLE that is no RLE", (HEAD + "a,x,1 1\nb,x,nan\n").encode(), 3, "rle-invalid", "line 3, sample 'b'"
    ),
]
ALONE = {
    "F01": "test_text_stays_text",
    "F02": "test_text_stays_text",
    "F03": "test_text_stays_text",
    "F05": "test_text_stays_text",
    "F06": "test_text_stays_text",
    "F09": "test_a_sample_submission_decides_rows",
    "F10": "test_a_sample_submission_decides_rows",
    "F18": "test_text_stays_text",
    "F21": "test_a_full_disk_leaves_the_old_file",
    "F22": "test_a_file_is_synced_before_it_has_its_name",
    "F23": "test_outputs_that_are_inputs_folders_or_links",
    "F25": "test_a_sample_submission_decides_rows",
    "F26": "test_many_rows_stream",
    "F27": "test_the_environment_changes_no_byte",
}
ELSEWHERE = {
    "F19": "test_formats_csv.py::test_a_field_of_megabytes_works",
    "F06": "test_formats_csv.py::test_text_stays_text_and_a_mark_is_accepted",
    "F21": "test_formats_files.py::test_a_failing_block_leaves_the_old_file",
    "F25": "test_formats_csv.py::test_like_must_name_the_same_masks",
}
NOT_HERE: dict[str, str] = {}


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.id} {c.how}")
def test_a_file_that_is_not_whole(tmp_path: Path, case: Case) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.npz"
    source.write_bytes(case.raw)
    target.write_bytes(b"old")
    ran = h.ensk("convert", source, "--from", "handbone", "--image-size", "4x5", "--out", target, "--force")
    h.judge(ran, case.code, case.error, case.named, "in.csv")
    assert target.read_bytes() == b"old"
    assert not h.leftovers(tmp_path)


IDS = ("0007", "NA", "null", "None", "nan", "True", "False", "1e5", "-", " a", "b ", 'q"u', "c,d", "e\nf", "g\r\nh",
       "\u00e9", "e\u0301", "=1+1", "@x", "#", "'", "\\", "\ufeffz", "٣")  # fmt: skip


def test_text_stays_text(tmp_path: Path) -> None:
    """Ids that pandas, Excel or a naive reader would change, empty masks, a mark at the start: all round-trip."""
    wanted = ek.MaskSet({(s, c): ek.Runs.empty((3, 4)) if k % 2 else ek.Runs([k % 9], [k % 9 + 2], (3, 4))
                         for k, s in enumerate(IDS) for c in ("True", "0")})  # fmt: skip
    wanted.write(tmp_path / "m.csv", format="handbone")
    got = ek.read_masks(tmp_path / "m.csv", image_size=(3, 4))
    assert got.samples == IDS
    assert dict(got) == dict(wanted)
    h.edit(tmp_path / "m.csv", lambda raw: b"\xef\xbb\xbf" + raw)
    assert dict(ek.read_masks(tmp_path / "m.csv", image_size=(3, 4))) == dict(wanted)


def test_a_sample_submission_decides_rows(tmp_path: Path) -> None:
    source, like = tmp_path / "in.csv", tmp_path / "sample.csv"
    h.masks().write(source, format="handbone")
    rows = source.read_text().splitlines(keepends=True)
    options = ("--format", "handbone", "--image-size", "32x24", "--like", like, "--out", tmp_path / "o.csv")
    like.write_text(rows[0] + "".join(reversed(rows[1:])))
    assert h.ensk("convert", source, *options).code == 0
    assert (tmp_path / "o.csv").read_text().splitlines() == [r.strip("\n") for r in (rows[0], *reversed(rows[1:]))]
    like.write_text("".join(rows[:-3]))
    h.judge(h.ensk("convert", source, *options, "--force"), 6, "rows-extra", "9 rows", "12 masks")
    like.write_text("".join([*rows, "new.png,radius,\n"]))
    h.judge(h.ensk("convert", source, *options, "--force"), 4, "rows-missing", "13 rows", "12 masks", "new.png")
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 13  # the file from before


@h.needs_root
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    plane = (600, 800)
    big = h.masks(plane=plane)
    for key in list(big):  # a checkerboard: the longest text
        big = ek.MaskSet({**big, key: ek.Runs(range(0, 40000, 2), range(1, 40001, 2), plane)})
    big.write(tmp_path / "in.csv", format="handbone")
    with h.tmpfs(tmp_path / "room", "64k") as room:
        (room / "o.csv").write_bytes(b"old")
        ran = h.ensk("convert", tmp_path / "in.csv", "--format", "handbone", "--image-size", "600x800", "--out",
                     room / "o.csv", "--force")  # fmt: skip
        h.judge(ran, 5, "write-failed", "o.csv", "No space left")
        assert [p.name for p in room.iterdir()] == ["o.csv"]
        assert (room / "o.csv").read_bytes() == b"old"
    ran = h.ensk(
        "convert", tmp_path / "in.csv", "--format", "handbone", "--image-size", "600x800", "--out", "/dev/full"
    )
    h.judge(ran, 5, "write-failed", "/dev/full", "No space left")


@h.needs_strace
def test_a_file_is_synced_before_it_has_its_name(tmp_path: Path) -> None:
    """fsync of the file, then rename, then fsync of the folder."""
    script = ("import sys; from pathlib import Path; from ensemble_kit.files import atomic_write\n"
              "with atomic_write(Path(sys.argv[1])) as out: out.write(b'x')")  # fmt: skip
    log = tmp_path / "log"
    command = [
        "strace",
        "-f",
        "-qq",
        "-e",
        "trace=fsync,rename,renameat,renameat2",
        "-o",
        log,
        sys.executable,
        "-c",
        script,
    ]
    subprocess.run([*command, tmp_path / "o.csv"], check=True, timeout=60)
    calls = [
        line.split("(")[0].split()[-1] for line in log.read_text().splitlines() if "o.csv" in line or "fsync" in line
    ]
    assert calls[-3:] == ["fsync", "rename", "fsync"]


@pytest.mark.slow
def test_outputs_that_are_inputs_folders_or_links(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    h.masks().write(source, format="handbone")
    before, options = source.read_bytes(), ("--format", "handbone", "--image-size", "32x24", "--force")
    h.judge(h.ensk("convert", source, *options, "--out", source), 2, "output-is-input", "in.csv")
    (tmp_path / "alias.csv").symlink_to(source)
    h.judge(h.ensk("convert", source, *options, "--out", tmp_path / "alias.csv"), 2, "output-is-input", "alias.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "folder.csv/work").write_bytes(b"precious")
    h.judge(h.ensk("convert", source, *options, "--out", tmp_path / "folder.csv"), 2, "output-foreign", "folder.csv")
    assert (tmp_path / "folder.csv/work").read_bytes() == b"precious"
    (tmp_path / "else").write_bytes(b"precious")
    (tmp_path / "link.csv").symlink_to(tmp_path / "else")
    assert h.ensk("convert", source, *options, "--out", tmp_path / "link.csv").code == 0
    assert (tmp_path / "else").read_bytes() == b"precious"  # a link is replaced, never followed
    assert not (tmp_path / "link.csv").is_symlink()
    ran = h.spawn("convert", source, *options, "--out", "-")
    assert ran.stdout.encode() == before
    assert source.read_bytes() == before


MANY = f"""
import sys, ensemble_kit as ek
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from peak import peak
plane, classes = (64, 64), [f"c{{k}}" for k in range(20)]
rows = ((f"i{{k}}.png", c) for k in range(int(sys.argv[2])) for c in classes)
masks = ek.MaskSet({{key: ek.Runs([5], [90], plane) for key in rows}})
ek.MaskSet(dict(list(masks.items())[:20])).write(sys.argv[1] + ".first.csv", format="handbone")  # kernels are loaded
before = peak()
masks.write(sys.argv[1], format="handbone")
print(peak() - before)
"""


@pytest.mark.slow
def test_many_rows_stream(tmp_path: Path) -> None:
    """Writing takes less than the masks that it writes: at most 400 bytes a row."""
    grew = []
    for samples in ("2500", "5000"):
        command = [sys.executable, "-c", MANY, tmp_path / "m.csv", samples]
        grew.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert grew[1] - grew[0] < 400 * 50_000, grew
    assert (tmp_path / "m.csv").read_bytes().count(b"\n") == 100_001


@pytest.mark.slow
def test_the_environment_changes_no_byte(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    h.masks(ids=("é", "b", "ß")).write(source, format="handbone")
    seen = set()
    for k, change in enumerate(
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONHASHSEED": "1", "TZ": "Asia/Kolkata"},
         {"PYTHONHASHSEED": "2", "LC_ALL": "tr_TR.UTF-8", "NO_COLOR": "1", "COLUMNS": "20"})
    ):  # fmt: skip
        out = tmp_path / f"{k}.json"
        ran = h.spawn("convert", source, "--from", "handbone", "--image-size", "32x24", "--out", out,
                      env={**os.environ, **change})  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert "\x1b" not in ran.stdout + ran.stderr
        seen.add(out.read_bytes())
    assert len(seen) == 1


@pytest.mark.slow
def test_a_limit_on_file_size(tmp_path: Path) -> None:
    h.masks().write(tmp_path / "in.csv", format="handbone")
    ran = h.spawn("convert", tmp_path / "in.csv", "--from", "handbone", "--image-size", "32x24", "--out",
                  tmp_path / "o.npy", preexec_fn=h.limited("FSIZE", 100))  # fmt: skip
    h.judge(ran, 5, "write-failed", "o.npy", "File too large")
    assert not (tmp_path / "o.npy").exists()
    assert not h.leftovers(tmp_path)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100
