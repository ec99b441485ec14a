"""The loop: validation at original size, resume to the bit, early stop, accumulation, and what it refuses."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hand_bones import lightning_module
from hand_bones.config import Config
from hand_bones.dataset import HandDataset
from hand_bones.experiment import Data, begin, for_debugging, load_data
from hand_bones.logs import Log
from hand_bones.loop import Trainer
from hand_bones.training import choose_device, decide, in_step
from tiny import tiny
from torch import Tensor

import ensemble_kit as ek

COSINE = {"name": "cosine", "first": 2, "min_lr": 1e-4, "warm_up": 1}


def config(**changes: Any) -> Config:
    given = {"name": "try", "model": tiny("unet"), "image_size": 64, "epochs": 2, "batch_size": 4, "wandb": "disabled"}
    return Config.from_dict({**given, "optimizer": {"name": "adamw", "lr": 3e-3}, **changes})


@pytest.fixture(scope="module")
def data(split_hands: Path) -> Data:
    found = load_data(config(), split_hands)
    return few(found, 6, 2)


def few(data: Data, train: int, held_out: int) -> Data:
    ids = [record.image_id for record, _ in data.held_out.records[:held_out]]
    truth = ek.MaskSet({key: runs for key, runs in data.truth.items() if key[0] in ids})
    records = [[record for record, _ in part.records] for part in (data.train, data.held_out)]
    return Data(HandDataset(records[0][:train], 64), HandDataset(records[1][:held_out], 64), truth)


def train(config: Config, data: Data, root: Path) -> Trainer:
    trainer = Trainer(config, data, begin(config, root, data), "cpu", say=lambda _: None)
    trainer.fit()
    return trainer


def state(trainer: Trainer) -> dict[str, Any]:
    found = torch.load(trainer.folder / "latest.pt", weights_only=True)
    for row in found["progress"]["history"]:
        del row["seconds"]
    return found


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


class Noisy:
    """An augmentation that draws from torch's generator, and ends the run at its n-th image."""

    def __init__(self, last: int = 10**9) -> None:
        self.left = last

    def __call__(self, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return image + 0.1 * torch.randn(image.shape), masks


@pytest.mark.parametrize("scheduler", [COSINE, {"name": "plateau", "patience": 0}], ids=lambda s: s["name"])
def test_a_run_that_was_ended_in_an_epoch_ends_like_one_that_was_not(
    scheduler: dict[str, Any], data: Data, tmp_path: Path
) -> None:
    wanted = config(epochs=4, lr_scheduler=scheduler)

    def noisy(noise: Noisy) -> Data:
        return replace(data, train=HandDataset([record for record, _ in data.train.records], 64, augment=noise))

    whole = train(wanted, noisy(Noisy()), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(wanted, noisy(Noisy(last=15)), tmp_path / "halved")  # in the third of its epochs of 6 images
    assert not (tmp_path / "halved/try/val.zarr").exists()
    halved = train(wanted, noisy(Noisy()), tmp_path / "halved")
    assert equal(state(whole), state(halved))
    assert [row["epoch"] for row in halved.progress.history] == [1, 2, 3, 4]
    assert (tmp_path / "whole/try/best.pt").read_bytes() == (tmp_path / "halved/try/best.pt").read_bytes()
    stores = [ek.LogitStore(tmp_path / part / "try/val.zarr") for part in ("whole", "halved")]
    for sample in stores[0].samples:
        np.testing.assert_array_equal(stores[0].read(sample), stores[1].read(sample))


def test_the_dice_is_that_of_the_kit_at_original_size(data: Data, tmp_path: Path) -> None:
    trainer = train(config(), data, tmp_path)
    masks = ek.Ensemble([trainer.folder / "val.zarr"]).vote(0.5)
    found = ek.dice(masks, data.truth)
    row = max(trainer.progress.history, key=lambda row: row["dice"])
    assert trainer.progress.best == row["dice"] == pytest.approx(found.mean, abs=2e-3)
    assert (found.pred.sum(axis=0) > 0).sum() > 20  # so early masks are wrong, but there is something to compare
    for name, dice in found.per_class.items():
        assert row[f"dice/{name}"] == pytest.approx(dice, abs=0.02)


def test_decisions_are_made_at_original_size() -> None:
    logits = torch.tensor([[[-1.0, 1.0], [-1.0, 1.0]]]).expand(29, 2, 2)
    runs = dict(decide("a.png", (4, 8), logits))["a.png", "Ulna"]
    assert runs.shape == (4, 8)
    np.testing.assert_array_equal(runs.decode(), np.broadcast_to(np.arange(8) >= 4, (4, 8)))


def test_training_that_goes_on_goes_on_with_its_run_of_wandb(tmp_path: Path) -> None:
    history = [{"epoch": k, "loss": 1 / k} for k in (1, 2, 3)]
    for last in (1, 2, 3):
        with Log(config(wandb="offline"), tmp_path) as log:
            log.write(history[:last])
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert [len(files), len({file.name for file in files})] == [3, 1]
    for file, steps in zip(files, ([1], [1, 2], [1, 2, 3]), strict=True):
        held = {int(step) for step in re.findall(rb"_step\x82\x01\x01([0-9])", file.read_bytes())}
        assert sorted(held) == steps


def test_the_log_has_a_row_an_epoch(data: Data, tmp_path: Path) -> None:
    trainer = train(config(epochs=3, validate_every=2, lr_scheduler=COSINE), data, tmp_path)
    with (trainer.folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [bool(row["dice"]) for row in rows] == [False, True, True]
    assert [float(row["lr"]) for row in rows] == pytest.approx([3e-4, 3e-3, 1.55e-3])
    assert all(float(row["loss"]) > 0 for row in rows)
    assert sum(key.startswith("dice/") for key in rows[0]) == 29


def test_early_stop(data: Data, tmp_path: Path) -> None:
    still = config(model=tiny("mask2former"), optimizer={"name": "adamw", "lr": 0.0}, epochs=20, early_stop=3)
    trainer = train(still, data, tmp_path)
    assert trainer.progress.epochs == 4
    assert train(still, data, tmp_path).progress.epochs == 4


def test_gradients_are_accumulated(data: Data, tmp_path: Path) -> None:
    trainer = train(config(batch_size=2, accumulate=2, epochs=1), data, tmp_path)
    steps = {int(state["step"]) for state in trainer.optimizer.state.values()}
    assert steps == {2}  # three batches: two, and the one that is left


def test_the_batches_of_a_step_are_counted() -> None:
    assert [in_step(index, 5, 3) for index in range(5)] == [3, 3, 3, 2, 2]
    assert [in_step(index, 3, 1) for index in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("trainer", ["plain", "lightning"])
def test_the_last_step_is_the_mean_of_its_fewer_batches(
    trainer: str, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # three batches of an image: accumulated by 3 or by 4 they are one step
    one = config(model=tiny("segformer"), batch_size=1, accumulate=4, epochs=1, lr_scheduler=COSINE)
    three = few(data, 3, 1)
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *arguments: Any, **options: Any) -> Any:
        found = step(self, *arguments, **options)
        norms.append(
            sum(float(p.grad.abs().sum()) for g in self.param_groups for p in g["params"] if p.grad is not None)
        )
        return found

    wanted: list[float] = []
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", spy)
        for accumulate in (3, 4):
            given = one.but(accumulate=accumulate, name=f"a{accumulate}")
            norms.clear()
            if trainer == "plain":
                train(given, three, tmp_path)
            else:
                folder = begin(given, tmp_path, three, "train_lightning.py")
                lightning_module.fit(given, three, folder, "cpu")
            wanted.append(norms[0])
    assert wanted[0] == pytest.approx(wanted[1], rel=1e-3)


def test_the_networks_own_loss(data: Data, tmp_path: Path) -> None:
    trainer = train(config(model=tiny("mask2former"), criterion="own", epochs=1), data, tmp_path)
    assert trainer.progress.history[0]["val_loss"] > 0


def test_a_loss_that_is_not_finite_ends_the_run(data: Data, tmp_path: Path) -> None:
    with pytest.raises(ek.DamagedError, match="learning rate"):
        train(config(optimizer={"name": "adamw", "lr": 1e30}, epochs=3), data, tmp_path)


def test_another_configuration_is_not_gone_on_with(data: Data, tmp_path: Path) -> None:
    begin(config(), tmp_path, data)
    folder = begin(config(epochs=2), tmp_path, data)  # nothing is lost: the first start failed
    assert Config.load(folder / "config.json").epochs == 2
    (folder / "latest.pt").touch()
    begin(config(epochs=2), tmp_path, data)
    with pytest.raises(ek.MismatchError, match="another name"):
        begin(config(epochs=3), tmp_path, data)


@pytest.mark.parametrize("checkpoint", ["latest.pt", "checkpoints/last.ckpt"])
def test_neither_other_images_nor_another_trainer_go_on(checkpoint: str, data: Data, tmp_path: Path) -> None:
    file = begin(config(), tmp_path, data, "train.py") / checkpoint
    file.parent.mkdir(exist_ok=True)
    file.touch()
    begin(config(), tmp_path, few(data, 6, 2), "train.py")
    for fewer in (few(data, 5, 2), few(data, 6, 1)):
        with pytest.raises(ek.MismatchError) as caught:
            begin(config(), tmp_path, fewer, "train.py")
        assert caught.value.code == "data-differs"
    with pytest.raises(ek.MismatchError) as caught:
        begin(config(), tmp_path, data, "train_lightning.py")
    assert caught.value.code == "trainer-differs"


def test_a_name_that_the_module_of_networks_has_is_refused(data: Data, tmp_path: Path) -> None:
    with pytest.raises(ek.UsageError, match="another name"):
        begin(config(name="Config"), tmp_path, data)


@pytest.mark.parametrize("name", ["latest.pt", "best.pt"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_checkpoints_that_are_not_whole_are_named(name: str, damage: str, data: Data, tmp_path: Path) -> None:
    path = train(config(epochs=1), data, tmp_path).folder / name
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif name == "best.pt":
        path.unlink()
    else:
        path.write_bytes(b"")
    with pytest.raises((ek.DamagedError, ek.IncompleteError), match=name.replace(".", r"\.")):
        train(config(epochs=1), data, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"criterion": "own"},
        {"image_size": 100, "model": {"name": "unetplusplus", "encoder_name": "resnet18"}},
        {"model": tiny("deeplabv3plus"), "batch_size": 1},
    ],
)
def test_what_does_not_fit_ends_before_the_first_epoch(changes: dict[str, Any], data: Data, tmp_path: Path) -> None:
    with pytest.raises(ek.UsageError, match="cannot train this network so"):
        train(config(**changes), data, tmp_path)
    assert not (tmp_path / "try/latest.pt").exists()


@pytest.mark.parametrize("name", ["foo", "cuda:99"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(ek.ResourceError, match=name):
        choose_device(name)


def test_a_log_that_a_killed_run_did_not_write_is_written(data: Data, tmp_path: Path) -> None:
    log = train(config(), data, tmp_path).folder / "log.csv"
    whole = log.read_text()
    log.write_text(whole.splitlines(keepends=True)[0])
    train(config(), data, tmp_path)
    assert log.read_text() == whole


def test_debugging_takes_little(split_hands: Path) -> None:
    short = for_debugging(config(epochs=50))
    found = load_data(short, split_hands, debug=True)
    assert (short.name, short.epochs, len(found.train), len(found.held_out)) == ("try-debug", 2, 4, 2)
    assert len(found.truth.samples) == 2


def test_missing_splits_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ek.IncompleteError, match=r"make_splits\.py"):
        load_data(config(), tmp_path)


def test_lightning_trains_and_goes_on(data: Data, tmp_path: Path) -> None:
    begun = config(name="lit", epochs=2)
    folder = begin(begun, tmp_path, data, "train_lightning.py")
    lightning_module.fit(begun, data, folder, "cpu")
    dice = lightning_module.fit(begun.but(epochs=4), data, folder, "cpu")
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert dice == pytest.approx(max(float(row["dice"]) for row in rows), abs=1e-6)


@pytest.mark.parametrize(("epochs", "validated"), [(1, [True]), (5, [False, True, False, True, True])])
def test_lightning_validates_every_second_epoch_and_the_last(
    epochs: int, validated: list[bool], data: Data, tmp_path: Path
) -> None:
    given = config(epochs=epochs, validate_every=2, lr_scheduler={"name": "plateau", "patience": 0})
    folder = begin(given, tmp_path, data, "train_lightning.py")
    lightning_module.fit(given, data, folder, "cpu")
    with (folder / "log.csv").open() as file:
        assert [bool(row["dice"]) for row in csv.DictReader(file)] == validated


def test_a_damaged_checkpoint_of_lightning_is_named(data: Data, tmp_path: Path) -> None:
    folder = begin(config(), tmp_path, data, "train_lightning.py")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/last.ckpt").write_bytes(b"PK")
    with pytest.raises(ek.DamagedError, match=r"last\.ckpt"):
        lightning_module.fit(config(), data, folder, "cpu")
