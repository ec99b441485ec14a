"""X: files from strangers. No data file runs code, leaves its folder, or takes memory that it did not declare."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import harness as h
import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.errors import EnskError, UnsafeError
from ensemble_kit.formats.reading import read_masks

MARK = "ENSK_CANARY"


class Canary:
    """Unpickled, it writes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"import os; open(os.environ[{MARK!r}], 'w').close()",)


def evil_npy(path: Path) -> Path:
    np.save(path / "m.npy", np.array([Canary()], object), allow_pickle=True)
    return path / "m.npy"


def evil_npz(path: Path) -> Path:
    np.savez(path / "m.npz", masks=np.array([Canary()], object), samples=np.array(["a"]), classes=np.array(["x"]))
    return path / "m.npz"


def pickled(name: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        (path / name).write_bytes(pickle.dumps(Canary()))
        return path / name

    return make


def text(name: str, content: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        (path / name).write_text(content)
        return path / name

    return make


EXPRESSION = f"__import__('os').open(__import__('os').environ['{MARK}'], 64)"
HEADER = "{'descr': '|b1', 'fortran_order': False, 'shape': (" + EXPRESSION + ",), }"


def evil_header(path: Path) -> Path:
    head = HEADER.encode().ljust(118) + b"\n"
    (path / "m.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + b"\0")
    return path / "m.npy"


class Case(NamedTuple):
    """A hostile file, the command it is given to, and how that must end."""

    id: str
    how: str
    make: Callable[[Path], Path]
    command: tuple[str, ...]
    code: int
    error: str


READ = ("convert", "{}", "--image-size", "4x5", "--out", "out.csv")
TUNE = ("tune-thresholds", "../m.zarr", "--val", "../t.csv", "--statistics", "{}", "--out", "s.json")
CASES = [
    Case("X07", "npy of objects", evil_npy, (*READ, "--classes", "../c.txt"), 7, "pickle-refused"),
    Case("X07", "npz of objects", evil_npz, READ, 7, "pickle-refused"),
    Case("X07", "npy header with an expression", evil_header, (*READ, "--classes", "../c.txt"), 3, "stack-invalid"),
    Case("X06", "a pickle called npz", pickled("m.npz"), READ, 3, "stack-invalid"),
    Case("X06", "a pickle called csv", pickled("m.csv"), READ, 3, "csv-encoding"),
    Case("X06", "a pickle called json", pickled("m.json"), ("inspect", "{}"), 3, ""),
    Case("X06", "a pickle as statistics", pickled("s.npz"), TUNE, 3, "statistics-invalid"),
    Case("X06", "statistics of objects", evil_npz, TUNE, 3, "statistics-invalid"),
    Case("X06", "a pickle as a set", pickled("s.json"), ("vote", "../m.zarr", "--thresholds", "{}", "--out", "o.csv"), 3,
         "set-invalid"),
    Case("X21", "YAML tags as a set", text("s.yaml", "!!python/object/apply:os.system ['true']"),
         ("vote", "../m.zarr", "--thresholds", "{}", "--out", "o.csv"), 3, "set-invalid"),
    Case("X21", "YAML tags as classes", text("c.json", "!!python/object/apply:os.system ['true']"),
         (*READ, "--classes", "{}"), 3, ""),
    Case("X22", "JSON with NaN", text("m.json", '{"images": [NaN], "categories": [], "annotations": []}'), READ, 3,
         "json-invalid"),
    Case("X22", "JSON with a doubled key", text("m.json", '{"images": [], "images": []}'), READ, 3, "json-invalid"),
    Case("X22", "JSON 100,000 deep", text("m.json", '{"images":' + "[" * 100_000), READ, 3, "json-invalid"),
    Case("X22", "half a surrogate pair as counts",
         text("m.json", '{"images":[{"id":1,"file_name":"a","height":4,"width":5}],"categories":[{"id":1,"name":"x"}],'
                        '"annotations":[{"image_id":1,"category_id":1,"segmentation":{"size":[4,5],"counts":"\\ud800"}}]}'),
         READ, 3, "coco-invalid"),
    Case("X26", "an archive that leaves its folder", lambda p: zipped(p, "../../evil.npy"),
         (*READ, "--classes", "../c.txt"), 3, "stack-invalid"),
]  # fmt: skip
ALONE = {
    "X10": "test_archives_that_swell_are_refused_by_what_they_declare",
    "X23": "test_ids_never_leave_the_output",
    "X25": "test_what_is_written_is_private_until_it_is_whole",
    "X27": "test_images_that_declare_too_much",
    "X29": "test_formulas_are_kept_and_warned_of",
    "X30": "test_html_is_escaped",
    "X31": "test_terminals_are_not_driven_by_names",
    "X37": "test_long_lines_take_linear_time",
    "X38": "test_nothing_is_unpickled_but_our_own_cache",
}
ELSEWHERE = {
    "X11": "faults/test_hostile_stores.py::test_a_hostile_store_is_refused_or_read_as_it_was_written",
    "X13": "faults/test_hostile_stores.py::test_a_hostile_store_is_refused_or_read_as_it_was_written",
    "X35": "faults/test_hostile_stores.py::test_a_hostile_store_is_refused_or_read_as_it_was_written",
    "X01": "test_backends.py::test_weights_never_run_code",
    "X02": "test_backends.py::test_weights_never_run_code",
    "X05": "test_backends.py::test_torchscript_needs_trust",
    "X09": "test_backends.py::test_damaged_missing_and_swelling_weights",
    "X10": "test_formats_folders.py::test_an_archive_that_declares_too_much",
    "X14": "test_backends.py::test_onnx_external_data_stays_in_its_folder",
    "X15": "test_backends.py::test_onnx_garbage_and_hard_links",
    "X19": "test_backends.py::test_onnx_garbage_and_hard_links",
    "X17": "faults/test_signals.py::test_a_model_that_never_ends",
    "X18": "faults/test_signals.py::test_a_model_that_asks_for_terabytes",
    "X23": "test_formats_folders.py::test_names_that_leave_the_folder_are_refused",
    "X34": "test_cluster.py::test_a_local_cluster_listens_on_this_machine_alone",
    "X33": "test_jit.py::test_broken_files_are_compiled_again, test_jit.py::test_a_home_that_cannot_be_used",
    "X27": "test_formats_folders.py::test_a_bomb_is_refused_by_its_header",
}
NOT_HERE = {
    "X03": "pyproject.toml requires torch >= 2.10, and `ensk doctor` and the backend say which is there",
}


def zipped(path: Path, name: str) -> Path:
    with zipfile.ZipFile(path / "m.npz", "w") as archive:
        archive.writestr(name, b"\x93NUMPY")
    return path / "m.npz"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ground")
    h.make(folder / "m.zarr")
    h.masks().write(folder / "t.csv", format="handbone")
    (folder / "c.txt").write_text("x\n")
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.id} {c.how}")
def test_a_hostile_file_runs_nothing(ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    monkeypatch.setenv(MARK, str(tmp_path / "ran"))
    work = ground / f"w{abs(hash(case.how)):x}"
    work.mkdir(exist_ok=True)
    monkeypatch.chdir(work)
    ran = h.ensk(*(str(case.make(work)) if a == "{}" else a for a in case.command))
    assert ran.code == case.code, ran.err
    assert "error[bug]" not in ran.err
    assert f"error[{case.error}" in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "ran").exists()
    assert not (ground.parent / "evil.npy").exists()
    assert not [p for p in work.iterdir() if p.name in {"out.csv", "o.csv"}]


WATCH = """
import sys, traceback
events = []
def hook(name, arguments):
    if arguments[:1] == ("lscpu",):  # NumPy 2.0 runs it in numpy.testing, which SciPy 1.13 imports
        return
    if name in ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.spawn", "ctypes.dlopen"):
        files = [f.filename for f in traceback.extract_stack()]
        own_cache = name == "pickle.find_class" and any(f.endswith(("ensemble_kit/kernels/jit.py", "numba/core/serialize.py")) for f in files)
        ours = any("/ensemble_kit/" in f for f in files)
        if name == "pickle.find_class" and not own_cache or name.startswith(("os.", "subprocess")) and ours:
            events.append((name, str(arguments)[:80], files[-4:]))
sys.addaudithook(hook)
from ensemble_kit.cli.app import _run
code = _run(sys.argv[1:])
print("events", events, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [("vote", "m.zarr", "--out", "o.csv", "--force"), ("verify", "m.zarr"), ("inspect", "t.csv", "--image-size", "32x24"),
     ("tune-thresholds", "m.zarr", "--val", "t.csv", "--folds", "0", "--out", "s.json", "--force", "--statistics", "st.npz")],
    ids=lambda c: c[0],
)  # fmt: skip
def test_nothing_is_unpickled_but_our_own_cache(ground: Path, command: tuple[str, ...]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WATCH, *command], cwd=ground, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.splitlines()[-1] == "events []"


BOMB_LIMIT = 256 << 20
MEASURE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from peak import peak
from ensemble_kit.cli.app import _run
import numpy, ensemble_kit.formats.reading, ensemble_kit.logits.store, ensemble_kit.tuning.statistics, ensemble_kit.ensemble
before = peak()
code = _run(sys.argv[1:])
print(peak() - before)
sys.exit(code)
"""


def growth(*command: object) -> tuple[int, int, str]:
    """Run a command; return its exit code, how many bytes its peak grew, and its errors."""
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, command)], capture_output=True, text=True, timeout=120
    )
    return ran.returncode, int(ran.stdout.splitlines()[-1]), ran.stderr


