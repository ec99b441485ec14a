"""`kernel`: how a function of this folder is compiled and where its machine code is kept.

No `parallel=True` (its thread pools kill forked children or abort under two Python threads; threads run over
samples instead) and no `fastmath` (it removes exact rounding). The cache lives in a folder of the user's own,
named by a digest of every kernel's source, of Numba's version and of the processor: editing one file never leaves
a stale caller of it behind, which Numba's own per-file stamps would.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import config


def _cache_dir() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    path = Path(base, "ensemble_kit", digest.hexdigest()[:16])
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.stat().st_uid == os.getuid() and os.access(path, os.W_OK):
            return str(path)
    except OSError:
        pass
    return tempfile.mkdtemp(prefix="ensemble_kit-")  # private to this process; no home to write to


_CACHE_DIR = _cache_dir()


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at first call, without the GIL, and keep the machine code in the kit's own cache folder."""
    before = config.CACHE_DIR
    config.CACHE_DIR = _CACHE_DIR
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = before


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a piece of kernels into each of them: a call would pass every array as seven numbers on the stack."""
    return numba.njit(nogil=True, error_model="numpy", forceinline=True)(function)
