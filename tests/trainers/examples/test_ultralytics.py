"""Ultralytics: stores are the predictor's logits, and one member's vote `semantic_mask`; in two processes, killed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from conftest import blocks, committed, equals, ties, write_page
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import EnskError, MismatchError, UsageError
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.trainers.batches import BatchWriter

pytest.importorskip("ultralytics")
import ultralytics_predictor
from ultralytics import YOLO
from ultralytics.utils import ops

PREDICT = {"imgsz": 128, "device": "cpu", "verbose": False}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page's own network."""
    write_page("ultralytics.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("mine").model
    sys.modules.pop("mine", None)


def files(part: str = "val") -> list[Path]:
    return sorted(Path(f"{part}/images").iterdir())


class Own(ultralytics_predictor.SemanticSegmentationPredictor):
    """The framework's predictor, which keeps its logits: those of the input's size, and those that it decides from."""

    kept: dict[str, tuple[np.ndarray, np.ndarray]]

    def postprocess(self, preds: Any, img: Any, orig_imgs: Any) -> Any:
        inputs = interpolate(preds, img.shape[2:], mode="bilinear", align_corners=False)
        for one, path, image in zip(inputs, self.batch[0], orig_imgs, strict=True):
            self.kept[Path(path).name] = one.numpy(), ops.scale_masks(one[None], image.shape[:2])[0].numpy()
        return super().postprocess(preds, img, orig_imgs)


def own(part: str, **options: Any) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Ultralytics' own logits of the input and of the image, and its decision."""
    Own.kept = {}
    paths = files(part)
    found = YOLO("best.pt").predict([str(p) for p in paths], predictor=Own, **(PREDICT | options))
    best = {p.name: r.semantic_mask.data.numpy().squeeze() for p, r in zip(paths, found, strict=True)}
    return {name: (*Own.kept[name], best[name]) for name in best}


def is_own(path: Path, wanted: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    """Assert that a store holds those logits of the input which show the image."""
    store = LogitStore(path)
    for sample, (whole, full, _) in wanted.items():
        h, w = store.read(sample).shape[1:]
        y, x = (round((n - m) / 2 - 0.1) for n, m in zip(whole.shape[1:], (h, w), strict=True))
        assert store.image_size(sample) == full.shape[1:] and max(h, w) == 128
        wanted[sample] = (whole[:, y : y + h, x : x + w], *wanted[sample][1:])
    equals(store, {sample: logits for sample, (logits, *_) in wanted.items()}, near=True)


def test_the_page_runs_as_written(model: Any, shell: Callable, tmp_path: Path) -> None:
    told = [shell(code).stderr for code in blocks("ultralytics.md", "bash")]
    assert "process 2 of 2: 8 samples written" in told[0]
    assert len(list((tmp_path / "answer").glob("*.png"))) == len(files("test"))
    differ = pixels = 0
    for part in ("val", "test"):
        theirs = own(part, batch=4)
        is_own(tmp_path / f"yolo_{part}.zarr", theirs)
        masks, winners = Ensemble([tmp_path / f"yolo_{part}.zarr"]).vote(), set[int]()
        for sample, (_, full, best) in theirs.items():
            differ += ties(full, masks.labels(sample), best)
            pixels += best.size
            winners |= set(np.unique(best).tolist())
        assert winners == {0, 1, 2}
    print(f"{differ} of {pixels} pixels are ties")
    assert differ < 0.002 * pixels


@pytest.mark.parametrize("imgsz", [(96, 160), 104])
def test_letterboxes_of_any_shape(model: ModuleType, tmp_path: Path, imgsz: Any) -> None:
    model.save("best.pt")
    Path("val").unlink()
    (tmp_path / "val/images").mkdir(parents=True)
    from PIL import Image

    for k, (path, box) in enumerate(zip(files("test"), [(400, 100), (99, 500), (333, 211)], strict=False)):
        Image.open(path).crop((0, 0, *box)).save(f"val/images/{k}.png")
    ultralytics_predictor.dump(YOLO("best.pt"), files(), "net.zarr", **PREDICT | {"imgsz": imgsz, "rect": False})
    masks, store = Ensemble(["net.zarr"]).vote(), LogitStore("net.zarr")
    for sample, (whole, full, best) in own("val", imgsz=imgsz, rect=False).items():
        stored = torch.from_numpy(store.read(sample).astype(np.float32))[None]
        assert stored.shape[2:] < whole.shape[1:]
        brought = interpolate(stored, full.shape[1:], mode="bilinear")[0].numpy()
        np.testing.assert_allclose(brought, full, atol=2**-10 * np.abs(full).max())
        ties(full, masks.labels(sample), best)


def test_a_batch_is_as_large_as_it_says(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a list predict made one batch, with all images in memory; a model that stored is its user's again."""
    sizes, before = list[int](), ultralytics_predictor.LogitPredictor.postprocess

    def counted(self: Any, preds: Any, img: Any, orig_imgs: Any) -> Any:
        sizes.append(len(orig_imgs))
        return before(self, preds, img, orig_imgs)

    monkeypatch.setattr(ultralytics_predictor.LogitPredictor, "postprocess", counted)
    ultralytics_predictor.dump(model, files()[:5], "net.zarr", **PREDICT, batch=2)
    assert sizes == [2, 2, 1]
    assert len(model.predict(str(files()[0]), **PREDICT)) == 1
    assert len(sizes) == 3


def test_killed_and_resumed(model: ModuleType, shell: Callable, killed: Callable, tmp_path: Path) -> None:
    model.save("best.pt")
    slow = "import os, time, ultralytics_predictor as u\nbefore = u.LogitPredictor.postprocess\n"
    slow += "u.LogitPredictor.postprocess = lambda *a: (before(*a), time.sleep(float(os.environ.get('SLOW', 0))))[0]\n"
    Path("slow.py").write_text(slow + Path("dump.py").read_text().replace("batch=4", "batch=1"))
    there = killed("torchrun --nproc-per-node 2 slow.py", tmp_path / "yolo_val.zarr", 3)
    assert 3 <= there < 16
    done = shell("python slow.py")  # in one process
    assert f"{16 - there} samples written, {there} were there already" in done.stderr
    is_own(tmp_path / "yolo_val.zarr", own("val"))


REFUSED: dict[str, tuple[Callable[[Any], Any], type[EnskError], str]] = {
    "class map": (lambda y: y.argmax(1).to(torch.uint8), UsageError, "pass the .pt file"),
    "loss": (lambda y: y.mean(), UsageError, r"put out \(\) .*not \(B, C, h, w\)"),
    "probabilities": (lambda y: y.softmax(1), EnskError, 'domain="probabilities"'),
    "classes": (lambda y: y[:, :2], MismatchError, "3"),
}


def written(model: Any, source: Any, names: list[str], change: Callable[[Any], Any] = lambda y: y) -> None:
    class Odd(ultralytics_predictor.LogitPredictor):
        def inference(self, *args: Any, **options: Any) -> Any:
            return change(super().inference(*args, **options))

    with BatchWriter(f"odd_{names[0]}.zarr", list(model.names.values()), names, activation="softmax") as writer:
        try:
            for _ in model.predict(source, predictor=partial(Odd, writer), stream=True, **PREDICT):
                pass
        finally:
            assert committed(Path(f"odd_{names[0]}.zarr")) == 0


def test_refused(model: Any) -> None:
    path = files()[0]
    for change, kind, told in REFUSED.values():
        with pytest.raises(kind, match=told):
            written(model, [str(path)], [path.name], change)
    with pytest.raises(MismatchError, match="not declared with"):
        written(model, [str(path)], ["a.png"])
    for source in (np.zeros((64, 64, 3), np.uint8), torch.zeros(1, 3, 64, 64)):
        with pytest.raises(UsageError, match="pass the files of images") as caught:
            written(model, source, ["image0.jpg"])
        assert caught.value.code == "batch-ids"
    with pytest.raises(EnskError, match=path.name):
        ultralytics_predictor.dump(model, [path, "elsewhere" / Path(path.name)], "twice.zarr")
    model.task = "segment"
    with pytest.raises(UsageError, match=r"task is 'segment'.*yolo26n-sem\.pt"):
        ultralytics_predictor.dump(model, [path], "task.zarr")
