"""PyTorch: a module and callable by name, an exported program, or TorchScript; weights from a state dict."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from pickle import UnpicklingError  # the name of an error; nothing here unpickles
from typing import TYPE_CHECKING, Any

import torch

from ensemble_kit import imports
from ensemble_kit.backends.identity import network_digest
from ensemble_kit.errors import (
    DamagedError,
    EnskError,
    IncompleteError,
    MismatchError,
    ResourceError,
    UnsafeError,
    UsageError,
    some,
)
from ensemble_kit.files import sha256

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ensemble_kit.backends import Kind

_CONTAINERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("_orig_mod.", "module.", "model.", "net.")
_SAFE_LOAD = (2, 10)  # below it weights_only=True could be escaped: CVE-2025-32434 (< 2.6), CVE-2026-24747
_SLACK = 2**26


class TorchNetwork:
    """A network of PyTorch on one device, in evaluation mode, without gradients."""

    size = None

    def __init__(self, run: Callable[[Any], Any], device: torch.device, half: bool, record: dict[str, Any]) -> None:
        self._run, self._device, self._half, self._record = run, device, half, record

    def put(self, images: NDArray[np.float32]) -> torch.Tensor:
        """Bring a batch, float32 (B, 3, h, w), to the device."""
        return torch.from_numpy(images).to(self._device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the network; return its logits as float32 (B, C, h', w')."""
        cast = torch.autocast(self._device.type, torch.float16) if self._half else nullcontext()
        with torch.inference_mode(), cast:
            return logits_of(self._run(x)).to(self._device, torch.float32)

    def get(self, y: torch.Tensor) -> NDArray[np.float32]:
        """Bring outputs back as float32."""
        return y.cpu().numpy()

    def record(self) -> dict[str, Any]:
        """Say what ran."""
        return {**self._record, "device": self._device.type}


def open_network(
    model: object, kind: Kind, weights: str | Path | None, device: str, *, half: bool, seed: int
) -> tuple[TorchNetwork, list[str]]:
    """Open a module:callable, an nn.Module or function at hand, an exported program, or TorchScript."""
    where = choose_device(device)
    if half and where.type != "cuda":
        raise UsageError(
            "option-invalid",
            "cannot run in half precision",
            item=f"--half on {where.type}",
            fix="leave --half out, or run on a CUDA device",
        )
    torch.manual_seed(seed)
    network, record = _open(model, kind)
    notes: list[str] = []
    if weights is not None:
        if not isinstance(network, torch.nn.Module) or kind in {"exported", "torchscript"}:
            raise UsageError(
                "option-invalid",
                "cannot load weights",
                item=f"--weights with {record['model']!r}",
                fix="pass --weights only with a callable that returns an nn.Module",
            )
        notes = load_weights(network, Path(weights))
        record["weights"] = {"file": Path(weights).name, "sha256": sha256(Path(weights))}
    digest = record.get("model_sha256") or network_digest(network)
    if digest is not None:
        record["network_sha256"] = digest
    if isinstance(network, torch.nn.Module):
        network = network.to(where)
        if kind != "exported":  # an exported program was fixed in its mode, and refuses eval()
            network.eval()
    record["versions"] = {"torch": torch.__version__}
    return TorchNetwork(network, where, half, record), notes


def _open(model: object, kind: Kind) -> tuple[Callable[[Any], Any], dict[str, Any]]:
    if not isinstance(model, str | Path):
        if not callable(model):
            raise UsageError(
                "model-unknown",
                "cannot run a model",
                item=f"a {type(model).__name__}",
                fix="pass an nn.Module, a function on a tensor, or text such as module:callable",
            )
        named = model if hasattr(model, "__qualname__") else type(model)  # a function, or a module's class
        return model, {"model": f"{named.__module__}:{named.__qualname__}"}
    if kind == "callable":
        return _build(str(model)), {"model": str(model)}
    path = Path(model)
    _check_bomb(path)
    return _load_program(path, kind), {"model": path.name, "model_sha256": sha256(path)}


