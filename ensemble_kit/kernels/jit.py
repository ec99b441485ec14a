"""`kernel` and `inline`: how the functions of this folder are compiled, and where their machine code is kept.

No `parallel=True` (its thread pools kill forked children or abort under two Python threads; threads run over
samples instead) and no `fastmath` (it removes exact rounding).

Machine code is kept in a folder of the user's own, named by a digest of every kernel's source, of Python's and
Numba's versions, of Numba's options (NUMBA_BOUNDSCHECK=1 is another code), and of the processor's name and features
(virtual machines of one processor may lack some, and a home may be shared): editing one file never leaves a stale
caller of it behind, which Numba's own per-file stamps would. A cut file stops a program that reads it as Numba does,
and a damaged one runs; so each file begins with a checksum, and one that does not hold is compiled again. The checksum
is not a signature: the files are pickles, and the user who can write them can run any program already.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import pickle
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
from numba.core import config
from numba.core.compiler import CompileResult
from numba.core.runtime import _nrt_python
from numba.core.serialize import dumps

_CHECKSUM = hashlib.sha256().digest_size


def _own_folder(path: Path) -> bool:
    """Make a folder, or take one that is there, if it is ours, no link, writable, and closed to everybody else."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or not os.access(path, os.W_OK | os.X_OK):
        return False
    if found.st_mode & 0o077:
        path.chmod(0o700)
    return True


def digest(sources: Path) -> str:
    """Digest what machine code depends on: the sources in a folder and below it, Numba, its options, the processor."""
    found = hashlib.sha256(f"{sys.implementation.cache_tag} {numba.__version__} {llvmlite.__version__}".encode())
    processor = llvmlite.binding
    found.update(f" {processor.get_host_cpu_name()} {processor.get_host_cpu_features().flatten()}".encode())
    found.update(f" {config.CPU_NAME} {config.CPU_FEATURES} {config.ENABLE_AVX}".encode())
    found.update(f" {config.BOUNDSCHECK} {config.OPT} {config.DEBUGINFO_DEFAULT}".encode())
    for source in sorted(sources.rglob("*.py")):
        found.update(f"\n{source.relative_to(sources).as_posix()}\n".encode() + source.read_bytes())
    return found.hexdigest()[:16]


def _open_cache() -> str:
    """Choose the folder of the machine code; one for this process alone where the user's own cannot be used."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "ensemble_kit")
        folder = home / digest(Path(__file__).parent)
        if _own_folder(home) and _own_folder(folder):
            return str(folder)
    except (OSError, RuntimeError):  # a home that is full, read-only, or not there
        pass
    private = tempfile.mkdtemp(prefix="ensemble_kit-")
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    return private


_FOLDER = _open_cache()


def is_kept() -> bool:
    """Whether machine code outlives this process."""
    return Path(_FOLDER).parent.name == "ensemble_kit"


_compiled = list[str]()
"""Kernels that this process compiled."""


def is_cold() -> bool:
    """Whether kernels have to be compiled: this process did compile some, or no machine code is kept yet."""
    with os.scandir(_FOLDER) as found:
        return bool(_compiled) or next(found, None) is None


@cache
def _give_runtime() -> None:
    """Name the functions of Numba's runtime to the linker, as `rtsys.initialize` does before it compiles two more.

    Machine code from the cache holds those two, since they were linked into it.
    """
    for name, address in _nrt_python.c_helpers.items():
        llvmlite.binding.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


def _load_no_extensions() -> None:
    """Look for no extensions of Numba until something is compiled: to find them, what is installed is read."""


class _Cache:
    """A kernel's machine code, one file a signature: a checksum, then a pickle of its key and of what Numba keeps.

    In place of Numba's `FunctionCache`, whose files carry no checksum, and which fills Numba's registries before it
    loads anything: that imports half of Numba, and SciPy, for a quarter of a second. Machine code needs the addresses
    of Numba's runtime only (arrays that kernels make); a compiler fills the registries itself.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.cache_path, self._name = _FOLDER, f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return what was saved under a signature; None where nothing was, or the file is not as it was written."""
        try:
            raw = self._path(signature).read_bytes()
        except OSError:
            return None
        checksum, content = raw[:_CHECKSUM], raw[_CHECKSUM:]
        if hashlib.sha256(content).digest() != checksum:
            return None
        _give_runtime()
        found, result = pickle.loads(content)  # noqa: S301 - as it was written, in the user's own folder
        return CompileResult._rebuild(context, *result) if found == signature else None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep machine code; a full disk costs the next process a compilation, and this one nothing."""
        _compiled.append(self._name)
        if result.library.has_dynamic_globals:  # addresses of this process
            return
        *parts, environments = result._reduce()
        parts.append(tuple(e for e in environments if e.consts))  # the others would only be imported
        content, path = dumps((signature, parts)), self._path(signature)
        draft = path.with_suffix(f".{secrets.token_hex(8)}")
        try:
            draft.write_bytes(hashlib.sha256(content).digest() + content)
            draft.replace(path)
        except OSError:
            with suppress(OSError):
                draft.unlink()

    def _path(self, signature: Any) -> Path:
        digest = hashlib.sha256(repr(signature).encode()).hexdigest()[:16]
        return Path(self.cache_path, f"{self._name}-{digest}.code")


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at first call, without the GIL, and keep the machine code in the kit's own cache folder."""
    made = numba.njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True)(function)
    if not config.DISABLE_JIT:
        made._cache = _Cache(function)
        made._compilation_chain_init_hook = _load_no_extensions
    return made


def inline(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a piece of kernels into each of them: a call would pass every array as seven numbers on the stack.

    It has no entry from Python, since unpacking arguments was a tenth of all compilation: a call from there would end
    the process, so `tests/test_kernels.py` fails on one.
    """
    return numba.njit(
        nogil=True, error_model="numpy", forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True
    )(function)


def routine(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a piece of kernels that they call; it has no entry from Python either."""
    return numba.njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
