"""Folders of probabilities as nnU-Net exports them, made here; nnU-Net's own are in examples/volumes."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from ensemble_kit.cli.app import app
from ensemble_kit.errors import EnskError
from ensemble_kit.logits.store import LogitStore

LABELS = {"background": 0, "organ": 1, "tumour": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
AFFINE = np.array([[-0.9, 0, 0, 30], [0, 0.9, 0, -20], [0, 0, 4, 10], [0, 0, 0, 1.0]])
SIZE = (6, 20, 24)


class Bomb:
    """What a hostile .pkl holds: unpickling it fails the test."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was opened",)


def softmax(seed: int, classes: int = 3, size: tuple[int, ...] = SIZE) -> np.ndarray:
    e = np.exp(np.random.default_rng(seed).normal(0, 3, (classes, *size)))
    return (e / e.sum(0)).astype(np.float32)


def narrow(values: np.ndarray) -> np.ndarray:
    """Round as the writer does: logits of probabilities pass through float32."""
    return values.astype(np.float32).astype(np.float16)


def described(folder: Path, labels: dict[str, Any], ending: str = ".nii.gz", reader: str = "SimpleITKIO") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    about = {"labels": labels, "file_ending": ending}
    about |= {"regions_class_order": [1, 2]} if labels is REGIONS else {}
    (folder / "dataset.json").write_text(json.dumps(about))
    (folder / "plans.json").write_text(json.dumps({"image_reader_writer": reader}))
    return folder


def exported(folder: Path, cases: dict[str, np.ndarray], affine: np.ndarray = AFFINE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for case, p in cases.items():
        np.savez_compressed(folder / f"{case}.npz", probabilities=p)
        nibabel.save(nibabel.Nifti1Image(p.argmax(0).astype(np.uint8).T, affine), folder / f"{case}.nii.gz")
        (folder / f"{case}.pkl").write_bytes(pickle.dumps(Bomb()))
    return folder


def dump(*arguments: object) -> tuple[int, str]:
    """Run the command in this process; return its exit code, and what it says or the error that it ends with."""
    done = CliRunner().invoke(app, ["dump-logits", *map(str, arguments)])
    if isinstance(done.exception, EnskError):
        return done.exception.exit_code, f"error[{done.exception.code}] {done.exception}"
    return done.exit_code, done.output


def test_probabilities_become_logits_with_the_answers_geometry(tmp_path: Path) -> None:
    cases = {"a": softmax(0), "b": softmax(1, size=(9, 14, 10))}
    folder = exported(described(tmp_path / "answers", LABELS), cases)
    code, told = dump(f"nnunet:{folder}", "--out", tmp_path / "net.zarr")
    assert code == 0, told
    store = LogitStore(tmp_path / "net.zarr")
    assert store.classes == tuple(LABELS) and store.activation == "softmax" and store.samples == ("a", "b")
    for sample, p in cases.items():
        assert np.array_equal(store.read(sample), narrow(np.log(p.astype(np.float64))))
        assert store.image_size(sample) == p.shape[1:]
        geometry = store.geometry(sample)
        assert geometry is not None and np.allclose(geometry.ras, AFFINE)


def test_regions_are_sigmoid_and_the_paint_is_told(tmp_path: Path) -> None:
    p = np.random.default_rng(0).random((2, *SIZE)).astype(np.float32)
    folder = exported(described(tmp_path / "answers", REGIONS), {"a": p})
    code, told = dump(f"nnunet:{folder}", "--out", tmp_path / "net.zarr")
    assert code == 0 and "--paint whole=1,core=2" in told
    store, exact = LogitStore(tmp_path / "net.zarr"), p.astype(np.float64)
    assert store.activation == "sigmoid" and store.classes == ("whole", "core")
    assert np.array_equal(store.read("a"), narrow(np.log(exact) - np.log1p(-exact)))
    assert "--paint whole=1,core=2" in CliRunner().invoke(app, ["inspect", str(tmp_path / "net.zarr")]).output


def test_validation_cases_of_all_folds_are_one_store(tmp_path: Path) -> None:
    model = described(tmp_path / "Trainer__plans__3d_fullres", LABELS)
    for fold, cases in enumerate(("ac", "b")):
        exported(model / f"fold_{fold}" / "validation", {c: softmax(ord(c)) for c in cases})
    assert dump(f"nnunet:{model}", "--out", tmp_path / "oof.zarr")[0] == 0
    store = LogitStore(tmp_path / "oof.zarr")
    assert store.samples == ("a", "b", "c") and store.member == "Trainer__plans__3d_fullres"
    assert dump(f"nnunet:{model}", "--fold", 1, "--out", tmp_path / "one.zarr")[0] == 0
    assert LogitStore(tmp_path / "one.zarr").samples == ("b",)
    assert dump(f"nnunet:{model / 'fold_0' / 'validation'}", "--out", tmp_path / "two.zarr")[0] == 0
    assert LogitStore(tmp_path / "two.zarr").samples == ("a", "c")


def test_natural_images_have_two_axes(tmp_path: Path) -> None:
    folder = described(tmp_path / "answers", LABELS, ".png", "NaturalImage2DIO")
    p = softmax(5, size=(1, 30, 40))
    np.savez_compressed(folder / "a.npz", probabilities=p)
    assert dump(f"nnunet:{folder}", "--out", tmp_path / "net.zarr")[0] == 0
    store = LogitStore(tmp_path / "net.zarr")
    assert store.rank == 2 and store.samples == ("a.png",) and store.image_size("a.png") == (30, 40)
    assert np.array_equal(store.read("a.png"), narrow(np.log(p[:, 0].astype(np.float64))))


def test_a_store_is_resumed_and_a_changed_case_is_seen(tmp_path: Path) -> None:
    folder = exported(described(tmp_path / "answers", LABELS), {"a": softmax(0), "b": softmax(1)})
    arguments = [f"nnunet:{folder}", "--out", tmp_path / "net.zarr"]
    assert dump(*arguments)[0] == 0
    assert "all 2 samples are there already" in dump(*arguments)[1]
    exported(folder, {"b": softmax(7)})
    code, told = dump(*arguments)
    assert code == 6 and "error[image-changed]" in told
    assert dump(*arguments, "--redo")[0] == 0
    assert np.array_equal(LogitStore(tmp_path / "net.zarr").read("b"), narrow(np.log(softmax(7).astype(float))))


@pytest.mark.parametrize("part", [0.5, 0.9], ids=["in the middle", "of the last class"])
def test_a_damaged_case_is_named_and_the_others_are_committed(tmp_path: Path, part: float) -> None:
    folder = exported(described(tmp_path / "answers", LABELS), {"a": softmax(0), "b": softmax(1)})
    file = folder / "a.npz"
    whole = file.read_bytes()
    at = int(len(whole) * part)
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    code, told = dump(f"nnunet:{folder}", "--out", tmp_path / "net.zarr")
    assert code == 3 and "a.npz" in told
    assert LogitStore(tmp_path / "net.zarr").missing == ["a"]
    exported(folder, {"a": softmax(0)})
    assert dump(f"nnunet:{folder}", "--out", tmp_path / "net.zarr")[0] == 0


def remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()


def rename_key(folder: Path) -> None:
    np.savez_compressed(folder / "a.npz", softmax=softmax(0))


def with_reader(folder: Path) -> None:
    described(folder, LABELS, reader="NibabelIOWithReorient")


def other_size(folder: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 5, 5), np.uint8), AFFINE), folder / "a.nii.gz")


