from __future__ import annotations

import math

import pytest
import torch
from hand_bones.schedule import build_optimizer, build_scheduler
from torch import nn


def rates(section: dict[str, object], epochs: int, dice: list[float] | None = None) -> list[float]:
    """The learning rate of each epoch."""
    optimizer = build_optimizer({"name": "adamw", "lr": 1.0}, nn.Linear(2, 2))
    scheduler = build_scheduler(section, optimizer)
    found = []
    for epoch in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*([dice[epoch]] if dice else []))
    return found


def test_the_cosine_restarts() -> None:
    found = rates({"name": "cosine", "first": 4, "longer": 2, "min_lr": 0.0}, 13)
    rounds = [0.5 + 0.5 * math.cos(math.pi * k / n) for n in (4, 8) for k in range(n)]
    assert found == pytest.approx([*rounds, 1.0])


def test_the_cosine_warms_up_first() -> None:
    found = rates({"name": "cosine", "first": 4, "min_lr": 0.0, "warm_up": 3}, 8)
    rise = [0.1 + 0.9 * k / 3 for k in range(3)]
    assert found == pytest.approx([*rise, *(0.5 + 0.5 * math.cos(math.pi * k / 4) for k in range(4)), 1.0])


def test_the_plateau_cuts_where_the_dice_stays() -> None:
    found = rates({"name": "plateau", "factor": 0.1, "patience": 1}, 6, dice=[0.1, 0.2, 0.2, 0.2, 0.5, 0.6])
    assert found == pytest.approx([1, 1, 1, 1, 0.1, 0.1])


def test_only_matrices_and_filters_decay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network[0].requires_grad_(False)
    decayed, kept = build_optimizer(
        {"name": "adamw", "weight_decay": 0.1}, nn.Sequential(network, nn.Linear(4, 2))
    ).param_groups
    assert [p.ndim for p in decayed["params"]] == [2]
    assert [p.ndim for p in kept["params"]] == [1, 1, 1]
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert isinstance(decayed["params"][0], torch.nn.Parameter)
