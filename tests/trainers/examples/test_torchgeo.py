"""TorchGeo: tiles are what the task puts out, and one member's vote of them its argmax; in two processes, killed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from conftest import blocks, ties, write_page
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import DamagedError, EnskError, MismatchError, UsageError
from ensemble_kit.logits.store import LogitStore

pytest.importorskip("torchgeo")
import lightning
import torchgeo_scenes
from torch.utils.data import DataLoader
from torchgeo.datasets import stack_samples
from torchgeo.samplers import GridGeoSampler

QUIET = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The page's own task and dataset, without its scenes."""
    write_page("torchgeo.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("mine")
    sys.modules.pop("mine", None)


def own(mine: ModuleType, folder: str, name: str, size: int, stride: int) -> list[tuple[Any, torch.Tensor]]:
    """Bounds and probabilities of each chip of one scene, by Lightning's own `predict`."""
    Path("alone").mkdir(exist_ok=True)
    for old in Path("alone").iterdir():
        old.unlink()
    Path(f"alone/{name}").symlink_to(Path(f"{folder}/{name}").resolve())
    scenes = mine.Scenes("alone")
    queries = list(GridGeoSampler(scenes, size, stride))
    chips = [mine.normalise({"image": scenes[query]["image"]}) for query in queries]
    trainer = lightning.Trainer(accelerator="cpu", devices=1, **QUIET)
    found = trainer.predict(mine.network(), DataLoader(chips, 8, collate_fn=stack_samples))
    return list(zip(queries, torch.cat(found), strict=True))


def is_own(path: Path, mine: ModuleType, folder: str, size: int = 64, stride: int = 48) -> None:
    """Assert that a store holds every chip's logits where TorchGeo says that the chip lies."""
    store = LogitStore(path)
    assert store.complete and store.verify().sound and store.activation == "softmax"
    for sample in store.samples:
        chips, boxes = own(mine, folder, sample, size, stride), store.mosaic(sample).boxes
        assert len(boxes) == len(chips) > 3
        with rasterio.open(f"{folder}/{sample}") as scene:
            assert store.image_size(sample) == scene.shape
            for number, ((x, y, _), theirs) in enumerate(chips):
                top, left = scene.index(x.start + 5, y.stop - 5)  # it may begin above the scene
                y0, x0, y1, x1 = boxes[number]
                assert (y0, x0) == (max(top, 0), left) and y1 <= top + size and x1 <= left + size
                logits = torch.from_numpy(store.read_tile(sample, number).astype(np.float32))
                wanted = theirs[:, y0 - top : y1 - top, x0 - left : x1 - left]
                assert logits.shape == wanted.shape
                torch.testing.assert_close(logits.softmax(0), wanted, atol=2e-3, rtol=0)


def test_the_page_runs_as_written(mine: ModuleType, shell: Callable, tmp_path: Path) -> None:
    told = shell(blocks("torchgeo.md", "bash")[0]).stderr
    assert "process 1 of 2: 1 samples written" in told and "process 2 of 2: 1 samples written" in told
    for part in ("tuning", "asked"):
        is_own(tmp_path / f"unet_{part}.zarr", mine, f"{part}/scenes")
    with rasterio.open("answer.tif") as answer, rasterio.open("asked/scenes/city.tif") as scene:
        assert (answer.crs, answer.transform, answer.shape) == (scene.crs, scene.transform, scene.shape)
        assert set(np.unique(answer.read(1))) <= {0, 1, 2}


def test_a_vote_is_torchgeos_argmax(mine: ModuleType, tmp_path: Path) -> None:
    """Of chips that do not overlap: nothing is blended or interpolated."""
    mine.draw("a", "square", (500000, 4600000), (128, 192))
    task = mine.network()
    torchgeo_scenes.dump(task, mine.Scenes("a/scenes"), "net.zarr", mine.CLASSES, size=64, prepare=mine.normalise)
    logits = np.zeros((3, 128, 192), np.float32)
    with rasterio.open("a/scenes/square.tif") as scene:
        for (x, y, _), theirs in own(mine, "a/scenes", "square.tif", 64, 64):
            top, left = scene.index(x.start + 5, y.stop - 5)
            logits[:, top : top + 64, left : left + 64] = theirs.log().numpy()
    best = logits.argmax(0)
    assert len(np.unique(best)) > 1
    print(f"{ties(logits, Ensemble(['net.zarr']).vote().labels('square.tif'), best)} of {best.size} pixels are ties")


def test_images_that_are_no_scenes_are_lightnings(mine: ModuleType) -> None:
    from ensemble_kit.trainers.lightning import LogitCallback

    images = torch.randn(3, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    rows = [{"image": one, "id": f"{k}.tif", "size": torch.tensor([64, 64])} for k, one in enumerate(images)]
    ids, how = [row["id"] for row in rows], {"domain": "probabilities", "activation": "softmax"}
    writer = LogitCallback("chips.zarr", mine.CLASSES, ids, **how, say=lambda _: None)
    trainer = lightning.Trainer(accelerator="cpu", devices=1, callbacks=[writer], **QUIET)
    theirs = torch.cat(trainer.predict(mine.network(), DataLoader(rows, 2)))
    masks = Ensemble(["chips.zarr"]).vote()
    for name, wanted in zip(ids, theirs, strict=True):
        stored = torch.from_numpy(LogitStore("chips.zarr").read(name).astype(np.float32))
        torch.testing.assert_close(stored.softmax(0), wanted, atol=4e-3, rtol=0)
        ties(wanted.log().numpy(), masks.labels(name), wanted.argmax(0).numpy())


def test_killed_and_resumed(mine: ModuleType, shell: Callable, killed: Callable, tmp_path: Path) -> None:
    shell("python mine.py")
    slow = "import os, time, torchgeo_scenes as t\nbefore = t.logits\n"
    slow += "def late(*a):\n    for one in before(*a):\n        yield one\n        time.sleep(float(os.environ.get('SLOW', 0)))\n"
    slow += "t.logits = late\n"
    Path("slow.py").write_text(slow + Path("dump.py").read_text())
    path = tmp_path / "unet_tuning.zarr"
    there = killed("python slow.py", path, 1)
    assert there == 1
    done = shell("torchrun --nproc-per-node 2 slow.py")
    assert done.stderr.count("1 samples written") == 2 and "1 were there already" in done.stderr
    is_own(path, mine, "tuning/scenes")


REFUSED: dict[str, tuple[Callable[[Any], Any], type[EnskError], str]] = {
    "class map": (lambda y: y.argmax(1), UsageError, "before argmax"),
    "loss": (lambda y: y.mean(), UsageError, "a loss in place of logits"),
    "probabilities": (lambda y: y.softmax(1), DamagedError, 'domain="probabilities"'),
    "classes": (lambda y: y[:, :2], MismatchError, "instead of"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_outputs_that_are_refused(mine: ModuleType, name: str) -> None:
    change, kind, told = REFUSED[name]
    mine.draw("a", "square", (500000, 4600000), (64, 128))
    task = mine.network()
    before = task.forward
    task.forward = lambda x: change(before(x))
    with pytest.raises(kind, match=told):
        torchgeo_scenes.dump(task, mine.Scenes("a/scenes"), "net.zarr", mine.CLASSES, size=64)
    assert LogitStore("net.zarr").missing == ["square.tif"]


def test_scenes_that_are_refused(mine: ModuleType) -> None:
    mine.draw("a", "square", (500000, 4600000), (64, 128))
    task, how = mine.network(), {"classes": mine.CLASSES, "size": 64}
    with pytest.raises(UsageError, match="smaller than a chip of 96"):
        torchgeo_scenes.dump(task, mine.Scenes("a/scenes"), "small.zarr", **how | {"size": 96})
    with pytest.raises(MismatchError, match=r"10 x 10.*res is \(20") as caught:
        torchgeo_scenes.dump(task, mine.Scenes("a/scenes", res=20), "res.zarr", **how | {"size": 32})
    assert caught.value.code == "tile-resolution"
    with pytest.raises(MismatchError, match=r"dataset is EPSG:3857.*gdalwarp") as caught:
        warped = mine.Scenes("a/scenes", crs=rasterio.crs.CRS.from_epsg(3857), res=10)
        torchgeo_scenes.dump(task, warped, "crs.zarr", **how)
    assert caught.value.code == "tile-crs"
    Path("a/scenes/more").mkdir()
    Path("a/scenes/more/square.tif").write_bytes(Path("a/scenes/square.tif").read_bytes())
    with pytest.raises(EnskError, match=r"square\.tif"):
        torchgeo_scenes.dump(task, mine.Scenes("a/scenes"), "twice.zarr", **how)