def not_a_sum(folder: Path) -> None:
    np.savez_compressed(folder / "a.npz", probabilities=np.full((3, *SIZE), 0.9, np.float32))


WRONG = {
    "no answer beside it": (lambda f: remove(f, "*.nii.gz"), 4, "nnunet-answer"),
    "no dataset.json": (lambda f: remove(f, "dataset.json"), 4, "nnunet-folder"),
    "no probabilities": (lambda f: remove(f, "*.npz"), 4, "nnunet-folder"),
    "version 1": (rename_key, 3, "nnunet-version"),
    "another number of classes": (lambda f: described(f, {"background": 0, "organ": 1}), 6, "nnunet-classes"),
    "an answer of another size": (other_size, 6, "nnunet-turned"),
    "arrays that were reoriented": (with_reader, 6, "nnunet-turned"),
    "classes that do not add up": (not_a_sum, 3, "probabilities-sum"),
}


@pytest.mark.parametrize(("spoil", "exit_code", "code"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_taken_is_refused(spoil: Any, exit_code: int, code: str, tmp_path: Path) -> None:
    folder = exported(described(tmp_path / "answers", LABELS), {"a": softmax(0)})
    spoil(folder)
    found, told = dump(f"nnunet:{folder}", "--out", tmp_path / "net.zarr")
    assert found == exit_code
    assert f"error[{code}]" in told or code in {"nnunet-version", "probabilities-sum"}


def test_a_case_in_two_folds_is_refused(tmp_path: Path) -> None:
    model = described(tmp_path / "model", LABELS)
    for fold in ("0", "all"):
        exported(model / f"fold_{fold}" / "validation", {"a": softmax(0)})
    code, told = dump(f"nnunet:{model}", "--out", tmp_path / "net.zarr")
    assert code == 6 and "error[nnunet-case-twice]" in told and "fold_0" in told and "fold_all" in told
    assert dump(f"nnunet:{model}", "--fold", "all", "--out", tmp_path / "net.zarr")[0] == 0


IDLE: dict[str, Iterable[object]] = {
    "--size": ["--size", 64],
    "--tta": ["--tta", "hflip"],
    "--activation": ["--activation", "softmax"],
}


@pytest.mark.parametrize("options", IDLE.values(), ids=IDLE)
def test_options_that_say_nothing_are_refused(options: Iterable[object], tmp_path: Path) -> None:
    folder = exported(described(tmp_path / "answers", LABELS), {"a": softmax(0)})
    code, told = dump(f"nnunet:{folder}", "--out", tmp_path / "net.zarr", *options)
    assert code == 2 and "error[option-idle]" in told


def test_a_model_without_images_or_classes_is_refused(tmp_path: Path) -> None:
    code, told = dump("nets:unet", "--out", tmp_path / "net.zarr")
    assert code == 2 and "--images and --classes are needed" in told
    code, told = dump(
        "nets:unet", "--out", tmp_path / "net.zarr", "--images", tmp_path, "--classes", tmp_path, "--fold", 1
    )
    assert code == 2 and "--fold without nnunet:FOLDER" in told


def test_answers_without_probabilities_are_named_and_a_store_a_fold_refused(tmp_path: Path) -> None:
    folder = exported(described(tmp_path / "answers", LABELS), {"a": softmax(0), "b": softmax(1)})
    code, told = dump(f"nnunet:{folder}", "--out", tmp_path / "net_{fold}.zarr")
    assert code == 2 and "nnunet-folds" in told and "leave {fold} out" in told
    code, told = dump(f"nnunet:{folder}", "--out", tmp_path / "both.zarr")
    assert code == 0 and "left out" not in told
    (folder / "b.npz").unlink()
    code, told = dump(f"nnunet:{folder}", "--out", tmp_path / "net.zarr")
    assert code == 0 and "1 of the answers have no probabilities beside them and are left out: 'b.nii.gz'" in told
    assert LogitStore(tmp_path / "net.zarr").samples == ("a",)