@pytest.mark.slow
def test_archives_that_swell_are_refused_by_what_they_declare(ground: Path, tmp_path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|b1", "fortran_order": False, "shape": (1 << 33,)})
    bomb = tmp_path / "b.npz"
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("head.npy", "w", force_zip64=True) as out,
    ):
        out.write(head.getvalue())
        for _ in range(1 << 9):
            out.write(bytes(1 << 20))
    assert bomb.stat().st_size < 1 << 20
    code, grew, err = growth("tune-thresholds", ground / "m.zarr", "--val", ground / "t.csv", "--statistics", bomb,
                             "--out", tmp_path / "s.json")  # fmt: skip
    assert (code, "statistics-invalid" in err) == (3, True), err
    assert grew < BOMB_LIMIT
    code, grew, err = growth("inspect", bomb, "--classes", ground / "c.txt")
    assert code == 3, err
    assert grew < BOMB_LIMIT


def png(width: int, height: int, rows: bytes, colour: int = 0) -> bytes:
    def piece(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + piece(b"IDAT", zlib.compress(rows, 9)) + piece(b"IEND", b"")


@pytest.mark.slow
def test_images_that_declare_too_much(tmp_path: Path) -> None:
    (tmp_path / "masks/x").mkdir(parents=True)
    for colour, told in ((2, "image-too-large"), (0, "png-invalid")):  # grey ones are read by bands; this one is cut
        (tmp_path / "masks/x/a.png").write_bytes(png(30000, 30000, bytes(30001 * 100), colour))
        code, grew, err = growth("inspect", tmp_path / "masks")
        assert (code, told in err) == (3, True), err
        assert grew < BOMB_LIMIT
    (tmp_path / "masks/x/a.png").write_bytes(png(16000, 16000, bytes(16001 * 10)))  # allowed, and cut
    code, grew, err = growth("inspect", tmp_path / "masks")
    assert (code, "png-invalid" in err) == (3, True), err


NAMES = [
    "../../evil",
    "/etc/evil",
    "a/../../evil",
    "..",
    "\\\\host\\evil",
    "C:\\evil",
    "CON",
    "x" * 300,
    "a\nb",
    "-rf",
    "~",
]


@pytest.mark.parametrize("kind", ["png", "label-map", "labelme", "npy"])
@pytest.mark.parametrize("name", NAMES, ids=lambda n: ascii(n)[:20])
def test_ids_never_leave_the_output(tmp_path: Path, kind: str, name: str) -> None:
    """Whatever an id is, files appear below the output only, or the id is refused."""
    for sample, label in ((name, "x"), ("a", name)):
        masks = ek.MaskSet({(sample, label): ek.Runs([1], [5], (3, 4))})
        out = tmp_path / "deep" / "er" / "out"
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            masks.write(out, format=kind)
        except UnsafeError:
            assert not out.exists()
            continue
        everything = [p for p in tmp_path.rglob("*") if p.is_file()]
        assert all(p.is_relative_to(out) for p in everything)
        assert dict(read_masks(out)) == dict(masks)
    assert not Path("/etc/evil").exists()


def test_what_is_written_is_private_until_it_is_whole(tmp_path: Path) -> None:
    from ensemble_kit.files import atomic_write

    old = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "o.csv") as out:
            (temporary,) = tmp_path.iterdir()
            assert temporary.stat().st_mode & 0o777 == 0o600
            out.write(b"x")
        assert (tmp_path / "o.csv").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(old)


