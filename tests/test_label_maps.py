"""Label maps in files: tables, reading rules, colours, writing; what a user's command says of them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import ensemble_kit as ek
from ensemble_kit.cli.app import app
from ensemble_kit.formats.label_presets import PRESETS, voc_colour
from ensemble_kit.formats.label_tables import load_table
from ensemble_kit.formats.reading import recognise

LARYNX = Path(__file__).parent / "data" / "larynx" / "masks"
LARYNX_CLASSES = ["void", "vocal folds", "other tissue", "glottal space", "pathology", "surgical tool", "intubation"]
ORGANS = ["background", "liver", "spleen"]
few = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


def put(path: Path, values: object, palette: list[int] | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, getattr(values, "dtype", np.uint8)))
    if palette is not None:
        image.putpalette(palette)
    image.save(path, **options)
    return path


def wrote(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def areas(masks: ek.MaskSet) -> dict[str, int]:
    return {name: sum(masks[s, name].area for s in masks.samples) for name in masks.classes}


def refused(call: object, code: str) -> str:
    with pytest.raises(ek.EnskError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.code == code, caught.value
    return str(caught.value)


# --- files


@few
@given(
    labels=hnp.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4)),
    suffix=st.sampled_from([".png", ".tif", ".npy", "16.png", "16.tif"]),
)
def test_files_of_every_kind(tmp_path, labels, suffix) -> None:
    folder = tmp_path / "m"
    folder.mkdir(exist_ok=True)
    [file.unlink() for file in folder.iterdir()]
    kind = np.uint16 if "16" in suffix else np.uint8
    path = folder / f"a{suffix}"
    np.save(path, labels.astype(np.int32)) if suffix == ".npy" else put(path, labels.astype(kind))
    masks = ek.read_masks(folder, "label-map", classes=["background", "a", "b", "c", "d"])
    assert masks.samples == ("a" if suffix == ".npy" else path.name,)
    assert np.array_equal(masks.labels(masks.samples[0]), labels)


def test_what_had_no_class_may_be_called_background(tmp_path) -> None:
    labels = np.array([[0, 1, 2], [2, 0, 0]], np.uint8)
    written = ek.MaskSet.from_labels({"a.png": labels}, ["nerve", "vessel"], first_value=1)
    written.write(tmp_path / "maps", format="label-map")
    read = ek.read_masks(tmp_path / "maps", classes=["background", "nerve", "vessel"])
    assert np.array_equal(read.labels("a.png"), labels)
    with pytest.raises(ek.IncompleteError, match="missing: 'artery'"):
        ek.read_masks(tmp_path / "maps", classes=["artery", "nerve", "vessel"])


@few
@given(data=st.data(), classes=st.sampled_from([["x"], ["background", "x", "y"], ["x", "y"], [*map(str, range(300))]]))
def test_what_is_written_comes_back(tmp_path, data, classes) -> None:
    labels = data.draw(hnp.arrays(np.int16, (4, 7), elements=st.integers(0, len(classes) - 1)))
    names = dict(enumerate(classes))
    masks = ek.MaskSet.from_labels({"a": labels, "b/c.png": labels.T}, names)
    masks.write(tmp_path / "m", "label-map")
    back = ek.read_masks(tmp_path / "m")
    assert (dict(back), back.samples, back.has_void) == (dict(masks), masks.samples, False)
    with Image.open(tmp_path / "m" / "a.png") as image:
        assert image.mode == ("P" if len(classes) < 255 else "I;16")


def test_void_and_the_palette(tmp_path) -> None:
    masks = ek.MaskSet.from_labels({"a": np.array([[0, 1, 255]])}, ORGANS)
    masks.write(tmp_path / "m", "label-map")
    with Image.open(tmp_path / "m" / "a.png") as image:
        assert np.asarray(image).tolist() == [[0, 1, 255]]
        assert image.getpalette()[3:6] == [128, 0, 0]
    assert ek.read_masks(tmp_path / "m").void("a").area == 1
    masks.write(tmp_path / "t", "label-map", labels={7: "background", 9: "liver", 300: "spleen"})
    with Image.open(tmp_path / "t" / "a.png") as image:
        assert np.asarray(image).tolist() == [[7, 9, 255]]
    assert dict(ek.read_masks(tmp_path / "t")) == dict(masks)
    said = refused(lambda: masks.write(tmp_path / "u", labels={0: "background"}), "classes-differ")
    assert "no value for 'liver', 'spleen'" in said


def test_stacks_of_arrays(tmp_path) -> None:
    labels = np.arange(12).reshape(2, 2, 3) % 3
    np.save(tmp_path / "m.npy", labels)
    np.savez(tmp_path / "m.npz", samples=["p", "q"], labels=labels)
    np.savez(tmp_path / "each.npz", p=labels[0], q=labels[1].T)
    for name, samples in (("m.npy", ("0", "1")), ("m.npz", ("p", "q"))):
        masks = ek.read_masks(tmp_path / name, "label-map", classes=ORGANS)
        assert masks.samples == samples
        assert all(np.array_equal(masks.labels(s), labels[k]) for k, s in enumerate(samples))
    masks = ek.read_masks(tmp_path / "each.npz", labels={0: "a", 1: "b", 2: "b"})
    assert (masks.classes, masks.image_size("q"), areas(masks)) == (("a", "b"), (3, 2), {"a": 4, "b": 8})
    np.save(tmp_path / "f.npy", labels / 2)
    assert "float64" in refused(lambda: ek.read_masks(tmp_path / "f.npy", "label-map", classes=ORGANS), "stack-shape")
    assert "--format npy" in refused(lambda: ek.read_masks(_four_axes(tmp_path), labels="voc"), "stack-shape")


def _four_axes(folder: Path) -> Path:
    np.save(folder / "four.npy", np.zeros((1, 1, 2, 2), np.uint8))
    return folder / "four.npy"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "F"])
def test_modes_that_are_no_labels(tmp_path, mode) -> None:
    Image.new(mode, (2, 2)).save(tmp_path / ("a.tif" if mode == "F" else "a.png"))
    with pytest.raises(ek.EnskError) as caught:
        ek.read_masks(tmp_path, "label-map", labels="voc")
    assert caught.value.code == ("tiff-invalid" if mode == "F" else "png-invalid")


def test_a_damaged_tiff_and_one_of_two_pages(tmp_path) -> None:
    path = put(
        tmp_path / "m" / "a.tif", (np.arange(60000).reshape(200, 300) % 3).astype(np.uint8), compression="tiff_deflate"
    )
    path.write_bytes(path.read_bytes()[:-400])
    refused(lambda: ek.read_masks(tmp_path / "m", "label-map", classes=ORGANS), "tiff-invalid")
    page = Image.fromarray(np.zeros((2, 2), np.uint8))
    page.save(path, save_all=True, append_images=[page])
    assert "2 pages" in refused(lambda: ek.read_masks(tmp_path / "m", "label-map", classes=ORGANS), "tiff-invalid")


def test_kinds_that_do_not_mix(tmp_path) -> None:
    put(tmp_path / "a.png", [[0, 1]])
    np.save(tmp_path / "b.npy", np.zeros((1, 2), int))
    refused(lambda: ek.read_masks(tmp_path, "label-map", classes=ORGANS), "folder-mixed")
    refused(lambda: ek.read_masks(tmp_path / "a.png", "label-map", classes=ORGANS), "format-unfit")
    refused(lambda: ek.read_masks(wrote(tmp_path / "m.csv", "a,b\n"), labels="voc"), "format-unfit")
    (tmp_path / "empty").mkdir()
    refused(lambda: ek.read_masks(tmp_path / "empty", "label-map", classes=ORGANS), "files-missing")


# --- what a value means


def test_background_first_is_the_value_0(tmp_path) -> None:
    put(tmp_path / "a.png", [[0, 0, 1, 2, 255]])
    masks = ek.read_masks(tmp_path, classes=ORGANS)
    assert areas(masks) == {"background": 2, "liver": 1, "spleen": 1}
    assert masks.void("a.png").area == 1
    assert "0 'background', 1 'liver', 2 'spleen'; void 255" in str(masks.rule)


def test_train_ids_are_asked_about(tmp_path) -> None:
    put(tmp_path / "a.png", [[0, 1, 1, 255]])
    streets = ["road", "sidewalk", "building"]
    said = refused(lambda: ek.read_masks(tmp_path, classes=streets), "label-ambiguous")
    assert "'road'" in said
    assert "--first-value 0 or --first-value 1" in said
    assert areas(ek.read_masks(tmp_path, classes=streets, first_value=0)) == {"road": 1, "sidewalk": 2, "building": 0}
    assert areas(ek.read_masks(tmp_path, classes=streets, first_value=1)) == {"road": 2, "sidewalk": 0, "building": 0}
    masks = ek.read_masks(tmp_path, labels="cityscapes-trainid")
    assert (len(masks.classes), masks["a.png", "sidewalk"].area, masks.void("a.png").area) == (19, 2, 1)
    said = refused(lambda: ek.read_masks(tmp_path, classes=streets, first_value=2), "option-invalid")
    assert "0 or 1" in said
    refused(lambda: ek.read_masks(tmp_path, labels="voc", first_value=0), "option-idle")


def test_cityscapes_ids_and_ade20k(tmp_path) -> None:
    put(tmp_path / "c" / "a.png", [[0, 7, 8, 16, 33]])
    masks = ek.read_masks(tmp_path / "c", labels="cityscapes")
    assert {n for n, area in areas(masks).items() if area} == {"road", "sidewalk", "bicycle"}
    assert masks.void("a.png").area == 2
    assert masks.classes == load_table("cityscapes-trainid").classes
    put(tmp_path / "a" / "a.png", [[0, 1, 150]])
    masks = ek.read_masks(tmp_path / "a", labels="ade20k")
    assert (len(masks.classes), masks["a.png", "wall"].area, masks["a.png", "flag"].area) == (150, 1, 1)
    assert masks.void("a.png").area == 1


def test_void_by_option(tmp_path) -> None:
    put(tmp_path / "a.png", [[0, 1, 254, 255]])
    said = refused(lambda: ek.read_masks(tmp_path, classes=ORGANS, void=254), "label-values")
    assert "255 (1 pixel)" in said
    masks = ek.read_masks(tmp_path, classes=ORGANS, void=[254, 255, 0])
    assert (masks.void("a.png").area, areas(masks)["background"]) == (3, 0)


def test_void_as_a_class_and_as_void() -> None:
    """The larynx's first class is called void: a list of classes makes it one, a row of a table does not."""
    masks = ek.read_masks(LARYNX, classes=LARYNX_CLASSES)
    assert (areas(masks)["void"] > 0, masks.has_void) == (True, False)
    assert "0 'void', 1 'vocal folds'" in str(masks.rule)
    assert sum(areas(masks).values()) == 2 * 256 * 256
    ignored = ek.read_masks(LARYNX, labels=dict(enumerate(LARYNX_CLASSES)))
    assert ignored.classes == tuple(LARYNX_CLASSES[1:])
    assert sum(ignored.void(s).area for s in ignored.samples) == areas(masks)["void"]
    assert "void 0, 255" in str(ignored.rule)
    said = refused(
        lambda: ek.read_masks(LARYNX, labels=dict(enumerate(LARYNX_CLASSES)), classes=LARYNX_CLASSES), "classes-missing"
    )
    assert "leave --labels out" in said
    for sample in masks.samples:
        with Image.open(LARYNX / sample) as image:
            assert np.array_equal(masks.labels(sample), np.asarray(image))


