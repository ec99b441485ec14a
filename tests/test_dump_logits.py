"""The whole of dump-logits: from a folder of images and a network to a store, in this process and in real ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import exported
import warm
from ensemble_kit import dumping
from ensemble_kit.dumping import dump_logits
from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.dumping.recipe import Recipe
from ensemble_kit.errors import (
    DamagedError,
    IncompleteError,
    MismatchError,
    ResourceError,
    UnsafeError,
    UsageError,
)
from ensemble_kit.execution.events import Progress
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.logits.writer import LogitWriter

CLASSES = ("red", "green", "blue")
SHIFT = Preprocess(mean=(0.5, 0.5, 0.5))  # values on both sides of 0, as logits have them


def identity(x: torch.Tensor) -> torch.Tensor:
    return x


def every_4th(x: torch.Tensor) -> torch.Tensor:
    return x[:, :, ::4, ::4]


def smooth(h: int, w: int, seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images of three sizes."""
    images = tmp_path / "images"
    images.mkdir()
    for k, size in enumerate([(32, 32), (32, 20), (18, 32), (32, 32), (32, 20), (18, 32), (32, 32)]):
        Image.fromarray(smooth(*size, k)).save(images / f"im{k}.png")
    return images


def prepared(path: Path, h: int, w: int) -> np.ndarray:
    """The input of an image, as the user's own script would make it."""
    image = cv2.resize(np.asarray(Image.open(path)), (w, h), interpolation=cv2.INTER_LINEAR)
    return (image.astype(np.float32) / 255 - np.float32(0.5)).transpose(2, 0, 1)


def dump(
    folder: Path, out: Path, network: object = identity, recipe: Recipe | None = None, **options: Any
) -> dumping.Dumped:
    recipe = recipe if recipe is not None else Recipe(SHIFT.but(size=32))
    return dump_logits(network, folder, CLASSES, out, recipe, device="cpu", **options)


def contents(path: Path) -> dict[str, tuple[object, ...]]:
    store = LogitStore(path)
    return {s: (store.read(s).tobytes(), store.image_size(s), store.box(s)) for s in store.samples}


# --- what is stored --------------------------------------------------------------------------------------------


def test_an_identity_stores_its_input(folder: Path, tmp_path: Path) -> None:
    done = dump(folder, tmp_path / "a.zarr")
    assert (done.samples, done.written, done.resumed, done.grid) == (7, 7, 0, (32, 32))
    assert done.bytes == 7 * 3 * 32 * 32 * 2
    store = LogitStore(tmp_path / "a.zarr")
    assert store.complete
    assert store.samples == tuple(f"im{k}.png" for k in range(7))
    for sample in store.samples:
        assert np.array_equal(store.read(sample), prepared(folder / sample, 32, 32).astype(np.float16))
    assert store.image_size("im1.png") == (32, 20)
    assert store.box("im1.png") == (0, 0, 32, 32)


