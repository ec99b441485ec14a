"""PyTorch: a module or function by its name or from Python, an exported program, or TorchScript."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kit import user_code
from ensemble_kit.backends.choosing import Output, choose
from ensemble_kit.backends.network import Options, check_undecided
from ensemble_kit.errors import (
    DamagedError,
    EnskError,
    MismatchError,
    ResourceError,
    UnsafeError,
    UsageError,
    first_line,
)
from ensemble_kit.files import sha256

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise UsageError(
        "torch-missing", "cannot run a torch model", item=str(error), fix="run: pip install torch"
    ) from error

from ensemble_kit.backends.digest import network_digest
from ensemble_kit.backends.weights import check_bomb, load_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TorchNetwork:
    """A network of PyTorch on one device, in evaluation mode, without gradients."""

    size = None

    def __init__(
        self, run: Callable[[Any], Any], device: torch.device, options: Options, record: dict[str, Any]
    ) -> None:
        self._run, self._device, self._record = run, device, record
        self._half, self._output, self._say = options.half, options.output, options.say
        self.channels = input_channels(run)

    def put(self, images: NDArray[np.float32]) -> torch.Tensor:
        """Bring a batch, float32 (B, 3, h, w), to the device."""
        return torch.from_numpy(images).to(self._device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the network; return its logits as float32 (B, C, h', w')."""
        cast = torch.autocast(self._device.type, torch.float16) if self._half else nullcontext()
        with torch.inference_mode(), cast:
            found = logits_of(self._run(x), self._output, self._say)
            self._say = _silent  # what was taken is told once
            check_undecided(tuple(found.shape), str(found.dtype))
            return found.to(self._device, torch.float32)

    def get(self, y: torch.Tensor) -> NDArray[np.float32]:
        """Bring outputs back as float32."""
        return y.cpu().numpy()

    def record(self) -> dict[str, Any]:
        """Return what ran."""
        return {**self._record, "device": self._device.type}


def open_network(model: object, options: Options) -> tuple[TorchNetwork, list[str]]:
    """Open a module:callable, an nn.Module or function from Python, an exported program, or TorchScript."""
    device = choose_device(options.device)
    if options.half and device.type != "cuda":
        raise _option("cannot run in half precision", f"--half on {device.type}", "leave it out, or run on CUDA")
    torch.manual_seed(options.seed)
    network, record = _open(model, options.trust)
    program = "model_sha256" in record
    notes: list[str] = []
    if options.weights is None and options.weights_key is not None:
        raise _option("cannot load weights", "--weights-key without --weights", "pass --weights with the checkpoint")
    if options.weights is not None:
        if not isinstance(network, torch.nn.Module) or program:
            fix = "pass --weights only with a callable that returns an nn.Module"
            raise _option("cannot load weights", f"--weights with {record['model']!r}", fix)
        path = Path(options.weights)
        notes = load_weights(network, path, trust=options.trust, key=options.weights_key)
        record["weights"] = {"file": path.name, "sha256": sha256(path)}
        if options.weights_key is not None:
            record["weights"]["key"] = options.weights_key
    digest = record.get("model_sha256") or network_digest(network)
    if digest is not None:
        record["network_sha256"] = digest
    if isinstance(network, torch.nn.Module):
        network = network.to(device)
        if not program:
            network.eval()
    record["versions"] = {"torch": torch.__version__}
    return TorchNetwork(network, device, options, record), notes


def _open(model: object, trust: bool) -> tuple[Callable[[Any], Any], dict[str, Any]]:
    """Return what runs and the first entries of its record, with `model_sha256` where it is the program in a file."""
    if isinstance(model, str | Path):
        if not Path(model).is_file():
            return _build(str(model)), {"model": str(model)}
        return _load_program(Path(model), trust), {"model": Path(model).name, "model_sha256": sha256(Path(model))}
    if not callable(model):
        raise UsageError(
            "model-unknown",
            "cannot run a model",
            item=f"a {type(model).__name__}",
            fix="pass an nn.Module, a function on a tensor, or text such as module:callable",
        )
    named = model if hasattr(model, "__qualname__") else type(model)  # a function, or a module's class
    return model, {"model": f"{named.__module__}:{named.__qualname__}"}