def test_binary_masks_of_one_class(tmp_path) -> None:
    put(tmp_path / "a.png", [[0, 255]])
    put(tmp_path / "b.png", [[0, 0]])
    for classes, name in ((["cell"], "cell"), (None, "mask")):
        masks = ek.read_masks(tmp_path, classes=classes)
        assert areas(masks) == {name: 1}
        assert "binary" in str(masks.rule)
    assert ek.read_masks(tmp_path, classes=["background"]).has_void
    said = refused(lambda: ek.read_masks(tmp_path, classes=["background", "cell"]), "label-ambiguous")
    assert "255 can be 'cell', or void" in said
    assert ek.read_masks(tmp_path, classes=["background", "cell"], void=255).has_void
    table = wrote(tmp_path / "t.csv", "value,name\n0,background\n255,cell\n")
    assert areas(ek.read_masks(tmp_path, labels=table, classes=["background", "cell"])) == {"background": 3, "cell": 1}
    refused(lambda: ek.read_masks(tmp_path, classes=["cell", "wall"]), "label-ambiguous")


def test_folders_of_former_versions(tmp_path) -> None:
    """Their values count from 1, also where the first class is background."""
    put(tmp_path / "a.png", [[0, 1, 3]])
    classes = [{"name": name, "folder": ""} for name in ORGANS]
    samples = [{"id": "a", "file": "a.png", "height": 1, "width": 3}]
    index = {"format": "ensk.masks/1", "kind": "indexed-png", "classes": classes, "samples": samples}
    wrote(tmp_path / "index.json", json.dumps(index))
    masks = ek.read_masks(tmp_path)
    assert (areas(masks), masks.samples) == ({"background": 1, "liver": 0, "spleen": 1}, ("a",))
    assert dict(ek.read_masks(tmp_path, "indexed-png")) == dict(masks)
    assert "0 no class, 1 'background'" in str(masks.rule)
    assert dict(ek.read_masks(tmp_path, labels="voc")) == dict(masks)
    assert "index.json" in refused(lambda: ek.read_masks(tmp_path, first_value=0), "option-idle")
    for entry, value in zip(classes, (0, 1, 1), strict=True):
        entry["value"] = value
    wrote(tmp_path / "index.json", json.dumps(index | {"kind": "label-map"}))
    assert "a value of its own" in refused(lambda: ek.read_masks(tmp_path), "index-invalid")
    classes[2]["value"] = -1
    wrote(tmp_path / "index.json", json.dumps(index | {"kind": "label-map"}))
    refused(lambda: ek.read_masks(tmp_path), "index-invalid")


