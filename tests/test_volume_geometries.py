"""Sides that lie differently in the world are refused; votes, parts and commands keep the geometry of volumes."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.spec.affine import Geometry
from trying import ensk, refused
from volumes import AFFINES, CLASSES, CORD, HEART, OBLIQUE, array_of, itk, labels_of, masks_of, save_nifti


@pytest.mark.slow
def test_soft_maps_are_no_masks_and_make_a_store(tmp_path: Path) -> None:
    """37 real maps that overlap; the vote at .5 is the comparison with .5."""
    names = [str(k) for k in range(37)]
    with refused(ek.MismatchError, "volume-soft", "not a whole number", "ensk dump-logits ARRAYS --images"):
        ek.read_masks(CORD / "tracts", classes=names)
    image = nibabel.load(CORD / "tracts" / "mt1.nii.gz")
    soft = np.asarray(image.dataobj).transpose(3, 2, 1, 0)
    with ek.LogitWriter(tmp_path / "s.zarr", names, ["mt1"], None, domain="probabilities", activation="sigmoid") as out:
        out.write("mt1", soft, image_size=soft.shape[1:], geometry=ek.Geometry.of(image.affine))
    ensk(
        "vote",
        tmp_path / "s.zarr",
        "--format",
        "class-volumes",
        "--like-image",
        CORD / "images",
        "--out",
        tmp_path / "v",
    )
    masks = ek.read_masks(tmp_path / "v")
    near = np.abs(soft - 0.5) < 2e-4  # of 16-bit logits
    for k, name in enumerate(names):
        assert ((masks["mt1", name].decode() == (soft[k] >= 0.5)) | near[k]).all(), name
    written, mri = nibabel.load(tmp_path / "v" / "mt1" / "6.nii.gz"), nibabel.load(CORD / "images" / "mt1.nii.gz")
    assert (written.header.get_sform() == mri.header.get_sform()).all()
    assert (written.header["qform_code"], written.header["sform_code"]) == (1, 1)
    assert (written.header["pixdim"] == mri.header["pixdim"]).all()


@pytest.mark.parametrize("apart", AFFINES)
def test_masks_that_lie_elsewhere_are_not_compared(tmp_path: Path, apart: str) -> None:
    labels = labels_of()
    ours = save_nifti(tmp_path / "ours" / "a.nii.gz", labels)
    save_nifti(tmp_path / "truth" / "a.nii.gz", labels, AFFINES[apart])
    a, b = (ek.read_masks(p, classes=CLASSES) for p in (ours.parent, tmp_path / "truth"))
    with refused(ek.MismatchError, "geometry-differs", f"its {apart}", "in the prediction", "in the truth"):
        ek.dice(a, b)
    with refused(ek.MismatchError, "geometry-differs", "member 2", "member 1"):
        ek.hard_vote([a, b, a])
    assert ek.dice(a, b.with_geometry({})).mean == 1  # where one side does not say where it lies
    near = save_nifti(tmp_path / "near" / "a.nii.gz", labels, OBLIQUE + 1e-5)
    assert ek.dice(a, ek.read_masks(near.parent, classes=CLASSES)).mean == 1


@pytest.mark.slow
def test_a_vote_of_masks_lies_where_its_members_do(tmp_path: Path) -> None:
    a = ek.read_masks(HEART, classes=CLASSES)
    for options in ({}, {"by": "label"}, {"fusion": "staple"}):
        voted = ek.hard_vote([a, a, a], **options)
        assert voted.extent.geometry == a.extent.geometry, options
    assert a.renamed("stem").geometry("SC-HF-I-2") == a.geometry("SC-HF-I-2")
    assert a.arranged(["SC-HF-I-5"], ["cavity"]).extent.geometry == {"SC-HF-I-5": a.geometry("SC-HF-I-5")}


def test_commands_take_volumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("\n".join(CLASSES))
    ensk("convert", HEART, "--classes", names, "--format", "nifti", "--out", tmp_path / "a", "--like-image", HEART)
    ensk("convert", tmp_path / "a", "--out", tmp_path / "c", "--format", "class-volumes")
    ensk("convert", tmp_path / "c", "--out", tmp_path / "b", "--format", "nrrd")
    ensk("score", tmp_path / "b", "--val", HEART, "--classes", names, "--json")
    assert '"mean": 1.0' in capsys.readouterr().out
    ensk("vote", tmp_path / "a", tmp_path / "b", tmp_path / "c", "--hard", "--format", "nifti", "--out", tmp_path / "v")
    ensk("inspect", tmp_path / "v", "--json")
    shown = capsys.readouterr().out
    assert "9.99992 x 1.36719 x 1.36719 mm, axes x, y, z to LIA" in shown
    for sample in ("SC-HF-I-1", "SC-HF-I-2", "SC-HF-I-5"):
        assert (array_of(tmp_path / "v" / f"{sample}.nii.gz") == array_of(HEART / f"{sample}.nii.gz")).all()
    ensk(
        "convert",
        tmp_path / "a",
        "--drop-geometry",
        "--format",
        "nifti",
        "--spacing",
        "8x1.4x1.4",
        "--out",
        tmp_path / "s",
    )
    assert nibabel.load(tmp_path / "s" / "SC-HF-I-1.nii.gz").header.get_zooms() == pytest.approx((1.4, 1.4, 8))


def store_of(path: Path, member: str, affine: np.ndarray | None = OBLIQUE, shape: tuple[int, ...] = (4, 5, 6)) -> Path:
    geometry = None if affine is None else Geometry.of(affine)
    with ek.LogitWriter(path, ["x", "y"], ["a"], grid=None, activation="sigmoid", member=member) as out:
        logits = np.stack([np.where(labels_of(shape) == k, 3.0, -3.0) for k in (1, 2)]).astype(np.float32)
        out.write("a", logits, image_size=shape, geometry=geometry)
    return path


def test_members_of_volumes_have_one_geometry(tmp_path: Path) -> None:
    a, unknown = store_of(tmp_path / "a.zarr", "a"), store_of(tmp_path / "n.zarr", "n", None)
    near = store_of(tmp_path / "b.zarr", "b", OBLIQUE + 1e-5)
    masks = ek.Ensemble([unknown, a, near]).inputs.extent(("a",), ("x", "y"))
    assert masks.geometry["a"].is_near(Geometry.of(OBLIQUE), (4, 5, 6))
    for apart, affine in AFFINES.items():
        other = store_of(tmp_path / f"{apart}.zarr", apart, affine)
        with refused(
            ek.MismatchError, "geometry-differs", f"its {apart}", "in 'a'", f"in '{apart}'", "image_reader_writer"
        ):
            ek.Ensemble([a, other])
    with refused(ek.MismatchError, "image-size-differs", "4 x 5 x 6 in 'a'", "5 x 4 x 6 in 'z'", "mm, axes"):
        ek.Ensemble([a, store_of(tmp_path / "z.zarr", "z", shape=(5, 4, 6))])
    with ek.LogitWriter(
        tmp_path / "flat.zarr", ["x", "y"], ["a"], grid=(5, 6), activation="sigmoid", member="flat"
    ) as out:
        out.write("a", np.full((2, 5, 6), 3.0, np.float32), image_size=(5, 6))
    with refused(ek.MismatchError, "ranks-differ", "volumes (z, y, x) in 'a'", "images (y, x) in 'flat'"):
        ek.Ensemble([a, tmp_path / "flat.zarr"])


def test_members_whose_geometry_is_not_known_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, unknown = store_of(tmp_path / "a.zarr", "a"), store_of(tmp_path / "n.zarr", "n", None)
    ensk("vote", a, unknown, "--out", tmp_path / "v.npz")
    assert "geometries not known, and taken to be those of the other members: n\n" in capsys.readouterr().err
    ensk("vote", unknown, store_of(tmp_path / "o.zarr", "o", None), "--out", tmp_path / "w.npz")
    assert "geometries not known" not in capsys.readouterr().err


def test_the_truth_lies_where_the_stores_do(tmp_path: Path) -> None:
    ensemble = ek.Ensemble([store_of(tmp_path / "a.zarr", "a")])
    truth = masks_of(labels_of(), classes=["no", "x", "y"]).arranged(["a"], ["x", "y"])
    with refused(ek.MismatchError, "geometry-differs", "its axes", "in the truth", "in the ensemble"):
        ek.tune_thresholds(ensemble, truth.with_geometry({"a": Geometry.of(AFFINES["axes"])}))


@pytest.mark.parametrize("like", [False, True], ids=["geometry of the masks", "headers of images"])
def test_parts_of_a_vote_over_volumes_are_the_whole(tmp_path: Path, like: bool) -> None:
    ek.read_masks(HEART, classes=CLASSES).write(tmp_path / "m", format="nrrd")
    words = ["vote", tmp_path / "m", HEART, "--hard", "--format", "nifti"]
    words += ["--like-image", HEART] if like else []
    ensk(*words, "--out", tmp_path / "whole")
    for k in (1, 2):
        ensk(*words, "--out", tmp_path / "parts", "--part", f"{k}/2")
    ensk("merge", tmp_path / "parts", "--out", tmp_path / "parts")
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert files == ["SC-HF-I-1.nii.gz", "SC-HF-I-2.nii.gz", "SC-HF-I-5.nii.gz", "index.json"]
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    if like:
        image = nibabel.load(HEART / files[0]).header
        assert nibabel.load(tmp_path / "whole" / files[0]).header == image


def test_members_that_do_not_say_where_they_lie_take_the_geometry_of_others(tmp_path: Path) -> None:
    known = masks_of(labels_of()).with_geometry({"a": Geometry.of(OBLIQUE)})
    other = known.with_geometry({"a": Geometry.of(AFFINES["origin"])})
    for options in ({}, {"by": "label"}, {"fusion": "staple"}):
        assert ek.hard_vote([known.with_geometry({}), known, known], **options).extent.geometry == known.extent.geometry
    with refused(ek.MismatchError, "geometry-differs", "member 3", "its origin"):
        ek.hard_vote([known.with_geometry({}), known, other])


@pytest.mark.parametrize("apart", AFFINES)
def test_the_printed_way_to_one_geometry_leads_there(tmp_path: Path, apart: str) -> None:
    """`ensk score` refuses; what it says, word for word, mends it: masks are turned, or their header is replaced."""
    names = tmp_path / "classes.txt"
    names.write_text("\n".join(CLASSES))
    labels = labels_of()
    save_nifti(tmp_path / "images" / "a.nii.gz", labels * 100.0)
    flipped = labels[:, :, ::-1] if apart == "axes" else labels
    affine = (
        OBLIQUE @ np.array([[-1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
        if apart == "axes"
        else AFFINES[apart]
    )
    save_nifti(tmp_path / "masks" / "a.nii.gz", flipped, affine)
    save_nifti(tmp_path / "truth" / "a.nii.gz", labels)
    with pytest.raises(ek.MismatchError) as caught:
        ensk("score", tmp_path / "masks", "--val", tmp_path / "truth", "--classes", names)
    assert caught.value.code == "geometry-differs"
    words = caught.value.fix.partition("ensk ")[2].replace("MASKS", str(tmp_path / "masks"))
    words = words.replace("--like-image FOLDER", f"--like-image {tmp_path / 'images'}")
    words = words.replace("--out FOLDER", f"--out {tmp_path / 'mended'}")
    ensk(*words.split(), "--classes", names)
    ensk("score", tmp_path / "mended", "--val", tmp_path / "truth", "--classes", names, "--out", tmp_path / "s.json")
    assert '"mean": 1.0' in (tmp_path / "s.json").read_text()
    assert (array_of(tmp_path / "mended" / "a.nii.gz") == labels).all()


@pytest.mark.slow
def test_a_vote_over_stores_is_written_where_their_samples_lie(tmp_path: Path) -> None:
    """A tuned vote of two networks on half the grid: files have the geometry of the stores, or an image's header."""
    truth = ek.read_masks(HEART, classes=CLASSES)
    for k, member in enumerate("ab"):
        with ek.LogitWriter(tmp_path / f"{member}.zarr", CLASSES, truth.samples, None, "softmax", member) as out:
            for sample in truth.samples:
                logits = np.stack([np.where(truth[sample, name].decode(), 4.0, -4.0) for name in CLASSES])[
                    :, :, k::2, ::2
                ]
                size = truth.image_size(sample)
                out.write(sample, logits.astype(np.float32), image_size=size, geometry=truth.geometry(sample))
    stores = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    masks = ek.Ensemble(stores).vote()
    assert masks.extent.geometry == truth.extent.geometry
    ensk("vote", *stores, "--format", "nifti", "--out", tmp_path / "v")
    ensk("vote", *stores, "--format", "nrrd", "--like-image", HEART, "--out", tmp_path / "n")
    ensk("vote", *stores, "--format", "nii", "--like-image", HEART, "--out", tmp_path / "i")
    for sample in truth.samples:
        array, geometry = itk(tmp_path / "v" / f"{sample}.nii.gz")
        assert geometry.is_near(truth.geometry(sample), masks.image_size(sample))
        assert (array == masks.labels(sample)).all()
        assert (itk(tmp_path / "n" / f"{sample}.nrrd")[0] == array).all()
        assert nibabel.load(tmp_path / "i" / f"{sample}.nii").header == nibabel.load(HEART / f"{sample}.nii.gz").header
    assert ek.dice(ek.read_masks(tmp_path / "v"), truth).mean > 0.9
    tuned = ek.tune_thresholds(ek.Ensemble(stores), truth)
    assert ek.Ensemble(stores).vote(tuned).extent.geometry == truth.extent.geometry


