"""PNG folders, polygon JSON and NumPy stacks: round trips, hand-made inputs, hostile ones."""

import io
import json
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ensemble_kit.errors import DamagedError, EnskError, IncompleteError, MismatchError, UnsafeError, UsageError
from ensemble_kit.formats.filenames import file_names
from ensemble_kit.formats.polygons import fill_opencv, outline
from ensemble_kit.formats.reading import read_masks, recognise
from ensemble_kit.formats.writing import write_masks
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs, encode
from test_formats_csv import HARD_IDS, ids, mask_sets

pytestmark = pytest.mark.filterwarnings("ignore:.*differ only in case")  # names that are drawn, such as None, NONE
few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
names_ok = ids.filter(lambda n: "\0" not in n and not n.startswith(("/", "\\")) and ".." not in n)
sets = mask_sets(classes=st.lists(names_ok, min_size=1, max_size=3, unique=True))


def inside(masks):
    return not any("\0" in s or s.startswith(("/", "\\")) or ".." in s for s in masks.samples)


@pytest.mark.parametrize("target", ["png", "npy", "labelme", "one.npz", "one.json"])
@few
@given(masks=sets.filter(inside))
def test_every_format_round_trips_under_any_name(tmp_path, target, masks):
    path = tmp_path / target
    chosen = None if "." in target else target
    write_masks(masks, path, format=chosen)
    back = read_masks(path)
    assert dict(back) == dict(masks)
    assert (back.samples, back.classes) == (masks.samples, masks.classes)
    assert read_masks(path, classes=masks.classes[::-1]).classes == masks.classes[::-1]
    sizes = {s: masks.image_size(s) for s in masks.samples}
    assert dict(read_masks(path, chosen, sizes)) == dict(masks)


@few
@given(masks=mask_sets(classes=st.lists(names_ok, min_size=1, max_size=3, unique=True), exclusive=True).filter(inside))
def test_exclusive_classes_round_trip_as_label_maps(tmp_path, masks):
    write_masks(masks, tmp_path / "m", format="label-map")
    assert dict(read_masks(tmp_path / "m")) == dict(masks)


def test_hard_names_are_files_of_their_own():
    many = [
        *HARD_IDS,
        "a",
        "A",
        "a.png",
        "CON",
        "x" * 300,
        "d/e",
        "d",
        "d.png/e",
        "nul.txt",
        "id-1",
        ".hid",
        "a ",
        "\u00e9",
        "e\u0301",
    ]
    files = file_names(many, ".png")
    assert len({f.casefold() for f in files.values()}) == len(many)
    assert files["d/e"] == "d/e.png"
    assert all(len(part.encode()) <= 255 for f in files.values() for part in f.split("/"))
    for bad in ("../x", "/etc/x", "a/../../x", "a\0b", "..", "..\\x", "\\\\host\\x"):
        with pytest.raises(UnsafeError):
            file_names([bad], ".png")


@pytest.mark.parametrize("kind", ["png", "label-map", "labelme", "npy"])
@pytest.mark.parametrize("name", ["../x", "/etc/x", "a\0"])
def test_names_that_leave_the_folder_are_refused(tmp_path, kind, name):
    for key in ((name, "x"), *([("a", name)] if kind == "png" else [])):
        with pytest.raises(UnsafeError) as caught:
            MaskSet({key: Runs.empty((1, 1))}).write(tmp_path / "m", format=kind)
        assert caught.value.exit_code == 7
        assert not list(tmp_path.iterdir())


def put(path: Path, values, mode=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8) if mode is None else np.asarray(values)).save(path)
    return path


def test_a_folder_made_by_hand_is_read_by_its_names(tmp_path):
    put(tmp_path / "nerve" / "0001.png", [[0, 1]])
    put(tmp_path / "bone" / "0001.png", [[255, 0]])
    (tmp_path / "nerve" / ".DS_Store").write_bytes(b"x")
    masks = read_masks(tmp_path)
    assert masks.samples == ("0001.png",)
    assert masks.classes == ("bone", "nerve")
    assert np.array_equal(masks["0001.png", "nerve"].decode(), [[False, True]])
    assert read_masks(tmp_path, classes=["nerve", "bone"]).classes == ("nerve", "bone")
    put(tmp_path / "bone" / "0002.png", [[255, 0]])
    with pytest.raises(IncompleteError, match=r"\('0002.png', 'nerve'\)"):
        read_masks(tmp_path)
    (tmp_path / "nerve" / "0002.jpg").write_bytes(b"x")
    with pytest.raises(DamagedError, match=r"nerve/0002.jpg"):
        read_masks(tmp_path)