# --- colours


CAMVID = {name: colour for _, name, colour in PRESETS["camvid"]}


def test_colours_are_read_by_the_table(tmp_path) -> None:
    pixels = np.array([[CAMVID["Road"], CAMVID["Sky"], CAMVID["Void"], CAMVID["Sky"]]], np.uint8)
    put(tmp_path / "m" / "a.png", pixels)
    opaque = np.concatenate([pixels, np.full((1, 4, 1), 255, np.uint8)], axis=2)
    put(tmp_path / "m" / "b.png", opaque)
    put(tmp_path / "m" / "c.tif", pixels)
    masks = ek.read_masks(tmp_path / "m", "label-map", labels="camvid")
    for sample in ("a.png", "b.png", "c.tif"):
        assert (masks[sample, "Road"].area, masks[sample, "Sky"].text(), masks.void(sample).area) == (1, "2 1 4 1", 1)
    said = refused(lambda: ek.read_masks(tmp_path / "m", classes=["Road", "Sky"]), "labels-needed")
    assert "camvid" in said
    pixels[0, 0] = (1, 2, 3)
    put(tmp_path / "m" / "a.png", pixels)
    assert "#010203 (1 pixel)" in refused(lambda: ek.read_masks(tmp_path / "m", labels="camvid"), "label-colours")


