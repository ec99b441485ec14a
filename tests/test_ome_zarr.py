"""Label images of OME-Zarr: zarr-python is the oracle of arrays; tests/exports asks the validators and napari's reader."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import ensemble_kit as ek
from ensemble_kit.formats.ome_arrays import LabelArray, steps_of
from ensemble_kit.masks.stream import MaskStream
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.georeference import GeoReference
from test_stream import content
from trying import ensk, refused

SHAPES = {"wide": (700, 1300), "small": (3, 4), "volume": (37, 300, 530)}
PLACE = Geometry.of(np.array([[0, 0.8, 0, 7], [0.7, 0, 0, -3], [0, 0, -5, 11], [0, 0, 0, 1]]))


def masks_of(
    shape: tuple[int, ...], samples: str = "ab", overlap: str = "", classes: tuple[str, ...] = ("x", "y")
) -> ek.MaskSet:
    """Two rectangles a sample, which share pixels in some samples."""
    out = {}
    for number, sample in enumerate(samples):
        for k, name in enumerate(classes):
            array = np.zeros(shape, bool)
            first = (0 if sample in overlap else k) * shape[-1] // 3 + number
            array[..., shape[-2] // 3 :, first : first + shape[-1] // 3] = True
            out[sample, name] = ek.encode(array)
    return ek.MaskSet(out)


def attributes(group: Path) -> dict[str, Any]:
    """What OME-Zarr says in a group."""
    return json.loads((group / "zarr.json").read_text())["attributes"]["ome"]


@pytest.mark.parametrize("overlap", ["", "b"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_zarr_reads_every_resolution(tmp_path: Path, shape: tuple[int, ...], overlap: str) -> None:
    masks = masks_of(shape, overlap=overlap)
    masks.write(tmp_path / "m", format="ome-zarr")
    spacing = (1,) * len(shape)
    for sample in masks.samples:
        labels = tmp_path / "m" / f"{sample}.ome.zarr" / "labels"
        names = attributes(labels)["labels"]
        assert names == (["x", "y"] if overlap else ["classes"])
        assert {p.name for p in labels.iterdir()} == {"zarr.json", *names}
        for name in names:
            whole = masks[sample, name].decode().astype(np.uint8) if overlap else masks.labels(sample)
            (multiscale,) = attributes(labels / name)["multiscales"]
            group = zarr.open_group(labels / name, mode="r")
            assert [d["path"] for d in multiscale["datasets"]] == sorted(group.array_keys())
            for step, dataset in zip(steps_of(shape, spacing), multiscale["datasets"], strict=True):
                array = group[dataset["path"]]
                assert array.metadata.dimension_names == tuple(a["name"] for a in multiscale["axes"])
                assert dataset["coordinateTransformations"] == [{"type": "scale", "scale": list(map(float, step))}]
                np.testing.assert_array_equal(array[...], whole[tuple(slice(None, None, s) for s in step)])
    back = ek.read_masks(tmp_path / "m")
    assert (dict(back), back.samples, back.classes) == (dict(masks), masks.samples, masks.classes)


@pytest.mark.parametrize("shape", [(3, 4), (700, 1300)], ids=["small", "wide"])
def test_what_was_written_before_an_overlap_is_what_is_written_after(tmp_path: Path, shape: tuple[int, ...]) -> None:
    void = {s: ek.encode(np.arange(np.prod(shape)).reshape(shape) % 7 == 6) for s in "abc"}
    masks = masks_of(shape, "abc", overlap="c")
    masks = ek.MaskSet({key: runs - void[key[0]] for key, runs in masks.items()}, void=void)
    masks.write(tmp_path / "late", format="ome-zarr")
    masks.arranged("cab", masks.classes).write(tmp_path / "soon", format="ome-zarr")
    late, soon = (content(tmp_path / name) for name in ("late", "soon"))
    assert late.pop("index.json") != soon.pop("index.json")  # in their order
    assert late == soon
    back = ek.read_masks(tmp_path / "late")
    assert dict(back) == dict(masks)
    assert all(back.void(s) == void[s] for s in "abc")


def test_colours_and_classes_are_those_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("value,name,colour\n300,x,#102030\n7,y,#405060\n")
    masks_of((3, 4)).write(tmp_path / "m", format="ome-zarr", labels=tmp_path / "table.csv")
    group = tmp_path / "m" / "a.ome.zarr" / "labels" / "classes"
    about = attributes(group)["image-label"]
    assert {p["label-value"]: p["class"] for p in about["properties"]} == {0: "no class", 300: "x", 7: "y", 255: "void"}
    rgba = {c["label-value"]: c["rgba"] for c in about["colors"]}
    assert (rgba[0][3], rgba[7], rgba[300][3]) == (0, [0x40, 0x50, 0x60, 255], 255)
    assert zarr.open_array(group / "0", mode="r").dtype == np.uint16
    assert dict(ek.read_masks(tmp_path / "m")) == dict(masks_of((3, 4)))


def test_a_volume_has_millimetres_and_keeps_its_place(tmp_path: Path) -> None:
    masks = masks_of((4, 300, 530)).with_geometry(dict.fromkeys("ab", PLACE))
    masks.write(tmp_path / "m", format="ome-zarr")
    (multiscale,) = attributes(tmp_path / "m" / "a.ome.zarr" / "labels" / "classes")["multiscales"]
    assert {(a["name"], a["unit"], a["type"]) for a in multiscale["axes"]} == {
        (n, "millimeter", "space") for n in "zyx"
    }
    scales = [d["coordinateTransformations"][0]["scale"] for d in multiscale["datasets"]]
    assert scales == [[5.0, 0.8, 0.7], [5.0, 1.6, 1.4], [5.0, 3.2, 2.8]]
    assert ek.read_masks(tmp_path / "m").extent.geometry == {"a": PLACE, "b": PLACE}
    masks.with_geometry({}).write(tmp_path / "told", format="ome-zarr", spacing=(3, 2, 1))
    assert ek.read_masks(tmp_path / "told").geometry("a") == Geometry.of(np.diag([1, 2, 3, 1]))
    with pytest.raises(ek.UsageError, match=r"--spacing 3x2x1: sample 'a' has 5 x 0\.8"):
        masks.write(tmp_path / "twice", format="ome-zarr", spacing=(3, 2, 1))
    with pytest.raises(ek.UsageError, match="--like-image"):
        masks.write(tmp_path / "like", format="ome-zarr", like_image=tmp_path)


def test_slices_are_halved_once_they_lie_no_farther_apart_than_pixels() -> None:
    assert steps_of((64, 1024, 1024), (1, 1, 1)) == [(1, 1, 1), (2, 2, 2), (4, 4, 4)]
    assert steps_of((64, 2048, 2048), (2.5, 1, 1))[-2:] == [(1, 4, 4), (2, 8, 8)]
    assert steps_of((1, 2048, 10), (1, 1, 1)) == [(1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 8, 8)]


def test_a_scene_has_its_pixels_size_and_its_reference(tmp_path: Path) -> None:
    scene = GeoReference("", (10, 0, 500, 0, -20, 900))
    masks_of((3, 4)).with_geometry(dict.fromkeys("ab", scene)).write(tmp_path / "m", format="ome-zarr")
    (multiscale,) = attributes(tmp_path / "m" / "b.ome.zarr" / "labels" / "classes")["multiscales"]
    assert multiscale["datasets"][0]["coordinateTransformations"][0]["scale"] == [20.0, 10.0]
    assert "unit" not in multiscale["axes"][0]
    assert ek.read_masks(tmp_path / "m").geometry("b") == scene


def test_background_overlaps_nothing_and_paint_draws(tmp_path: Path) -> None:
    masks = masks_of((3, 4), overlap="b", classes=("background", "x"))
    with pytest.raises(ek.MismatchError, match="overlap") as caught:
        masks.write(tmp_path / "m", format="ome-zarr")
    assert caught.value.code == "classes-overlap"
    assert not (tmp_path / "m").exists()
    masks.write(tmp_path / "m", format="ome-zarr", paint={"background": 0, "x": 1})
    assert ek.read_masks(tmp_path / "m")["b", "x"] == masks["b", "x"]


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    masks = masks_of((700, 1300), "a")
    masks.write(tmp_path / "m", format="ome-zarr")
    array = Path("a.ome.zarr", "labels", "classes", "0")
    chunk = array / "c" / "0" / "1"

    def after(change: Any) -> ek.EnskError:
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        shutil.copytree(tmp_path / "m", tmp_path / "d")
        change(tmp_path / "d")
        with pytest.raises(ek.EnskError) as caught:
            ek.read_masks(tmp_path / "d")
        return caught.value

    def flip(folder: Path) -> None:
        raw = bytearray((folder / chunk).read_bytes())
        raw[-8] ^= 1  # of the checksum
        (folder / chunk).write_bytes(raw)

    def describe(**new: Any) -> Any:
        def change(folder: Path) -> None:
            meta = json.loads((folder / array / "zarr.json").read_text())
            (folder / array / "zarr.json").write_text(json.dumps(meta | new))

        return change

    assert (tmp_path / "m" / chunk).is_file()
    assert after(lambda d: (d / chunk).unlink()).code == "files-missing"
    assert after(lambda d: shutil.rmtree(d / "a.ome.zarr")).code == "files-missing"
    assert after(flip).code == "ome-zarr-invalid"
    assert after(lambda d: (d / chunk).write_bytes((d / chunk).read_bytes()[:-9])).code == "ome-zarr-invalid"
    assert after(describe(codecs=[{"name": "bytes"}, {"name": "blosc"}])).code == "ome-zarr-invalid"
    assert after(describe(shape=[700])).code == "ome-zarr-invalid"
    assert after(describe(shape=[2**20, 2**21])).code == "image-size-invalid"
    huge = {"name": "regular", "configuration": {"chunk_shape": [2**20, 2**20]}}
    assert after(describe(chunk_grid=huge)).code == "ome-zarr-invalid"
    many = {"name": "regular", "configuration": {"chunk_shape": [16, 256, 256]}}
    assert after(describe(shape=[2**20] * 3, chunk_grid=many)).code == "image-too-large"
    assert after(lambda d: (d / "index.json").unlink()).code == "format-unread"


def test_no_flipped_bit_changes_a_label(tmp_path: Path) -> None:
    """Some change nothing: the time in gzip's header, lengths of codes that do not occur."""
    masks_of((40, 30), "a").write(tmp_path / "m", format="ome-zarr")
    array = LabelArray(tmp_path / "m" / "a.ome.zarr" / "labels" / "classes" / "0")
    path, whole, found = array.folder / "c" / "0" / "0", array.labels(), 0
    raw = path.read_bytes()
    for bit in range(0, 8 * len(raw), 3):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            assert array.labels().counts() == whole.counts()
        except ek.DamagedError as error:
            found += error.code == "ome-zarr-invalid"
    assert found > 2 * len(raw)


