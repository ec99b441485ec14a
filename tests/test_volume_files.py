"""Files of volumes are read: NIfTI, NRRD and MetaImage, with nibabel, pynrrd and SimpleITK as oracles."""

from __future__ import annotations

from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - as everybody calls it

import ensemble_kit as ek
from ensemble_kit.formats.reading import kind_of
from ensemble_kit.spec.affine import Geometry
from trying import ensk, refused
from volumes import CLASSES, CORD, HEART, OBLIQUE, array_of, itk, labels_of, masks_of, save_nifti


def test_real_label_maps_are_as_nibabel_and_itk_read_them() -> None:
    masks = ek.read_masks(HEART, classes=CLASSES)
    assert kind_of(HEART).name == "nifti"
    assert masks.samples == ("SC-HF-I-1", "SC-HF-I-2", "SC-HF-I-5")
    assert masks.exclusive
    for sample in masks.samples:
        path = HEART / f"{sample}.nii.gz"
        array, place = itk(path)
        own = masks.geometry(sample)
        assert own is not None
        assert (array == array_of(path)).all()
        assert all((masks[sample, name].decode() == (array == k)).all() for k, name in enumerate(CLASSES))
        assert (own.matrix == nibabel.load(path).affine).all()
        assert own.is_near(place, masks.image_size(sample))
    assert [g.orientation for g in masks.extent.geometry.values()] == ["IRA", "LIA", "PIL"]


def test_values_with_gaps_are_named_by_a_table() -> None:
    table = {0: "background", 2: "C2", 3: "C3", 4: "C4", 5: "C5"}
    masks = ek.read_masks(CORD / "labels" / "t2.nii.gz", labels=table)
    array = array_of(CORD / "labels" / "t2.nii.gz")
    assert (masks.samples, masks.image_size("t2")) == (("t2",), (52, 55, 60))
    assert [masks["t2", name].area for name in table.values()] == [int((array == k).sum()) for k in table]
    with refused(ek.MismatchError, "label-values", "3 (1461 pixels)", "nobody named"):
        ek.read_masks(CORD / "labels" / "t2.nii.gz", classes=["a", "b"], first_value=1)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i1", "i2", "i4", "i8", "u4", "u8", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_a_label_map_is_the_same_in_every_type(tmp_path: Path, dtype: str, order: str) -> None:
    labels, kind = labels_of(), np.dtype(dtype).newbyteorder(order)
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(kind)
    image = nibabel.Nifti1Image(labels.T.astype(kind), OBLIQUE, header)
    nibabel.save(image, tmp_path / "a.nii")
    assert nibabel.load(tmp_path / "a.nii").header.endianness == order
    masks = ek.read_masks(tmp_path / "a.nii", classes=CLASSES)
    assert dict(masks) == dict(masks_of(labels))
    assert ("whole numbers as float" in str(masks.rule)) == (dtype[0] == "f")


@pytest.mark.parametrize(("slope", "inter"), [(0.5, 0.0), (1 / 255, 0.0), (2.0, -2.0), (0.0, 5.0), (np.nan, np.nan)])
def test_scaled_values_are_what_nibabel_says(tmp_path: Path, slope: float, inter: float) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((6, 5, 4))
    header.set_sform(OBLIQUE, 1)
    stored = (labels_of(classes=2) * {0.5: 2, 1 / 255: 255}.get(slope, 1)) + (slope == 2.0)
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, slope, inter
    (tmp_path / "a.nii").write_bytes(bytes(header.binaryblock) + bytes(4) + stored.astype(np.uint8).tobytes())
    masks = ek.read_masks(tmp_path / "a.nii", classes=["off", "on", "more"], first_value=0)
    want = np.rint(np.asarray(nibabel.load(tmp_path / "a.nii").dataobj)).T
    assert {name: masks["a", name].area for name in masks.classes} == {
        name: int((want == k).sum()) for k, name in enumerate(masks.classes)
    }


