"""Networks of experiments by name, for `ensk dump-logits hand_bones.trained:NAME --weights …/NAME/best.pt`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hand_bones.classes import CLASSES
from hand_bones.config import Config

if TYPE_CHECKING:
    from torch import nn

EXPERIMENTS = "HAND_BONES_EXPERIMENTS"
"""The environment variable that says where experiments are; without it `experiments` in the current folder."""


def __getattr__(name: str) -> Callable[[], nn.Module]:
    file = Path(os.environ.get(EXPERIMENTS, "experiments")) / name / "config.json"
    if name.startswith("__") or not file.is_file():
        raise AttributeError(f"there is no experiment {name!r}: no file {file}")

    def build() -> nn.Module:
        from hand_bones import networks

        return networks.build(Config.load(file).model, len(CLASSES), pretrained=False)

    return build