def test_images_are_not_compared_with_volumes(tmp_path: Path) -> None:
    volume = masks_of(labels_of())
    flat = masks_of(labels_of()[0])
    with refused(ek.MismatchError, "image-size-differs", "4 x 5 x 6", "5 x 6", "volumes with volumes"):
        ek.dice(flat, volume)


def test_a_vote_without_a_geometry_is_refused_before_work(tmp_path: Path) -> None:
    """By the headers alone; nothing is fused."""
    with ek.LogitWriter(tmp_path / "n.zarr", ["x", "y"], ["a"], grid=None, activation="sigmoid", member="n") as out:
        out.write("a", np.full((2, 2, 2, 3), -3.0, np.float32), image_size=(4, 5, 6))
    save_nifti(tmp_path / "images" / "b.nii.gz", labels_of())
    with refused(ek.UsageError, "geometry-missing", "'a' (4 x 5 x 6)"):
        ensk("vote", tmp_path / "n.zarr", "--format", "nifti", "--out", tmp_path / "v")
    with refused(ek.IncompleteError, "like-image-missing", "'a'"):
        ensk(
            "vote",
            tmp_path / "n.zarr",
            "--format",
            "nifti",
            "--out",
            tmp_path / "v",
            "--like-image",
            tmp_path / "images",
        )
    save_nifti(tmp_path / "images" / "a.nii.gz", labels_of((5, 4, 6)))
    with refused(ek.MismatchError, "image-size-differs", "4 x 5 x 6", "5 x 4 x 6"):
        ensk(
            "vote",
            tmp_path / "n.zarr",
            "--format",
            "nifti",
            "--out",
            tmp_path / "v",
            "--like-image",
            tmp_path / "images",
        )
    assert not (tmp_path / "v").exists()


