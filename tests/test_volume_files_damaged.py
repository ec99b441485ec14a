"""Files of volumes that are cut, hostile or something else: each is refused with its name, before memory is taken."""

from __future__ import annotations

import builtins
import gzip
import re
import struct
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - as everybody calls it
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ensemble_kit as ek
from trying import ensk, put, refused
from volumes import CLASSES, CORD, HEART, OBLIQUE, labels_of, save_nifti

HEADER = 348


def plain(path: Path) -> bytes:
    """A NIfTI of 4 x 5 x 6 voxels, not compressed."""
    return save_nifti(path / "plain" / "a.nii", labels_of()).read_bytes()


def changed(raw: bytes, offset: int, kind: str, *values: float) -> bytes:
    packed = struct.pack("<" + kind, *values)
    return raw[:offset] + packed + raw[offset + len(packed) :]


FIELDS: dict[str, tuple[int, str, tuple[float, ...], str, str]] = {
    "negative size": (42, "h", (-6,), "volume-invalid", "dimensions"),
    "size of 0": (44, "h", (0,), "volume-invalid", "dimensions"),
    "no axis z": (40, "h", (2,), "volume-axes", "no axis z"),
    "no axis": (40, "h", (0,), "volume-invalid", ""),
    "nine axes": (40, "h", (9,), "volume-invalid", ""),
    "huge sizes": (42, "hhh", (32767, 32767, 32767), "image-too-large", "declares"),
    "more slices than it has": (46, "h", (30000,), "volume-invalid", "the file has 120"),
    "times and vectors": (40, "hhhhhh", (5, 6, 5, 1, 2, 2), "volume-axes", "more than one axis"),
    "an unknown type": (70, "h", (77,), "volume-invalid", "type of voxels"),
    "colours": (70, "hh", (128, 24), "volume-soft", "R"),
    "complex numbers": (70, "hh", (32, 64), "volume-soft", "complex64"),
    "voxels in the header": (108, "f", (12.0,), "volume-invalid", "voxels begin at 12"),
    "voxels at no byte": (108, "f", (np.nan,), "volume-invalid", "voxels begin"),
    "voxels far behind": (108, "f", (1e30,), "volume-invalid", "voxels begin"),
    "an affine of NaN": (280, "f", (np.nan,), "affine-invalid", "sform"),
    "an affine of zeros": (280, "ffffffffffff", (0.0,) * 12, "affine-invalid", "sform"),
    "a pair of files": (344, "4s", (b"ni1\0",), "format-unread", "pair"),
    "another magic": (344, "4s", (b"xyz\0",), "volume-invalid", "not NIfTI"),
}


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("packed", [False, True], ids=["nii", "nii.gz"])
def test_a_header_that_cannot_be_is_refused_with_its_file(tmp_path: Path, name: str, packed: bool) -> None:
    offset, kind, values, code, word = FIELDS[name]
    raw = changed(plain(tmp_path), offset, kind, *values)
    path = put(tmp_path / "m" / f"a.nii{'.gz' if packed else ''}", gzip.compress(raw) if packed else raw)
    tracemalloc.start()
    with pytest.raises(ek.EnskError) as caught:
        ek.read_masks(path, classes=CLASSES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (caught.value.code, str(path) in str(caught.value)) == (code, True), caught.value
    assert word in str(caught.value) or (packed and name == "more slices than it has")
    assert peak < 2**26


@pytest.mark.parametrize("keep", [0, 2, 10, 100, -1, -9])
def test_a_cut_file_is_named(tmp_path: Path, keep: int) -> None:
    packed = gzip.compress(plain(tmp_path))
    path = put(tmp_path / "m" / "a.nii.gz", packed[:keep])
    with refused(ek.DamagedError, "volume-invalid", str(path)):
        ek.read_masks(tmp_path / "m", classes=CLASSES)
    real = (HEART / "SC-HF-I-2.nii.gz").read_bytes()
    put(path, real[: len(real) // 2])
    with refused(ek.DamagedError, "volume-invalid", str(path), "damaged or cut"):
        ek.read_masks(tmp_path / "m", classes=CLASSES)


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
@pytest.mark.parametrize("packed", [False, True], ids=["raw", "packed"])
@pytest.mark.parametrize("lost", [1, 40])
def test_a_cut_file_of_another_format_is_named(tmp_path: Path, suffix: str, packed: bool, lost: int) -> None:
    path = tmp_path / f"a.{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(labels_of((6, 16, 16))), str(path), useCompression=packed)
    raw = path.read_bytes()
    path.write_bytes(raw[:-lost])
    with refused(ek.DamagedError, "volume-invalid", str(path)):
        ek.read_masks(path, classes=CLASSES)


def test_a_flipped_bit_of_compressed_voxels_is_noticed(tmp_path: Path) -> None:
    raw = bytearray((CORD / "labels" / "mt1.nii.gz").read_bytes())
    raw[-6] ^= 1  # of the checksum
    path = put(tmp_path / "a.nii.gz", bytes(raw))
    with refused(ek.DamagedError, "volume-invalid", "damaged or cut"):
        ek.read_masks(path, classes=["a", "b"], first_value=1)


TEXTS: dict[str, tuple[str, bytes, str, str]] = {
    "an NRRD without sizes": ("a.nrrd", b"NRRD0004\ntype: uint8\ndimension: 3\nencoding: raw\n\n", "volume-invalid", "sizes"),
    "an NRRD of another program": ("a.nrrd", b"hello", "volume-invalid", "not NRRD"),
    "an NRRD whose header breaks off": ("a.nrrd", b"NRRD0004\ntype", "volume-invalid", "header is invalid"),
    "an NRRD of blocks": ("a.nrrd", b"NRRD0004\ntype: block\ndimension: 3\nsizes: 1 1 1\nencoding: raw\n\nx", "volume-invalid", "block"),
    "an NRRD of text": ("a.nrrd", b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 1 1 1\nencoding: ascii\n\n1", "format-unread", "ascii"),
    "an NRRD of two axes": ("a.nrrd", b"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 2 2\nencoding: raw\n\nxxxx", "volume-axes", "2 x 2"),
    "an NRRD of four axes that says of none what it is": (
        "a.nrrd", b"NRRD0004\ntype: uint8\ndimension: 4\nsizes: 1 1 1 2\nencoding: raw\n\nxx", "volume-axes", "does not say",
    ),
    "an NRRD with its voxels elsewhere": (
        "a.nhdr", b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 1 1 1\nencoding: raw\ndata file: ../../etc/passwd\n", "path-outside", "leaves the folder",
    ),
    "an NRRD with its voxels gone": (
        "a.nhdr", b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 1 1 1\nencoding: raw\ndata file: a.raw\n", "volume-invalid", "not there",
    ),
    "a MetaImage of another program": ("a.mha", b"hello", "volume-invalid", "not MetaImage"),
    "a MetaImage of two axes": ("a.mha", b"NDims = 2\nDimSize = 1 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\nx", "volume-axes", "2 axes"),
    "a MetaImage of a size that is none": (
        "a.mha", b"NDims = 3\nDimSize = 1 nan 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\nx", "volume-invalid", "DimSize",
    ),
    "a MetaImage of negative size": (
        "a.mha", b"NDims = 3\nDimSize = 1 -1 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\nx", "volume-invalid", "declares",
    ),
    "a MetaImage that is larger than its file": (
        "a.mha", b"NDims = 3\nDimSize = 9 9 9\nElementType = MET_UCHAR\nElementDataFile = LOCAL\nx", "volume-invalid", "729",
    ),
    "a MetaImage whose directions are none": (
        "a.mha", b"NDims = 3\nDimSize = 1 1 1\nTransformMatrix = 0 0 0 0 0 0 0 0 0\nElementType = MET_UCHAR\nElementDataFile = LOCAL\nx", "affine-invalid", "a.mha",
    ),
    "a MetaImage with its voxels elsewhere": (
        "a.mhd", b"NDims = 3\nDimSize = 1 1 1\nElementType = MET_UCHAR\nElementDataFile = /etc/passwd\n", "path-outside", "leaves the folder",
    ),
    "a NIfTI that is something else": ("a.nii", b"\x7fELF and so on", "volume-invalid", "not NIfTI"),
    "a NIfTI that is empty": ("a.nii.gz", b"", "volume-invalid", "not NIfTI"),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_what_no_reader_can_read_says_why(tmp_path: Path, name: str) -> None:
    file, raw, code, word = TEXTS[name]
    path = put(tmp_path / file, raw)
    with pytest.raises(ek.EnskError) as caught:
        ek.read_masks(path, classes=CLASSES)
    assert (caught.value.code, word in str(caught.value)) == (code, True), caught.value


@pytest.mark.parametrize(
    ("value", "code", "word"),
    [(0.5, "volume-soft", "0.5"), (np.nan, "volume-soft", "nan"), (-1.0, "label-map-invalid", "-1"), (7e4, "label-map-invalid", "70000"), (3.0, "label-values", "3 (1 pixel)")],
    ids=["soft", "NaN", "negative", "too large", "unnamed"],
)  # fmt: skip
def test_a_value_that_is_no_label_is_named(tmp_path: Path, value: float, code: str, word: str) -> None:
    labels = labels_of().astype(np.float32)
    labels[1, 2, 3] = value
    path = save_nifti(tmp_path / "a.nii.gz", labels)
    with pytest.raises(ek.EnskError) as caught:
        ek.read_masks(path, classes=CLASSES)
    assert (caught.value.code, word in str(caught.value), str(path) in str(caught.value)) == (code, True, True)


def test_classes_of_a_sample_on_two_grids_are_refused(tmp_path: Path) -> None:
    labels = labels_of(classes=2)
    save_nifti(tmp_path / "m" / "s" / "a.nii.gz", labels)
    save_nifti(tmp_path / "m" / "s" / "b.nii.gz", labels, OBLIQUE @ np.diag([1, 1, 2, 1]))
    with refused(ek.MismatchError, "geometry-differs", "their spacing", "a.nii.gz", "b.nii.gz"):
        ek.read_masks(tmp_path / "m")
    save_nifti(tmp_path / "m" / "s" / "b.nii.gz", labels_of((3, 5, 6), 2))
    with refused(ek.MismatchError, "image-size-differs", "4 x 5 x 6", "3 x 5 x 6"):
        ek.read_masks(tmp_path / "m")


def test_images_that_are_taken_for_classes_are_refused(tmp_path: Path) -> None:
    """A folder of `images` and `labels` looks like two samples."""
    for k, folder in enumerate(("images", "labels")):
        save_nifti(tmp_path / "d" / folder / "case.nii.gz", labels_of() * (40 if k == 0 else 1))
    with refused(ek.DamagedError, "mask-values", "images/case.nii.gz", "pass that folder"):
        ek.read_masks(tmp_path / "d")
    assert ek.read_masks(tmp_path / "d" / "labels", classes=CLASSES).samples == ("case",)


def test_two_files_of_one_sample_are_refused(tmp_path: Path) -> None:
    save_nifti(tmp_path / "a.nii.gz", labels_of())
    save_nifti(tmp_path / "a.nii", labels_of())
    with refused(ek.DamagedError, "folder-mixed", "a.nii.gz", "a.nii"):
        ek.read_masks(tmp_path, classes=CLASSES)


def test_a_folder_that_lost_a_file_says_so(tmp_path: Path) -> None:
    ek.read_masks(HEART, classes=CLASSES).write(tmp_path / "x", format="nifti")
    (tmp_path / "x" / "SC-HF-I-2.nii.gz").unlink()
    with refused(ek.IncompleteError, "files-missing", "SC-HF-I-2.nii.gz"):
        ek.read_masks(tmp_path / "x")


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", labels_of())
    found = builtins.__import__

    def missing(name: str, *rest: object) -> object:
        if name in {"nibabel", "nrrd"}:
            raise ImportError(name)
        return found(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", missing)
    with refused(ek.UsageError, "extra-missing", "nibabel", 'pip install "ensemble_kit[volumes]"'):
        ek.read_masks(path, classes=CLASSES)
    put(tmp_path / "b.nrrd", b"NRRD0004\n")
    with refused(ek.UsageError, "extra-missing", "pynrrd", 'pip install "ensemble_kit[volumes]"'):
        ek.read_masks(tmp_path / "b.nrrd", classes=CLASSES)


def test_commands_end_with_the_codes_of_their_errors(tmp_path: Path) -> None:
    path = put(tmp_path / "a.nii.gz", gzip.compress(plain(tmp_path))[:-20])
    with refused(ek.DamagedError, "volume-invalid", str(path)):
        ensk("inspect", path)
    with refused(ek.UsageError, "option-invalid", "--spacing '5x1'", "z, y, x"):
        ensk("convert", HEART, "--format", "nifti", "--out", tmp_path / "x", "--spacing", "5x1")
    with refused(ek.UsageError, "option-idle", "--like-image", "png"):
        ensk("convert", HEART, "--format", "png", "--out", tmp_path / "x", "--like-image", HEART)


@given(st.lists(st.tuples(st.integers(0, HEADER + 3), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_header_is_read_or_refused(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    raw = bytearray(plain(tmp_path))
    for offset, value in flips:
        raw[offset] = value
    path = put(tmp_path / "a.nii", bytes(raw))
    try:
        masks = ek.read_masks(path, classes=CLASSES)
    except ek.EnskError as error:
        assert str(path) in str(error)
    else:
        assert masks.samples == ("a",)


@pytest.mark.parametrize(
    ("name", "code"),
    [("../b.raw", "path-outside"), ("b\0.raw", "path-outside"), ("b" * 300, "volume-invalid")],
    ids=["another folder", "NUL", "no name of a file"],
)
def test_voxels_beside_a_header_are_in_its_folder(tmp_path: Path, name: str, code: str) -> None:
    path = tmp_path / "a.mhd"
    sitk.WriteImage(sitk.GetImageFromArray(labels_of()), str(path))
    path.write_text(path.read_text().replace("a.raw", name))
    with pytest.raises(ek.EnskError, match=re.escape(str(path))) as caught:
        ek.read_masks(path, classes=CLASSES)
    assert caught.value.code == code


def test_a_signalling_nan_in_an_affine(tmp_path: Path) -> None:
    save_nifti(tmp_path / "a.nii", labels_of())
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[280:284] = bytes([1, 0, 160, 127])  # the first number of srow_x
    (tmp_path / "a.nii").write_bytes(bytes(raw))
    with pytest.raises(ek.EnskError, match=r"a\.nii") as caught:
        ek.read_masks(tmp_path / "a.nii", classes=CLASSES)
    assert caught.value.code == "affine-invalid"


@given(st.data(), st.sampled_from(["nrrd", "mha"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_header_is_read_or_refused(tmp_path: Path, data: st.DataObject, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if not (kept := tmp_path / f"kept.{suffix}").exists():
        sitk.WriteImage(sitk.GetImageFromArray(labels_of()), str(kept))
    raw = bytearray(kept.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 121))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    path.write_bytes(bytes(raw))
    try:
        masks = ek.read_masks(path, classes=CLASSES)
    except ek.EnskError as error:
        assert f"a.{suffix}" in str(error)
    else:
        assert masks.samples == ("a",)


@pytest.mark.slow
def test_a_large_volume_is_read_and_written_in_the_memory_of_slices(tmp_path: Path) -> None:
    """160 x 512 x 512 voxels, 42 MB as bytes and 168 MB as int32: reading took 5 MB, and writing 1.5."""
    path = tmp_path / "a.nii.gz"
    image = nibabel.Nifti1Image(np.zeros((512, 512, 160), np.int32), np.diag([1, 1, 2.0, 1]))
    image.dataobj[100:300, 100:300, 20:100] = 1
    nibabel.save(image, path)
    del image
    ek.read_masks(HEART, classes=CLASSES).write(tmp_path / "kernels", format="nifti")  # which are compiled
    tracemalloc.start()
    masks = ek.read_masks(path, classes=["background", "x"])
    masks.write(tmp_path / "b.nii.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert masks["a", "x"].area == 200 * 200 * 80
    assert peak < 24 << 20, peak  # 16 are for Python's table of interned strings, which other tests fill


@pytest.mark.parametrize(("file", "code"), [("a.txt", "volume-invalid"), ("../a.nii.gz", "path-outside"), (None, "files-missing")])  # fmt: skip
def test_an_index_that_names_no_volume_is_refused(tmp_path: Path, file: str | None, code: str) -> None:
    samples = [] if file is None else [{"id": "a", "file": file, "depth": 4, "height": 5, "width": 6}]
    classes = [{"name": name, "folder": "", "value": k} for k, name in enumerate(CLASSES)]
    put(
        tmp_path / "m" / "index.json",
        {"format": "ensk.masks/1", "kind": "nifti", "classes": classes, "samples": samples},
    )
    put(tmp_path / "m" / "a.txt", "x")
    with pytest.raises(ek.EnskError) as caught:
        ek.read_masks(tmp_path / "m")
    assert caught.value.code == code, caught.value
