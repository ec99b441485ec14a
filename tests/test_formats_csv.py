"""CSV dialects: round trips, an independent decoder, and every fault of RLE rows and CSV files."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ensemble_kit.errors import DamagedError, EnskError, IncompleteError, MismatchError, UsageError
from ensemble_kit.formats.dialects import PRESETS, Dialect
from ensemble_kit.formats.ids import Splitter
from ensemble_kit.formats.reading import read_masks, recognise
from ensemble_kit.formats.table import format_row
from ensemble_kit.formats.writing import write_masks
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs, encode

HARD_IDS = [
    "NA",
    "null",
    "None",
    "nan",
    "0007",
    "True",
    " a",
    "a,b",
    'q"q',
    "n\nl",
    "r\rl",
    "ü中😀",
    "=1+1",
    "x_1",
    "-",
    "'",
]
pytestmark = pytest.mark.filterwarnings("ignore:.*differ only in case")  # names that are drawn, such as None, NONE
ids = st.one_of(
    st.sampled_from(HARD_IDS),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8),
)
few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class_lists = st.lists(ids, min_size=1, max_size=3, unique=True)


@st.composite
def mask_sets(draw, classes=class_lists, exclusive=False):
    samples = draw(st.lists(ids, min_size=1, max_size=3, unique=True))
    names = draw(classes)
    masks = {}
    for sample in samples:
        shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 7)))
        cells = draw(st.binary(min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
        values = np.frombuffer(cells, np.uint8).reshape(shape)
        for k, name in enumerate(names):
            masks[sample, name] = encode((values % (len(names) + 1) == k) if exclusive else (values >> k & 1))
    return MaskSet(masks)


def sizes_of(masks):
    return {s: masks.image_size(s) for s in masks.samples}


def plain_decode(text, shape, dialect):
    """Every dialect by the book: one pixel at a time, on a bitmap."""
    flat = np.zeros(shape[0] * shape[1], bool)
    numbers = [] if text in {"", dialect.empty} else [int(v) for v in text.split()]
    place = 0
    for k, (start, length) in enumerate(zip(numbers[::2], numbers[1::2], strict=True)):
        begin = place + start if dialect.relative and k else start - dialect.base
        flat[begin : begin + length] = True
        place = begin + length
    return flat.reshape(shape, order=dialect.order)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
@few
@given(data=st.data())
def test_every_dialect_round_trips_and_agrees_with_a_plain_decoder(tmp_path, name, data):
    dialect = PRESETS[name]
    classes = {"classes": st.just(["mask"])} if dialect.by_sample else {}
    classes = {"classes": st.just(list(dialect.classes))} if dialect.classes else classes
    masks = data.draw(mask_sets(**classes))
    path = tmp_path / "masks.csv"
    if dialect.template:
        splitter = Splitter(dialect, masks.classes, frozenset(masks.samples))
        if any(len(splitter.candidates(dialect.join(*key))) > 1 for key in masks):
            with pytest.raises((MismatchError, DamagedError)) as caught:
                write_masks(masks, path, format=name)
                read_masks(path, format=name, image_size=sizes_of(masks), classes=masks.classes)
            assert caught.value.code == "id-ambiguous"
            return
    write_masks(masks, path, format=name)
    back = read_masks(path, format=name, image_size=sizes_of(masks), classes=masks.classes)
    assert dict(back) == dict(masks)
    assert (back.samples, back.classes) == (masks.samples, masks.classes)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == dialect.columns
    pairs = [(s, c) for s in masks.samples for c in masks.classes]
    by_ids: dict[tuple[str, ...], list[str]] = {}  # with a row an object, a mask has several
    for row in rows[1:]:
        by_ids.setdefault(tuple(row[:-1]), []).append(row[-1])
    for (ids, texts), key in zip(by_ids.items(), pairs, strict=True):
        assert ids[0] == dialect.join(*key)
        assert len(texts) == 1 or dialect.rows == "object"
        drawn = [plain_decode(text, masks[key].shape, dialect) for text in texts]
        assert np.array_equal(np.sum(drawn, axis=0), masks[key].decode())  # no pixel stands in two rows
        assert masks[key] or texts == [dialect.empty]


@few
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")), min_size=2, max_size=4))
def test_rows_are_quoted_as_the_csv_module_does(fields):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(fields)
    assert format_row(fields) == out.getvalue()


def test_bytes_are_exact(tmp_path):
    masks = MaskSet(
        {
            ("b", "x"): encode([[1, 0], [1, 1]]),
            ("b", "y"): Runs.empty((2, 2)),
            ("a,1", "x"): encode([[0, 1], [0, 0]]),
            ("a,1", "y"): encode([[1, 1], [1, 1]]),
        }
    )
    masks.write(tmp_path / "m.csv")
    wanted = 'image_name,class,rle\nb,x,1 1 3 2\nb,y,\n"a,1",x,2 1\n"a,1",y,1 4\n'
    assert (tmp_path / "m.csv").read_bytes() == wanted.encode()
    masks.write(tmp_path / "k.csv", format="kaggle")
    assert (tmp_path / "k.csv").read_bytes() == b'id,rle\nb_x,1 2 4 1\nb_y,\n"a,1_x",3 1\n"a,1_y",1 4\n'


def test_siim_is_relative_from_zero_down_columns():
    runs = encode([[1, 0, 1], [1, 0, 0], [0, 1, 1]])
    assert runs.text("F", base=0, relative=True) == "0 2 3 2 1 1"  # down columns: 110 001 101


def test_a_dialect_of_ones_own(tmp_path):
    dialect = Dialect("mine", ("key", "what"), template="{class}/{sample}", order="F", base=0, empty="none")
    masks = MaskSet({("a", "x"): encode([[0, 1]]), ("a", "y"): Runs.empty((1, 2))})
    write_masks(masks, tmp_path / "m.csv", format=dialect)
    assert (tmp_path / "m.csv").read_text() == "key,what\nx/a,1 1\ny/a,none\n"
    assert dict(read_masks(tmp_path / "m.csv", dialect, (1, 2), ["x", "y"])) == dict(masks)
    with pytest.raises(UsageError):
        Dialect("bad", ("id", "rle"), template="{sample}")


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


HEAD = "image_name,class,rle\n"


@pytest.mark.parametrize(("text", "error", "named"), [
    ("", DamagedError, "no header"),
    (HEAD, IncompleteError, "header only"),
    ("image_name,class,rle,rle\na,x,,\n", DamagedError, "'rle'"),  # F11
    (HEAD + "a,x\n", DamagedError, "line 2 has 2 fields"),  # F13
    (HEAD + "a,x,1 1\n\nb,x,1 1\n", DamagedError, "line 3 has 0 fields"),
    (HEAD + "a,x,1,1\n", DamagedError, "line 2 has 4 fields"),
    (HEAD + "a,x,1 1\nb,x,1 2", DamagedError, "last line, 3"),  # F14
    (HEAD + 'a,x,"1 1\nb,x,1 1\n', DamagedError, "line 2"),  # F15
    (HEAD + '"a"b,x,1 1\n', DamagedError, "line 2"),
    ("image_name;class;rle\na;x;\n", UsageError, "semicolons"),  # F17
    ("image_name\tclass\trle\na\tx\t\n", UsageError, "tabs"),
    ("id,what,rle\na,x,1 1\n", UsageError, "id,what,rle"),
    (HEAD.encode("utf-16") + "a,x,\n".encode("utf-16-le"), DamagedError, "UTF-16"),  # F07
    (HEAD.encode("utf-16-le") + "a,x,\n".encode("utf-16-le"), DamagedError, "UTF-16"),
    (HEAD.encode() + b"m\xfcller,x,\n", DamagedError, "Latin-1"),
    (HEAD + "a,x,1 1\na,y,\na,x,2 1\n", DamagedError, "line 2 and on line 4"),
    (HEAD + "a,x,1 1\na,y,\nb,x,2 1\n", IncompleteError, "('b', 'y')"),
    (HEAD + ",x,1 1\n", DamagedError, "line 2: sample ''"),
    (HEAD + "a,,1 1\n", DamagedError, "class ''"),
])  # fmt: skip
def test_damaged_files_are_refused_by_name(tmp_path, text, error, named):
    with pytest.raises(error) as caught:
        read_masks(write(tmp_path / "m.csv", text), "handbone", (4, 5))
    assert named in str(caught.value)
    assert caught.value.exit_code == error.exit_code


@pytest.mark.parametrize("rle", [
    "1 3 10", "1 5 3 5", "50 2 1 2", "0 1", "-1 3", "3 -1", "3 0", "20 2", "2147483648 1", "4294967297 1",
    "9223372036854775807 1", "9223372036854775808 1", f"{2**70} 1", "9" * 5000 + " 1", "1 9223372036854775807",
    "١ ٢", "1² 3", "１ ３", "1\t3", "1  3", " 1 3", "1 3 ", "1,3", "01 3", "1 3\n", "+1 3", "1.0 3", "nan", "1e1 2",
])  # fmt: skip
def test_rle_faults_name_line_sample_and_class(tmp_path, rle):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([["image_name", "class", "rle"], ["ok", "x", ""], ["bad", "x", rle]])
    with pytest.raises(DamagedError) as caught:
        read_masks(write(tmp_path / "m.csv", out.getvalue()), "handbone", (4, 5))
    assert "line 3, sample 'bad', class 'x'" in str(caught.value)
    assert len(str(caught.value)) < 600


def test_adjacent_runs_are_merged_and_planes_beyond_32_bits_are_exact(tmp_path):
    size = (70_000, 70_000)
    path = write(tmp_path / "m.csv", HEAD + f"a,x,1 3 4 2 {size[0] * size[1]} 1\n")
    masks = read_masks(path, image_size=size)
    assert masks["a", "x"].area == 6
    masks.write(tmp_path / "n.csv")
    assert (tmp_path / "n.csv").read_text() == HEAD + "a,x,1 5 4900000000 1\n"


def test_text_stays_text_and_a_mark_is_accepted(tmp_path):
    names = ["NA", "null", "None", "0007", "True", "1.0"]
    rows = "".join(f"{n},x,\r\n" for n in names)
    path = write(tmp_path / "m.csv", b"\xef\xbb\xbf" + (HEAD + rows).encode())
    assert read_masks(path, image_size=(2, 2)).samples == tuple(names)


def test_a_field_of_megabytes_works(tmp_path):
    H, W = 1000, 1000
    board = np.indices((H, W)).sum(0) % 2
    masks = MaskSet({("a", "x"): encode(board)})
    masks.write(tmp_path / "m.csv")
    assert (tmp_path / "m.csv").stat().st_size > 4_000_000
    assert read_masks(tmp_path / "m.csv", image_size=(H, W))["a", "x"] == masks["a", "x"]


def test_columns_may_stand_in_another_order(tmp_path):
    path = write(tmp_path / "m.csv", "rle,image_name,class\n1 2,a,x\n")
    assert read_masks(path, image_size=(1, 4))["a", "x"].area == 2


def test_sizes_must_be_passed_and_must_fit(tmp_path):
    path = write(tmp_path / "m.csv", HEAD + "a,x,1 2\n")
    with pytest.raises(UsageError, match="--image-size HxW"):
        read_masks(path)
    with pytest.raises(UsageError, match="'a'"):
        read_masks(path, image_size={"b": (2, 2)})
    with pytest.raises(DamagedError, match="height and width"):
        read_masks(path, image_size=(1, 1))


def test_classes_are_expected_and_ordered(tmp_path):
    path = write(tmp_path / "m.csv", HEAD + "a,x,1 2\na,y,\n")
    assert read_masks(path, image_size=(2, 2), classes=["y", "x"]).classes == ("y", "x")
    with pytest.raises(IncompleteError, match="'z'"):
        read_masks(path, image_size=(2, 2), classes=["x", "y", "z"])
    with pytest.raises(MismatchError, match="'y'"):
        read_masks(path, image_size=(2, 2), classes=["x"])


def test_joined_ids_are_split_by_known_classes_only(tmp_path):
    path = write(tmp_path / "m.csv", "id,rle\nimg_1_finger_1,1 1\nimg_1_finger_2,\n")
    with pytest.raises(UsageError, match="--classes"):
        read_masks(path, "kaggle", (2, 2))
    masks = read_masks(path, "kaggle", (2, 2), ["finger_1", "finger_2"])
    assert masks.samples == ("img_1",)
    with pytest.raises(DamagedError, match=r"\('img_1_finger', '1'\), \('img_1', 'finger_1'\)"):
        read_masks(path, "kaggle", (2, 2), ["1", "finger_1", "finger_2"])
    with pytest.raises(MismatchError, match="img_1_finger_2"):
        read_masks(path, "kaggle", (2, 2), ["finger_1"])
    named = read_masks(path, "kaggle", {"img_1": (2, 2)}, ["finger_1", "finger_2"])
    assert dict(named) == dict(masks)


def test_ids_that_join_to_the_same_text_are_not_written(tmp_path):
    empty = Runs.empty((1, 1))
    masks = MaskSet({(s, c): empty for s in ("x", "x_a") for c in ("b", "a_b")})
    with pytest.raises(MismatchError, match="'x_a_b'"):
        masks.write(tmp_path / "m.csv", format="kaggle")
    assert not list(tmp_path.iterdir())


def test_one_mask_a_sample(tmp_path):
    two = MaskSet({("a", c): Runs.empty((1, 1)) for c in "xy"})
    with pytest.raises(MismatchError, match="2 classes"):
        two.write(tmp_path / "m.csv", format="carvana")
    path = write(tmp_path / "m.csv", "img,rle_mask\na.jpg,1 1\n")
    assert read_masks(path, image_size=(1, 1)).classes == ("mask",)
    assert read_masks(path, image_size=(1, 1), classes=["car"]).classes == ("car",)
    with pytest.raises(MismatchError):
        read_masks(path, image_size=(1, 1), classes=["car", "bus"])


def test_severstal_train_lists_defects_only(tmp_path):
    path = write(tmp_path / "m.csv", "ImageId,ClassId,EncodedPixels\na.jpg,3,1 1\n")
    masks = read_masks(path, image_size=(2, 2))
    assert {c for (_, c), runs in masks.items() if runs} == {"3"}
    assert sorted(masks.classes) == ["1", "2", "3", "4"]


def test_headers_tell_the_dialect_where_they_can(tmp_path):
    for name, dialect in PRESETS.items():
        path = write(tmp_path / "m.csv", ",".join(dialect.columns) + "\n")
        same = [n for n, d in PRESETS.items() if d.columns == dialect.columns]
        if len(same) > 1:
            with pytest.raises(UsageError, match=", ".join(map(repr, same))):
                recognise(path)
        else:
            assert recognise(path).name == name
    with pytest.raises(UsageError, match="no preset"):
        recognise(write(tmp_path / "m.csv", "a,b\n1,2\n"))
    with pytest.raises(IncompleteError, match="does not exist"):
        read_masks(tmp_path / "nothing.csv")
    with pytest.raises(UsageError, match="'nonsense'"):
        read_masks(path, "nonsense")
    with pytest.raises(UsageError, match="pass another format: --from carvana"):
        read_masks(write(tmp_path / "m.csv", "img,rle_mask\n"), "handbone", (1, 1))


PAIR = MaskSet({(s, c): encode([[1, 0]]) for s in ("a", "b") for c in ("x", "y")})


def test_like_gives_order_and_names_of_columns(tmp_path):
    like = write(tmp_path / "like.csv", "ID,part,runs\nb,y,1 1\na,x,9 9\nb,x,\na,y,\n")
    PAIR.write(tmp_path / "m.csv", format="handbone", like=like)
    assert (tmp_path / "m.csv").read_text() == "ID,part,runs\nb,y,1 1\na,x,1 1\nb,x,1 1\na,y,1 1\n"
    like = write(tmp_path / "like.csv", "rle,id\n,b_y\n,b_x\n,a_x\n,a_y\n")
    PAIR.write(tmp_path / "m.csv", format="kaggle", like=like)
    assert (tmp_path / "m.csv").read_text() == "rle,id\n1 1,b_y\n1 1,b_x\n1 1,a_x\n1 1,a_y\n"


@pytest.mark.parametrize(("rows", "error", "named"), [
    ("a,x,\na,y,\nb,x,\n", MismatchError, "3 rows, there are 4 masks; 1 without a row: ('b', 'y')"),  # F25
    ("a,x,\na,y,\nb,x,\nb,y,\nc,x,\n", IncompleteError, "5 rows, there are 4 masks; 1 without a mask: ('c', 'x')"),
    ("a,x,\na,x,\na,y,\nb,x,\nb,y,\n", DamagedError, "line 2 and on line 3"),
])  # fmt: skip
def test_like_must_name_the_same_masks(tmp_path, rows, error, named):
    like = write(tmp_path / "like.csv", HEAD + rows)
    with pytest.raises(error) as caught:
        PAIR.write(tmp_path / "m.csv", format="handbone", like=like)
    assert named in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["like.csv"]


def test_a_csv_goes_to_the_standard_output(capfdbinary):
    write_masks(PAIR, "-")
    assert capfdbinary.readouterr().out.startswith(HEAD.encode() + b"a,x,1 1\n")


def test_names_that_no_file_holds_are_refused(tmp_path):
    for name in ("", "\ud800"):
        with pytest.raises(UsageError, match="cannot write a name"):
            MaskSet({(name, "x"): Runs.empty((1, 1))}).write(tmp_path / "m.csv")
    with pytest.raises(UsageError, match="empty"):
        MaskSet({}).write(tmp_path / "m.csv")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_arbitrary_bytes_never_fail_otherwise_than_by_name(tmp_path, raw):
    path = write(tmp_path / "m.csv", HEAD.encode() + raw)
    try:
        assert len(read_masks(path, "handbone", (3, 3))) > 0
    except EnskError as error:
        if str(path) not in str(error):
            raise


def test_a_doubled_row_of_a_sample_submission_names_the_option_of_what_is_written(tmp_path: Path) -> None:
    masks = MaskSet({("a", "x"): encode(np.eye(4, dtype=bool))})
    (tmp_path / "like.csv").write_text("image_name,class,rle\na,x,\na,x,\n")
    with pytest.raises(DamagedError, match=r"pass --csv rows=object"):
        masks.write(tmp_path / "out.csv", like=tmp_path / "like.csv")
    masks.write(tmp_path / "out.csv", like=tmp_path / "like.csv", csv="rows=object")