def _build(name: str) -> Callable[[Any], Any]:
    """Import `module:callable` and call it; the current directory can be imported from."""
    try:
        found = imports.by_name(name)
    except Exception as error:
        raise UsageError(
            "model-import",
            "cannot import a model",
            item=f"{name!r}: {type(error).__name__}: {error}",
            fix="pass module:callable; the module is looked for in the current directory and among what is installed",
        ) from error
    if isinstance(found, torch.nn.Module):
        return found
    try:
        network = found()
    except EnskError:
        raise
    except Exception as error:
        raise UsageError(
            "model-build",
            "cannot build a model",
            item=f"{name}(): {type(error).__name__}: {error}",
            fix="name a callable without arguments that returns an nn.Module or a function on a tensor (B, 3, h, w)",
        ) from error
    if not callable(network):
        raise UsageError(
            "model-build",
            "cannot use what a model's callable returns",
            item=f"{name}() is a {type(network).__name__}",
            fix="return an nn.Module or a function on a tensor (B, 3, h, w)",
        )
    built: Callable[[Any], Any] = network
    return built


def _load_program(path: Path, kind: Kind) -> Callable[[Any], Any]:
    """Load code that the user trusts."""
    try:
        with warnings.catch_warnings():
            # torch.jit is deprecated for those who write it; those who only have the file cannot help it
            warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
            if kind == "exported":
                return torch.export.load(path).module()
            load: Callable[..., Callable[[Any], Any]] = torch.jit.load
            return load(path, map_location="cpu")
    except MemoryError:
        raise
    except Exception as error:
        raise DamagedError(
            "model-damaged",
            "cannot open a model",
            item=f"{str(path)!r}: {_first_line(error)}",
            fix="pass .pt2 as torch.export.save wrote it, or .pt as torch.jit.save did; "
            "a state dict goes to --weights with module:callable as MODEL",
        ) from error


def choose_device(name: str) -> torch.device:
    """Choose a device: auto, cpu, cuda, cuda:1, mps."""
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(d for d in ("cuda", "mps", "cpu") if has[d]))
    kind, _, index = name.partition(":")
    if kind not in has or (index and not index.isdigit()):
        raise UsageError(
            "option-invalid",
            "cannot use a device",
            item=f"--device {name!r}",
            fix="pass auto, cpu, cuda, cuda:1 or mps",
        )
    if not has[kind] or (index and int(index) >= torch.cuda.device_count()):
        there = ", ".join(d for d, found in has.items() if found)
        raise ResourceError(
            "device-missing",
            "cannot use a device",
            item=f"{name!r}; this machine has {there}",
            fix="pass --device auto",
        )
    return torch.device(name)


def logits_of(output: Any) -> torch.Tensor:
    """Find the logits in what a network returns: a tensor, a dict or object with them, or a tuple's first."""
    found = output
    for _ in range(3):
        if isinstance(found, Mapping):
            found = next((found[k] for k in ("logits", "out") if k in found), None)
        elif isinstance(found, tuple | list) and found:
            found = found[0]
        elif hasattr(found, "logits"):
            found = found.logits
    if hasattr(found, "__array__") and not isinstance(found, torch.Tensor):
        found = torch.as_tensor(found)
    if not isinstance(found, torch.Tensor):
        kind = f"a dict of {some(output)}" if isinstance(output, Mapping) else f"a {type(output).__name__}"
        raise MismatchError(
            "model-output",
            "cannot find the logits in what the network returns",
            item=kind,
            fix="return a tensor (B, C, h, w), or a dict with 'logits' or 'out'",
        )
    return found


def load_weights(network: torch.nn.Module, path: Path) -> list[str]:
    """Load a state dict into a network, every key of it; return notes on what was unwrapped.

    Raises UnsafeError where the file would have to be unpickled, MismatchError where keys or shapes differ.
    """
    state, notes = _unwrap(_read_state(path))
    own = network.state_dict()
    state, more = _strip(state, set(own))
    _check_keys(path, own, state)
    network.load_state_dict(state, strict=True)
    return [f"weights {path.name}: {note}" for note in (*notes, *more)]