def test_nifti_2_and_one_slice_are_volumes(tmp_path: Path) -> None:
    labels = labels_of((1, 5, 6))
    nibabel.save(nibabel.Nifti2Image(labels.T, OBLIQUE), tmp_path / "a.nii.gz")
    masks = ek.read_masks(tmp_path / "a.nii.gz", classes=CLASSES)
    assert masks.image_size("a") == (1, 5, 6)
    assert dict(masks) == dict(masks_of(labels))


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "a.mhd"])
@pytest.mark.parametrize("packed", [False, True], ids=["raw", "packed"])
def test_what_itk_writes_is_read_where_it_lies(tmp_path: Path, name: str, packed: bool) -> None:
    labels = labels_of()
    image = sitk.GetImageFromArray(labels)
    lps = np.diag([-1.0, -1, 1, 1]) @ OBLIQUE
    turn, _ = np.linalg.qr(lps[:3, :3])
    image.SetDirection(turn.reshape(-1).tolist())
    image.SetSpacing((0.8, 0.9, 5.0))
    image.SetOrigin((1.5, -2.25, 3.0))
    sitk.WriteImage(image, str(tmp_path / name), useCompression=packed)
    masks, (_, place) = ek.read_masks(tmp_path / name, classes=CLASSES), itk(tmp_path / name)
    own = masks.geometry("a")
    assert own is not None
    assert own.is_near(place, (4, 5, 6))
    assert own.spacing == pytest.approx((5.0, 0.9, 0.8))
    assert dict(masks) == dict(masks_of(labels))


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr"])
def test_what_pynrrd_writes_is_read(tmp_path: Path, encoding: str, name: str) -> None:
    labels = labels_of().astype(">i2")
    directions = [OBLIQUE[:3, k] for k in range(3)]
    header = {
        "space": "right-anterior-superior",
        "space directions": np.array(directions),
        "space origin": OBLIQUE[:3, 3],
        "encoding": encoding,
        "endian": "big",
    }
    nrrd.write(str(tmp_path / name), labels.T, header)
    masks = ek.read_masks(tmp_path / name, classes=CLASSES)
    assert dict(masks) == dict(masks_of(labels))
    assert masks.geometry("a") == Geometry.of(OBLIQUE)


def test_segments_are_read_by_their_names(tmp_path: Path) -> None:
    """3D Slicer's file: two layers, since the tumour lies in the liver."""
    layers = np.zeros((2, 6, 5, 4), np.uint8)
    layers[0, 1:5], layers[0, 5], layers[1, 2:4] = 1, 2, 1
    header = {
        "space": "left-posterior-superior",
        "kinds": ["list", "domain", "domain", "domain"],
        "space directions": np.array([[np.nan] * 3, [1, 0, 0], [0, 1, 0], [0, 0, 2]]),
        "space origin": [0, 0, 0],
    }
    for k, (name, layer, value) in enumerate([("Leber e", 0, 1), ("kidney", 0, 2), ("tumour", 1, 1)]):
        header |= {f"Segment{k}_Name": name, f"Segment{k}_Layer": str(layer), f"Segment{k}_LabelValue": str(value)}
    nrrd.write(str(tmp_path / "case.seg.nrrd"), layers, header)
    raw = (tmp_path / "case.seg.nrrd").read_bytes()
    (tmp_path / "case.seg.nrrd").write_bytes(raw.replace(b"Leber e", "Leber é".encode()))
    masks = ek.read_masks(tmp_path / "case.seg.nrrd")
    assert (masks.samples, masks.classes) == (("case",), ("Leber é", "kidney", "tumour"))
    assert not masks.exclusive
    assert (masks["case", "tumour"].decode() == layers[1].T.astype(bool)).all()
    assert (masks["case", "kidney"].decode() == (layers[0].T == 2)).all()
    with refused(ek.UsageError, "option-idle", "names its segments"):
        ek.read_masks(tmp_path / "case.seg.nrrd", labels={1: "liver"})


def channels() -> np.ndarray:
    return np.stack([labels_of(seed=k, classes=2) for k in range(3)])


def write_channels(path: Path, kind: str, array: np.ndarray) -> Path:
    if kind == "nibabel 4-D":
        nibabel.save(nibabel.Nifti1Image(array.transpose(3, 2, 1, 0), OBLIQUE), path / "a.nii.gz")
        return path / "a.nii.gz"
    image = sitk.GetImageFromArray(array.transpose(1, 2, 3, 0), isVector=True)
    name = {"itk vectors of NIfTI": "a.nii.gz", "itk vectors of NRRD": "a.nrrd", "itk vectors of MHA": "a.mha"}[kind]
    sitk.WriteImage(image, str(path / name))
    return path / name