def test_one_colour_of_two_classes(tmp_path) -> None:
    put(tmp_path / "m" / "a.png", np.array([[[153, 153, 153], [128, 64, 128]]], np.uint8))
    said = refused(lambda: ek.read_masks(tmp_path / "m", labels="cityscapes"), "label-colours")
    assert "'pole' or void" in said
    assert areas(ek.read_masks(tmp_path / "m", labels="cityscapes-trainid"))["pole"] == 1


def test_an_adaptive_palette_is_noticed(tmp_path) -> None:
    """Colours that were reduced to a palette number the classes anew; the fix of former versions led there."""
    pixels = np.array([[CAMVID["Sky"], CAMVID["Road"], CAMVID["Void"]]], np.uint8)
    (tmp_path / "m").mkdir()
    Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "m" / "a.png")
    assert "as RGB" in refused(lambda: ek.read_masks(tmp_path / "m", labels="camvid"), "label-palette")
    put(tmp_path / "m" / "a.png", [[0, 1, 20]], [part for k in range(256) for part in voc_colour(k)])
    assert areas(ek.read_masks(tmp_path / "m", labels="voc"))["tvmonitor"] == 1
    assert areas(ek.read_masks(tmp_path / "m", labels="camvid"))["SignSymbol"] == 1  # a palette for looking only


def test_refused_hints_lead_on(tmp_path) -> None:
    put(tmp_path / "x" / "a.png", np.zeros((2, 2, 3), np.uint8))
    assert "--format label-map" in refused(lambda: ek.read_masks(tmp_path), "png-invalid")
    put(tmp_path / "x" / "a.png", [[0, 7]])
    assert "--format label-map" in refused(lambda: ek.read_masks(tmp_path), "mask-values")
    masks = ek.read_masks(tmp_path, "label-map", labels={0: "a", 7: "b"})
    assert masks.samples == ("x/a.png",)


