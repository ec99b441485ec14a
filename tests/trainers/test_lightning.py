"""Lightning: stores are what `trainer.predict` returns, alone and in two processes, killed and resumed."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from conftest import blocks, equals, write_page
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import DamagedError, MismatchError, UsageError
from ensemble_kit.formats.reading import read_masks
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.thresholds.thresholdset import ThresholdSet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightning as L  # noqa: N812 - as its users call it

    from ensemble_kit.trainers.lightning import LogitCallback

CLASSES = ["nerve", "vessel"]
TRAINING = """
import os, time, torch, lightning as L
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from mine import Images, Net

class Trained(Net):
    def training_step(self, batch):
        logits = self.net(batch["image"])
        return bce(logits, (logits > 0.1).float())
    def validation_step(self, batch):
        time.sleep(float(os.environ.get("SLOW", 0)))
        return {"loss": torch.tensor(1.0), "logits": self.net(batch["image"])}
    def predict_step(self, batch):
        time.sleep(float(os.environ.get("SLOW", 0)))
        return super().predict_step(batch)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
"""
SCRIPT = """
import os, sys
import lightning as L
from torch.utils.data import DataLoader
from ensemble_kit.trainers.lightning import LogitCallback
from trained import Images, Trained

images = Images("val/images")
images.paths.pop()  # an odd number
samples = lambda dataset: [p.name for p in dataset.paths]
stage, out = sys.argv[1:]
writer = LogitCallback(out, ["nerve", "vessel"], samples, key=os.environ.get("KEY", "logits") if stage == "validate" else None)
trainer = L.Trainer(accelerator="cpu", devices=2, strategy="ddp", callbacks=[writer], logger=False,
                    enable_progress_bar=False, enable_checkpointing=False)
run = getattr(trainer, stage)
run(Trained(), DataLoader(images, batch_size=2), **({"return_predictions": False} if stage == "predict" else {}))
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The page's own network and dataset, with steps for training."""
    write_page("lightning.md", tmp_path)
    (tmp_path / "trained.py").write_text(TRAINING)
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("trained")
    for name in ("mine", "trained"):
        sys.modules.pop(name, None)


def trainer(*callbacks: Any, **options: Any) -> L.Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    return L.Trainer(accelerator="cpu", devices=1, callbacks=list(callbacks), **(quiet | options))


def ids(images: Any) -> list[str]:
    return [p.name for p in images.paths]


def own(mine: ModuleType, images: Any, module: Any = None) -> dict[str, np.ndarray]:
    """What the network puts out, by Lightning's own `predict`."""
    found = trainer().predict(mine.Trained() if module is None else module, DataLoader(images, batch_size=4))
    return dict(zip(ids(images), torch.cat(found).numpy(), strict=True))