def put_back(store: LogitStore, sample: str) -> np.ndarray:
    """Undo the placement: the box, interpolated to the image."""
    y0, x0, y1, x1 = store.box(sample)
    H, W = store.image_size(sample)
    inside = store.read(sample)[:, y0:y1, x0:x1].astype(np.float32)
    return cv2.resize(inside.transpose(1, 2, 0), (W, H), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("anchor", ["center", "corner"])
@pytest.mark.parametrize("network", [identity, every_4th])
def test_letterboxing_is_undone(
    folder: Path, tmp_path: Path, network: Callable[[torch.Tensor], torch.Tensor], anchor: str
) -> None:
    prep = Preprocess((64, 64), "letterbox", mean=(0.5, 0.5, 0.5), anchor=anchor)
    dump(folder, tmp_path / "a.zarr", network, Recipe(prep))
    store = LogitStore(tmp_path / "a.zarr")
    stride = 64 // store.grid[0]
    assert store.box("im0.png") == (0, 0, 64 // stride, 64 // stride)
    assert store.box("im1.png").shape == (64 // stride, 40 // stride)
    assert store.box("im2.png").shape == (36 // stride, 64 // stride)
    if network is identity:
        for sample in store.samples:
            image = np.asarray(Image.open(folder / sample)) / 255 - 0.5
            assert np.abs(put_back(store, sample) - image).max() < 0.05


def test_a_letterbox_of_the_images_own_size_is_exact(folder: Path, tmp_path: Path) -> None:
    dump(folder, tmp_path / "a.zarr", recipe=Recipe(Preprocess((32, 32), "letterbox", mean=(0.5, 0.5, 0.5))))
    store = LogitStore(tmp_path / "a.zarr")
    for sample in store.samples:
        image = (np.asarray(Image.open(folder / sample)) / np.float32(255) - np.float32(0.5)).astype(np.float16)
        assert np.array_equal(put_back(store, sample).astype(np.float16), image)


@pytest.mark.parametrize("tta", [(), ("hflip", "vflip")], ids=["once", "hflip,vflip"])
def test_a_window_slides_over_images_of_any_size(folder: Path, tmp_path: Path, tta: tuple[str, ...]) -> None:
    recipe = Recipe(SHIFT, tile=16, overlap=0.5, tta=tta)
    done = dump(folder, tmp_path / "a.zarr", recipe=recipe)
    store = LogitStore(tmp_path / "a.zarr")
    assert done.grid is store.grid is None
    assert done.bytes == 2 * 3 * sum(32 * 32 if k % 3 == 0 else 32 * 20 if k % 3 == 1 else 18 * 32 for k in range(7))
    for sample in store.samples:
        image = np.asarray(Image.open(folder / sample)) / 255 - 0.5
        assert store.placement(sample).grid == image.shape[:2]
        assert store.box(sample) == (0, 0, *image.shape[:2])
        assert np.abs(put_back(store, sample) - image).max() < 1e-3


@pytest.mark.parametrize("tta", [(), ("hflip", "rot90")], ids=["once", "hflip,rot90"])
@pytest.mark.parametrize("batch", [1, 4])
def test_images_at_their_native_size(folder: Path, tmp_path: Path, batch: int, tta: tuple[str, ...]) -> None:
    def strict(x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2] % 8 == x.shape[3] % 8 == 0
        return x

    prep = SHIFT.but(size="native", divisor=8)
    dump(folder, tmp_path / "a.zarr", strict, Recipe(prep, tta=tta), batch_size=batch)
    store = LogitStore(tmp_path / "a.zarr")
    assert {store.placement(s).grid for s in store.samples} == {(32, 32), (32, 24), (24, 32)}
    for sample in store.samples:
        image = np.asarray(Image.open(folder / sample)) / np.float32(255) - np.float32(0.5)
        assert store.image_size(sample) == store.box(sample).shape == image.shape[:2]
        assert np.abs(put_back(store, sample) - image).max() < 1e-3


def test_a_native_size_with_a_stride(folder: Path, tmp_path: Path) -> None:
    dump(folder, tmp_path / "a.zarr", every_4th, Recipe(SHIFT.but(size="native")))
    store = LogitStore(tmp_path / "a.zarr")
    assert store.grid == (8, 8)  # images of up to 32 are all padded to 32
    assert store.box("im1.png") == (0, 0, 8, 5) and store.box("im2.png") == (0, 0, 5, 8)
    said: list[str] = []
    dump(folder, tmp_path / "b.zarr", every_4th, Recipe(SHIFT.but(size="native", divisor=1)), say=said.append)
    assert any("padded to multiples of 1" in line for line in said)
    assert any("each on a grid of its own, of up to 8 x 8" in line for line in said)
    exported.onnx(nn.Conv2d(3, 3, 1), tmp_path / "net.onnx", (32, 32))
    with pytest.raises(MismatchError, match="each image's own size, the model takes only 32 x 32"):
        dump(folder, tmp_path / "c.zarr", tmp_path / "net.onnx", Recipe(SHIFT.but(size="native")))


def test_parts_agree_on_grids(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(SHIFT.but(size="native", divisor=4))
    dump(folder, tmp_path / "whole.zarr", recipe=recipe)
    for part in ((3, 7), (1, 7), (2, 7), (7, 7), (4, 7), (5, 7), (6, 7)):
        dump(folder, tmp_path / "parts.zarr", recipe=recipe, part=part, member="whole")
    assert contents(tmp_path / "parts.zarr") == contents(tmp_path / "whole.zarr")


def test_windows_do_not_depend_on_the_other_images(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, recipe = nn.Conv2d(3, 3, 5, 2, 2), Recipe(SHIFT, tile=16)
    dump(folder, tmp_path / "all.zarr", net, recipe)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "im1.png").write_bytes((folder / "im1.png").read_bytes())
    dump(alone, tmp_path / "one.zarr", net, recipe)
    both = []
    for name in ("all.zarr", "one.zarr"):
        store = LogitStore(tmp_path / name)
        y0, x0, y1, x1 = store.box("im1.png")
        both.append(store.read("im1.png")[:, y0:y1, x0:x1])
    assert np.allclose(both[0], both[1], atol=1e-3)


def test_a_window_over_resized_images(folder: Path, tmp_path: Path) -> None:
    dump(folder, tmp_path / "a.zarr", every_4th, Recipe(SHIFT.but(size="64x48", resize="letterbox"), tile=32))
    store = LogitStore(tmp_path / "a.zarr")
    assert store.grid == (16, 12)
    assert store.box("im1.png").shape == (16, 10)
    with pytest.raises(MismatchError, match="stride of 4 x 4"):
        dump(folder, tmp_path / "b.zarr", every_4th, Recipe(SHIFT.but(size=50), tile=32))
    with pytest.raises(UsageError, match="--tile 32"):
        dump(folder, tmp_path / "b.zarr", every_4th, Recipe(SHIFT.but(size=16), tile=32))


@pytest.mark.parametrize("tta", [(), ("hflip", "rot90")], ids=["once", "hflip,rot90"])
def test_results_do_not_depend_on_the_batch_size_or_threads(folder: Path, tmp_path: Path, tta: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1)).train()
    recipe = Recipe(SHIFT.but(size=32), tta=tta)
    for batch in (1, 3, 16):
        dump(folder, tmp_path / f"{batch}.zarr", net, recipe, batch_size=batch, jobs=batch)
    stores = [LogitStore(tmp_path / f"{batch}.zarr") for batch in (1, 3, 16)]
    for sample in stores[0].samples:
        for other in stores[1:]:
            assert np.allclose(stores[0].read(sample), other.read(sample), atol=2e-3)


def test_probabilities_become_logits(folder: Path, tmp_path: Path) -> None:
    dump(folder, tmp_path / "a.zarr", lambda x: x.sigmoid(), Recipe(SHIFT.but(size=32), domain="probabilities"))
    store = LogitStore(tmp_path / "a.zarr")
    for sample in store.samples:
        assert np.allclose(store.read(sample), prepared(folder / sample, 32, 32), atol=2e-3)


def test_logits_that_are_probabilities_are_refused_and_can_be_tried_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    with pytest.raises(DamagedError, match=r"every value lies in \[0, 1\]"):
        dump(folder, out, lambda x: x.sigmoid())
    dump(folder, out, lambda x: x.sigmoid(), Recipe(SHIFT.but(size=32), domain="probabilities"))
    assert LogitStore(out).complete


def test_softmax_and_sixteen_bits(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    deep = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(deep).save(images / "x.png")
    dump(images, tmp_path / "a.zarr", recipe=Recipe(SHIFT.but(size=8, channels="grey"), activation="softmax"))
    store = LogitStore(tmp_path / "a.zarr")
    assert store.activation == "softmax"
    assert np.allclose(store.read("x.png")[2], deep / 65535 - 0.5, atol=1e-3)


# --- resuming, sharing, failing --------------------------------------------------------------------------------


def test_parts_make_one_store(folder: Path, tmp_path: Path) -> None:
    dump(folder, tmp_path / "whole.zarr")
    for part in ((2, 3), (1, 3), (3, 3)):
        dump(folder, tmp_path / "parts.zarr", part=part, member="whole")
    assert contents(tmp_path / "parts.zarr") == contents(tmp_path / "whole.zarr")
    for bad in ((0, 2), (3, 2)):
        with pytest.raises(UsageError, match="--part"):
            dump(folder, tmp_path / "parts.zarr", part=bad)
    with pytest.raises(UsageError, match="part 1/2"):
        dump(folder, tmp_path / "parts.zarr", part=(1, 2), force=True)


def test_what_is_there_is_not_done_again(folder: Path, tmp_path: Path) -> None:
    calls = []

    def counting(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return x

    dump(folder, tmp_path / "a.zarr", counting, batch_size=1, part=(1, 2))
    assert sum(calls) == 4
    events: list[Progress] = []
    done = dump(folder, tmp_path / "a.zarr", counting, batch_size=2, listen=events.append)
    assert sum(calls) == 7
    assert (done.written, done.resumed) == (3, 4)
    assert [(e.done, e.new, e.total) for e in events] == [(4, 0, 7), (5, 1, 7), (6, 2, 7), (7, 3, 7)]
    assert events[-1].bytes == 3 * 3 * 32 * 32 * 2
    said: list[str] = []
    done = dump(folder, tmp_path / "a.zarr", counting, say=said.append)
    assert sum(calls) == 7
    assert (done.written, done.resumed) == (0, 7)
    assert "all 7 samples are there" in said[-1]
    dump(folder, tmp_path / "a.zarr", counting, force=True)
    assert sum(calls) == 14


def test_another_recipe_does_not_resume(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    dump(folder, out, part=(1, 2))
    other = Recipe(SHIFT.but(size=32, channels="bgr"))
    with pytest.raises(MismatchError, match="'bgr'") as caught:
        dump(folder, out, recipe=other)
    assert "'rgb'" in caught.value.item
    assert "--force" in caught.value.fix
    with pytest.raises(MismatchError, match=r"model is .*identity.* there, .*every_4th"):
        dump(folder, out, every_4th)
    with pytest.raises(MismatchError, match="classes"):
        dump_logits(identity, folder, ("a", "b", "c"), out, Recipe(SHIFT.but(size=32)), device="cpu")
    (folder / "im6.png").unlink()
    with pytest.raises(MismatchError, match=r"im6\.png"):
        dump(folder, out)
    dump(folder, out, recipe=other, force=True)
    assert LogitStore(out).complete
    with pytest.raises(MismatchError, match="member is 'identity' there, 'b' here"):
        dump(folder, out, recipe=other, member="b")


def test_another_network_of_the_same_name_does_not_resume(folder: Path, tmp_path: Path) -> None:
    """Its weights come from within the callable: only the network itself tells them apart."""
    torch.manual_seed(0)
    first, second = (nn.Conv2d(3, 3, 3, 2, 1) for _ in range(2))
    dump(folder, tmp_path / "a.zarr", first, part=(1, 2))
    digest = LogitStore(tmp_path / "a.zarr").provenance["network_sha256"]
    with pytest.raises(MismatchError, match="network_sha256") as caught:
        dump(folder, tmp_path / "a.zarr", second)
    assert (caught.value.code, caught.value.exit_code) == ("store-differs", 6)
    assert digest[:8] in caught.value.item
    first.load_state_dict(first.state_dict())
    assert dump(folder, tmp_path / "a.zarr", first).resumed == 4


@pytest.mark.slow
def test_a_file_of_code_that_changed_does_not_resume(place: Path) -> None:
    code = "def tiny():\n    return lambda x: x[:, :, ::2, ::2] * {} - 1\n"
    (place / "own.py").write_text(code.format(2))
    assert ensk(place, "own:tiny", "a.zarr", "--size", "32", "--part", "1/2").returncode == 0
    assert ensk(place, "own:tiny", "a.zarr", "--size", "32", "--part", "2/2").returncode == 0
    (place / "own.py").write_text(code.format(3))
    ran = ensk(place, "own:tiny", "a.zarr", "--size", "32")
    assert ran.returncode == 6
    assert "error[store-differs]" in ran.stderr


def test_an_unreadable_image_costs_the_others_nothing(folder: Path, tmp_path: Path) -> None:
    good = (folder / "im3.png").read_bytes()
    (folder / "im0.png").write_bytes(b"")
    (folder / "im3.png").write_bytes(good[: len(good) // 2])
    with pytest.raises(DamagedError) as caught:
        dump(folder, tmp_path / "a.zarr", batch_size=3)
    assert caught.value.code == "images-unreadable"
    assert "im0.png" in str(caught.value)
    assert "im3.png" in str(caught.value)
    assert LogitStore(tmp_path / "a.zarr").missing == ["im0.png", "im3.png"]
    (folder / "im3.png").write_bytes(good)
    (folder / "im0.png").write_bytes(good)
    assert dump(folder, tmp_path / "a.zarr").written == 2
    for k in range(7):
        (folder / f"im{k}.png").write_bytes(b"x")
    with pytest.raises(DamagedError, match="any of 7"):
        dump(folder, tmp_path / "b.zarr")


@pytest.mark.parametrize("batch", [1, 2, 4], ids="batches of {}".format)
def test_a_model_that_fails_names_the_sample(folder: Path, tmp_path: Path, batch: int) -> None:
    bad = torch.from_numpy(prepared(folder / "im4.png", 32, 32))

    def failing(x: torch.Tensor) -> torch.Tensor:
        if any(torch.equal(one, bad) for one in x):
            raise RuntimeError("boom")
        return x

    with pytest.raises(DamagedError, match=r"'im4\.png': RuntimeError: boom"):
        dump(folder, tmp_path / "a.zarr", failing, batch_size=batch)
    assert LogitStore(tmp_path / "a.zarr").missing == ["im4.png", "im5.png", "im6.png"]


def test_a_model_that_cannot_take_batches_runs_one_by_one(folder: Path, tmp_path: Path) -> None:
    def single(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:
            raise ValueError("one at a time")
        return x

    said: list[str] = []
    dump(folder, tmp_path / "a.zarr", single, say=said.append)
    assert LogitStore(tmp_path / "a.zarr").complete
    assert any("one by one" in text for text in said)


def test_nan_is_named_and_earlier_samples_stay(folder: Path, tmp_path: Path) -> None:
    bad = torch.from_numpy(prepared(folder / "im4.png", 32, 32))

    def nan(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([one * float("nan") if torch.equal(one, bad) else one for one in x])

    with pytest.raises(DamagedError, match=r"im4\.png"):
        dump(folder, tmp_path / "a.zarr", nan)
    assert LogitStore(tmp_path / "a.zarr").missing == ["im4.png", "im5.png", "im6.png"]


@pytest.mark.parametrize(
    ("network", "text"),
    [
        (lambda x: x[:, :2], r"\(1, 2, 32, 32\).* 3 classes"),
        (lambda x: x.permute(0, 2, 3, 1), "classes second"),
        (lambda x: x.mean((2, 3)), r"\(1, 3\)"),
        (lambda x: torch.cat([x, x]), r"\(2, 3, 32, 32\) for 1 images"),
    ],
    ids=["a class less", "classes last", "no maps", "two outputs for an image"],
)
def test_outputs_that_do_not_fit_the_classes(
    folder: Path, tmp_path: Path, network: Callable[[torch.Tensor], torch.Tensor], text: str
) -> None:
    with pytest.raises(MismatchError, match=text):
        dump(folder, tmp_path / "a.zarr", network)
    assert not (tmp_path / "a.zarr").exists()


def test_a_plan_is_only_a_plan(folder: Path, tmp_path: Path) -> None:
    done = dump(folder, tmp_path / "a.zarr", dry_run=True)
    assert (done.written, done.bytes, done.grid) == (0, 7 * 3 * 32 * 32 * 2, (32, 32))
    assert not (tmp_path / "a.zarr").exists()


def test_a_disk_that_is_too_small_is_refused_first(folder: Path, tmp_path: Path) -> None:
    def huge(x: torch.Tensor) -> torch.Tensor:  # 28 TB a sample, of which no byte is held
        return x.mean((2, 3), keepdim=True).expand(-1, -1, 2**21, 2**21)

    for dry_run in (True, False):
        with pytest.raises(ResourceError, match="are free"):
            dump(folder, tmp_path / "a.zarr", huge, dry_run=dry_run)
    assert not (tmp_path / "a.zarr").exists()
    assert dump(folder, tmp_path / "a.zarr", huge, dry_run=True, force=True).bytes > 10**14


def test_a_memory_budget_is_kept_or_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="MB allowed") as caught:
        dump(folder, tmp_path / "a.zarr", memory=10_000)
    assert caught.value.code == "memory-budget"
    assert not (tmp_path / "a.zarr").exists()
    assert dump(folder, tmp_path / "a.zarr", memory=500_000, batch_size=2, jobs=2).written == 7


def test_options_that_cannot_be_followed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    for recipe, text in (
        (Recipe(SHIFT), "--size"),
        (Recipe(SHIFT.but(size=32), scale=2.0), "--scale"),
        (Recipe(SHIFT.but(size="32x16"), tta=("rot90",)), "rot90"),
    ):
        with pytest.raises(UsageError, match=text):
            dump(folder, out, recipe=recipe)
    for bad in ({"tta": ("shear",)}, {"overlap": 1.0}, {"tile": 0}, {"domain": "odds"}, {"scale": -1.0}):
        with pytest.raises(UsageError):
            Recipe(SHIFT, **bad)
    with pytest.raises(UsageError, match="'left' and 'right'"):
        dump_logits(identity, folder, ("left", "right", "heart"), out, Recipe(SHIFT.but(size=32), tta=("hflip",)))
    with pytest.raises(UsageError, match="images"):
        dump(tmp_path / "gone", out)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        dump(folder, tmp_path / "file")
    with pytest.raises(UsageError, match="not horizontal"):
        dump(folder, out, recipe=Recipe(SHIFT.but(size=32), tta=("rot90",), swap={"red": "blue"}))
    said: list[str] = []
    dump(folder, out, recipe=Recipe(SHIFT.but(size=32), tta=("hflip",)), dry_run=True, say=said.append)
    assert any("--swap-classes" in text for text in said)


def test_the_store_says_how_it_was_made(folder: Path, tmp_path: Path) -> None:
    net = nn.Conv2d(3, 3, 1)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    recipe = Recipe(SHIFT.but(size=32), tta=("hflip",), swap={"red": "blue"})
    dump(folder, tmp_path / "a.zarr", nn.Conv2d(3, 3, 1), recipe, weights=tmp_path / "w.pt", seed=3, trust=True)
    record = LogitStore(tmp_path / "a.zarr").provenance
    assert record["model"] == "torch.nn.modules.conv:Conv2d"
    assert record["weights"]["file"] == "w.pt"
    assert record["preprocessing"] == recipe.preprocess.to_dict()
    assert record["tta"] == ["hflip"]
    assert record["swap_classes"] == {"red": "blue"}
    assert record["seed"] == 3
    assert {"ensemble_kit", "python", "torch"} <= set(record["versions"])
    assert str(tmp_path) not in json.dumps(dict(record))


def test_files_that_are_no_images_are_counted(folder: Path, tmp_path: Path) -> None:
    for name in ("a.webp", "b.WEBP", "c.gif", "notes", ".hidden.webp"):
        (folder / name).write_bytes(b"x")
    said: list[str] = []
    assert dump(folder, tmp_path / "a.zarr", dry_run=True, say=said.append).samples == 7
    assert any("4 files are ignored: 2 .webp, 1 .gif, 1 without extension" in text for text in said)
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.webp").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"holds no image.*1 file is ignored: 1 \.webp"):
        dump(tmp_path / "only", tmp_path / "b.zarr")


# --- what a writer takes ---------------------------------------------------------------------------------------

IDS = ["a", "b", "c", "d"]


def writer(path: Path, **options: Any) -> LogitWriter:
    return LogitWriter(path, **{"classes": ["x", "y"], "samples": IDS, "grid": (4, 4), **options})


def constant(*values: float) -> np.ndarray:
    return np.stack([np.full((2, 4, 4), v, np.float32) for v in values])


def test_one_value_outside_the_unit_interval_settles_what_a_writer_is_told(tmp_path: Path) -> None:
    with writer(tmp_path / "a.zarr") as out:
        for _ in range(2):
            with pytest.raises(DamagedError, match="probabilities"):
                out.write("a", constant(0.5)[0], (8, 8))
        with pytest.raises(DamagedError, match="probabilities"):
            out.write(["a", "b"], constant(0.5, 0.25), (8, 8))
        with pytest.raises(DamagedError, match="NaN"):
            out.write(["a", "b"], constant(np.nan, 0.25), (8, 8))
        with pytest.raises(DamagedError, match="probabilities"):
            out.write(["a", "b"], constant(0.5, np.nan), (8, 8))
        assert out.missing == IDS
        out.write(["a", "b"], constant(0.5, -3), (8, 8))  # seen together, they are logits
        out.write("c", constant(0.25)[0], (8, 8))
    with writer(tmp_path / "a.zarr") as out:  # what is there was taken for logits
        out.write("d", constant(0.75)[0], (8, 8))
    assert LogitStore(tmp_path / "a.zarr").complete


def test_a_store_of_probabilities_is_not_resumed_as_logits(tmp_path: Path) -> None:
    with writer(tmp_path / "a.zarr", domain="probabilities") as out:
        out.write("a", constant(0.2)[0], (8, 8))
    with pytest.raises(MismatchError, match="'probabilities' there, 'logits' here"):
        writer(tmp_path / "a.zarr")


@pytest.mark.parametrize(("values", "total"), [((0.5, 0.6), "1.1"), ((0.9, 0.8), "1.7"), ((0.3, 0.6), "0.9")], ids=str)
def test_exclusive_probabilities_add_up_to_one(tmp_path: Path, values: tuple[float, float], total: str) -> None:
    array = np.stack([np.full((4, 4), v, np.float32) for v in values])
    with writer(tmp_path / "a.zarr", domain="probabilities", activation="softmax") as out:
        fair = np.stack([np.full((4, 4), v, np.float32) for v in (0.4, 0.6)])
        fair[0, 2, 2] += 0.009
        out.write("a", fair, (8, 8))
        with pytest.raises(DamagedError, match=f"'b'.*{total}") as caught:
            out.write("b", array, (8, 8))
        assert "--activation sigmoid" in caught.value.fix
        fair[0, 2, 2] += 0.009
        with pytest.raises(DamagedError, match=r"1\.018"):
            out.write("b", fair, (8, 8))
    with writer(tmp_path / "b.zarr", domain="probabilities") as out:
        out.write("b", array, (8, 8))


@pytest.mark.parametrize(
    ("ids", "array", "size", "box", "code"),
    [
        (["a", "z"], constant(-1, -2), (8, 8), None, "sample-unknown"),
        (["a", "a"], constant(-1, -2), (8, 8), None, "name-doubled"),
        (["a", "a"], constant(-1, -1), (8, 8), None, "name-doubled"),
        (["a", "b"], constant(-1), (8, 8), None, "logits-shape"),
        (["a", "b"], constant(-1, -2), [(8, 8), (0, 8)], None, "image-size"),
        (["a", "b"], constant(-1, -2), [(8, 8)], None, "batch-invalid"),
        (["a", "b"], constant(-1, -2), (8, 8), [(0, 0, 4, 4), (0, 0, 5, 4)], "box-outside-grid"),
        (["a", 1], constant(-1, -2), (8, 8), None, "name-invalid"),
        (["a", ["b"]], constant(-1, -2), (8, 8), None, "name-invalid"),
        (7, constant(-1), (8, 8), None, "name-invalid"),
    ],
    ids=["an unknown sample", "a sample twice", "a sample twice, alike", "an array less", "an empty image",
         "an image size less", "a box outside the grid", "a number as an id", "a list as an id", "a number as ids"],
)  # fmt: skip
def test_a_batch_that_is_refused_leaves_nothing(
    tmp_path: Path, ids: object, array: np.ndarray, size: object, box: object, code: str
) -> None:
    with writer(tmp_path / "a.zarr") as out:
        with pytest.raises((UsageError, MismatchError)) as caught:
            out.write(ids, array, size, box)
        assert caught.value.code == code
        assert out.missing == IDS
        if code == "name-doubled":
            assert isinstance(caught.value, UsageError)
            assert "'a'" in caught.value.item


@pytest.mark.parametrize(
    "bad",
    [{"classes": "ab"}, {"samples": "img.png"}, {"samples": b"ab"}, {"classes": None}, {"classes": 3}, {"grid": 8},
     {"grid": "ab"}, {"grid": (4, None)}, {"grid": (4, float("nan"))}, {"grid": (4.5, 4)}],
    ids=str,
)  # fmt: skip
def test_a_writer_told_the_wrong_kind_of_thing(tmp_path: Path, bad: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        writer(tmp_path / "a.zarr", **bad)
    assert caught.value.code == ("grid-invalid" if "grid" in bad else "name-invalid")
    assert repr(next(iter(bad.values()))) in caught.value.item
    assert not (tmp_path / "a.zarr").exists()


def test_a_dump_told_one_text_for_its_classes(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'rgb'"):
        dump_logits(identity, folder, "rgb", tmp_path / "a.zarr", Recipe(SHIFT.but(size=32)), device="cpu")


# --- folders of arrays -----------------------------------------------------------------------------------------


def test_the_original_solutions_dumps(folder: Path, tmp_path: Path) -> None:
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    p = {k: np.random.default_rng(k).random((3, 16, 16)) for k in range(7)}
    for k, values in p.items():
        np.savez(arrays / f"im{k}.npz", logits=np.rint(values * 10000).astype(np.uint16))
    recipe = Recipe(domain="probabilities", key="logits", scale=10000)
    done = dump(folder, tmp_path / "a.zarr", str(arrays), recipe)
    assert (done.written, done.grid) == (7, (16, 16))
    store = LogitStore(tmp_path / "a.zarr")
    assert "network_sha256" not in store.provenance
    for k, values in p.items():
        read = store.read(f"im{k}.png").astype(np.float64)
        assert np.allclose(1 / (1 + np.exp(-np.clip(read, -50, 50))), values, atol=1e-3)
    assert store.image_size("im1.png") == (32, 20)


def test_arrays_of_nnunet_and_damaged_ones(folder: Path, tmp_path: Path) -> None:
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    for k in range(7):
        p = np.random.default_rng(k).dirichlet([1, 1, 1], (1, 8, 9)).transpose(3, 0, 1, 2)
        np.savez_compressed(arrays / f"im{k}.npz", probabilities=p.astype(np.float32))
    (arrays / "im2.npz").write_bytes(b"PK\x03\x04")
    recipe = Recipe(domain="probabilities", key="probabilities", activation="softmax")
    with pytest.raises(DamagedError, match=r"im2\.npz"):
        dump(folder, tmp_path / "a.zarr", arrays, recipe)
    store = LogitStore(tmp_path / "a.zarr")
    assert store.missing == ["im2.png"]
    assert store.grid == (8, 9)
    (arrays / "im2.npz").unlink()
    with pytest.raises(IncompleteError, match=r"im2\.png"):
        dump(folder, tmp_path / "a.zarr", arrays, recipe)
    np.savez(arrays / "im2.npz", probabilities=np.full((3, 4, 4), 1 / 3))
    said: list[str] = []
    dump(folder, tmp_path / "b.zarr", arrays, recipe, say=said.append)
    store = LogitStore(tmp_path / "b.zarr")
    assert store.grid is None and store.read("im2.png").shape == (3, 4, 4) and store.read("im1.png").shape == (3, 8, 9)
    assert "each on a grid of its own, of up to 8 x 9" in said[0]
    np.savez(arrays / "im2.npz", probabilities=np.full((3, 32, 18), 1 / 3))
    with pytest.raises(MismatchError, match=r"im2\.npz' has 32 x 18 values, its image 18 x 32"):
        dump(folder, tmp_path / "c.zarr", arrays, recipe)
    with pytest.raises(UsageError, match="--tta"):
        dump(folder, tmp_path / "b.zarr", arrays, Recipe(tta=("hflip",)))


# --- the command line, in real processes -----------------------------------------------------------------------

NETWORK = textwrap.dedent(
    """
    import os, time
    import torch
    from torch import nn
    torch.set_num_threads(1)
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Conv2d(3, 3, 3, 2, 1)
        def forward(self, x):
            time.sleep(float(os.environ.get("SLOW", 0)))
            return self.c(x)
    """
)


@pytest.fixture
def place(folder: Path, tmp_path: Path) -> Path:
    """A user's folder: a module, a class list, images."""
    (tmp_path / "mynet.py").write_text(NETWORK)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    (tmp_path / "prep.json").write_text(json.dumps({"size": [32, 32], "mean": [0.5, 0.5, 0.5], "channels": "rgb"}))
    return tmp_path


COMMAND = ("-W", "error", "-m", "ensemble_kit", "dump-logits")


def line(model: str, out: str, *more: str) -> list[str]:
    return [*COMMAND, model, "--images", "images", "--classes", "classes.txt", "--out", out, *more]


def ensk(place: Path, model: str, out: str, *more: str) -> subprocess.CompletedProcess[str]:
    return warm.run(*line(model, out, *more), cwd=place)


@pytest.mark.slow
def test_a_run_of_the_command(place: Path) -> None:
    words = line("mynet:Net", "net.zarr", "--preprocess", "prep.json", "--json", "--batch-size", "2")
    ran = subprocess.run([sys.executable, *words], cwd=place, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert answer["written"] == answer["samples"] == 7
    assert answer["grid"] == [16, 16]
    assert "samples/s" in ran.stderr
    store = LogitStore(place / "net.zarr")
    assert store.complete
    assert store.member == "Net"
    assert store.provenance["model"] == "mynet:Net"
    assert store.provenance["preprocessing"]["size"] == [32, 32]

    quiet = ensk(place, "mynet:Net", "net.zarr", "--preprocess", "prep.json", "-q")
    assert (quiet.returncode, quiet.stderr, quiet.stdout) == (0, "", "")
    talk = ensk(place, "mynet:Net", "net.zarr", "--preprocess", "prep.json")
    assert (talk.returncode, talk.stdout) == (0, "")
    assert "wrote 0 samples" in talk.stderr


@pytest.mark.slow
def test_the_commands_exit_codes(place: Path) -> None:
    (place / "two.txt").write_text("a\nb\n")
    torch.save({}, place / "w.pt")
    for want, text, arguments in (
        (2, "--size", ("mynet:Net", "a.zarr")),
        (7, "can run any code", ("w.pt", "a.zarr", "--size", "32")),
        (6, "2 classes", ("mynet:Net", "a.zarr", "--size", "32", "--classes", "two.txt")),
        (2, "1 <= i <= n", ("mynet:Net", "a.zarr", "--size", "32", "--part", "3/2")),
        (2, "No such option", ("mynet:Net", "a.zarr", "--sise", "32")),
        (2, "mynet:Net", ("mynet.py:Net", "a.zarr", "--size", "32")),
        (2, "divide by 255: --mean 0.4,0.5,0.6", ("mynet:Net", "a.zarr", "--mean", "102,127.5,153")),
        (3, "is not a weights file", ("mynet:Net", "a.zarr", "--size", "32", "--weights", "classes.txt")),
    ):
        ran = ensk(place, *arguments)
        assert (ran.returncode, text in ran.stderr, ran.stdout) == (want, True, ""), ran.stderr
        assert ran.stderr.strip().splitlines()[-1].startswith("error[")
        assert "Traceback" not in ran.stderr
    assert not (place / "a.zarr").exists()


@pytest.mark.slow
def test_an_unreadable_image_ends_in_3(place: Path) -> None:
    (place / "images" / "im5.png").write_bytes(b"broken")
    ran = ensk(place, "mynet:Net", "a.zarr", "--size", "32")
    assert ran.returncode == 3
    assert "im5.png" in ran.stderr
    assert LogitStore(place / "a.zarr").missing == ["im5.png"]


@pytest.mark.slow
def test_a_plan_on_the_command_line(place: Path) -> None:
    ran = ensk(place, "mynet:Net", "a.zarr", "--size", "32x64", "--dry-run", "--json", "--resize", "letterbox")
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert (answer["dry_run"], answer["grid"], answer["bytes"]) == (True, [16, 32], 7 * 3 * 16 * 32 * 2)
    assert "input 32 x 64 by letterbox · rgb, mean 0 0 0, std 1 1 1" in ran.stderr
    assert not (place / "a.zarr").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_killed_run_is_resumed(place: Path, number: int) -> None:
    options = ("--size", "32", "--batch-size", "1", "--member", "net")
    assert ensk(place, "mynet:Net", "whole.zarr", *options).returncode == 0
    chunks = place / "a.zarr" / "logits"
    process = warm.Process(*line("mynet:Net", "a.zarr", *options), cwd=place, env={**os.environ, "SLOW": "0.3"})
    deadline = time.monotonic() + 60
    while len(list(chunks.glob("c.*"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    code = process.wait(30)
    assert code == (-9 if number == signal.SIGKILL else 143)
    missing = LogitStore(place / "a.zarr").missing
    assert 0 < len(missing) <= 6
    again = ensk(place, "mynet:Net", "a.zarr", *options, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["written"] == len(missing)
    assert contents(place / "a.zarr") == contents(place / "whole.zarr")


@pytest.mark.slow
def test_two_processes_share_the_work(place: Path) -> None:
    options = ("--size", "32", "--member", "net", "--id", "stem", "--batch-size", "1")
    assert ensk(place, "mynet:Net", "whole.zarr", *options).returncode == 0
    parts = [line("mynet:Net", "a.zarr", *options, "--part", f"{i}/2") for i in (1, 2)]
    for process in [warm.Process(*part, cwd=place) for part in parts]:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert contents(place / "a.zarr") == contents(place / "whole.zarr")
    assert LogitStore(place / "a.zarr").samples[0] == "im0"


@pytest.mark.slow
def test_onnx_and_torchscript_and_exported_on_one_network(place: Path) -> None:
    """Four roads to one network end in one store's worth of values."""
    torch.manual_seed(0)
    net = nn.Conv2d(3, 3, 3, 2, 1).eval()
    recipe = Recipe(SHIFT.but(size=32))
    exported.onnx(net, place / "net.onnx", (32, 32))
    exported.program(net, place / "net.pt2", (32, 32))
    exported.torchscript(net, place / "net.ts")
    for model in (net, str(place / "net.onnx"), str(place / "net.pt2"), str(place / "net.ts")):
        out = place / f"{Path(str(model)).suffix[1:] if isinstance(model, str) else 'module'}.zarr"
        dump_logits(model, place / "images", CLASSES, out, recipe, trust=True, device="cpu")
    first = LogitStore(place / "module.zarr")
    for name in ("onnx", "pt2", "ts"):
        other = LogitStore(place / f"{name}.zarr")
        assert other.provenance["model"] == f"net.{name}"
        assert len(other.provenance["network_sha256"]) == 64
        if name != "onnx":  # whose weights lie in a file of their own
            assert other.provenance["network_sha256"] == other.provenance["model_sha256"]
        assert len(other.provenance["model_sha256"]) == 64
        for sample in first.samples:
            assert np.allclose(first.read(sample), other.read(sample), atol=2e-3)
    with pytest.raises(UnsafeError):
        dump_logits(str(place / "net.ts"), place / "images", CLASSES, place / "x.zarr", recipe)
    known = (str(place / "net.onnx"), place / "images", CLASSES, place / "x.zarr")
    with pytest.raises(MismatchError, match="only 32 x 32"):
        dump_logits(*known, Recipe(SHIFT.but(size=64)))
    sized = dump_logits(*known, Recipe(SHIFT), dry_run=True)
    assert sized.grid == (16, 16)


def test_importing_is_light() -> None:
    code = (
        "import sys, ensemble_kit.cli.dump_logits, ensemble_kit.dumping; "
        "print([m for m in ('torch', 'cv2', 'PIL', 'zarr', 'numba', 'onnx') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "[]", ran.stdout + ran.stderr