# --- tables


TABLES = {
    "t.csv": 'value,name,colour\n0,road,#804080\n1,road,"[1,2,3]"\n2,void,\n',
    "rgb.csv": "name,r,g,b,value\nroad,128,64,128,0\nroad,1,2,3,1\nvoid,0,0,0,2\n",
    "rows.csv": "name,r,g,b\nroad,128,64,128\nroad,1,2,3\nVoid,0,0,0\n",
    "list.json": '[{"value":0,"name":"road","color":"#804080"},{"id":1,"name":"road","colour":[1,2,3]},{"value":2,"label":"void"}]',
    "names.json": '{"0":"road","1":"road","2":"void"}',
    "labels.json": '{"labels":{"0":"road","1":"road","2":"void"},"more":1}',
}


@pytest.mark.parametrize("name", TABLES)
def test_forms_of_tables(tmp_path, name) -> None:
    table = load_table(wrote(tmp_path / name, TABLES[name]))
    assert (table.classes, table.values, table.void) == (("road",), {0: "road", 1: "road"}, {2})
    assert table.colours.get(0, (128, 64, 128)) == (128, 64, 128)
    assert table.colours.get(1, (1, 2, 3)) == (1, 2, 3)


def test_values_by_name(tmp_path) -> None:
    table = load_table(wrote(tmp_path / "dataset.json", '{"labels":{"background":0,"liver":1}}'))
    assert table.values == {0: "background", 1: "liver"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("value,name\n3,liver\n3,spleen\n", "the value 3 is 'liver' and again 'spleen'"),
        ("value,name\n3,void\n3,spleen\n", "the value 3 is 'void' and again 'spleen'"),
        ("value,name\nx,liver\n", "line 2: the value 'x'"),
        ("value,name\n70000,liver\n", "70000"),
        ("value,name\n1,\n", "1, ''"),
        ("value,name\n1,void\n", "names no class"),
        ("0,liver\n1,spleen\n", "its header"),
        ("name\nliver\n", "its header"),
        ("value,name,colour\n1,liver,red\n", "the colour 'red'"),
        ("value,name,colour\n1,liver,#12345\n", "the colour '#12345'"),
        ('value,name,colour\n1,liver,"[1,2,256]"\n', "256"),
        ('[{"value":"1","name":"liver"}]', "'1', 'liver'"),
        ("[1, 2]", "is not a table"),
        ('{"a":{"b":1}}', "is not a table"),
    ],
    ids=lambda v: str(v)[:28],
)
def test_tables_that_are_refused(tmp_path, text, words) -> None:
    path = wrote(tmp_path / ("t.json" if text[0] in "[{" else "t.csv"), text)
    assert words in refused(lambda: load_table(path), "labels-invalid")


def test_a_table_that_is_not_there() -> None:
    assert "cityscapes" in refused(lambda: load_table("nowhere.csv"), "labels-missing")


def test_classes_of_a_table_that_are_not_wanted(tmp_path) -> None:
    put(tmp_path / "a.png", [[0, 1, 2]])
    table = dict(enumerate(ORGANS))
    said = refused(lambda: ek.read_masks(tmp_path, labels=table, classes=["liver", "spleen"]), "classes-differ")
    assert "--except" in said
    assert ek.read_masks(tmp_path, labels=table, classes=["spleen", "background", "liver"]).classes[0] == "spleen"


def test_presets_have_the_published_facts() -> None:
    assert [len(load_table(name).classes) for name in PRESETS] == [19, 19, 21, 150, 31]
    assert voc_colour(15) == (192, 128, 128)
    assert PRESETS["voc"][15] == (15, "person", (192, 128, 128))
    assert PRESETS["cityscapes"][18] == (33, "bicycle", (119, 11, 32))
    assert PRESETS["ade20k"][13] == (13, "person", (150, 5, 61))
    assert PRESETS["ade20k"][150] == (150, "flag", (92, 0, 255))
    assert all(len({row[0] for row in rows}) == len(rows) for rows in PRESETS.values())
    assert len({row[2] for row in PRESETS["camvid"]}) == 32


# --- commands


def ensk(*arguments: object) -> None:
    app([str(a) for a in arguments], standalone_mode=False)


