"""Which backend runs a MODEL."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from ensemble_kit.backends.network import Network, Options
from ensemble_kit.errors import IncompleteError, UsageError

BACKENDS = {
    "torch": (".pt2", ".pt", ".ts", ".torchscript"),
    "onnx": (".onnx",),
}
"""The modules of this folder that run networks, and the suffixes of the files that each opens.

A new framework is a module with `open_network(model, options) -> (network, notes)` and a line here. The module is
imported when a MODEL asks for it, and says itself what to install where its framework is missing.
"""

CALLABLES = "torch"
"""The backend of `module:callable`, and of modules and functions passed from Python."""


def open_network(model: object, **options: Any) -> tuple[Network, list[str]]:
    """Open a network from a MODEL: text as on the command line, or an `nn.Module` or function from Python.

    Parameters
    ----------
    options : those of `Options`.

    Returns
    -------
    network : ready to run.
    notes : for the user, such as which prefix of the weights was dropped.
    """
    backend = import_module(f"ensemble_kit.backends.{backend_of(model)}")
    network, notes = backend.open_network(model, Options(**options))
    return network, notes


def backend_of(model: object) -> str:
    """Name the backend that runs a model.

    Raises
    ------
    IncompleteError
        There is no such file.
    UsageError
        It is neither a file of a known suffix nor `module:callable`.
    """
    if not isinstance(model, str | Path):
        return CALLABLES
    name, path = str(model), Path(model)
    for backend, suffixes in BACKENDS.items():
        if path.suffix.lower() in suffixes:
            if not path.is_file():
                raise IncompleteError(
                    "model-missing", "cannot open a model", item=f"{name!r} is not a file", fix="pass an existing file"
                )
            return backend
    if ":" in name and not path.exists():
        return CALLABLES
    *most, last = [suffix for suffixes in BACKENDS.values() for suffix in suffixes]
    raise UsageError(
        "model-unknown",
        "cannot tell what a model is",
        item=repr(name) if path.exists() else f"{name!r} does not exist",
        fix=f"pass module:callable (a plain state dict goes to --weights), a file {', '.join(most)} or {last}, "
        "or a folder of .npy/.npz arrays",
    )
