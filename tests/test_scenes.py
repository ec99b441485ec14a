"""GeoTIFFs as masks: rasterio is the oracle of what is written, and writes what is read."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ensemble_kit as ek
from ensemble_kit.formats import rasters, tiff_tags
from ensemble_kit.formats.reading import recognise
from ensemble_kit.formats.writing import write_masks
from ensemble_kit.spec.georeference import GeoReference

rasterio = pytest.importorskip("rasterio")
from rasterio.crs import CRS  # noqa: E402
from rasterio.errors import NotGeoreferencedWarning  # noqa: E402
from rasterio.transform import Affine  # noqa: E402

UTM = CRS.from_epsg(32633).to_wkt()
PLACE = GeoReference(UTM, (10, 0, 500000, 0, -10, 4600000))
NAMES = ("background", "water", "forest")


def labels(height: int = 40, width: int = 70) -> np.ndarray:
    """Every value of three classes, and void."""
    out = (np.indices((height, width)).sum(0) // 7 % 3).astype(np.uint8)
    out[:3, :5] = 255
    return out


def scene(reference: GeoReference = PLACE, name: str = "s", **size: int) -> ek.MaskSet:
    return ek.MaskSet.from_labels({name: labels(**size)}, NAMES).with_geometry({name: reference})


def written(path: Path, values: np.ndarray, **options: Any) -> Path:
    """Write a TIFF with rasterio; without `crs` and `transform` it is not georeferenced."""
    bands = values[None] if values.ndim == 2 else values
    profile = {"driver": "GTiff", "count": len(bands), "dtype": values.dtype, "height": bands.shape[1]}
    profile |= {"width": bands.shape[2], "crs": "EPSG:32633", "transform": Affine(*PLACE.transform)} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **{k: v for k, v in profile.items() if v is not None}) as out:
            out.write(bands)
    return path


def refused(code: str, act: Callable[[], object]) -> ek.EnskError:
    with pytest.raises(ek.EnskError) as caught:
        act()
    assert caught.value.code == code, caught.value
    return caught.value


# --- written


def test_rasterio_reads_what_is_written(tmp_path: Path) -> None:
    scene(height=600, width=1100).write(tmp_path / "s.tif")
    with rasterio.open(tmp_path / "s.tif") as found:
        assert np.array_equal(found.read(1), labels(600, 1100))
        assert (found.crs, found.transform) == (CRS.from_epsg(32633), Affine(*PLACE.transform))
        assert (found.nodata, found.block_shapes, found.profile["compress"]) == (255, [(512, 512)], "deflate")
        assert found.colormap(1)[2] == (0, 128, 0, 255)
    assert tiff_tags.is_georeferenced(tmp_path / "s.tif")


def test_equal_masks_are_equal_bytes(tmp_path: Path) -> None:
    scene().write(tmp_path / "a.tif")
    scene().write(tmp_path / "b.tif")
    scene().write(tmp_path / "folder", format="geotiff")
    content = (tmp_path / "a.tif").read_bytes()
    assert (tmp_path / "b.tif").read_bytes() == content == (tmp_path / "folder" / "s.tif").read_bytes()
    assert sorted(p.name for p in (tmp_path / "folder").iterdir()) == ["index.json", "s.tif"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "b.tif", "folder"]


@pytest.mark.parametrize("out", ["s.tif", "folder"])
def test_scenes_come_back(out: str, tmp_path: Path) -> None:
    masks = scene()
    masks.write(tmp_path / out, format="geotiff")
    for back in (ek.read_masks(tmp_path / out), ek.read_masks(tmp_path / out, format="geotiff", classes=NAMES)):
        assert (dict(back), back.classes, back.void("s")) == (dict(masks), NAMES, masks.void("s"))
        assert back.geometry("s") == PLACE
    assert recognise(tmp_path / out).name == "geotiff"


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 255])))
def test_any_label_map_comes_back(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("g") / "s.tif"
    masks = ek.MaskSet.from_labels({"s": values}, NAMES).with_geometry({"s": PLACE})
    masks.write(path)
    back = ek.read_masks(path)
    assert (dict(back), back.void("s")) == (dict(masks), masks.void("s"))


def test_values_of_sixteen_bits(tmp_path: Path) -> None:
    names = {k: f"c{k}" for k in range(300)}
    values = (np.arange(20 * 30) % 300).reshape(20, 30)
    masks = ek.MaskSet.from_labels({"s": values}, names).with_geometry({"s": PLACE})
    masks.write(tmp_path / "s.tif")
    with rasterio.open(tmp_path / "s.tif") as found:
        assert (found.dtypes, found.nodata) == (("uint16",), 65535)
        assert np.array_equal(found.read(1), values + 1)  # no class is the background
    assert dict(ek.read_masks(tmp_path / "s.tif")) == dict(masks)


def test_a_scene_without_a_georeference_is_refused_before_work(tmp_path: Path) -> None:
    error = refused("georeference-missing", lambda: scene().with_geometry({}).write(tmp_path / "s.tif"))
    assert "nothing says where sample 's' lies" in str(error)
    assert "--like-image" in error.fix
    assert not list(tmp_path.iterdir())


def test_overlapping_classes_are_painted_or_refused(tmp_path: Path) -> None:
    on = np.ones((4, 6), bool)
    masks = ek.MaskSet({("s", "a"): ek.encode(on), ("s", "b"): ek.encode(np.triu(on))}).with_geometry({"s": PLACE})
    error = refused("classes-overlap", lambda: masks.write(tmp_path / "s.tif"))
    assert "--paint" in error.fix
    assert not list(tmp_path.iterdir())
    write_masks(masks, tmp_path / "s.tif", paint={"a": 1, "b": 2})
    with rasterio.open(tmp_path / "s.tif") as found:
        assert np.array_equal(found.read(1), np.where(np.triu(on), 2, 1))


def test_several_scenes_need_a_folder(tmp_path: Path) -> None:
    two = ek.MaskSet.from_labels({"a": labels(), "b": labels()}, NAMES).with_geometry({"a": PLACE, "b": PLACE})
    assert "2 samples: 'a', 'b'" in str(refused("format-unfit", lambda: two.write(tmp_path / "s.tif")))
    two.write(tmp_path / "two", format="geotiff")
    assert dict(ek.read_masks(tmp_path / "two")) == dict(two)


# --- like an image


@pytest.mark.parametrize("like", ["file", "folder"])
def test_the_georeference_of_a_scene_is_kept(like: str, tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    image = written(tmp_path / "scenes" / "s.tif", np.zeros((4, 40, 70), np.uint16))
    masks = ek.MaskSet.from_labels({"s.png": labels()}, NAMES)
    reference = image if like == "file" else image.parent
    for out, named in (("a.tif", None), ("folder", None), ("named", "geotiff")):
        write_masks(masks, tmp_path / out, named, like_image=reference)
        back = ek.read_masks(tmp_path / out)
        assert (back.geometry("s.png"), dict(back)) == (PLACE, dict(masks))


@pytest.mark.parametrize(
    ("image", "code", "why"),
    [
        ({"shape": (41, 70)}, "image-size-differs", "40 x 70 in the masks of 's', 41 x 70 in"),
        ({"crs": None, "transform": None}, "georeference-missing", "has neither a transform nor a reference system"),
        ({"name": "other.tif"}, "image-missing", "sample 's' has none in"),
        ({"transform": Affine(10, 0, 0, 0, -10, 0), "georeferenced": True}, "geometry-differs", "its origin"),
        ({"crs": "EPSG:4326", "georeferenced": True}, "geometry-differs", "its reference system"),
    ],
    ids=["another size", "no georeference", "another name", "another origin than the masks", "another crs"],
)
def test_a_reference_scene_that_does_not_fit(image: dict[str, Any], code: str, why: str, tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    values = np.zeros(image.pop("shape", (40, 70)), np.uint8)
    name, georeferenced = image.pop("name", "s.tif"), image.pop("georeferenced", False)
    written(folder / name, values, **image)
    masks = scene() if georeferenced else scene().with_geometry({})
    error = refused(code, lambda: write_masks(masks, tmp_path / "out", "geotiff", like_image=folder))
    assert why in error.item
    assert not (tmp_path / "out").exists()


def test_one_reference_for_two_scenes_is_refused(tmp_path: Path) -> None:
    two = ek.MaskSet.from_labels({"a": labels(), "b": labels()}, NAMES)
    image = written(tmp_path / "s.tif", labels())
    refused("option-invalid", lambda: write_masks(two, tmp_path / "out", "geotiff", like_image=image))


# --- read


def test_files_of_others_are_read_by_their_names(tmp_path: Path) -> None:
    for name in ("a.tif", "b.TIFF"):
        written(tmp_path / name, labels(), nodata=255)
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset/>")
    masks = ek.read_masks(tmp_path, classes=NAMES)
    assert masks.samples == ("a.tif", "b.TIFF")
    assert np.array_equal(masks.labels("a.tif"), labels())
    assert masks.geometry("a.tif") == PLACE


@pytest.mark.parametrize(
    "options",
    [{"tiled": True, "blockxsize": 16, "blockysize": 16}, {"compress": "lzw"}, {"BIGTIFF": "YES"}, {"dtype": "int32"}],
    ids=["tiled", "LZW", "BigTIFF", "int32"],
)
def test_kinds_of_tiff(options: dict[str, Any], tmp_path: Path) -> None:
    values = labels().astype(options.get("dtype", np.uint8))
    path = written(tmp_path / "s.tif", values, **options)
    assert tiff_tags.is_georeferenced(path)
    assert np.array_equal(ek.read_masks(path, classes=NAMES).labels("s.tif"), labels())


def test_a_tiff_without_a_georeference_stays_a_label_map(tmp_path: Path) -> None:
    path = written(tmp_path / "s.tif", labels(), crs=None, transform=None)
    assert not tiff_tags.is_georeferenced(path)
    assert recognise(tmp_path).name == "label-map"
    assert np.array_equal(ek.read_masks(tmp_path, classes=NAMES).labels("s.tif"), labels())
    error = refused("georeference-missing", lambda: ek.read_masks(tmp_path, format="geotiff", classes=NAMES))
    assert "--format label-map" in error.fix


def test_nodata_is_void(tmp_path: Path) -> None:
    values = labels()
    values[values == 0] = 7
    written(tmp_path / "s.tif", values, nodata=7)
    masks = ek.read_masks(tmp_path / "s.tif", classes=["water", "forest"], first_value=1)
    assert masks.void("s.tif") == ek.encode((values == 7) | (values == 255))
    assert "void 7, 255" in str(masks.rule)


def test_nodata_that_is_a_class_too_is_refused_with_both_readings(tmp_path: Path) -> None:
    path = written(tmp_path / "s.tif", labels(), nodata=0)
    error = refused("label-ambiguous", lambda: ek.read_masks(path, classes=NAMES))
    assert "the value 0 is its nodata, and the class 'background'" in error.item
    assert error.fix == "pass --void 0 where such pixels do not count, or --void 255 where they are 'background'"
    assert ek.read_masks(path, classes=NAMES, void=[0, 255])["s.tif", "background"].area == 0
    assert ek.read_masks(path, classes=NAMES, void=[255])["s.tif", "background"] == ek.encode(labels() == 0)


def test_two_values_of_nodata_are_refused(tmp_path: Path) -> None:
    for name, nodata in (("a.tif", 1), ("b.tif", 2)):
        written(tmp_path / name, labels(), nodata=nodata)
    error = refused("nodata-differs", lambda: ek.read_masks(tmp_path, classes=NAMES))
    assert "nodata is 1 in 'a.tif' and 2 in 'b.tif'" in error.item


@pytest.mark.parametrize(
    ("values", "options", "why"),
    [
        (np.stack([labels()] * 3), {}, "3 channels of uint8"),
        (labels().astype(np.float32), {}, "1 channels of float32"),
        (np.full((4, 4), -1, np.int16), {}, "values outside 0"),
    ],
    ids=["three channels", "scores", "negative values"],
)
def test_what_is_no_label_map(values: np.ndarray, options: dict[str, Any], why: str, tmp_path: Path) -> None:
    path = written(tmp_path / "s.tif", values, **options)
    with pytest.raises(ek.EnskError, match=why):
        ek.read_masks(path, classes=NAMES)


@pytest.mark.parametrize("keep", [0, 3, 200, 5000, -1], ids=["empty", "magic", "cut tags", "cut blocks", "last byte"])
def test_a_damaged_tiff_is_named(keep: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = written(tmp_path / "s.tif", rng.integers(0, 3, (200, 200)).astype(np.uint8), compress="deflate")
    path.write_bytes(path.read_bytes()[:keep])
    error = refused("tiff-invalid", lambda: ek.read_masks(path, format="geotiff", classes=NAMES))
    assert (error.exit_code, str(path) in error.item) == (3, True)


def test_a_file_that_only_refers_to_another_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    path.write_text('<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand band="1"/></VRTDataset>')
    refused("tiff-invalid", lambda: ek.read_masks(path, format="geotiff", classes=NAMES))


def test_a_directory_of_tags_beyond_the_file_is_no_georeference(tmp_path: Path) -> None:
    for head in (struct.pack("<2sHI", b"II", 42, 1 << 30), struct.pack("<2sHHHQ", b"II", 43, 8, 0, 1 << 60), b"II*\0"):
        (tmp_path / "s.tif").write_bytes(head.ljust(16, b"\0"))
        assert not tiff_tags.is_georeferenced(tmp_path / "s.tif")


def test_what_a_file_says_of_its_classes_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    scene().write(path)
    with rasterio.open(path, "r+") as out:
        out.update_tags(ENSEMBLE_KIT='{"sample":"s","values":["water"]}')
    refused("tiff-invalid", lambda: ek.read_masks(path))


# --- compared


@pytest.mark.parametrize(
    ("reference", "how"),
    [
        (GeoReference(CRS.from_epsg(32634).to_wkt(), PLACE.transform), "reference system"),
        (GeoReference(UTM, (10, 0, 500010, 0, -10, 4600000)), "origin"),
        (GeoReference(UTM, (20, 0, 500000, 0, -20, 4600000)), "pixels"),
        (GeoReference(UTM, (10, 0, 500000, 0, 10, 4600000)), "pixels"),
        (GeoReference(UTM, (0, 10, 500000, -10, 0, 4600000)), "pixels"),
    ],
    ids=["another zone", "a pixel further", "another resolution", "upside down", "rotated"],
)
def test_scenes_of_two_georeferences_are_refused_naming_both(reference: GeoReference, how: str) -> None:
    error = refused("geometry-differs", lambda: ek.dice(scene(), scene(reference)))
    assert (error.exit_code, how in error.item) == (6, True)
    assert PLACE.as_text() in error.item
    assert reference.as_text() in error.item


def test_georeferences_that_differ_by_a_hundredth_of_a_pixel_are_one() -> None:
    near = GeoReference(UTM, (10, 0, 500000.05, 0, -10, 4600000))
    wkt2 = GeoReference(CRS.from_epsg(32633).to_wkt(version="WKT2_2019"), PLACE.transform)
    for reference in (near, wkt2):
        assert ek.dice(scene(), scene(reference)).mean == 1


@given(st.tuples(*[st.floats(-1e4, 1e4)] * 2), st.sampled_from([PLACE, GeoReference("", (1, 2, 3, -4, 5, 6))]))
def test_a_point_has_one_cell(at: tuple[float, float], reference: GeoReference) -> None:
    assert reference.cell(*reference.corner(*at)) == pytest.approx(at, abs=1e-6)
    assert Affine(*reference.transform) @ at[::-1] == pytest.approx(reference.corner(*at))


@pytest.mark.parametrize("transform", [(1, 0, 0, 2, 0, 0), (float("nan"), 0, 0, 0, 1, 0), (1, 0, 0)])
def test_no_transform(transform: tuple[float, ...]) -> None:
    refused("affine-invalid", lambda: GeoReference("", transform))


def test_a_scene_is_read_and_written_by_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rasters, "_BAND", 1)
    path = written(tmp_path / "s.tif", labels(100, 70), tiled=True, blockxsize=16, blockysize=16)
    with rasters.opened(path) as raster:
        assert [band.shape for band in raster.rows()] == [(16, 70)] * 6 + [(4, 70)]
    assert np.array_equal(ek.read_masks(path, classes=NAMES).labels("s.tif"), labels(100, 70))


# --- one file a class


def overlapping() -> ek.MaskSet:
    """Two classes that overlap, and void."""
    on = np.indices((40, 70))
    masks = {("s", "roof"): ek.encode(on[0] > 20), ("s", "shadow"): ek.encode(on[1] > 30)}
    return ek.MaskSet(masks, void={"s": ek.encode(on.sum(0) < 5)}).with_geometry({"s": PLACE})


def test_classes_that_overlap_are_one_file_each(tmp_path: Path) -> None:
    masks = overlapping()
    masks.write(tmp_path / "m", format="class-geotiffs")
    assert recognise(tmp_path / "m").name == "class-geotiffs"
    back = ek.read_masks(tmp_path / "m")
    assert (dict(back), back.void("s"), back.geometry("s")) == (dict(masks), masks.void("s"), PLACE)
    with rasterio.open(tmp_path / "m" / "roof" / "s.tif") as found:
        assert (found.nodata, found.crs) == (255, CRS.from_epsg(32633))
        void = masks.void("s").decode()
        assert np.array_equal(found.read(1), np.where(void, 255, masks["s", "roof"].decode()))


def test_binary_files_of_others(tmp_path: Path) -> None:
    on = labels() == 1
    for name, values, nodata in (("a", on * 1, 0), ("b", on * 255, None)):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "s.tif", values.astype(np.uint8), nodata=nodata)
    masks = ek.read_masks(tmp_path)
    assert masks["s.tif", "a"] == masks["s.tif", "b"] == ek.encode(on)
    assert not masks.has_void


@pytest.mark.parametrize(
    ("values", "options", "code"),
    [
        (np.full((40, 70), 2, np.uint8), {}, "mask-values"),
        (np.zeros((40, 70), np.uint8), {"transform": Affine(10, 0, 0, 0, -10, 0)}, "geometry-differs"),
        (np.full((40, 70), 9, np.uint8), {"nodata": 9}, "void-differs"),
        (np.zeros((40, 71), np.uint8), {}, "mask-size-differs"),
    ],
    ids=["another value", "another origin", "another nodata", "another size"],
)
def test_files_of_classes_that_do_not_fit(
    values: np.ndarray, options: dict[str, Any], code: str, tmp_path: Path
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    written(tmp_path / "a" / "s.tif", np.zeros((40, 70), np.uint8))
    written(tmp_path / "b" / "s.tif", values, **options)
    refused(code, lambda: ek.read_masks(tmp_path))