def _build(name: str) -> Callable[[Any], Any]:
    """Import `module:callable` and call it, unless it is a network already."""
    found = user_code.import_named("model-import", "a model", name)
    if isinstance(found, torch.nn.Module):
        return found
    try:
        network = found()
    except EnskError:
        raise
    except Exception as error:
        raise _unbuilt(f"{name}(): {type(error).__name__}: {error}") from error
    if not callable(network):
        raise _unbuilt(f"{name}() returns a {type(network).__name__}")
    built: Callable[[Any], Any] = network
    return built


def _load_program(path: Path, trust: bool) -> Callable[[Any], Any]:
    """Load a program that the user trusts."""
    exported = path.suffix.lower() == ".pt2"
    if not trust:
        raise UnsafeError(
            "model-can-run-code",
            "refused to open a model",
            item=f"{str(path)!r} is {'an exported program' if exported else 'TorchScript'}, which can run any code",
            fix="pass --trust if you know where it comes from, or module:callable with --weights for a state dict",
        )
    check_bomb(path)
    try:
        with warnings.catch_warnings():
            # torch.jit is deprecated for those who write it; those who only have the file cannot help it
            warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
            # below 2.6 torch.export.load warns that it unpickles: the user trusts the file
            warnings.filterwarnings("ignore", message=".*weights_only", category=FutureWarning)
            if exported:  # it was fixed in its mode, and refuses eval()
                return torch.export.load(path).module()
            load: Callable[..., torch.nn.Module] = torch.jit.load
            return load(path, map_location="cpu").eval()
    except MemoryError:
        raise
    except Exception as error:
        raise DamagedError(
            "model-damaged",
            "cannot open a model",
            item=f"{str(path)!r}: {first_line(error)}",
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
        raise _option("cannot use a device", f"--device {name!r}", "pass auto, cpu, cuda, cuda:1 or mps")
    if not has[kind] or (index and int(index) >= torch.cuda.device_count()):
        item = f"{name!r}; this machine has {', '.join(d for d, found in has.items() if found)}"
        raise ResourceError("device-missing", "cannot use a device", item=item, fix="pass --device auto")
    return torch.device(name)


def logits_of(output: Any, asked: str | int | None = None, say: Callable[[str], None] = lambda _: None) -> torch.Tensor:
    """Find the logits in what a network returns: a tensor, or a dict, list or object that holds them.

    `say` receives which of several is taken. Of an object it is the attribute `logits`, or the one asked for.
    """
    found = output
    for _ in range(3):
        if isinstance(found, torch.Tensor | str | bytes) or hasattr(found, "__array__"):
            break
        if isinstance(found, Mapping | tuple | list) and found:
            names = list(found) if isinstance(found, Mapping) else list(range(len(found)))
            outputs = [Output(name, _shape(found[name])) for name in names]
            chosen, told = choose(outputs, asked, ordered=not isinstance(found, Mapping))
            found = found[names[chosen]]
            if told:
                say(told)
        elif hasattr(found, str(asked or "logits")):
            found = getattr(found, str(asked or "logits"))
        asked = None
    if hasattr(found, "__array__") and not isinstance(found, torch.Tensor):
        found = torch.as_tensor(found)
    if not isinstance(found, torch.Tensor):
        raise MismatchError(
            "model-output",
            "cannot find the logits in what the network returns",
            item=f"a {type(output).__name__}",
            fix="return a tensor (B, C, h, w), or a dict with 'logits' or 'out'",
        )
    if asked not in {None, 0, -1}:
        choose([Output(0, tuple(found.shape))], asked, ordered=True)
    return found


def input_channels(network: object) -> int | None:
    """Find how many channels a network's first convolution takes; None where there is none.

    First by registration, which is nearly always the order of running: a hint, which nothing is refused by alone.
    """
    if not isinstance(network, torch.nn.Module):
        return None
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            return module.in_channels
    first = next((v for v in network.state_dict().values() if isinstance(v, torch.Tensor) and v.ndim == 4), None)
    return None if first is None else int(first.shape[1])  # of a program in a file, whose modules have lost their types


def _silent(_: str) -> None:
    """Say nothing."""


def _shape(value: object) -> tuple[object, ...]:
    shape = getattr(value, "shape", ())
    return tuple(shape) if isinstance(shape, tuple) else ()


def _unbuilt(item: str) -> UsageError:
    fix = "name a callable without arguments that returns an nn.Module or a function on a tensor (B, 3, h, w)"
    return UsageError("model-build", "cannot build a model", item=item, fix=fix)


def _option(what: str, item: str, fix: str) -> UsageError:
    return UsageError("option-invalid", what, item=item, fix=fix)
