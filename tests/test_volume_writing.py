"""Volumes are written behind the headers of their images, or where their masks lie; nibabel and SimpleITK are oracles."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - as everybody calls it
from hypothesis import given, settings
from hypothesis import strategies as st

import ensemble_kit as ek
from ensemble_kit.formats.reading import read_masks
from ensemble_kit.formats.writing import write_masks
from ensemble_kit.spec.affine import Geometry
from trying import ensk, refused
from volumes import AFFINES, CLASSES, HEART, OBLIQUE, array_of, itk, labels_of, masks_of, save_nifti


@pytest.mark.parametrize("sample", ["heart/labels/SC-HF-I-1", "heart/labels/SC-HF-I-5", "cord/labels/t2", "cord/labels/mt1", "cord/labels/pam50"])  # fmt: skip
def test_the_bytes_behind_an_images_header_are_nibabels(tmp_path: Path, sample: str) -> None:
    path = HEART.parents[1] / f"{sample}.nii.gz"
    array = array_of(path)
    names = {int(v): f"c{v}" for v in np.unique(array)}
    masks = ek.read_masks(path, labels=names)
    masks.write(tmp_path / "x.nii", labels=names, like_image=path)
    image = nibabel.load(path)
    header = image.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    assert (tmp_path / "x.nii").read_bytes() == nibabel.Nifti1Image(array.T, None, header).to_bytes()
    masks.write(tmp_path / "x.nii.gz", labels=names, like_image=path.parent)
    packed = (tmp_path / "x.nii.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "x.nii").read_bytes()
    masks.write(tmp_path / "again.nii.gz", labels=names, like_image=path)
    assert (tmp_path / "again.nii.gz").read_bytes() == packed


@pytest.mark.parametrize("name", ["nifti", "nii", "nrrd", "class-volumes"])
def test_what_is_written_comes_back_and_lies_where_it_did(tmp_path: Path, name: str) -> None:
    masks = ek.read_masks(HEART, classes=CLASSES)
    masks.write(tmp_path / "out", format=name)
    back = ek.read_masks(tmp_path / "out")
    assert (dict(back), back.samples, back.classes) == (dict(masks), masks.samples, masks.classes)
    for sample, geometry in masks.extent.geometry.items():
        own = back.geometry(sample)
        assert own is not None
        assert own.is_near(geometry, masks.image_size(sample))
        for path in list((tmp_path / "out").rglob(f"*{sample}*/*.gz")) + list((tmp_path / "out").glob(f"{sample}.n*")):
            array, there = itk(path)
            assert there.is_near(geometry, masks.image_size(sample))
            if name != "class-volumes":
                assert (array == array_of(HEART / f"{sample}.nii.gz")).all()


def test_a_written_affine_has_codes(tmp_path: Path) -> None:
    """`Nifti1Image(array, affine)` leaves the qform's code at 0; a sheared affine has no qform."""
    masks = masks_of(labels_of())
    for affine, codes in ((OBLIQUE, (0, 1)), (np.diag([0.8, 0.8, 5, 1]), (1, 1)), (np.diag([-0.8, 0.8, 5, 1]), (1, 1))):
        masks.with_geometry({"a": Geometry.of(affine)}).write(tmp_path / "a.nii.gz")
        header = nibabel.load(tmp_path / "a.nii.gz").header
        assert (int(header["qform_code"]), int(header["sform_code"])) == codes
        assert np.allclose(header.get_best_affine(), affine, atol=1e-6)
        assert header.get_xyzt_units()[0] == "mm"
        assert np.allclose(header.get_zooms(), Geometry.of(affine).spacing[::-1], atol=1e-6)


def test_more_than_255_classes_take_16_bits(tmp_path: Path) -> None:
    classes = [f"c{k}" for k in range(300)]
    masks = masks_of(np.arange(300).reshape(3, 10, 10), classes=classes)
    masks.write(tmp_path / "a.nii.gz", spacing=(3, 1, 1))
    assert (array_of(tmp_path / "a.nii.gz") == np.arange(1, 301).reshape(3, 10, 10)).all()
    assert nibabel.load(tmp_path / "a.nii.gz").get_data_dtype() == np.uint16
    masks.write(tmp_path / "a.nrrd", spacing=(3, 1, 1))
    assert (np.arange(1, 301).reshape(3, 10, 10) == nrrd.read(str(tmp_path / "a.nrrd"))[0].T).all()


