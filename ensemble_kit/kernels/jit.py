"""`kernel` and `inline`: how the functions of this folder are compiled, and where their machine code is kept.

No `parallel=True` (its thread pools kill forked children or abort under two Python threads; threads run over
samples instead) and no `fastmath` (it removes exact rounding).

Machine code is kept in a folder of the user's own, named by a digest of every kernel's source, of Python's and
Numba's versions and of the processor: editing one file never leaves a stale caller of it behind, which Numba's own
per-file stamps would. A cut file stops a program that reads it as Numba does, and a damaged one runs; so each file
begins with a checksum, and one that does not hold is compiled again. The checksum is not a signature: the files are
pickles, and the user who can write them can run any program already.
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
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
from numba.core import config
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
    """Digest what machine code depends on: the sources of a folder and its sub-folders, Numba, and the processor."""
    found = hashlib.sha256(f"{sys.implementation.cache_tag} {numba.__version__} {llvmlite.__version__}".encode())
    found.update(f"{llvmlite.binding.get_host_cpu_name()} {config.CPU_NAME} {config.CPU_FEATURES}".encode())
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


class _CheckedFiles:
    """A kernel's machine code, one file a signature: a checksum, then a pickle of Numba's key and of what it keeps.

    In place of Numba's `IndexDataCacheFile`, whose files carry no checksum.
    """

    def __init__(self, folder: str, function: Callable[..., Any]) -> None:
        self._folder, self._name = Path(folder), f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"

    def load(self, key: Any) -> Any:
        """Return what was saved under a key; None where nothing was, or where the file is not as it was written."""
        try:
            raw = self._path(key).read_bytes()
        except OSError:
            return None
        checksum, content = raw[:_CHECKSUM], raw[_CHECKSUM:]
        if hashlib.sha256(content).digest() != checksum:
            return None
        found, data = pickle.loads(content)  # noqa: S301 - as it was written, in the user's own folder
        return data if found == key else None

    def save(self, key: Any, data: Any) -> None:
        """Keep machine code; a full disk costs the next process a compilation, and this one nothing."""
        content, path = dumps((key, data)), self._path(key)
        draft = path.with_suffix(f".{secrets.token_hex(8)}")
        try:
            draft.write_bytes(hashlib.sha256(content).digest() + content)
            draft.replace(path)
        except OSError:
            with suppress(OSError):
                draft.unlink()

    def flush(self) -> None:
        """Forget every signature."""
        for path in self._folder.glob(f"{self._name}-*.code"):
            path.unlink(missing_ok=True)

    def _path(self, key: Any) -> Path:
        return self._folder / f"{self._name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.code"


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at first call, without the GIL, and keep the machine code in the kit's own cache folder."""
    before = config.CACHE_DIR
    config.CACHE_DIR = _FOLDER
    try:
        made = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = before
    if not config.DISABLE_JIT:
        made._cache._cache_file = _CheckedFiles(made.stats.cache_path, function)
    return made


def inline(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a piece of kernels into each of them: a call would pass every array as seven numbers on the stack."""
    return numba.njit(nogil=True, error_model="numpy", forceinline=True)(function)
