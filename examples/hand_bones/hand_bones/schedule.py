"""Optimizers and learning rates: pieces of torch, composed. A scheduler steps once an epoch."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingWarmRestarts,
    LinearLR,
    LRScheduler,
    ReduceLROnPlateau,
    SequentialLR,
)

from hand_bones.config import Section, construct


def adamw(parameters: Iterable[nn.Parameter], lr: float = 1e-3, weight_decay: float = 0.01) -> AdamW:
    """AdamW that decays matrices and filters, and leaves biases and the scales of norms alone."""
    parameters = [p for p in parameters if p.requires_grad]
    decayed, kept = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return AdamW(groups, lr=lr)


def plateau(optimizer: Optimizer, factor: float = 0.5, patience: int = 5, min_lr: float = 1e-6) -> ReduceLROnPlateau:
    """Cut the rate where the validation Dice has not risen for more than `patience` validations."""
    return ReduceLROnPlateau(optimizer, mode="max", factor=factor, patience=patience, min_lr=min_lr)


def cosine(
    optimizer: Optimizer, first: int = 10, longer: int = 1, min_lr: float = 1e-6, warm_up: int = 0
) -> LRScheduler:
    """Warm up, then anneal by a cosine with warm restarts (Loshchilov and Hutter 2017).

    Parameters
    ----------
    first, longer : epochs of the first round; each later one is so many times as long as the one before.
    warm_up : epochs in which the rate rises from a tenth in equal parts, before the first round.
    """
    if warm_up < 0:
        raise ValueError(f"warm_up = {warm_up}, not 0 or more")
    rounds = CosineAnnealingWarmRestarts(optimizer, T_0=first, T_mult=longer, eta_min=min_lr)
    if not warm_up:
        return rounds
    rise = LinearLR(optimizer, start_factor=0.1, total_iters=warm_up)
    return SequentialLR(optimizer, [rise, rounds], milestones=[warm_up])


OPTIMIZERS = {"adamw": adamw}
SCHEDULERS = {"plateau": plateau, "cosine": cosine}


def build_optimizer(section: Section, network: nn.Module) -> Optimizer:
    """Build {"name": "adamw", "lr": …, "weight_decay": …}."""
    return construct("the optimizer", section, OPTIMIZERS, network.parameters())


def build_scheduler(section: Section, optimizer: Optimizer) -> LRScheduler:
    """Build {"name": "plateau", …} or {"name": "cosine", …}."""
    return construct("the scheduler", section, SCHEDULERS, optimizer)
