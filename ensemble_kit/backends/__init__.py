"""Networks of any framework behind one seam: `put` a batch, `forward` it, `get` the outputs.

What stands between `put` and `get` belongs to the framework, so that flips are averaged where the network runs.
One file a framework; each is imported by name only, when a MODEL asks for it.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ensemble_kit.errors import IncompleteError, UnsafeError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["callable", "onnx", "exported", "torchscript", "arrays"]

_SUFFIXES: dict[str, Kind] = {
    ".onnx": "onnx",
    ".pt2": "exported",
    ".pt": "torchscript",
    ".ts": "torchscript",
    ".torchscript": "torchscript",
}


class Network(Protocol):
    """A network that maps images, float32 (B, 3, h, w), to outputs (B, C, h', w') on a grid of its own.

    The smallest one::

        class Identity:
            size = None
            def put(self, images): return images
            def forward(self, x): return x
            def get(self, y): return y
            def record(self): return {}
    """

    @property
    def size(self) -> tuple[int, int] | None:
        """The one (h, w) that it takes; None where it takes others too."""

    def put(self, images: NDArray[np.float32]) -> Any:
        """Bring a batch to where the network runs."""

    def forward(self, x: Any) -> Any:
        """Run the network; return float32 (B, C, h', w') in the framework's own array type."""

    def get(self, y: Any) -> NDArray[np.float32]:
        """Bring outputs back."""

    def record(self) -> dict[str, Any]:
        """Say for the store's provenance what ran: file digests, versions, device."""


def kind_of(model: str) -> Kind:
    """Tell what a MODEL is by its form; raises UsageError with the forms there are."""
    path = Path(model)
    if path.is_dir():
        return "arrays"
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind is not None:
        if not path.is_file():
            raise IncompleteError(
                "model-missing",
                "cannot open a model",
                item=f"no file {model!r}",
                fix="pass the path of a model file that exists",
            )
        return kind
    if ":" in model and not path.exists():
        _check_module(model)
        return "callable"
    raise UsageError(
        "model-unknown",
        "cannot tell what a model is",
        item=repr(model) + ("" if path.exists() else ", which is no file or folder"),
        fix="pass module:callable (a plain state dict goes to --weights), a file .onnx, .pt2, .pt, .ts or "
        ".torchscript, or a folder of .npy/.npz arrays",
    )


def _check_module(model: str) -> None:
    """Refuse `mynet.py:tiny`, a file where the name of a module is wanted, before anything is imported."""
    name, _, attribute = model.partition(":")
    file = PurePath(name)
    if file.suffix == ".py":
        module = ".".join(file.with_suffix("").parts) if not file.is_absolute() else file.stem
        where = f"run in {file.parent} and " if file.is_absolute() else ""
        raise UsageError(
            "model-import",
            "cannot import a model",
            item=f"{model!r} names a file, module:callable is wanted",
            fix=f"{where}pass {module}:{attribute}",
        )


def open_network(
    model: object,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    half: bool = False,
    trust: bool = False,
    seed: int = 0,
) -> tuple[Network, list[str]]:
    """Open a network from a MODEL: text as on the command line, or an `nn.Module` or function at hand.

    Returns the network and notes for the person, such as which prefix of the weights was dropped.
    """
    if isinstance(model, str | Path):
        kind = kind_of(str(model))
        if kind == "onnx":
            return _open_onnx(Path(model), weights, device, half)
        _check_trust(kind, str(model), trust)
    else:
        kind = "callable"
    try:
        from ensemble_kit.backends import torch as backend
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UsageError(
            "torch-missing", "cannot run a torch model", item=str(error), fix="run: pip install torch"
        ) from error
    return backend.open_network(model, kind, weights, device, half=half, seed=seed)


def _open_onnx(path: Path, weights: str | Path | None, device: str, half: bool) -> tuple[Network, list[str]]:
    if weights is not None or half:
        option = "--weights" if weights is not None else "--half"
        raise UsageError(
            "option-invalid",
            "cannot change an ONNX model",
            item=f"{option} with {str(path)!r}",
            fix=f"leave {option} out; export the model as you want it to run",
        )
    try:
        from ensemble_kit.backends import onnx as backend
    except ModuleNotFoundError as error:
        if error.name not in {"onnx", "onnxruntime"}:
            raise
        raise UsageError(
            "onnx-missing", "cannot run an ONNX model", item=str(error), fix="run: pip install 'ensemble_kit[onnx]'"
        ) from error
    return backend.open_network(path, device)


def _check_trust(kind: Kind, model: str, trust: bool) -> None:
    if kind in {"exported", "torchscript"} and not trust:
        form = "an exported program" if kind == "exported" else "TorchScript"
        raise UnsafeError(
            "model-can-run-code",
            "refused to open a model",
            item=f"{model!r} is {form}, which can run any code",
            fix="pass --trust if you know where it comes from, or module:callable with --weights for a state dict",
        )
