"""Checkpoints: files of torch that are whole at every moment, and named where they are not."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch

from ensemble_kit import DamagedError, IncompleteError
from hand_bones.experiment import replacing

WEIGHTS = "best.pt sha256"
"""The key of an ONNX file's metadata that says which weights it holds."""


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint: the file is the old one until it is the new one."""
    with replacing(path) as out:
        torch.save(state, out)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint onto a device.

    Raises
    ------
    IncompleteError
        There is no such file.
    DamagedError
        It is not a whole checkpoint of torch.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise IncompleteError(
            "checkpoint-missing",
            "cannot load a checkpoint",
            item=f"there is no file {path}",
            fix="put it back, or train the experiment (anew: remove its folder first)",
        ) from None
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise DamagedError(
            "checkpoint-damaged",
            "cannot load a checkpoint",
            item=f"{path}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'it ends too early'}",
            fix="put a whole one in its place, or remove the experiment's folder and train anew",
        ) from error


def digest(path: Path) -> str:
    """Give the SHA-256 of a file that must be there."""
    if not path.is_file():
        load(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()