def test_label_maps_need_names(tmp_path):
    put(tmp_path / "a.png", [[0, 1, 2]])
    with pytest.raises(UsageError, match="--classes"):
        read_masks(tmp_path)
    masks = read_masks(tmp_path, classes=["x", "y"])
    assert masks["a.png", "y"].text() == "3 1"
    with pytest.raises(MismatchError, match=r"nobody named: 2 \(1 pixel\)"):
        read_masks(tmp_path, classes=["x"])


def test_a_flat_folder_of_binary_pngs_is_one_class(tmp_path):
    put(tmp_path / "a.png", [[0, 255]])
    assert dict(read_masks(tmp_path, "png")) == {("a.png", "mask"): encode([[0, 1]])}


def test_overlapping_masks_are_no_label_map(tmp_path):
    masks = MaskSet({("s", "x"): encode([[1, 1, 0]]), ("s", "y"): encode([[0, 0, 1]]), ("s", "z"): encode([[0, 1, 1]])})
    with pytest.raises(MismatchError, match="sample 's': classes 'x' and 'z'"):
        masks.write(tmp_path / "m", format="label-map")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("values", "named"), [
    ([[0, 1, 255]], "values 0, 1, 255"), ([[0, 7]], "values 0, 7"),
    ([[[0, 0, 0]]], "8-bit RGB"), ([[[0, 0, 0, 0]]], "8-bit RGBA"),
])  # fmt: skip
def test_png_values_and_modes(tmp_path, values, named):
    path = put(tmp_path / "x" / "a.png", values)
    with pytest.raises(DamagedError) as caught:
        read_masks(tmp_path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_1_bit_png_is_read(tmp_path):
    put(tmp_path / "x" / "a.png", np.array([[True, False, True]]), "1")
    assert read_masks(tmp_path)["a.png", "x"].text() == "1 1 3 1"


def test_a_16_bit_png_is_refused(tmp_path):
    put(tmp_path / "x" / "a.png", np.array([[0, 1]], np.uint16), "I;16")
    with pytest.raises(DamagedError, match="16-bit grey"):
        read_masks(tmp_path)


def test_every_damaged_byte_of_a_png_is_noticed(tmp_path):
    path = put(tmp_path / "x" / "a.png", np.eye(9) * 255)
    whole = path.read_bytes()
    for k in range(len(whole)):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 4]) + whole[k + 1 :])
        with pytest.raises(DamagedError):
            read_masks(tmp_path)
        path.write_bytes(whole[:k])
        with pytest.raises(DamagedError):
            read_masks(tmp_path)


def test_a_bomb_is_refused_by_its_header(tmp_path):
    def chunk(name, data):
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    header = (30_000).to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.png").write_bytes(raw)
    with pytest.raises(DamagedError, match="30000 x 30000"):
        read_masks(tmp_path)


SMALL = MaskSet({(s, c): encode(np.eye(3, 4, k) > 0) for k, s in enumerate(("a", "b")) for c in ("x", "y")})


@pytest.mark.parametrize(("kind", "file"), [("png", "x/a.png"), ("labelme", "a.json"), ("npy", "a.npy")])
def test_the_index_guards_its_files(tmp_path, kind, file):
    folder = tmp_path / "m"
    SMALL.write(folder, format=kind)
    raw = (folder / file).read_bytes()
    (folder / file).unlink()
    with pytest.raises(IncompleteError, match=file):
        read_masks(folder)
    (folder / file).write_bytes(raw)
    (folder / file).with_name("more" + Path(file).suffix).write_bytes(raw)
    with pytest.raises(MismatchError, match="more"):
        read_masks(folder)


@pytest.mark.parametrize(("change", "error"), [
    ({"file": "../../secret.png"}, UnsafeError), ({"file": "/etc/passwd"}, UnsafeError), ({"id": 3}, DamagedError),
    ({"height": 2**40}, DamagedError), ({"id": "b"}, DamagedError), ({"file": "b.png"}, DamagedError),
])  # fmt: skip
def test_a_hostile_index_is_refused(tmp_path, change, error):
    SMALL.write(tmp_path / "m", format="png")
    path = tmp_path / "m" / "index.json"
    value = json.loads(path.read_text())
    value["samples"][0] |= change
    path.write_text(json.dumps(value))
    with pytest.raises(error):
        read_masks(tmp_path / "m")


def test_sizes_are_compared(tmp_path):
    for kind in ("png", "labelme", "npy"):
        SMALL.write(tmp_path / kind, format=kind)
        with pytest.raises(MismatchError, match=r"3 x 4 in .*, 4 x 3 was passed"):
            read_masks(tmp_path / kind, image_size=(4, 3))


# --- polygons