def _read_state(path: Path) -> Any:
    if not path.is_file():
        raise IncompleteError(
            "weights-missing",
            "cannot load weights",
            item=f"no file {str(path)!r}",
            fix="pass the path of a state dict that exists",
        )
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    if tuple(int(v) for v in torch.__version__.split(".")[:2]) < _SAFE_LOAD:
        raise UnsafeError(
            "torch-unsafe",
            "refused to load weights",
            item=f"torch {torch.__version__} is below 2.10 and can be made to run code by them",
            fix="run: pip install 'torch>=2.10', or pass .safetensors",
        )
    _check_bomb(path)
    _check_beginning(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UnsafeError(
            "weights-can-run-code",
            "refused to load weights",
            item=f"{str(path)!r} {_more_than_tensors(error)}",
            fix="where you trained, save plain tensors: torch.save(network.state_dict(), path)",
        ) from None
    except MemoryError:
        raise
    except Exception as error:
        if "TorchScript" in str(error):
            raise _damaged(path, "it is TorchScript, a model and no state dict") from None
        raise _damaged(path, error) from error


def _check_beginning(path: Path) -> None:
    """Refuse what cannot be a file of weights: torch writes a zip, and before 1.6 a pickle of protocol 2."""
    with path.open("rb") as file:
        head = file.read(16)
    if not head.startswith((b"PK", b"\x80")) and not zipfile.is_zipfile(path):
        raise _damaged(path, f"it is no weights file: it {f'begins with {head!r}' if head else 'is empty'}")


def _more_than_tensors(error: Exception) -> str:
    """Say what torch refused to unpickle, in our own words: its text advises to run whatever the file holds."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"holds {found[1] if found else 'more than tensors'}, and to read that could run any code"


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise UsageError(
            "safetensors-missing",
            "cannot load weights",
            item=f"{path.name!r}: {error}",
            fix="run: pip install 'ensemble_kit[safetensors]'",
        ) from error
    try:
        state: dict[str, torch.Tensor] = load_file(path)
        return state
    except SafetensorError as error:
        raise _damaged(path, error) from error


def _check_bomb(path: Path) -> None:
    """Refuse a zip that swells: torch stores tensors uncompressed, so entries add up to the file's own size."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as file:
            swollen = sum(entry.file_size for entry in file.infolist())
    except zipfile.BadZipFile as error:
        raise _damaged(path, error) from error
    if swollen > 4 * path.stat().st_size + _SLACK:
        raise UnsafeError(
            "weights-bomb",
            "refused to open a file",
            item=f"{str(path)!r} of {path.stat().st_size} bytes would swell to {swollen}",
            fix="save it again with torch.save, which does not compress",
        )


def _unwrap(state: Any) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Take the state dict out of a checkpoint."""
    notes: list[str] = []
    for key in _CONTAINERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            notes.append(f"took {key!r} out of the checkpoint")
    tensors = isinstance(state, Mapping) and all(isinstance(v, torch.Tensor) for v in state.values())
    if not tensors:
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
        if rest and set(inner) < wanted:  # it is one part of the network, not a wrapper of it
            break
        notes.append(f"dropped the prefix {prefix!r}" + (f" and left out {some(rest)}" if rest else ""))
        state = inner
    return state, notes


def _check_keys(path: Path, own: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> None:
    missing, extra = [k for k in own if k not in state], [k for k in state if k not in own]
    shapes = [
        f"{k} {tuple(state[k].shape)} where the network has {tuple(v.shape)}"
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    parts = [
        *([f"missing {some(missing)}"] if missing else []),
        *([f"not in the network {some(extra)}"] if extra else []),
        *shapes[:3],
    ]
    if parts:
        raise MismatchError(
            "weights-mismatch",
            "cannot load weights into the network",
            item=f"{str(path)!r}: {'; '.join(parts)}",
            fix="pass the callable that builds the network these weights were trained in",
        )


def _damaged(path: Path, why: Exception | str) -> DamagedError:
    return DamagedError(
        "weights-damaged",
        "cannot load weights",
        item=f"{str(path)!r}: {why if isinstance(why, str) else _first_line(why)}",
        fix="pass a state dict as torch.save or safetensors writes it, or copy the file again if it was one",
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"
