"""The state dict in a checkpoint: taken out of what trainers wrap it in, and its keys fitted to a network's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ensemble_kit.errors import MismatchError, some

_PLAIN = ("state_dict", "model_state_dict", "model", "network_weights", "network", "net", "weights", "params", "module")
_AVERAGED = (
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema_model",
    "ema",
    "params_ema",
    "shadow",
    "swa",
    "teacher",
)
"""Where trainers keep a state dict, and one whose weights are averaged over training; `student` is like the first."""
_CONTAINERS = (*_PLAIN, "student", *_AVERAGED)
_INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What wrappers of torch put into the middle of keys, too."""
_COUNTER = "num_batches_tracked"
"""Of batch norms, unused in inference; files of converters and of torch before 0.4.1 lack all of them."""

State = dict[str, torch.Tensor]


def unwrap(checkpoint: Any, key: str | None = None) -> tuple[State, list[str], str | None]:
    """Take the state dict out of a checkpoint.

    The weights as they were trained go before averaged ones (EMA, SWA, a teacher), which a note names.

    Parameters
    ----------
    key : the entry to take, such as "model_ema"; dots lead into entries of entries.

    Returns
    -------
    state : the state dict.
    notes : what was taken, and what else there is.
    key : None where it was an entry; else it may be the beginning of keys, which `fit` looks for.
    """
    notes: list[str] = []
    state, entry = checkpoint, None if key is None else _entry(checkpoint, key)
    if entry is not None:
        state, notes, key = entry, [f"took {key!r} out of the checkpoint"], None
    while not _is_state(state) and isinstance(state, Mapping):
        found = [name for name in _CONTAINERS if isinstance(state.get(name), Mapping)]
        if not found:
            break
        others = [*found[1:], *(name for name in _states(state) if name not in found)]
        more = f"; it also holds {some(others)}: pass --weights-key {others[0]} for those" if others else ""
        notes.append(f"took {found[0]!r} out of the checkpoint{more}")
        state = state[found[0]]
    if not _is_state(state):
        kind = f"a dict of {some(state)}" if isinstance(state, Mapping) else f"a {type(state).__name__}"
        entries = _states(state) if isinstance(state, Mapping) else []
        asked = " or ".join(f"--weights-key {name}" for name in entries[:5])
        fix = "save torch.save(network.state_dict(), path), or pass --weights-key with the entry that is one"
        fix = f"pass {asked}" if asked else fix
        raise MismatchError("weights-form", "cannot find a state dict", item=kind, fix=fix)
    return dict(state), notes, key


def _entry(checkpoint: Any, key: str) -> Any:
    """Follow a path of entries; a name may itself have dots."""
    if not isinstance(checkpoint, Mapping):
        return None
    if isinstance(checkpoint.get(key), Mapping):
        return checkpoint[key]
    paths = [name for name in checkpoint if isinstance(name, str) and key.startswith(f"{name}.")]
    return next((e for name in paths if (e := _entry(checkpoint[name], key[len(name) + 1 :])) is not None), None)


def _states(checkpoint: Mapping[Any, Any]) -> list[str]:
    """List the entries that are state dicts."""
    return [name for name, value in checkpoint.items() if isinstance(name, str) and value and _is_state(value)]


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(v, torch.Tensor) for v in value.values())


def fit(path: Path, state: State, own: Mapping[str, Any], key: str | None = None) -> tuple[State, list[str]]:
    """Give a state dict the keys of a network: without what wrappers put before them, or with what the network has.

    Parameters
    ----------
    path : of the file, for messages.
    own : the network's own state dict.
    key : the beginning of keys to take where several fit, such as "teacher".

    Raises
    ------
    MismatchError
        Keys or shapes differ; or several beginnings fit, such as a student's and a teacher's.
    """
    notes: list[str] = []
    if not any(k.endswith(_COUNTER) for k in state):
        own = {k: v for k, v in own.items() if not k.endswith(_COUNTER)}
    if set(state) != set(own):
        state, notes = _without_inside(state, own)
    if key is not None or set(state) != set(own):
        prefixes = [p for p in _prefixes(state, own) if all(p + k in state for k in own)]
        if key is not None:
            prefixes = [p for p in prefixes if p.startswith(f"{key}.") or f".{p}".endswith(f".{key}.")]
            if not prefixes:
                raise _no_key(path, key, state)
        if len(prefixes) > 1:
            raise _several(path, prefixes)
        added = next(iter(own), "").partition(".")[0] + "."
        if prefixes:
            state, more = _beginning(state, prefixes[0])
            notes += more
        elif {added + k for k in state} == set(own):
            state = {added + k: v for k, v in state.items()}
            notes.append(f"put the prefix {added!r} before every key, as the network has it")
    _check(path, own, state)
    return state, notes


def _without_inside(state: State, own: Mapping[str, Any]) -> tuple[State, list[str]]:
    """Drop what compilation and sharding put into keys, unless the network has it, too."""
    notes = []
    for part in _INSIDE:
        if any(part in k for k in state) and not any(part in k for k in own):
            state = {k.replace(part, ""): v for k, v in state.items()}
            notes.append(f"dropped the prefix {part!r}")
    return state, notes


def _prefixes(state: Iterable[str], own: Mapping[str, Any]) -> list[str]:
    """List the beginnings that one of the network's keys has in the file."""
    one = max(own, key=len, default="")
    return sorted({k.removesuffix(one) for k in state if k.endswith(f".{one}")} | ({""} if one in state else set()))


def _beginning(state: State, prefix: str) -> tuple[State, list[str]]:
    """Take the keys with a beginning, without it; others under it stay to be refused, those elsewhere are left out."""
    inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    rest = [k for k in state if not k.startswith(prefix)]
    if not prefix:
        return state, []
    return inner, [f"dropped the prefix {prefix!r}" + (f" and left out {some(rest)}" if rest else "")]


def _check(path: Path, own: Mapping[str, Any], state: State) -> None:
    missing, extra = [k for k in own if k not in state], [k for k in state if k not in own]
    differences = [
        *([f"missing {some(missing)}"] if missing else []),
        *([f"not in the network {some(extra)}"] if extra else []),
        *[
            f"{k} {tuple(state[k].shape)} where the network has {tuple(v.shape)}"
            for k, v in own.items()
            if k in state and hasattr(v, "shape") and state[k].shape != v.shape
        ][:3],
    ]
    if not differences:
        return
    both = f"; {len(state)} keys there: {some(state, 3)}; {len(own)} in the network: {some(own, 3)}"
    raise MismatchError(
        "weights-mismatch",
        "cannot load weights into the network",
        item=f"{str(path)!r}: {'; '.join(differences)}{both if missing or extra else ''}",
        fix="pass the callable that builds the network these weights were trained in",
    )


def _no_key(path: Path, key: str, state: State) -> MismatchError:
    first = sorted({k.partition(".")[0] for k in state})
    return MismatchError(
        "weights-key",
        "cannot find the weights that were asked for",
        item=f"{str(path)!r} has no entry {key!r}, nor the network's keys behind it; keys begin with {some(first)}",
        fix="pass --weights-key with an entry of the checkpoint that is a state dict, or leave it out",
    )


def _several(path: Path, prefixes: list[str]) -> MismatchError:
    shown = [p or "(none)" for p in prefixes]
    asked = " or ".join(f"--weights-key {p.rstrip('.')}" for p in prefixes if p)
    return MismatchError(
        "weights-ambiguous",
        "cannot tell which weights of a file are meant",
        item=f"{str(path)!r}: the network's keys stand there behind {some(shown)}",
        fix=f"pass {asked}",
    )
