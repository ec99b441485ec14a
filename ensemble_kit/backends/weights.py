"""Weights from a file into a module of PyTorch, without running code that the file may hold."""

from __future__ import annotations

import filecmp
import re
import zipfile
from pathlib import Path
from pickle import UnpicklingError  # the name of an error; nothing here unpickles
from typing import Any

import torch

from ensemble_kit.backends.statedict import fit, unwrap
from ensemble_kit.errors import (
    DamagedError,
    IncompleteError,
    UnsafeError,
    UsageError,
    first_line,
)

_SAFE_LOAD = (2, 10)  # below it weights_only=True could be escaped: CVE-2025-32434 (< 2.6), CVE-2026-24747
_SHIPPED = Path(__file__).parents[1] / "demo" / "data" / "weights"
_SLACK = 2**26


def load_weights(network: torch.nn.Module, path: Path, *, trust: bool, key: str | None = None) -> list[str]:
    """Load a state dict into a network, every key of it; return notes on what was taken and unwrapped.

    Parameters
    ----------
    trust : whether a release of torch may read the file that a crafted file could make run code.
    key : where the state dict is in a checkpoint that holds several; None: see `statedict.unwrap`.

    Raises
    ------
    UnsafeError
        Reading the file could run code, or needs far more memory than the file is long.
    MismatchError
        Keys or shapes differ, or several parts of the file fit.
    """
    own = network.state_dict()
    state, notes, key = unwrap(_read(path, trust), key)
    state, more = fit(path, state, own, key)
    network.load_state_dict(state, strict=True)
    return [f"weights {path.name}: {note}" for note in (*notes, *more)]


def check_bomb(path: Path) -> None:
    """Refuse a zip that swells: torch stores tensors uncompressed, so entries add up to the file's own size."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as file:
            swollen = sum(entry.file_size for entry in file.infolist())
    except zipfile.BadZipFile as error:
        raise _damaged(path, error) from error
    if swollen > 4 * path.stat().st_size + _SLACK:
        why = f"of {path.stat().st_size} bytes would swell to {swollen}"
        raise _unsafe("weights-bomb", path, why, "save it again with torch.save, which does not compress")


def _read(path: Path, trust: bool) -> Any:
    if not path.is_file():
        raise IncompleteError(
            "weights-missing", "cannot load weights", item=f"{str(path)!r} is not a file", fix="pass an existing file"
        )
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    check_bomb(path)
    _check_beginning(path)
    if tuple(int(v) for v in torch.__version__.split(".")[:2]) < _SAFE_LOAD and not trust and not _shipped(path):
        why = f"could make torch {torch.__version__}, which is below 2.10, run code"
        fix = "run: pip install 'torch>=2.10', pass .safetensors, or pass --trust if you know where the file comes from"
        raise _unsafe("torch-unsafe", path, why, fix)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        fix = "where you trained, save plain tensors: torch.save(network.state_dict(), path)"
        raise _unsafe("weights-can-run-code", path, _more_than_tensors(error), fix) from None
    except MemoryError:
        raise
    except Exception as error:
        if "TorchScript" in str(error):
            raise _damaged(path, "it is TorchScript, a model and not a state dict") from None
        raise _damaged(path, error) from error


def _shipped(path: Path) -> bool:
    """Tell whether a file holds the weights of one of the demo's networks, which come with the kit."""
    return any(filecmp.cmp(path, own, shallow=False) for own in _SHIPPED.glob("*.pt"))


def _check_beginning(path: Path) -> None:
    """Refuse what cannot be a file of weights: torch writes a zip, and before 1.6 a pickle of protocol 2."""
    with path.open("rb") as file:
        head = file.read(16)
    if not head.startswith((b"PK", b"\x80")) and not zipfile.is_zipfile(path):
        raise _damaged(path, f"it is not a weights file: it {f'begins with {head!r}' if head else 'is empty'}")


def _more_than_tensors(error: Exception) -> str:
    """Say what torch refused to unpickle, in our own words: its text advises to run whatever the file holds."""
    found = re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)", str(error))
    return f"holds {found[1] if found else 'more than tensors'}, and reading that could run any code"


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        fix = "run: pip install 'ensemble_kit[safetensors]'"
        raise UsageError(
            "safetensors-missing", "cannot load weights", item=f"{path.name!r}: {error}", fix=fix
        ) from error
    try:
        state: dict[str, torch.Tensor] = load_file(path)
        return state
    except SafetensorError as error:
        raise _damaged(path, error) from error


def _unsafe(code: str, path: Path, why: str, fix: str) -> UnsafeError:
    return UnsafeError(code, "refused to open a file", item=f"{str(path)!r} {why}", fix=fix)


def _damaged(path: Path, why: Exception | str) -> DamagedError:
    return DamagedError(
        "weights-damaged",
        "cannot load weights",
        item=f"{str(path)!r}: {why if isinstance(why, str) else first_line(why)}",
        fix="pass a state dict as torch.save or safetensors writes it, or copy the file again if it was one",
    )