KINDS = ["nibabel 4-D", "itk vectors of NIfTI", "itk vectors of NRRD", "itk vectors of MHA"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_channel_is_the_mask_of_a_class(tmp_path: Path, kind: str) -> None:
    array = channels()
    path = write_channels(tmp_path, kind, array)
    masks = ek.read_masks(path, classes=["x", "y", "z"])
    assert not masks.exclusive
    assert all((masks["a", name].decode() == (array[k] == 1)).all() for k, name in enumerate("xyz"))
    with refused(ek.MismatchError, "volume-axes", "3 channels", "2 classes"):
        ek.read_masks(path, classes=["x", "y"])
    with refused(ek.UsageError, "classes-needed", "--classes"):
        ek.read_masks(path)


def test_totalsegmentators_folders_are_a_volume_a_class(tmp_path: Path) -> None:
    array = channels()
    for sample in ("s1", "s2"):
        for k, name in enumerate(("heart", "aorta", "rib")):
            save_nifti(tmp_path / "cases" / sample / f"{name}.nii.gz", array[k])
    masks = ek.read_masks(tmp_path / "cases")
    assert kind_of(tmp_path / "cases").name == "class-volumes"
    assert (masks.samples, set(masks.classes)) == (("s1", "s2"), {"heart", "aorta", "rib"})
    assert (masks["s2", "aorta"].decode() == (array[1] == 1)).all()
    one = ek.read_masks(tmp_path / "cases" / "s1", format="class-volumes")
    assert dict(one) == {("s1", c): masks["s1", c] for c in masks.classes}
    with refused(ek.UsageError, "format-ambiguous", "--from class-volumes", "each can be a sample"):
        ek.read_masks(tmp_path / "cases" / "s1")
    with refused(ek.UsageError, "format-ambiguous", "called as the classes are"):
        ek.read_masks(tmp_path / "cases" / "s1", classes=["heart", "aorta", "rib"])
    (tmp_path / "cases" / "s2" / "rib.nii.gz").unlink()
    with refused(ek.IncompleteError, "files-missing", "('s2', 'rib')"):
        ek.read_masks(tmp_path / "cases")


def test_training_data_of_totalsegmentator_has_its_image_left_out(tmp_path: Path) -> None:
    labels = labels_of(classes=2)
    save_nifti(tmp_path / "d" / "s1" / "ct.nii.gz", labels.astype(np.int16) * 400 - 1000)
    save_nifti(tmp_path / "d" / "s1" / "segmentations" / "heart.nii.gz", labels)
    masks = ek.read_masks(tmp_path / "d")
    assert (masks.samples, masks.classes) == (("s1",), ("heart",))
    assert "'s1/ct.nii.gz' left out" in str(masks.rule)


def test_a_qform_beside_another_sform_is_said(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", labels_of(), np.diag([1, 1, 2.0, 1]))
    image = nibabel.load(path)
    image.header.set_qform(np.diag([1, 1, 3.0, 1]), code=1)
    image.header.set_sform(np.diag([1, 1, 2.0, 1]), code=4)
    nibabel.save(image, path)
    masks = ek.read_masks(path, classes=CLASSES)
    assert "qform and sform differ: the sform is used" in str(masks.rule)
    assert masks.geometry("a") == Geometry.of(np.diag([1, 1, 2.0, 1]))


@pytest.mark.parametrize(("code", "scale"), [("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)])
def test_units_become_millimetres(tmp_path: Path, code: str, scale: float) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", labels_of(), np.diag([1, 1, 2.0, 1]))
    image = nibabel.load(path)
    image.header.set_xyzt_units(code)
    nibabel.save(image, path)
    masks = ek.read_masks(path, classes=CLASSES)
    own = masks.geometry("a")
    assert own is not None
    assert own.spacing == pytest.approx((2 * scale, scale, scale))
    assert itk(path)[1].spacing == pytest.approx(own.spacing)
    assert ("its unit is" in str(masks.rule)) == (scale != 1)


def test_volumes_are_label_maps_too(tmp_path: Path) -> None:
    """The format `label-map` reads volumes, and writes images."""
    names = tmp_path / "t.json"
    names.write_text('{"background": 0, "myocardium": 1, "cavity": 2}')
    masks = ek.read_masks(HEART, classes=CLASSES)
    assert dict(ek.read_masks(HEART, format="label-map", labels=names)) == dict(masks)
    assert dict(ek.read_masks(HEART, format="nifti", labels=names)) == dict(masks)
    masks.write(tmp_path / "m", format="nrrd")
    assert dict(ek.read_masks(tmp_path / "m", format="label-map")) == dict(masks)


@pytest.mark.parametrize("name", ["A.NII.GZ", "A.Nii", "A.NRRD"])
def test_suffixes_may_be_capitals(tmp_path: Path, name: str) -> None:
    ek.read_masks(HEART, classes=CLASSES).arranged(["SC-HF-I-1"], CLASSES).write(tmp_path / name.lower())
    (tmp_path / name.lower()).rename(tmp_path / name)
    masks = ek.read_masks(tmp_path / name, classes=CLASSES)
    assert masks.samples == ("A",)
    (tmp_path / name).rename(tmp_path / name.lower().replace(".gz", ""))  # a .nii that is compressed
    assert dict(ek.read_masks(tmp_path / name.lower().replace(".gz", ""), classes=CLASSES)) == {
        ("a", c): masks["A", c] for c in CLASSES
    }


def test_volumes_of_two_formats_in_one_folder_are_not_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`score` refuses the truth with its own option; a format that is named tells what it leaves out."""
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    image = sitk.ReadImage(save_nifti(tmp_path / "truth" / "a.nii.gz", labels_of()))
    sitk.WriteImage(image, tmp_path / "truth" / "b.mha")
    names, both = ("--classes", tmp_path / "names.txt"), ("score", tmp_path / "truth" / "a.nii.gz")
    with pytest.raises(ek.UsageError) as caught:
        ensk(*both, "--val", tmp_path / "truth", *names)
    assert caught.value.code == "format-ambiguous" and "pass --val-format nifti or metaimage;" in caught.value.fix
    ensk(*both, "--val", tmp_path / "truth", *names, "--val-format", "nifti")
    assert "left out, as of another format: 'b.mha'" in capsys.readouterr().err
