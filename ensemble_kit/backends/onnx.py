"""ONNX, run by onnxruntime; external data only from the model's own folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.backends.choosing import Output, choose
from ensemble_kit.backends.network import Options, check_undecided
from ensemble_kit.errors import (
    DamagedError,
    MismatchError,
    ResourceError,
    UnsafeError,
    UsageError,
    check_choice,
    first_line,
)
from ensemble_kit.files import sha256

try:
    import onnx
    import onnxruntime
except ModuleNotFoundError as error:
    if error.name not in {"onnx", "onnxruntime"}:
        raise
    raise UsageError(
        "onnx-missing", "cannot run an ONNX model", item=str(error), fix="run: pip install 'ensemble_kit[onnx]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "mps": "CoreMLExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class OnnxNetwork:
    """A network of ONNX."""

    def __init__(
        self, session: Any, path: Path, provider: str, digests: dict[str, str], output: str, several: bool
    ) -> None:
        self._session, self._path, self._provider, self._digests = session, path, provider, digests
        self._input, self._output = _input_of(session, path), output
        batch, self.channels, h, w = (n if isinstance(n, int) else None for n in self._input.shape)
        self.size = (h, w) if h and w else None
        self._batch, self._several = batch, several

    def put(self, images: NDArray[np.float32]) -> NDArray[Any]:
        """Bring a batch to the type that the model takes."""
        return images.astype(_TYPES[self._input.type], copy=False)

    def forward(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Run the network; return float32 (B, C, h', w')."""
        n = self._batch or len(x)
        if len(x) == n:
            return self._run(x)
        padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % n, axis=0)])  # exported for batches of n only
        return np.concatenate([self._run(padded[k : k + n]) for k in range(0, len(x), n)])[: len(x)]

    def _run(self, x: NDArray[Any]) -> NDArray[np.float32]:
        if self._several:  # only now are lengths known that the file leaves free
            self._several = False
            names = [o.name for o in self._session.get_outputs()]
            found = self._session.run(names, {self._input.name: np.ascontiguousarray(x)})
            choose([Output(n, np.shape(v)) for n, v in zip(names, found, strict=True)], None, ordered=True)
        outputs = self._session.run([self._output], {self._input.name: np.ascontiguousarray(x)})
        found = np.asarray(outputs[0])
        check_undecided(found.shape, str(found.dtype))
        return found.astype(np.float32, copy=False)

    def get(self, y: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return outputs as they are: onnxruntime works on NumPy arrays."""
        return y

    def record(self) -> dict[str, Any]:
        """Return what ran."""
        return {
            "model": self._path.name,
            **self._digests,
            "output": self._output,
            "device": self._provider,
            "versions": {"onnxruntime": onnxruntime.__version__},
        }


def open_network(model: object, options: Options) -> tuple[OnnxNetwork, list[str]]:
    """Open an ONNX file.

    Raises
    ------
    UnsafeError
        Its data lies outside its folder.
    DamagedError
        It is not a model that runs.
    """
    path = Path(str(model))
    for option, given in (("--weights", options.weights is not None), ("--half", options.half)):
        if given:
            item, fix = f"{option} with {str(path)!r}", f"leave {option} out; export the model as it is to run"
            raise UsageError("option-invalid", "cannot change an ONNX model", item=item, fix=fix)
    external = check_files(path)
    provider = _choose(options.device)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # warnings are about the exporter's taste, and errors are raised as well
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=[provider])
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(path, first_line(error)) from error
    outputs = [Output(o.name, tuple(o.shape or ())) for o in session.get_outputs()]
    chosen, told = choose(outputs, options.output, ordered=True)
    several = len(outputs) > 1 and options.output is None
    network = OnnxNetwork(session, path, provider, _digests(path, external), str(outputs[chosen].name), several)
    return network, [f"{path.name}: {told}"] if told else []


def _digests(path: Path, external: list[str]) -> dict[str, str]:
    """Digest the file, and the network: the file's own digest, bound to those of its external data."""
    own = sha256(path)
    lines = [f"{name}\0{sha256(path.resolve().parent / name)}" for name in external]
    network = hashlib.sha256("\0".join([own, *lines]).encode()).hexdigest() if lines else own
    return {"model_sha256": own, "network_sha256": network}


def check_files(path: Path) -> list[str]:
    """List the files of data that a model reads; refuse one that reads outside its folder.

    By path, symbolic link or hard link: onnxruntime reads those.
    """
    if path.stat().st_nlink > 1:
        raise _unsafe(path, "is hard-linked: another name of the same file exists")
    try:
        model = onnx.load(str(path), load_external_data=False)
        names = {e.value for t in _tensors(model) for e in t.external_data if e.key == "location"}
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(path, first_line(error)) from error
    folder = path.resolve().parent
    for name in sorted(names):
        data = folder / name
        if Path(name).is_absolute() or data.is_symlink() or folder not in data.resolve().parents:
            raise _unsafe(path, f"reads {name!r}, outside its folder")
        if not data.is_file():
            raise _damaged(path, f"it lacks its data {name!r}", "copy that file beside the model")
        if data.stat().st_nlink > 1:
            raise _unsafe(path, f"reads {name!r}, which is hard-linked to another file")
    return sorted(names)


def _tensors(model: Any) -> Iterator[Any]:
    """Walk over every tensor that can have external data: in graphs, in attributes, in functions."""
    nodes = [*(n for f in model.functions for n in f.node)]
    graphs = [model.graph]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
            continue
        for attribute in nodes.pop().attribute:
            yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            graphs.extend([*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs])


def _input_of(session: Any, path: Path) -> Any:
    inputs: list[Any] = session.get_inputs()
    fits = len(inputs) == 1 and inputs[0].type in _TYPES and len(inputs[0].shape) == 4
    if not fits:
        shown = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs) or "none"
        raise MismatchError(
            "model-input",
            "cannot feed images to a model",
            item=f"{str(path)!r} takes {shown}; images are float (B, channels, h, w)",
            fix="export the network with one input of floats (B, channels, h, w)",
        )
    return inputs[0]


def _choose(device: str) -> str:
    available = onnxruntime.get_available_providers()
    if device == "auto":
        return _PROVIDERS["cuda"] if _PROVIDERS["cuda"] in available else _PROVIDERS["cpu"]
    check_choice("--device", device, ("auto", *_PROVIDERS), "cannot use a device")
    if _PROVIDERS[device] not in available:
        item = f"{device!r}; this onnxruntime has {', '.join(available)}"
        fix = "pass --device auto, or install onnxruntime-gpu"
        raise ResourceError("device-missing", "cannot use a device", item=item, fix=fix)
    return _PROVIDERS[device]


def _unsafe(path: Path, why: str) -> UnsafeError:
    fix = "copy the model and its data files, as plain files, into one folder"
    return UnsafeError("model-outside-folder", "refused to open a model", item=f"{str(path)!r} {why}", fix=fix)


def _damaged(
    path: Path, why: str, fix: str = "export it again; onnxruntime must know every operator in it"
) -> DamagedError:
    return DamagedError("model-damaged", "cannot open a model", item=f"{str(path)!r}: {why}", fix=fix)