def overlapping(folder: Path) -> Path:
    tumour = np.zeros((3, 1, 4), bool)
    tumour[0, 0, :3] = tumour[1, 0, :2] = tumour[2, 0, 0] = True
    np.savez(folder / "p.npz", samples=["a"], classes=["WT", "TC", "ET"], masks=tumour[None])
    return folder / "p.npz"


def test_paint_draws_later_classes_over_earlier_ones(tmp_path, capsys) -> None:
    source, out = overlapping(tmp_path), tmp_path / "m"
    said = refused(lambda: ensk("convert", source, "--format", "label-map", "--out", out), "classes-overlap")
    assert "'WT' and 'TC' overlap" in said
    assert "--paint" in said
    ensk("convert", source, "--format", "label-map", "--out", out, "--paint", "WT=1,TC=2,ET=3")
    assert ek.read_masks(out).labels("a").tolist() == [[3, 2, 1, 0]]
    ensk("convert", source, "--format", "label-map", "--out", out, "--paint", "ET=3,TC=2,WT=1", "--force")
    assert ek.read_masks(out).labels("a").tolist() == [[1, 1, 1, 0]]
    for paint, code in (
        ("WT=1,TC=2", "paint-classes"),
        ("WT=1,TC=1,ET=2", "label-map-invalid"),
        ("WT", "option-invalid"),
    ):
        refused(
            lambda p=paint: ensk("convert", source, "--format", "label-map", "--out", out, "--paint", p, "--force"),
            code,
        )
    refused(lambda: ensk("convert", source, "--out", tmp_path / "m.csv", "--paint", "WT=1,TC=2,ET=3"), "option-idle")


def test_convert_both_ways_and_between_tables(tmp_path, capsys) -> None:
    put(tmp_path / "gt" / "a.png", [[0, 1, 2, 255]])
    names = wrote(tmp_path / "c.txt", "\n".join(ORGANS))
    to_csv = "convert", tmp_path / "gt", "--classes", names, "--out", tmp_path / "m.csv", "--format", "handbone"
    assert "--drop-void" in refused(lambda: ensk(*to_csv), "void-unwritable")
    capsys.readouterr()
    ensk(*to_csv, "--drop-void")
    said = capsys.readouterr().err
    assert "0 'background', 1 'liver', 2 'spleen'; void 255" in said
    ensk("convert", tmp_path / "m.csv", "--from", "handbone", "--image-size", "1x4", "--format", "label-map",
         "--out", tmp_path / "back", "--labels", wrote(tmp_path / "t.csv", "value,name\n9,background\n4,liver\n5,spleen\n"))  # fmt: skip
    with Image.open(tmp_path / "back" / "a.png") as image:
        assert np.asarray(image).tolist() == [[9, 4, 5, 255]]
    ensk("convert", tmp_path / "gt", "--classes", names, "--except", "background", "--format", "label-map",
         "--out", tmp_path / "fg")  # fmt: skip
    assert ek.read_masks(tmp_path / "fg").classes == ("liver", "spleen")
    refused(lambda: ensk("convert", tmp_path / "m.csv", "--void", "255", "--from", "handbone", "--image-size", "1x4",
                         "--out", tmp_path / "x"), "option-idle")  # fmt: skip


def test_arrays_by_convert(tmp_path) -> None:
    np.savez(tmp_path / "m.npz", a=np.array([[0, 1, 2]]))
    table = wrote(tmp_path / "t.json", '{"0":"background","1":"liver","2":"spleen"}')
    ensk("convert", tmp_path / "m.npz", "--labels", table, "--out", tmp_path / "m.json")
    assert areas(ek.read_masks(tmp_path / "m.json")) == dict.fromkeys(ORGANS, 1)