def test_a_truth_in_another_order_of_axes_is_turned_as_the_error_says(tmp_path: Path) -> None:
    """The truth was reoriented, the stores were not: the sizes differ, and the printed command mends it."""
    names = tmp_path / "classes.txt"
    names.write_text("background\nx\ny")
    path = save_nifti(tmp_path / "images" / "a.nii.gz", labels_of())
    (tmp_path / "truth").mkdir()
    turned = nibabel.load(path).as_reoriented(np.array([[2, 1], [0, -1], [1, 1]]))
    nibabel.save(turned, tmp_path / "truth" / "a.nii.gz")
    store_of(tmp_path / "a.zarr", "a")
    words = ["tune-thresholds", tmp_path / "a.zarr", "--classes", names, "--only", "x,y", "--folds", "0"]
    with pytest.raises(ek.MismatchError) as caught:
        ensk(*words, "--out", tmp_path / "s.json", "--val", tmp_path / "truth")
    assert caught.value.code == "image-size-differs"
    fix = caught.value.fix.rpartition("ensk ")[2].replace("TRUTH", str(tmp_path / "truth"))
    fix = fix.replace("IMAGES", str(tmp_path / "images")).replace("FOLDER", str(tmp_path / "mended"))
    ensk(*fix.split(), "--classes", names)
    assert (array_of(tmp_path / "mended" / "a.nii.gz") == labels_of()).all()


