from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hand_bones.augment import Augmentation
from hand_bones.config import Config
from hand_bones.losses import build as build_criterion
from hand_bones.networks import build as build_network
from hand_bones.schedule import build_optimizer, build_scheduler
from tiny import tiny
from torch import nn

from ensemble_kit import EnskError, UsageError

GIVEN = {"name": "try-1", "model": {"name": "unet"}}


def test_a_file_is_read_and_written_alike(tmp_path: Path) -> None:
    file = tmp_path / "try.json"
    file.write_text(json.dumps({**GIVEN, "epochs": 7, "mean": [0.1, 0.2, 0.3]}))
    config = Config.load(file)
    assert (config.epochs, config.mean, config.batch_size) == (7, (0.1, 0.2, 0.3), 4)
    assert Config.from_dict(json.loads(config.to_json())) == config


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epoch": 3, "lr": 1}, "'epoch', 'lr'"),
        ({"name": "../up"}, "name = '../up'"),
        ({"epochs": 0}, "epochs = 0"),
        ({"epochs": True}, "epochs = True"),
        ({"batch_size": 2.5}, "batch_size = 2.5"),
        ({"fold": -1}, "fold = -1"),
        ({"mean": [0.5]}, "mean = [0.5]"),
        ({"model": "unet"}, "model = 'unet'"),
        ({"wandb": "yes"}, "wandb = 'yes'"),
        ({"amp": "no"}, "amp = 'no'"),
        ({"std": [0, 1, 1]}, "std = (0.0, 1.0, 1.0)"),
        ({"criterion": "dice"}, "criterion = 'dice'"),
        ({"criterion": ["bce"]}, "criterion = 'bce'"),
        ({"criterion": {"name": "bce"}}, "criterion = {'name': 'bce'}"),
        ({"criterion": []}, "criterion = []"),
        ({"criterion": [{"name": "bce", "weight": "x"}]}, "criterion.weight = 'x'"),
        ({"augmentation": "flip"}, "augmentation = 'flip'"),
        ({"augmentation": ["flip"]}, "augmentation = 'flip'"),
        ({"augmentation": {"name": "flip"}}, "augmentation = {'name': 'flip'}"),
        ({"model": {"name": ["unet"]}}, "model = {'name': ['unet']}"),
        ({"model": {"name": "unet", "weights": 3}}, "model.weights = 3"),
    ],
)
def test_what_cannot_be_meant_is_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config.from_dict({**GIVEN, **changes})
    assert named in caught.value.item


def test_missing_keys_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="model"):
        Config.from_dict({"name": "a"})
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UsageError, match=r"a\.json"):
        Config.load(tmp_path / "a.json")


def scheduler(section: dict[str, object]) -> object:
    return build_scheduler(section, build_optimizer({"name": "adamw"}, nn.Linear(1, 1)))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: build_criterion([{"name": "dise"}]), "dise"),
        (lambda: build_criterion([{"name": "dice", "smoth": 1}]), "smoth"),
        (lambda: build_criterion([{"name": "dice", "mode": "binary"}]), "mode"),
        (lambda: build_network({"name": "vnet"}, 3), "vnet"),
        (lambda: build_network({**tiny("unet"), "decoder_chanels": [8]}, 3), "decoder_chanels"),
        (lambda: build_network({**tiny("unet"), "encoder_depth": 9}, 3), "encoder_depth"),
        (lambda: build_network({**tiny("unet"), "classes": 2}, 3), "classes"),
        (lambda: build_network({"name": "segformer", "config": {"depth": 3}}, 3), "'depth'"),
        (lambda: build_network({**tiny("mask2former"), "backbone": {"embed": 3}}, 3), "'embed'"),
        (lambda: build_criterion([{"name": "tversky", "alpha": "x"}]), "alpha = 'x'"),
        (lambda: build_network({**tiny("unet"), "encoder_name": "tu-foo"}, 3), "tu-foo"),
        (lambda: build_network({"name": "segformer", "config": {"depths": [1, 1]}}, 3), "depths"),
        (lambda: build_network({"name": "segformer", "pretrained": "/no/such/folder"}, 3), "/no/such/folder"),
        (lambda: build_network({**tiny("unet"), "weights": "/no/such.pt"}, 3), "/no/such.pt"),
        (lambda: build_network({**tiny("unet"), "weights": __file__}, 3), __file__),
        (lambda: scheduler({"name": "plateau", "patience": "x"}), "patience = 'x'"),
        (lambda: scheduler({"name": "cosine", "warm_up": -1}), "warm_up"),
        (lambda: Augmentation([{"name": "clahe", "tiles": 2.5}]), "tiles = 2.5"),
        (lambda: build_optimizer({"name": "adamw", "rate": 1}, nn.Linear(1, 1)), "rate"),
        (lambda: build_optimizer({"name": "adamw", "lr": -1.0}, nn.Linear(1, 1)), "-1.0"),
    ],
)
def test_sections_name_what_they_do_not_know(make: object, named: str) -> None:
    with pytest.raises(EnskError) as caught:
        make()
    assert named in caught.value.item


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[1] / "configs").rglob("*.json")), ids=lambda f: f"{f.parent.name}-{f.stem}"
)
def test_the_configurations_that_ship_are_valid(file: Path) -> None:
    config = Config.load(file)
    assert config.name == file.stem
    if config.criterion != "own":
        build_criterion(config.criterion)
    build_optimizer(config.optimizer, nn.Linear(1, 1))
    Augmentation(config.augmentation)
    if "pretrained" not in config.model:  # what is on the hub cannot be asked here
        with torch.device("meta"):
            build_network(config.model, 29, pretrained=False)