def test_score_of_label_maps(tmp_path, capsys) -> None:
    put(tmp_path / "gt" / "a.png", [[0, 1, 2, 255]])
    put(tmp_path / "p" / "a.png", [[0, 1, 2, 2]])
    names = wrote(tmp_path / "c.txt", "\n".join(ORGANS))
    ensk("score", tmp_path / "p", "--val", tmp_path / "gt", "--classes", names, "--except", "background", "--json")
    ran = capsys.readouterr()
    assert list(json.loads(ran.out)["per_class"]) == ["liver", "spleen"]
    assert ran.err.count("label values") == 2
    ensk("score", tmp_path / "p", "--val", tmp_path / "gt", "--labels", "voc", "--only", "background,bicycle", "--json")
    assert list(json.loads(capsys.readouterr().out)["per_class"]) == ["background", "bicycle"]
    table = wrote(tmp_path / "t.csv", "value,name\n0,void\n1,liver\n2,spleen\n")
    truth = put(tmp_path / "own" / "a.png", [[0, 1, 2, 2]]).parent
    ensk("convert", tmp_path / "p", "--classes", names, "--out", tmp_path / "p.json")
    score = ["score", tmp_path / "p.json", "--val", truth, "--labels", table]
    assert "--except" in refused(lambda: ensk(*score), "classes-missing")
    capsys.readouterr()
    ensk(*score, "--except", "background", "--json")
    assert json.loads(capsys.readouterr().out)["per_class"] == {"liver": 1, "spleen": 1}
    for options, code in (
        (["--only", "kidney"], "classes-unknown"),
        (["--only", "liver", "--except", "liver"], "option-invalid"),
        (["--except", ",".join(ORGANS)], "option-invalid"),
        (["--void", "a"], "option-invalid"),
    ):
        refused(lambda o=options: ensk("score", tmp_path / "p", "--val", tmp_path / "gt", "--classes", names, *o), code)


def test_options_go_to_the_side_that_needs_them(tmp_path, capsys) -> None:
    put(tmp_path / "gt" / "a.png", [[0, 1, 1, 0]])
    names = wrote(tmp_path / "c.txt", "road\nwalk\n")
    truth = ek.read_masks(tmp_path / "gt", classes=["road", "walk"], first_value=0)
    truth.write(tmp_path / "own", format="label-map")
    truth.write(tmp_path / "own.npz")
    for own in ("own", "own.npz"):
        score = ("score", tmp_path / own, "--val", tmp_path / "gt", "--classes", names, "--first-value", 0, "--json")
        ensk(*score)
        assert json.loads(capsys.readouterr().out)["mean"] == 1
    refused(lambda: ensk("score", tmp_path / "own", "--val", tmp_path / "own", "--first-value", 0), "option-idle")


def test_the_order_of_rows_names_no_values(tmp_path, capsys) -> None:
    """A CSV's classes stand as its rows do; a COCO file lists its own, so label maps may go by their order."""
    put(tmp_path / "gt" / "a.png", [[0, 1, 2, 2]])
    names = wrote(tmp_path / "c.txt", "\n".join(ORGANS))
    ensk("convert", tmp_path / "gt", "--classes", names, "--out", tmp_path / "m.json")
    ensk("convert", tmp_path / "gt", "--classes", names, "--out", tmp_path / "m.csv", "--format", "handbone")
    capsys.readouterr()
    score = ["score", "--val", tmp_path / "gt", "--json", "--image-size", "1x4"]
    ensk(*score, tmp_path / "m.json")
    assert json.loads(capsys.readouterr().out)["mean"] == 1
    refused(lambda: ensk(*score, tmp_path / "m.csv", "--format", "handbone"), "classes-needed")
    ensk(*score, tmp_path / "m.csv", "--format", "handbone", "--classes", names)
    assert json.loads(capsys.readouterr().out)["mean"] == 1


def test_inspect_tells_how_it_read(tmp_path, capsys) -> None:
    ensk("inspect", LARYNX, "--classes", wrote(tmp_path / "c.txt", "\n".join(LARYNX_CLASSES)), "--json")
    values = json.loads(capsys.readouterr().out)
    assert "0 'void'" in values["read as"]
    assert values["exclusive"] is True


@pytest.mark.slow
def test_truth_with_background_first_is_read_as_it_is(tmp_path, capsys) -> None:
    """A perfect softmax member scores 1, with the background's value 0 and with a table."""
    labels = np.random.default_rng(0).integers(0, 3, (3, 16, 16)).astype(np.uint8)
    ids = [f"{k}.png" for k in range(3)]
    with ek.LogitWriter(tmp_path / "m.zarr", classes=ORGANS, samples=ids, grid=(16, 16), activation="softmax") as out:
        for name, own in zip(ids, labels, strict=True):
            out.write(
                name, np.where(own == np.arange(3)[:, None, None], 9.0, -9.0).astype(np.float32), image_size=(16, 16)
            )
            put(tmp_path / "gt" / name, own)
    for more in ([], ["--labels", wrote(tmp_path / "t.json", json.dumps(dict(enumerate(ORGANS))))], ["--void", "255"]):
        ensk("tune-thresholds", tmp_path / "m.zarr", "--val", tmp_path / "gt", "--out", tmp_path / "s.json", "--force",
             "--folds", "0", "--json", *more)  # fmt: skip
        assert ek.ThresholdSet.load(tmp_path / "s.json").score == 1