def test_overlapping_classes_are_painted_or_a_file_each(tmp_path: Path) -> None:
    whole, core = np.zeros((2, 3, 4, 5), bool)
    whole[1:], core[2, 1:3] = True, True
    masks = ek.MaskSet({("a", "whole"): ek.encode(whole), ("a", "core"): ek.encode(core)})
    masks = masks.with_geometry({"a": Geometry.of(OBLIQUE)})
    with refused(ek.MismatchError, "classes-overlap", "--paint"):
        masks.write(tmp_path / "x", format="nifti")
    masks.write(tmp_path / "x", format="nifti", paint={"whole": 1, "core": 2})
    assert (array_of(tmp_path / "x" / "a.nii.gz") == whole + core.astype(int)).all()
    masks.write(tmp_path / "y", format="class-volumes")
    assert (array_of(tmp_path / "y" / "a" / "core.nii.gz") == core).all()
    assert dict(ek.read_masks(tmp_path / "y")) == dict(masks)


def test_a_mask_called_background_is_a_file_of_0_and_1(tmp_path: Path) -> None:
    masks = masks_of(labels_of()).with_geometry({"a": Geometry.of(OBLIQUE)})
    masks.write(tmp_path / "y", format="class-volumes")
    assert (array_of(tmp_path / "y" / "a" / "background.nii.gz") == (labels_of() == 0)).all()


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_slices_are_those_of_the_whole_map(depth: int, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (depth, height, width)
    masks = ek.MaskSet({("a", c): ek.encode(rng.random(shape) < 0.6) for c in "xyz"}, void={"a": ek.encode(rng.random(shape) < 0.2)})  # fmt: skip
    values = dict(zip("zxy", rng.permutation(5)[:3].tolist(), strict=True))
    want = np.full(shape, 255 if 0 in values.values() else 0)
    for name, value in values.items():
        want[masks["a", name].decode()] = value
    want[masks.void("a").decode()] = 255
    assert (masks.labels("a", values, paint=True) == want).all()
    assert (np.concatenate(list(masks.label_bands("a", values, paint=True))) == want).all()


def every_orientation() -> list[str]:
    axes = [("R", "L"), ("A", "P"), ("S", "I")]
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    return ["".join(axes[a][f >> k & 1] for k, a in enumerate(order)) for order in orders for f in range(8)]


@pytest.mark.parametrize("code", every_orientation())
def test_masks_are_turned_to_the_axes_of_their_image(tmp_path: Path, code: str) -> None:
    """The oracle is nibabel's own reorientation."""
    labels = labels_of()
    path = save_nifti(tmp_path / "masks" / "a.nii.gz", labels)
    image = nibabel.load(path)
    turned = image.as_reoriented(
        nibabel.orientations.ornt_transform(
            nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(code)
        )
    )
    (tmp_path / "images").mkdir()
    nibabel.save(turned, tmp_path / "images" / "a_0000.nii.gz")
    masks = ek.read_masks(path, classes=CLASSES)
    masks.write(tmp_path / "out", format="nifti", like_image=tmp_path / "images")
    assert (array_of(tmp_path / "out" / "a.nii.gz") == np.asarray(turned.dataobj).T).all()
    assert (
        nibabel.load(tmp_path / "out" / "a.nii.gz").affine == nibabel.load(tmp_path / "images" / "a_0000.nii.gz").affine
    ).all()
    back = ek.read_masks(tmp_path / "out")
    if code == "".join(nibabel.aff2axcodes(image.affine)):
        assert ek.dice(back, masks).mean == 1
    else:
        with pytest.raises(ek.MismatchError, match=r"its axes|lacks|x") as caught:
            ek.dice(back, masks)
        assert caught.value.code in {"geometry-differs", "image-size-differs"}
        assert code in str(caught.value)
        assert "ensk convert MASKS --like-image" in caught.value.fix


@pytest.mark.parametrize("name", ["nifti", "nrrd", "class-volumes"])
def test_no_affine_is_made_up(tmp_path: Path, name: str) -> None:
    masks = masks_of(labels_of())
    with refused(ek.UsageError, "geometry-missing", "'a' (4 x 5 x 6)", "--like-image", "--spacing 5x0.8x0.8"):
        masks.write(tmp_path / "x", format=name)
    assert not list(tmp_path.iterdir())
    masks.write(tmp_path / "x", format=name, spacing=(5, 0.8, 0.8))
    own = ek.read_masks(tmp_path / "x").geometry("a")
    assert own is not None
    assert own.is_near(Geometry.of(np.diag([0.8, 0.8, 5, 1])), (4, 5, 6))


def test_the_image_of_a_sample_is_found_or_named(tmp_path: Path) -> None:
    labels, masks = labels_of(), masks_of(labels_of())
    save_nifti(tmp_path / "images" / "b.nii.gz", labels)
    with refused(ek.IncompleteError, "like-image-missing", "'a'", "'b'", "a_0000.nii.gz"):
        masks.write(tmp_path / "x.nii.gz", like_image=tmp_path / "images")
    save_nifti(tmp_path / "images" / "a.nii.gz", labels_of((4, 5, 7)))
    with refused(ek.MismatchError, "image-size-differs", "4 x 5 x 6", "4 x 5 x 7"):
        masks.write(tmp_path / "x.nii.gz", like_image=tmp_path / "images")
    with refused(ek.UsageError, "option-idle", "--spacing"):
        masks.write(tmp_path / "x.nii.gz", like_image=tmp_path / "images", spacing=(1, 1, 1))
    save_nifti(tmp_path / "images" / "a.nii.gz", labels, AFFINES["spacing"])
    with refused(ek.MismatchError, "geometry-differs", "its spacing", "a.nii.gz"):
        masks.with_geometry({"a": Geometry.of(OBLIQUE)}).write(tmp_path / "x.nii.gz", like_image=tmp_path / "images")
    masks.write(tmp_path / "x.nii.gz", like_image=tmp_path / "images")
    assert (nibabel.load(tmp_path / "x.nii.gz").affine == nibabel.load(tmp_path / "images" / "a.nii.gz").affine).all()


def test_an_image_of_another_format_gives_its_geometry(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(labels_of().astype(np.float32))
    image.SetSpacing((0.5, 0.6, 4))
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    masks_of(labels_of()).write(tmp_path / "x.nii.gz", like_image=tmp_path / "a.mha")
    assert itk(tmp_path / "x.nii.gz")[1].is_near(itk(tmp_path / "a.mha")[1], (4, 5, 6))


def test_a_header_without_codes_says_no_geometry_and_is_copied(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", labels_of(), codes=(0, 0))
    masks = ek.read_masks(path, classes=CLASSES)
    assert masks.geometry("a") is None
    assert "does not say where it lies" in str(masks.rule)
    masks.write(tmp_path / "x.nii.gz", like_image=path)
    assert (nibabel.load(tmp_path / "x.nii.gz").affine == nibabel.load(path).affine).all()
    with refused(ek.UsageError, "geometry-missing", "--format nifti, which keeps that header"):
        masks.write(tmp_path / "x.nrrd", like_image=path)


def test_volumes_are_not_written_where_images_are_and_the_reverse(tmp_path: Path) -> None:
    volume = ek.read_masks(HEART, classes=CLASSES)
    for name in ("png", "coco", "labelme", "kaggle"):
        with refused(ek.UsageError, "format-unfit", "a volume", "--format nifti"):
            write_masks(volume, tmp_path / f"x{'.csv' if name == 'kaggle' else ''}", name)
    image = ek.MaskSet({("a", "x"): ek.encode(np.eye(4, dtype=bool))})
    for name in ("nifti", "class-volumes", "nrrd"):
        with refused(ek.UsageError, "format-unfit", "an image"):
            write_masks(image, tmp_path / "x", name, spacing=(1, 1, 1))
    with refused(ek.MismatchError, "image-size-differs", "(a volume)", "(an image)"):
        read_masks(HEART, image_size=(256, 256), classes=CLASSES)
    with refused(ek.MismatchError, "image-size-differs", "12 x 256 x 256", "9 x 256 x 256"):
        read_masks(HEART, image_size=(9, 256, 256), classes=CLASSES)


def test_several_samples_are_no_single_file(tmp_path: Path) -> None:
    with refused(ek.MismatchError, "volume-several", "3 samples", "folder"):
        ek.read_masks(HEART, classes=CLASSES).write(tmp_path / "x.nii.gz")
    assert not list(tmp_path.iterdir())


def test_void_is_kept_in_label_maps_and_refused_in_masks_of_classes(tmp_path: Path) -> None:
    labels = labels_of()
    labels[0, 0, 0] = 255
    path = save_nifti(tmp_path / "a.nii.gz", labels)
    masks = ek.read_masks(path, classes=CLASSES)
    assert masks.void("a").area == 1
    masks.write(tmp_path / "x.nii.gz")
    assert (array_of(tmp_path / "x.nii.gz") == labels).all()
    with refused(ek.MismatchError, "void-unwritable", "class-volumes"):
        masks.write(tmp_path / "y", format="class-volumes")


@pytest.mark.parametrize(("name", "file"), [("nifti", "x.nii"), ("nii", "x.nii.gz"), ("nifti", "x.nrrd"), ("class-volumes", "x.nii.gz")])  # fmt: skip
def test_a_folder_is_not_called_as_a_file(tmp_path: Path, name: str, file: str) -> None:
    with refused(ek.UsageError, "output-kind", "named as a file"):
        ek.read_masks(HEART, classes=CLASSES).write(tmp_path / file, format=name)


def test_what_is_assumed_of_the_geometry_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = masks_of(labels_of())
    write_masks(masks, tmp_path / "m.npz")
    flipped = OBLIQUE @ np.array([[-1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    save_nifti(tmp_path / "images" / "a.nii.gz", labels_of())
    ensk("convert", tmp_path / "m.npz", "--like-image", tmp_path / "images", "--out", tmp_path / "x")
    assert (
        "1 of 1 samples do not say where they lie: their voxels are taken to be those of the images"
        in capsys.readouterr().err
    )
    ensk("convert", tmp_path / "m.npz", "--spacing", "5x1x1", "--format", "class-volumes", "--out", tmp_path / "y")
    assert "axes x, y, z to RAS, first voxel at (0, 0, 0)" in capsys.readouterr().err
    save_nifti(tmp_path / "turned" / "a.nii.gz", labels_of(), flipped)
    ensk("convert", tmp_path / "x", "--like-image", tmp_path / "turned", "--out", tmp_path / "z")
    assert "1 of 1 samples are turned to the axes of their images" in capsys.readouterr().err
    assert (array_of(tmp_path / "z" / "a.nii.gz") == labels_of()[:, :, ::-1]).all()


def test_the_folder_of_images_is_not_written_over(tmp_path: Path) -> None:
    ek.read_masks(HEART, classes=CLASSES).write(tmp_path / "m", format="nifti")
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    ek.read_masks(HEART, classes=CLASSES).write(tmp_path / "n", format="nrrd")
    words = [tmp_path / "n", "--like-image", tmp_path / "m", "--format", "nifti", "--out", tmp_path / "m", "--force"]
    for command in (["convert", *words], ["vote", "--hard", *words]):
        with refused(ek.UsageError, "output-is-input", "m"):
            ensk(*command)
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before


@pytest.mark.parametrize("name", ["nifti", "nii", "nrrd", "class-volumes"])
def test_ids_may_be_called_as_files_or_lie_in_folders(tmp_path: Path, name: str) -> None:
    """`ensk dump-logits` calls a sample as its image's file."""
    ids = ["case_1.nii.gz", "site/case_1.nii.gz", "site", "CON", "é\n"]
    one = masks_of(labels_of()).with_geometry({"a": Geometry.of(OBLIQUE)})
    masks = ek.MaskSet({(s, c): one["a", c] for s in ids for c in CLASSES}).with_geometry(
        dict.fromkeys(ids, Geometry.of(OBLIQUE))
    )
    masks.write(tmp_path / "x", format=name)
    back = ek.read_masks(tmp_path / "x")
    assert (back.samples, dict(back)) == (masks.samples, dict(masks))
    save_nifti(tmp_path / "images" / "case_1_0000.nii.gz", labels_of())
    masks.arranged(ids[:1], CLASSES).write(tmp_path / "y", format=name, like_image=tmp_path / "images")
    assert list(ek.read_masks(tmp_path / "y").samples) == ids[:1]
