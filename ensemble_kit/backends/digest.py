"""What tells one network of PyTorch from another: a digest of its state, or of its code where it has none.

A name and a weights file are not enough: `module:callable` may load any checkpoint, and a store that one fold began
and another resumed would hold two networks under one name.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch


def network_digest(network: Callable[[Any], Any]) -> str | None:
    """Digest a network as it will run, as SHA-256 in hexadecimal; None where there is neither state nor source.

    Of an `nn.Module`: names, types, shapes and bytes of its `state_dict()`, sorted by name. Of a function, and of a
    module without state: its source file, and the modules and tensors that it holds or refers to. At about 1.2 GB/s
    it takes 0.1 s for a ResNet-50's 100 MB.
    """
    if isinstance(network, torch.nn.Module):
        state = network.state_dict()
        if state:
            return _of_state(state).hexdigest()
    source, held = _source(network), _held(network)
    if not held:
        return source
    digest = hashlib.sha256((source or "").encode())
    for name, value in held:
        state = value.state_dict() if isinstance(value, torch.nn.Module) else {"": value}
        digest.update(f"{name}\0{_of_state(state).hexdigest()}\0".encode())
    return digest.hexdigest()


def _of_state(state: Mapping[str, Any]) -> Any:
    digest = hashlib.sha256()
    for name in sorted(state):
        _add(digest, name, state[name])
    return digest


def _add(digest: Any, name: str, value: Any) -> None:
    """Add an entry of a state: usually a tensor; otherwise what `get_extra_state` returned."""
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            _add(digest, f"{name}\0{key}", value[key])
        return
    if isinstance(value, list | tuple):
        for k, item in enumerate(value):
            _add(digest, f"{name}\0{k}", item)
        return
    array = _bytes_of(value)
    if array is None:  # a repr of anything else may hold an address
        plain = isinstance(value, str | bytes | int | float | bool | None)
        digest.update(f"{name}\0{repr(value) if plain else type(value).__qualname__}\0".encode())
        return
    digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
    digest.update(array)


def _bytes_of(value: Any) -> Any:
    """View a tensor or an array as contiguous bytes; None for anything else, and for what has no values yet."""
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    if not isinstance(value, torch.Tensor) or torch.nn.parameter.is_lazy(value) or value.is_meta:
        return None
    tensor = value.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    tensor = tensor.cpu().resolve_conj().resolve_neg().contiguous()
    return tensor.reshape(-1).view(torch.uint8).numpy()


def _source(network: Any) -> str | None:
    """Digest the file that defines a function or an object's class, or its code where the file is unknown."""
    while isinstance(network, functools.partial | MethodType):
        network = network.func if isinstance(network, functools.partial) else network.__func__
    thing = network if isinstance(network, FunctionType | type) else type(network)
    try:
        file = inspect.getsourcefile(thing)
        content = Path(file).read_bytes() if file is not None and Path(file).is_file() else None
        if content is None:  # a notebook's cell
            content = inspect.getsource(thing).encode()
    except (TypeError, OSError):
        if not isinstance(network, FunctionType):
            return None
        content = repr([(c.co_code, c.co_names, _plain(c)) for c in _codes(network.__code__)]).encode()
    return hashlib.sha256(content).hexdigest()


def _plain(code: CodeType) -> list[object]:
    return [c for c in code.co_consts if not isinstance(c, CodeType)]


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Walk over a function's code and that of the functions inside it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)


def _held(network: Any) -> list[tuple[str, Any]]:
    """List the modules and tensors that a callable holds: in closures, globals it names, attributes, arguments."""
    found, left = [], [("", network)]
    seen: dict[int, Any] = {}  # the objects too: the id of one that is gone may be given again
    while left:
        name, value = left.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if name and isinstance(value, torch.nn.Module | torch.Tensor | np.ndarray):
            found.append((name, value))
        else:
            left += [(f"{name}.{key}", inner) for key, inner in reversed(_inside(value, root=not name))]
    return found


def _inside(value: Any, *, root: bool) -> list[tuple[str, Any]]:
    """List what a container or a callable holds, by name; of another object only where it is the network itself."""
    if isinstance(value, Mapping):
        return sorted(((str(k), v) for k, v in value.items()), key=lambda pair: pair[0])
    if isinstance(value, list | tuple):
        return [(str(k), v) for k, v in enumerate(value)]
    if isinstance(value, functools.partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    if isinstance(value, MethodType):
        own = value.__self__
        kept = own if isinstance(own, torch.nn.Module) else getattr(own, "__dict__", None)
        return [("self", kept), ("func", value.__func__)]
    if isinstance(value, FunctionType):
        return _referred(value)
    return [("vars", dict(vars(value)))] if root and hasattr(value, "__dict__") else []


def _referred(function: FunctionType) -> list[tuple[str, Any]]:
    """List what a function closes over, its defaults, and the globals it names; of functions only its module's own."""
    found: dict[str, Any] = {"defaults": function.__defaults__, "keywords": function.__kwdefaults__}
    for name in {n for code in _codes(function.__code__) for n in code.co_names}:
        found[f"global {name}"] = function.__globals__.get(name)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[f"cell {name}"] = cell.cell_contents
        except ValueError:  # not yet bound
            continue
    foreign = [k for k, v in found.items() if isinstance(v, FunctionType) and v.__module__ != function.__module__]
    return [(k, found[k]) for k in sorted(found) if k not in foreign]