def test_an_empty_class_takes_no_chunk(tmp_path: Path) -> None:
    masks = ek.MaskSet(
        {("a", c): ek.Runs([0], [5], (600, 600)) if c != "z" else ek.Runs.empty((600, 600)) for c in "xyz"}
    )
    masks.write(tmp_path / "m", format="ome-zarr")
    empty = tmp_path / "m" / "a.ome.zarr" / "labels" / "z" / "0"
    assert [p.name for p in empty.iterdir()] == ["zarr.json"]
    assert LabelArray(empty).labels().counts() == {0: 360000}
    assert dict(ek.read_masks(tmp_path / "m")) == dict(masks)


def test_the_command_says_how_classes_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, overlap in (("apart", "b"), ("together", "")):
        masks_of((3, 4), overlap=overlap).write(tmp_path / f"{name}.npz")
        ensk("convert", tmp_path / f"{name}.npz", "--format", "ome-zarr", "--out", tmp_path / name)
        told = "a label image for each class" if overlap else "label maps are written with: 1 'x', 2 'y'"
        assert told in capsys.readouterr().err
    before = content(tmp_path / "apart")
    again = ["convert", tmp_path / "together.npz", "--format", "ome-zarr", "--out", tmp_path / "apart"]
    with refused(ek.UsageError, "output-exists"):
        ensk(*again)
    assert content(tmp_path / "apart") == before
    ensk(*again, "--force")
    assert content(tmp_path / "apart") == content(tmp_path / "together")


def test_one_sample_is_no_store_of_logits(tmp_path: Path) -> None:
    masks_of((3, 4)).write(tmp_path / "m", format="ome-zarr")
    with refused(ek.DamagedError, "store-foreign", "OME-Zarr", "pass the folder that holds index.json"):
        ensk("convert", tmp_path / "m" / "a.ome.zarr", "--out", tmp_path / "a.npz")
    ensk("convert", tmp_path / "m", "--out", tmp_path / "a.npz")


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    masks = masks_of((3, 4))
    masks.write(tmp_path / "m", format="ome-zarr")
    before = content(tmp_path / "m")

    def make(samples: Any) -> Any:
        yield masks.arranged(["a"], masks.classes)
        raise ek.DamagedError("chunk", "cannot read", item="the second", fix="repair it")

    from ensemble_kit.formats.writing import write_masks

    with pytest.raises(ek.DamagedError, match="the second"):
        write_masks(MaskStream(masks.extent, make), tmp_path / "m", "ome-zarr")
    assert content(tmp_path / "m") == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