def test_axes_at_another_origin_are_not_turned_in_circles(tmp_path: Path) -> None:
    """Flipped about the wrong voxel, as nibabel 5.3's `slicer[::-1]` does: turning does not help, and is not said to."""
    labels, names = labels_of(), tmp_path / "classes.txt"
    names.write_text("\n".join(CLASSES))
    save_nifti(tmp_path / "truth" / "a.nii.gz", labels)
    save_nifti(tmp_path / "masks" / "a.nii.gz", labels, OBLIQUE @ np.diag([-1.0, 1, 1, 1]))
    like = ("--like-image", tmp_path / "truth", "--out", tmp_path / "mended")
    for command in (
        ("score", tmp_path / "masks", "--val", tmp_path / "truth", "--classes", names),
        ("convert", tmp_path / "masks", "--classes", names, *like),
    ):
        with pytest.raises(ek.MismatchError, match="its axes") as caught:
            ensk(*command)
        assert "--drop-geometry" in caught.value.fix and caught.value.code == "geometry-differs"
    ensk("convert", tmp_path / "masks", "--classes", names, "--drop-geometry", *like)
    assert (array_of(tmp_path / "mended" / "a.nii.gz") == labels).all()


def test_a_truth_that_was_reoriented_is_turned_as_score_says(tmp_path: Path) -> None:
    labels, names = labels_of(), tmp_path / "classes.txt"
    names.write_text("\n".join(CLASSES))
    image = nibabel.load(save_nifti(tmp_path / "masks" / "a.nii.gz", labels))
    swap = nibabel.orientations.axcodes2ornt("PSR")
    steps = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), swap)
    (tmp_path / "truth").mkdir()
    nibabel.save(image.as_reoriented(steps), tmp_path / "truth" / "a.nii.gz")
    with refused(ek.MismatchError, "image-size-differs", "ensk convert MASKS --like-image FOLDER --out FOLDER"):
        ensk("score", tmp_path / "masks", "--val", tmp_path / "truth", "--classes", names)
    like = ("--like-image", tmp_path / "masks", "--out", tmp_path / "turned")
    ensk("convert", tmp_path / "truth", "--classes", names, *like)
    assert (array_of(tmp_path / "turned" / "a.nii.gz") == labels).all()
