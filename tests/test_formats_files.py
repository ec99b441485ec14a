"""Final names are whole, old or absent; class files, image sizes, and `ensk convert` in a real process."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.convert import convert
from ensemble_kit.errors import DamagedError, IncompleteError, ResourceError, UsageError
from ensemble_kit.files import atomic_folder, atomic_write
from ensemble_kit.formats.classes import read_classes
from ensemble_kit.formats.reading import read_masks
from ensemble_kit.formats.sizes import parse_image_size
from ensemble_kit.formats.writing import kind_of_output
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import encode

MASKS = MaskSet({(s, c): encode(np.eye(3, 4, k) > 0) for k, s in enumerate(("a", "b")) for c in ("x", "y")})


def test_a_failing_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as out:
        out.write(b"new")
        raise KeyboardInterrupt
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("f", "old")]
    with atomic_write(path) as out:
        out.write(b"new")
        (temporary,) = [p for p in tmp_path.iterdir() if p != path]
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        assert path.read_text() == "old"
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("f", "new")]
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_a_failing_block_leaves_the_old_folder(tmp_path):
    path = tmp_path / "d"
    for text in ("old", "new"):
        with atomic_folder(path, mark="m") as folder:
            (folder / "m").write_text(text)
    with pytest.raises(KeyboardInterrupt), atomic_folder(path, mark="m") as folder:
        (folder / "m").write_text("newer")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
    assert (path / "m").read_text() == "new"


def test_a_folder_that_holds_other_things_is_never_replaced(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.txt").write_text("dear")
    with pytest.raises(UsageError, match="did not write"):
        MASKS.write(tmp_path / "d", format="png")
    (tmp_path / "d" / "thesis.txt").unlink()
    MASKS.write(tmp_path / "d", format="png")
    MASKS.write(tmp_path / "d", format="npy")
    assert dict(read_masks(tmp_path / "d")) == dict(MASKS)


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "precious").write_text("old")
    (tmp_path / "m.csv").symlink_to(tmp_path / "precious")
    MASKS.write(tmp_path / "m.csv")
    assert (tmp_path / "precious").read_text() == "old"
    assert not (tmp_path / "m.csv").is_symlink()


@pytest.mark.parametrize(("name", "format_", "code"), [
    ("there.csv", None, "output-exists"), ("folder", "handbone", "output-kind"), ("there.csv", "png", "output-kind"),
    ("no/such/m.csv", None, "output-folder-missing"), ("no/such/m", "png", "output-folder-missing"),
    ("x" * 300 + ".csv", None, "output-name"), ("a\0.csv", None, "output-name"), ("m.xyz", None, "format-unknown"),
])  # fmt: skip
def test_targets_that_cannot_be_written(tmp_path, name, format_, code):
    (tmp_path / "there.csv").write_text("old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError) as caught:
        MASKS.write(tmp_path / name, format=format_, force=False)
    assert caught.value.code == code
    assert (tmp_path / "there.csv").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_named():
    with pytest.raises(ResourceError, match="/dev/full"):
        MASKS.write("/dev/full", format="handbone")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_what_a_killed_writer_left_is_removed_and_a_living_one_is_not(tmp_path):
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\nfrom ensemble_kit.files import atomic_write\nimport time\n"
        f"with atomic_write({str(tmp_path / 'm.csv')!r}) as out:\n print(flush=True); time.sleep(60)"
    )
    first, second = (subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2))
    for process in (first, second):
        process.stdout.readline()
    try:
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert len(list(tmp_path.iterdir())) == 2
        MASKS.write(tmp_path / "m.csv")
        assert len(list(tmp_path.iterdir())) == 2  # the result, and the living writer's
    finally:
        second.kill()
        second.wait()
        first.stdout.close()
        second.stdout.close()
    MASKS.write(tmp_path / "m.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["m.csv"]


def test_class_files(tmp_path):
    path = tmp_path / "classes"
    for text in ("x\n\n y \r\n", "\ufeffx\ny", '["x", "y"]', '{"x": [0, 0, 0], "y": 3}', '{"classes": ["x", "y"]}',
                 '[{"name": "x", "color": "#fff"}, {"name": "y"}]',
                 '{"classes": [{"name": "x"}, {"name": "y"}]}'):  # fmt: skip
        path.write_text(text)
        assert read_classes(path) == ("x", "y")
    for text, error in (("x\nx\n", UsageError), ("", UsageError), ("[3]", DamagedError), ("{}", DamagedError),
                        ('{"x": 1, "x": 2}', DamagedError)):  # fmt: skip
        path.write_text(text)
        with pytest.raises(error):
            read_classes(path)
    with pytest.raises(IncompleteError, match="does not exist"):
        read_classes(tmp_path / "none")


def test_image_sizes():
    assert parse_image_size("2048x1024") == (2048, 1024)
    assert parse_image_size("2048") == (2048, 2048)
    for text in ("0", "0x3", "-1x3", "3x", "axb", "1.5x2", "2 x 3", "٣x٣", "9" * 20 + "x1"):
        with pytest.raises(UsageError, match="image size"):
            parse_image_size(text)


def test_the_name_tells_the_format_to_write():
    assert [kind_of_output(Path(p)).name for p in
            ("-", "m.csv", "m.CSV", "m.json", "m.npz", "m.npy", "m")] \
        == ["handbone", "handbone", "handbone", "coco", "npz", "npy", "png"]  # fmt: skip


def run(source, out, format_=None, from_=None, like=None, image_size="3x4", classes=None, **common):
    convert(source, Common(**common), out, format_, from_, image_size, classes, like)


def test_convert_goes_round_every_format(tmp_path, capsys):
    MASKS.write(tmp_path / "start.csv")
    (tmp_path / "classes.txt").write_text("x\ny\n")
    source = tmp_path / "start.csv"
    for name, format_ in (("m.json", None), ("m", None), ("m.npz", None), ("pairs.csv", "kaggle"), ("p", "labelme"),
                          ("n", "npy"), ("n.npy", None)):  # fmt: skip
        run(source, tmp_path / name, format_, "kaggle" if source.name == "pairs.csv" else None,
            classes=tmp_path / "classes.txt")  # fmt: skip
        source = tmp_path / name
    assert [r.text() for r in read_masks(source, classes=["x", "y"]).values()] == [r.text() for r in MASKS.values()]
    run(tmp_path / "m", tmp_path / "end.csv", "handbone", image_size=None)
    assert (tmp_path / "end.csv").read_bytes() == (tmp_path / "start.csv").read_bytes()


def test_format_alone_names_the_side_that_needs_it(tmp_path):
    MASKS.write(tmp_path / "k.csv", format="kaggle")
    (tmp_path / "c.txt").write_text("x\ny\n")
    run(tmp_path / "k.csv", tmp_path / "m.json", "kaggle", classes=tmp_path / "c.txt")
    assert dict(read_masks(tmp_path / "m.json")) == dict(MASKS)
    run(tmp_path / "k.csv", tmp_path / "again.csv", "kaggle", classes=tmp_path / "c.txt")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "k.csv").read_bytes()
    with pytest.raises(UsageError, match="'kaggle', 'hubmap', 'sennet'"):
        run(tmp_path / "k.csv", tmp_path / "n.json", "coco")


@pytest.mark.slow
def test_convert_in_a_real_process(tmp_path):
    MASKS.write(tmp_path / "m.csv")
    command = [
        sys.executable,
        "-c",
        "from ensemble_kit.cli.app import main; main()",
        "convert",
        str(tmp_path / "m.csv"),
    ]

    def ensk(*more):
        return subprocess.run([*command, "--image-size", "3x4", *more], capture_output=True)

    for out in (["-"], ["/dev/stdout", "--format", "handbone"]):
        done = ensk("--out", *out)
        assert (done.returncode, done.stdout) == (0, (tmp_path / "m.csv").read_bytes()), done.stderr
    done = ensk("--out", "/dev/full", "--format", "handbone")
    assert (done.returncode, b"/dev/full" in done.stderr) == (5, True)
    done = ensk("--out", str(tmp_path / "no" / "m.csv"))
    assert (done.returncode, b"mkdir -p" in done.stderr) == (2, True)


def test_convert_answers_and_plans(tmp_path, capsys):
    MASKS.write(tmp_path / "m.csv")
    run(tmp_path / "m.csv", tmp_path / "m.json", json=True, dry_run=True)
    plan = json.loads(capsys.readouterr().out)
    assert plan["dry_run"]
    assert not (tmp_path / "m.json").exists()
    run(tmp_path / "m.csv", tmp_path / "m.json", json=True)
    done = json.loads(capsys.readouterr().out)
    assert done["bytes"] == plan["bytes"] == (tmp_path / "m.json").stat().st_size
    assert (done["samples"], done["classes"], done["from"], done["format"]) == (2, 2, "handbone", "coco")
    with pytest.raises(UsageError, match="exists"):
        run(tmp_path / "m.csv", tmp_path / "m.json")
    run(tmp_path / "m.csv", tmp_path / "m.json", force=True)
    with pytest.raises(UsageError, match="is also an input"):
        run(tmp_path / "m.csv", tmp_path / "m.csv", force=True)


def test_formats_load_nothing_heavy():
    code = (
        "import sys; import ensemble_kit.formats.reading, ensemble_kit.formats.writing; "
        "print([m for m in ('pandas', 'cv2', 'PIL', 'numba', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new(tmp_path):
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\nfrom ensemble_kit.files import atomic_write\n"
        f"k = 0\nwhile True:\n k += 1\n with atomic_write({str(tmp_path / 'm')!r}) as out:\n"
        "  [out.write(b'%09d\\n' % k) for _ in range(5000)]\n if k == 1: print(flush=True)"
    )
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.05 * np.random.default_rng().random())
        process.kill()
        process.wait()
        process.stdout.close()
        lines = (tmp_path / "m").read_bytes().split(b"\n")
        assert len(lines) == 5001
        assert len(set(lines[:-1])) == 1