def test_the_page_runs_as_written(mine: ModuleType, shell: Callable, tmp_path: Path) -> None:
    """From training to a submission: one callback and two commands, checked against the module's own outputs."""
    for code in blocks("lightning.md", "bash"):
        done = shell(code)
        assert "process 2 of 2: " in done.stderr
    trained, fresh = mine.Net.load_from_checkpoint("net.ckpt"), mine.Net()
    assert any(not torch.equal(a, b) for a, b in zip(trained.parameters(), fresh.parameters(), strict=True))
    for part in ("val", "test"):
        equals(LogitStore(tmp_path / f"net_{part}.zarr"), own(mine, mine.Images(f"{part}/images"), trained), near=True)
    tuned, images, undecided = ThresholdSet.load(tmp_path / "tuned.json"), mine.Images("test/images"), 0
    sizes = {item["id"]: tuple(item["size"].tolist()) for item in images}
    masks = read_masks(tmp_path / "submission.csv", image_size=sizes, classes=CLASSES)
    for sample, logits in own(mine, images, trained).items():
        full = interpolate(torch.tensor(logits)[None], sizes[sample], mode="bilinear")[0].double().sigmoid().numpy()
        for name, theirs in zip(CLASSES, full, strict=True):
            differ = masks[sample, name].decode() != (theirs >= tuned.thresholds[name])
            assert np.abs(theirs[differ] - tuned.thresholds[name]).max(initial=0) < 1e-3
            undecided += int(differ.sum())
    print(f"{undecided} pixels of near-ties")
    rows = (tmp_path / "submission.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * len(mine.Images("test/images"))


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_store_is_what_lightning_returns(mine: ModuleType, tmp_path: Path, precision: str) -> None:
    images, lines = mine.Images("val/images"), list[str]()
    writer = LogitCallback(tmp_path / "net.zarr", CLASSES, ids, say=lines.append)
    found = trainer(writer, precision=precision).predict(mine.Trained(), DataLoader(images, batch_size=4))
    wanted = torch.cat(found).float()
    equals(LogitStore(tmp_path / "net.zarr"), dict(zip(ids(images), wanted.numpy(), strict=True)))
    assert lines == [f"{tmp_path / 'net.zarr'}: {len(images)} samples written"]
    masks, undecided = Ensemble([tmp_path / "net.zarr"]).vote(), 0
    for sample, logits, item in zip(ids(images), wanted, images, strict=True):
        full = interpolate(logits[None], tuple(item["size"].tolist()), mode="bilinear")[0].numpy()
        for name, theirs in zip(CLASSES, full, strict=True):
            ours = masks[sample, name].decode()
            assert ours.shape == theirs.shape
            differ = ours != (theirs >= 0)
            undecided += int(differ.sum())
            assert np.abs(theirs[differ]).max(initial=0) < 2e-3
    print(f"{precision}: {undecided} pixels of near-ties")


def test_validation_is_padded_and_nothing_is_written_twice(mine: ModuleType, shell: Callable, tmp_path: Path) -> None:
    images = mine.Images("val/images")
    images.paths.pop()
    done = shell("python script.py validate val.zarr")
    assert done.stderr.count("1 padding duplicates skipped") == 1 and "missing" not in done.stderr
    equals(LogitStore(tmp_path / "val.zarr"), own(mine, images), near=True)


def test_killed_and_resumed(mine: ModuleType, shell: Callable, killed: Callable, tmp_path: Path) -> None:
    images = mine.Images("val/images")
    images.paths.pop()
    there = killed("python script.py predict net.zarr", tmp_path / "net.zarr", 4)
    assert 4 <= there < len(images)
    done = shell("python script.py predict net.zarr")
    assert "were there already" in done.stderr and "missing" not in done.stderr
    equals(LogitStore(tmp_path / "net.zarr"), own(mine, images), near=True)


def test_what_is_stopped_says_what_is_missing(mine: ModuleType, tmp_path: Path) -> None:
    images, lines = mine.Images("val/images"), list[str]()
    writer = LogitCallback(tmp_path / "net.zarr", CLASSES, ids(images), say=lines.append)
    loader = DataLoader(images, batch_size=4)
    trainer(writer, limit_predict_batches=1).predict(mine.Trained(), loader, return_predictions=False)
    assert LogitStore(tmp_path / "net.zarr").missing == ids(images)[4:]
    assert lines.pop().endswith(f"4 samples written; {len(images) - 4} of {len(images)} missing")

    class Failing(mine.Trained):
        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 2:
                raise RuntimeError("the disk of images is gone")
            return super().predict_step(batch)

    with pytest.raises(RuntimeError, match="is gone"):
        trainer(writer).predict(Failing(), loader, return_predictions=False)
    assert LogitStore(tmp_path / "net.zarr").missing == ids(images)[8:]
    assert "4 samples written, 4 were there already" in lines.pop()
    trainer(writer).predict(mine.Trained(), loader, return_predictions=False)
    equals(LogitStore(tmp_path / "net.zarr"), own(mine, images))
    other = mine.Trained()
    torch.nn.init.zeros_(other.net[2].weight)
    with pytest.raises(MismatchError, match="network_sha256"):
        trainer(writer).predict(other, loader, return_predictions=False)


def test_validation_within_fit(mine: ModuleType, tmp_path: Path) -> None:
    images, lines = mine.Images("val/images"), list[str]()
    each = LogitCallback(str(tmp_path / "val_{epoch}.zarr"), CLASSES, ids(images), key="logits", say=lines.append)
    plain = LogitCallback(tmp_path / "val.zarr", CLASSES, ids(images), say=lines.append)
    fitting = trainer(each, plain, max_epochs=2, num_sanity_val_steps=1, limit_train_batches=1, log_every_n_steps=1)
    model, loader = mine.Trained(), DataLoader(images, batch_size=4)
    fitting.fit(model, loader, loader)
    assert sum("validation within fit is not stored" in line for line in lines) == 1
    assert not (tmp_path / "val.zarr").exists()
    first, last = (LogitStore(tmp_path / f"val_{k}.zarr") for k in range(2))
    assert first.complete and last.complete
    assert not np.array_equal(first.read(ids(images)[0]), last.read(ids(images)[0]))
    trainer(plain).predict(model, loader, return_predictions=False)
    equals(LogitStore(tmp_path / "val.zarr"), {s: last.read(s) for s in last.samples})


class Dicts(torch.utils.data.Dataset):
    """Another dataset of the same images."""

    def __init__(self, images: Any, change: Callable[[dict], Any]) -> None:
        self.images, self.change = images, change

    def __len__(self) -> int:
        return 2

    def __getitem__(self, k: int) -> Any:
        return self.change(self.images[k])


@pytest.mark.parametrize(
    "size", [lambda s: tuple(s.tolist()), lambda s: s, lambda s: s.numpy()], ids=["pair", "tensor", "array"]
)
def test_sizes_however_they_are_collated(mine: ModuleType, tmp_path: Path, size: Callable) -> None:
    images = mine.Images("val/images")
    data = Dicts(images, lambda item: {**item, "size": size(item["size"])})
    writer = LogitCallback(tmp_path / "net.zarr", CLASSES, ids(images)[:2], say=lambda _: None)
    trainer(writer).predict(mine.Trained(), DataLoader(data, batch_size=2), return_predictions=False)
    store = LogitStore(tmp_path / "net.zarr")
    assert [store.image_size(s) for s in store.samples] == [tuple(images[k]["size"].tolist()) for k in range(2)]


REFUSED: dict[str, tuple[Callable, Callable, dict[str, Any], type[Exception], str]] = {
    "class map": (lambda y: y.argmax(1), lambda i: i, {}, UsageError, "predict_step put out .* before argmax"),
    "loss": (lambda y: y.mean(), lambda i: i, {}, UsageError, "let predict_step return the logits"),
    "nothing": (lambda _: None, lambda i: i, {}, UsageError, "let predict_step return the logits"),
    "dict": (lambda y: {"out": y}, lambda i: i, {}, UsageError, "'out' .* pass key='out'"),
    "no ids": (lambda y: y, lambda i: {"image": i["image"]}, {}, UsageError, "no 'id': a dict, its keys are 'image'"),
    "no sizes": (lambda y: y, lambda i: {k: i[k] for k in ("image", "id")}, {}, UsageError, "image_size=(H, W)"),
    "unknown": (lambda y: y, lambda i: i, {"samples": ["a.png"]}, MismatchError, "not declared with"),
    "margin": (lambda y: y * (torch.arange(y.shape[2]) > 3)[:, None], lambda i: i, {}, DamagedError, "checked=True"),
    "probabilities": (lambda y: y.sigmoid(), lambda i: i, {}, DamagedError, 'domain="probabilities"'),
    "softmax": (lambda y: y.softmax(1), lambda i: i, {"activation": "softmax"}, DamagedError, 'domain="probabilities"'),
    "log_softmax": (lambda y: y.log_softmax(1), lambda i: i, {}, DamagedError, 'activation="softmax"'),
    "threshold": (lambda y: (y > 0).float(), lambda i: i, {"domain": "probabilities"}, UsageError, "before argmax"),
    "wrong key": (lambda y: {"logits": y}, lambda i: i, {"key": "logit"}, UsageError, "pass key='logits'"),
    "key of no dict": (lambda y: y, lambda i: i, {"key": "logits"}, UsageError, "leave key= out"),
    "list of maps": (list, lambda i: i, {}, UsageError, r"torch\.stack"),
    "classes last": (lambda y: y.permute(0, 2, 3, 1), lambda i: i, {}, MismatchError, "classes first"),
    "paths": (lambda y: y, lambda i: i, {"samples": ["val/images/0007.png"]}, MismatchError, "not declared with"),
    "a number for ids": (lambda y: y, lambda i: i, {"samples": 16}, UsageError, "pass samples as a list"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(mine: ModuleType, tmp_path: Path, name: str) -> None:
    step, change, options, kind, told = REFUSED[name]
    images = mine.Images("val/images")

    class Odd(mine.Trained):
        def predict_step(self, batch: Any) -> Any:
            return step(super().predict_step(batch))

    writer = LogitCallback(tmp_path / "net.zarr", CLASSES, **({"samples": ids(images)} | options), say=lambda _: None)
    with pytest.raises(kind, match=told.replace("(H, W)", r"\(H, W\)")):
        trainer(writer).predict(Odd(), DataLoader(Dicts(images, change), batch_size=2), return_predictions=False)
    if isinstance(declared := options.get("samples", ids(images)), list):
        assert LogitStore(tmp_path / "net.zarr").missing == declared


def test_a_mistake_ends_two_processes_and_its_mend_resumes(mine: ModuleType, shell: Callable, tmp_path: Path) -> None:
    failed = shell("python script.py validate val.zarr", fails=True, KEY="logit")
    assert "pass key='logits'" in failed.stderr
    assert not LogitStore(tmp_path / "val.zarr").complete
    shell("python script.py validate val.zarr")
    images = mine.Images("val/images")
    images.paths.pop()
    equals(LogitStore(tmp_path / "val.zarr"), own(mine, images), near=True)


def test_a_margin_that_the_network_puts_out_itself(mine: ModuleType, tmp_path: Path) -> None:
    images = mine.Images("val/images")

    class Odd(mine.Trained):
        def predict_step(self, batch: Any) -> Any:
            logits = super().predict_step(batch)
            return logits * (torch.arange(logits.shape[2]) > 3)[:, None]

    writer = LogitCallback(tmp_path / "net.zarr", CLASSES, ids(images)[:2], checked=True, say=lambda _: None)
    loader = DataLoader(Dicts(images, lambda i: i), batch_size=2)
    trainer(writer).predict(Odd(), loader, return_predictions=False)
    store = LogitStore(tmp_path / "net.zarr")
    assert not store.missing
    assert not any(store.read(s)[:, :4].any() for s in store.samples)
