"""A state dict: read from a file without running code, unwrapped, and loaded into a module of PyTorch."""

from __future__ import annotations

import filecmp
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # the name of an error; nothing here unpickles
from typing import Any

import torch

from ensemble_kit.errors import (
    DamagedError,
    IncompleteError,
    MismatchError,
    UnsafeError,
    UsageError,
    first_line,
    some,
)

_CONTAINERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("_orig_mod.", "module.", "model.", "net.")
_SAFE_LOAD = (2, 10)  # below it weights_only=True could be escaped: CVE-2025-32434 (< 2.6), CVE-2026-24747
_SHIPPED = Path(__file__).parents[1] / "demo" / "data" / "weights"
_SLACK = 2**26


def load_weights(network: torch.nn.Module, path: Path, *, trust: bool) -> list[str]:
    """Load a state dict into a network, every key of it; return notes on what was unwrapped.

    Parameters
    ----------
    trust : whether a release of torch may read the file that a crafted file could make run code.

    Raises
    ------
    UnsafeError
        Reading the file could run code, or needs far more memory than the file is long.
    MismatchError
        Keys or shapes differ.
    """
    state, notes = _unwrap(_read(path, trust))
    own = network.state_dict()
    state, more = _strip(state, set(own))
    _check_keys(path, own, state)
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


def _unwrap(state: Any) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Take the state dict out of a checkpoint."""
    notes: list[str] = []
    for key in _CONTAINERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            notes.append(f"took {key!r} out of the checkpoint")
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        kind = f"a dict of {some(state)}" if isinstance(state, Mapping) else f"a {type(state).__name__}"
        raise MismatchError(
            "weights-form", "cannot find a state dict", item=kind, fix="save torch.save(network.state_dict(), path)"
        )
    return dict(state), notes


def _strip(state: dict[str, torch.Tensor], wanted: set[str]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Drop prefixes that wrappers put before every key: DDP, Lightning, torch.compile."""
    notes: list[str] = []
    while set(state) != wanted:
        prefix = next(
            (p for p in _PREFIXES if any(k.startswith(p) for k in state) and not any(k.startswith(p) for k in wanted)),
            None,
        )
        if prefix is None:
            break
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        rest = [k for k in state if not k.startswith(prefix)]
        if rest and set(inner) < wanted:  # a submodule has this name: it is not a wrapper
            break
        notes.append(f"dropped the prefix {prefix!r}" + (f" and left out {some(rest)}" if rest else ""))
        state = inner
    return state, notes


def _check_keys(path: Path, own: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> None:
    missing, extra = [k for k in own if k not in state], [k for k in state if k not in own]
    differences = [
        *([f"missing {some(missing)}"] if missing else []),
        *([f"not in the network {some(extra)}"] if extra else []),
        *[
            f"{k} {tuple(state[k].shape)} where the network has {tuple(v.shape)}"
            for k, v in own.items()
            if k in state and state[k].shape != v.shape
        ][:3],
    ]
    if differences:
        raise MismatchError(
            "weights-mismatch",
            "cannot load weights into the network",
            item=f"{str(path)!r}: {'; '.join(differences)}",
            fix="pass the callable that builds the network these weights were trained in",
        )


def _unsafe(code: str, path: Path, why: str, fix: str) -> UnsafeError:
    return UnsafeError(code, "refused to open a file", item=f"{str(path)!r} {why}", fix=fix)


def _damaged(path: Path, why: Exception | str) -> DamagedError:
    return DamagedError(
        "weights-damaged",
        "cannot load weights",
        item=f"{str(path)!r}: {why if isinstance(why, str) else first_line(why)}",
        fix="pass a state dict as torch.save or safetensors writes it, or copy the file again if it was one",
    )