def test_a_zip_without_maps(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "m.npz", "w"):
        pass
    refused(lambda: ek.read_masks(tmp_path / "m.npz", "label-map", classes=ORGANS), "files-missing")
    assert recognise(LARYNX).name == "label-map"


# --- exclusive classes in other formats


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("m.json", []),
        ("m.csv", ["--format", "handbone"]),
        ("m.npz", []),
        ("folder", ["--format", "png"]),
        ("polygons", ["--format", "labelme"]),
    ],
    ids=["coco", "csv", "npz", "png", "polygons"],
)
def test_exclusive_classes_go_through_every_format(tmp_path, target, options) -> None:
    """Label maps to another format and back are the same files to the last byte."""
    names = wrote(tmp_path / "c.txt", "\n".join(LARYNX_CLASSES))
    ensk("convert", LARYNX, "--classes", names, "--format", "label-map", "--out", tmp_path / "one")
    ensk("convert", tmp_path / "one", "--out", tmp_path / target, *options)
    back = ["--from", "handbone", "--image-size", "256x256"] if target.endswith("csv") else []
    ensk("convert", tmp_path / target, "--format", "label-map", "--out", tmp_path / "two", "--classes", names, *back)
    for file in ("index.json", *(path.name for path in LARYNX.iterdir())):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools 2.0
def test_semantic_coco_has_one_segment_a_class(tmp_path) -> None:
    """One annotation for each class that an image has, none overlapping: pycocotools reads them as stuff segments."""
    from pycocotools import mask as reference

    masks = ek.read_masks(LARYNX, classes=LARYNX_CLASSES)
    masks.write(tmp_path / "m.json")
    content = json.loads((tmp_path / "m.json").read_text())
    for number, sample in enumerate(masks.samples, 1):
        own = [a for a in content["annotations"] if a["image_id"] == number]
        assert len({a["category_id"] for a in own}) == len(own)
        labels = np.zeros((256, 256), int)
        for entry in own:
            labels += reference.decode(entry["segmentation"]).astype(int) * entry["category_id"]
        assert np.array_equal(labels - 1, masks.labels(sample))
    assert ek.read_masks(tmp_path / "m.json").exclusive


@pytest.mark.slow
def test_a_vote_of_label_maps_is_one(tmp_path, capsys) -> None:
    rng = np.random.default_rng(1)
    for member in range(3):
        for k in range(2):
            put(tmp_path / f"m{member}" / f"{k}.png", rng.integers(0, 3, (5, 6)).astype(np.uint8))
    names, table = wrote(tmp_path / "c.txt", "\n".join(ORGANS)), wrote(tmp_path / "t.csv", "value,name,colour\n1,background,#000000\n2,liver,#ff0000\n3,spleen,#00ff00\n")  # fmt: skip
    members = [tmp_path / f"m{member}" for member in range(3)]
    ensk("vote", *members, "--hard", "--classes", names, "--format", "label-map", "--out", tmp_path / "voted")
    assert capsys.readouterr().err.count("label values") == 3
    voted = ek.read_masks(tmp_path / "voted")
    for sample in voted.samples:
        votes = np.stack([np.asarray(Image.open(m / sample)) for m in members])
        counts = np.stack([(votes == k).sum(0) for k in range(3)])
        wanted = np.where(counts.max(0) > 1, counts.argmax(0), 255)
        assert np.array_equal(voted.labels(sample), wanted)
    ensk("vote", tmp_path / "voted", "--format", "label-map", "--out", tmp_path / "again", "--labels", table)
    with Image.open(tmp_path / "again" / "0.png") as image:
        assert image.getpalette()[6:9] == [255, 0, 0]
    refused(
        lambda: ensk("vote", *members, "--classes", names, "--out", tmp_path / "v.csv", "--paint", "a=1"), "option-idle"
    )