FORMULAS = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\tx"]


def test_formulas_are_kept_and_warned_of(tmp_path: Path) -> None:
    masks = ek.MaskSet({(n, "x"): ek.Runs([1], [5], (3, 4)) for n in FORMULAS})
    masks.write(tmp_path / "m.npz")
    ran = h.ensk("convert", tmp_path / "m.npz", "--out", tmp_path / "o.csv")
    assert ran.code == 0, ran.err
    assert "warning: 5 names begin like formulas" in ran.err
    assert read_masks(tmp_path / "o.csv", image_size=(3, 4)).samples == tuple(FORMULAS)
    ran = h.ensk("convert", tmp_path / "m.npz", "--out", tmp_path / "o.json")
    assert "formula" not in ran.err


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, Any]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append((tag, attrs))


PAYLOADS = ["<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "\"><svg onload=alert(1)>", "' onmouseover='alert(1)",
            "<iframe src=javascript:alert(1)>", "</td></table><script>", "<!--", "&lt;b&gt;", "<a href=javascript:1>", "<style>*{}"]  # fmt: skip


def test_html_is_escaped(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    with ek.LogitWriter(tmp_path / "m.zarr", PAYLOADS, h.IDS, (4, 4)) as out:
        for name in h.IDS:
            out.write(name, draw.normal(size=(len(PAYLOADS), 4, 4)) * 4, (8, 8))
    ensemble = ek.Ensemble([tmp_path / "m.zarr"])
    page = Tags(ek.tune_thresholds(ensemble, ensemble.vote(0.6))._repr_html_())
    assert {t for t, _ in page.seen} <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "p", "strong"}
    assert all({k for k, _ in attrs} <= {"style"} for _, attrs in page.seen)