@few
@given(data=st.data(), height=st.integers(1, 16), width=st.integers(1, 20))
def test_outlines_fill_to_the_mask_exactly(data, height, width):
    cells = data.draw(st.binary(min_size=height * width, max_size=height * width))
    mask = encode(np.frombuffer(cells, np.uint8).reshape(height, width) % data.draw(st.integers(2, 5)) != 0)
    again = [np.array(p, float) for p in outline(mask)]
    assert (fill_opencv(again, mask.shape, "") if again else Runs.empty(mask.shape)) == mask
    assert all(len(p) >= 3 for p in again)


def test_a_ring_within_a_ring():
    y, x = np.indices((61, 67)) - 30
    r = np.hypot(y, x)
    mask = encode((r < 28) & (r > 20) | (r < 14) & (r > 6))
    assert fill_opencv([np.array(p, float) for p in outline(mask)], mask.shape, "") == mask


def bone(name, annotations, **more):
    return {"filename": name, "annotations": annotations, **more}


TRIANGLE = [[1, 1], [6, 2], [3, 7]]


def test_the_hand_bone_form_fills_as_the_reference(tmp_path):
    meta = {"metadata": {"height": 10, "width": 9}}
    shapes = [
        {"type": "poly_seg", "label": "ulna", "points": TRIANGLE},
        {"label": "ulna", "points": [[0, 9], [8, 9], [20, 30]]},
    ]
    (tmp_path / "ID1").mkdir()
    (tmp_path / "ID1" / "one.json").write_text(json.dumps(bone("one.png", shapes, **meta)))
    (tmp_path / "two.json").write_text(json.dumps(bone("two.png", [], **meta)))
    wanted = np.zeros((10, 9), np.uint8)
    for shape in shapes:
        cv2.fillPoly(wanted, [np.array(shape["points"], np.int32)], 1)
    masks = read_masks(tmp_path)
    assert masks.samples == ("one.png", "two.png")
    assert masks["one.png", "ulna"] == encode(wanted)
    assert not masks["two.png", "ulna"]
    assert read_masks(tmp_path, classes=["radius", "ulna"]).classes == ("radius", "ulna")
    with pytest.raises(MismatchError, match="'ulna'"):
        read_masks(tmp_path, classes=["radius"])


def test_the_labelme_form_and_a_size_that_must_be_passed(tmp_path):
    shape = {"label": "x", "points": TRIANGLE, "shape_type": "polygon"}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"shapes": [shape], "imagePath": "a.jpg", "imageHeight": 8, "imageWidth": 8}))
    assert recognise(path).name == "labelme"
    assert read_masks(path)["a.jpg", "x"].area > 10
    path.write_text(json.dumps({"annotations": [shape]}))
    with pytest.raises(UsageError, match="--image-size"):
        read_masks(tmp_path)
    assert read_masks(tmp_path, image_size=(8, 8)).samples == ("a",)


@pytest.mark.parametrize("text", [
    "[]", "{}", '{"annotations": 3}', '{"annotations": [3]}', '{"annotations": [{"points": [[0,0],[1,1],[2,0]]}]}',
    '{"annotations": [{"label": "x", "points": [[0,0],[1,1]]}]}',
    '{"annotations": [{"label": "x", "points": [[0,NaN],[1,1],[2,0]]}]}',
    '{"annotations": [{"label": "x", "points": [[0,1e9],[1,1],[2,0]]}]}',
    '{"annotations": [{"label": "x", "points": [[0,1e999],[1,1],[2,0]]}]}',
    '{"annotations": [{"label": "x", "points": [[0,"1"],[1,1],[2,0]]}]}',
    '{"annotations": [{"label": "x", "points": "abcdef"}]}',
    '{"annotations": [{"label": "x", "shape_type": "circle", "points": [[0,1],[1,1],[2,0]]}]}',
    '{"annotations": [{"label": "x", "points": [[0,0,1],[1,1,1],[2,0,1]]}]}', '{"annotations": [], "annotations": []}',
    '{"annotations": [], "metadata": {"height": -1, "width": 3}}',
    '{"annotations": [], "metadata": {"height": 1e3, "width": 3}}',
    '{"annotations": [{"label": "x", "points": [[0,0],[1,1],[2,0]]}], "metadata": {"height": 65536, "width": 65536}}',
    '{"annotations": []', "[" * 100_000, "nonsense", "",
])  # fmt: skip
def test_malformed_polygons_are_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DamagedError):
        read_masks(tmp_path, "labelme", None if "metadata" in text else (4, 4))


def test_one_sample_in_two_files_is_refused(tmp_path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(bone("s.png", [])))
    with pytest.raises(DamagedError, match=r"a.json"):
        read_masks(tmp_path, image_size=(2, 2))


