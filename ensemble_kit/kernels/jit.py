"""`kernel`: how a function of this folder is compiled and where its machine code is kept.

No `parallel=True` (its thread pools kill forked children or abort under two Python threads; threads run over
samples instead) and no `fastmath` (it removes exact rounding).

Machine code is kept in a folder of the user's own, named by a digest of every kernel's source, of Numba's version
and of the processor: editing one file never leaves a stale caller of it behind, which Numba's own per-file stamps
would. Numba reads its cache with pickle, which runs whatever a file says, and an empty or cut file stops the program.
So each file is sealed with a key that only this user can read: what does not carry the seal (cut, damaged, copied
from elsewhere, planted) is never unpickled, and the kernel is compiled again.
"""

from __future__ import annotations

import atexit
import hashlib
import hmac
import os
import pickle
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
from numba.core import config
from numba.core.caching import IndexDataCacheFile

_SEAL = hashlib.sha256().digest_size


def _own_folder(path: Path) -> bool:
    """Make a folder, or take one that is there, if it is ours, no link, writable, and closed to everybody else."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or not os.access(path, os.W_OK | os.X_OK):
        return False
    if found.st_mode & 0o077:
        path.chmod(0o700)
    return True


def _key(folder: Path) -> bytes:
    """Return the key of this user's seals; made at first use, and again if it is not one."""
    path = folder / "key"
    try:
        key = path.read_bytes()
        if len(key) == _SEAL and path.lstat().st_uid == os.getuid():
            return key
    except OSError:
        pass
    key = secrets.token_bytes(_SEAL)
    draft = folder / f"key.{secrets.token_hex(8)}"
    draft.touch(mode=0o600)
    draft.write_bytes(key)
    draft.replace(path)  # two processes at once: one of them compiles once more
    return key


def _open_cache() -> tuple[str, bytes]:
    """Choose the folder of the machine code, and the key of its seals."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    digest.update(f"{llvmlite.binding.get_host_cpu_name()} {config.CPU_NAME} {config.CPU_FEATURES}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "ensemble_kit")
        folder = home / digest.hexdigest()[:16]
        if _own_folder(home) and _own_folder(folder):
            return str(folder), _key(home)
    except (OSError, RuntimeError):  # a home that is full, read-only, or not there
        pass
    private = tempfile.mkdtemp(prefix="ensemble_kit-")
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    return private, secrets.token_bytes(_SEAL)


_CACHE_DIR, _KEY = _open_cache()


class _SealedFiles(IndexDataCacheFile):  # type: ignore[misc]
    """Numba's cache files, each behind a seal over its name and content; a file without one is not there."""

    def _load_index(self) -> Any:
        try:
            version, stamp, overloads = pickle.loads(self._opened(self._index_path))  # noqa: S301 - sealed by us
        except OSError:
            return {}
        return overloads if (version, stamp) == (self._version, self._source_stamp) else {}

    def _save_index(self, overloads: Any) -> None:
        self._seal(self._index_path, self._dump((self._version, self._source_stamp, overloads)))

    def _load_data(self, name: str) -> Any:
        return pickle.loads(self._opened(self._data_path(name)))  # noqa: S301 - sealed by us

    def _save_data(self, name: str, data: Any) -> None:
        self._seal(self._data_path(name), self._dump(data))

    def save(self, key: Any, data: Any) -> None:
        """Keep machine code; a disk that is full costs the next process a compilation, and this one nothing."""
        with suppress(OSError):
            super().save(key, data)

    def _opened(self, path: str) -> bytes:
        raw = Path(path).read_bytes()
        seal, content = raw[:_SEAL], raw[_SEAL:]
        if not hmac.compare_digest(seal, _seal_of(path, content)):
            raise FileNotFoundError(path)  # Numba compiles, and writes the file anew
        return content

    def _seal(self, path: str, content: bytes) -> None:
        with self._open_for_write(path) as file:
            file.write(_seal_of(path, content) + content)


def _seal_of(path: str, content: bytes) -> bytes:
    place = Path(path)  # not the whole path: a home may be mounted elsewhere
    return hmac.new(_KEY, f"{place.parent.name}/{place.name}\n".encode() + content, hashlib.sha256).digest()


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at first call, without the GIL, and keep the machine code in the kit's own cache folder."""
    before = config.CACHE_DIR
    config.CACHE_DIR = _CACHE_DIR
    try:
        made = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = before
    if not config.DISABLE_JIT:
        made._cache._cache_file.__class__ = _SealedFiles
    return made


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a piece of kernels into each of them: a call would pass every array as seven numbers on the stack."""
    return numba.njit(nogil=True, error_model="numpy", forceinline=True)(function)