ESCAPES = ["\x1b[31mred", "\x1b]0;title\x07", "\x9b2J", "a\u202etxt.exe", "\x7f", "bell\x07"]


@pytest.mark.parametrize("extra", [(), ("--json",)])
def test_terminals_are_not_driven_by_names(tmp_path: Path, extra: tuple[str, ...]) -> None:
    """In tables, in JSON, in errors: what a terminal obeys is escaped. (The CSV itself keeps the ids.)"""
    masks = ek.MaskSet({(n, n): ek.Runs([1], [5], (3, 4)) for n in ESCAPES} | {
        (a, b): ek.Runs.empty((3, 4)) for a in ESCAPES for b in ESCAPES if a != b})  # fmt: skip
    masks.write(tmp_path / "m.csv", format="handbone")
    said = [h.ensk("inspect", tmp_path / "m.csv", "--image-size", "3x4", *extra)]
    h.edit(tmp_path / "m.csv", lambda raw: raw + b"\x1b[2J,y,1 1\n")
    said.append(h.ensk("inspect", tmp_path / "m.csv", "--image-size", "3x4", *extra))
    assert [r.code for r in said] == [0, 4]
    for ran in said:
        for stream in (ran.out, ran.err):
            assert all(c.isprintable() or c == "\n" for c in stream), ascii(stream)
    if extra:
        assert set(json.loads(said[0].out)["classes"]) == set(ESCAPES)


@pytest.mark.slow
def test_long_lines_take_linear_time(tmp_path: Path) -> None:
    seconds = []
    for size in (1_000_000, 10_000_000):
        for content in (b"x" * size, b'"' + b"x" * size, b"," * size, b"1 " * (size // 2)):
            (tmp_path / "m.csv").write_bytes(b"image_name,class,rle\na,x," + content + b"\n")
            started = time.process_time()
            with pytest.raises(EnskError):
                read_masks(tmp_path / "m.csv", image_size=(2000, 2000))
            seconds.append(time.process_time() - started)
    assert max(seconds[4:]) < 30 * max(seconds[:4]) + 0.5
    assert max(seconds) < 4