# --- stacks


def test_stacks_as_numpy_saves_them(tmp_path):
    stack = np.random.default_rng(1).integers(0, 2, (2, 3, 4, 5))
    for k, array in enumerate(
        (stack, stack.astype(bool), stack.astype(">i2"), np.asfortranarray(stack), stack.astype("u1") * 255)
    ):
        np.save(tmp_path / f"{k}.npy", array)
        masks = read_masks(tmp_path / f"{k}.npy", classes=["a", "b", "c"])
        assert masks.samples == ("0", "1")
        assert all(masks[s, c] == encode(stack[int(s), j]) for s in "01" for j, c in enumerate("abc"))
    np.savez(tmp_path / "m.npz", masks=stack, samples=["p", "q"], classes=["a", "b", "c"])
    assert read_masks(tmp_path / "m.npz")["q", "c"] == encode(stack[1, 2])
    np.savez_compressed(tmp_path / "m.npz", **{"p.png": stack[0], "q.png": stack[1]})
    assert read_masks(tmp_path / "m.npz", classes=["a", "b", "c"])["q.png", "c"] == encode(stack[1, 2])
    np.save(tmp_path / "p.png.npy", stack[0])
    assert read_masks(tmp_path / "p.png.npy", classes=["a", "b", "c"])["p.png", "b"] == encode(stack[0, 1])


def test_written_stacks_open_in_numpy(tmp_path):
    SMALL.write(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as stored:
        assert stored["samples"].tolist() == ["a", "b"]
        assert np.array_equal(stored["masks"][1, 0], SMALL["b", "x"].decode())
    SMALL.write(tmp_path / "m.npy")
    assert np.array_equal(np.load(tmp_path / "m.npy")[1, 0], SMALL["b", "x"].decode())
    before = (tmp_path / "m.npz").read_bytes()
    SMALL.write(tmp_path / "m.npz")
    assert (tmp_path / "m.npz").read_bytes() == before
    uneven = MaskSet({("a", "x"): Runs.empty((1, 2)), ("b", "x"): Runs.empty((2, 2))})
    with pytest.raises(MismatchError, match="1 x 2, sample 'b' 2 x 2"):
        uneven.write(tmp_path / "m.npy")


class Bomb:
    def __reduce__(self):
        return print, ("code ran",)


def test_nothing_is_unpickled(tmp_path, capsys):
    hostile = np.array([Bomb()], dtype=object)
    np.save(tmp_path / "m.npy", hostile, allow_pickle=True)
    np.savez(tmp_path / "m.npz", masks=hostile)
    for name in ("m.npy", "m.npz"):
        with pytest.raises(UnsafeError) as caught:
            read_masks(tmp_path / name, classes=["x"])
        assert caught.value.exit_code == 7
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(("array", "error"), [
    (np.full((1, 2, 2), 3), DamagedError), (np.zeros((1, 2, 2), np.float32), DamagedError),
    (np.zeros((1, 0, 2), bool), DamagedError), (np.zeros((2, 2, 2), bool), MismatchError),
    (np.zeros(3, bool), MismatchError),
    (np.full((1, 2, 2), -1), DamagedError), (np.array([["a"]]), DamagedError),
])  # fmt: skip
def test_stacks_that_are_no_masks(tmp_path, array, error):
    np.save(tmp_path / "m.npy", array)
    with pytest.raises(error, match=r"m\.npy"):
        read_masks(tmp_path / "m.npy", classes=["x"])


def test_damaged_stacks_are_refused(tmp_path):
    SMALL.write(tmp_path / "m.npz")
    whole = (tmp_path / "m.npz").read_bytes()
    for k in range(0, len(whole), 7):
        (tmp_path / "m.npz").write_bytes(whole[:k])
        with pytest.raises(EnskError):
            read_masks(tmp_path / "m.npz")
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((1, 4, 4), bool))
    raw = buffer.getvalue()
    for damaged in (raw[:-1], raw + b"\0", raw.replace(b"(1, 4, 4)", b"(9, 4, 4)"), raw[:40], b"\x93NUMPY"):
        (tmp_path / "m.npy").write_bytes(damaged)
        with pytest.raises(DamagedError, match=r"m\.npy"):
            read_masks(tmp_path / "m.npy", classes=["x"])


def test_an_archive_that_declares_too_much(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|b1", "fortran_order": False, "shape": (1, 1, 2**20, 2**20)}
    )
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("masks.npy", header.getvalue())
    with pytest.raises(DamagedError, match=r"needs 1099511627776 bytes"):
        read_masks(tmp_path / "m.npz", classes=["x"])
