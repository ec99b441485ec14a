"""Objects under a URL, over obstore (the extra `remote`): got, put, deleted and listed, with errors in our words."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from ensemble_kit.errors import EnskError, ResourceError, UsageError
from ensemble_kit.remote.urls import invalid

T = TypeVar("T")

PART = 16 << 20
"""Bytes of a part of an upload, and of what is held of a download; what is smaller than `WHOLE` is one put."""
WHOLE = 4 * PART

TIMEOUT, RETRIES, RETRY_FOR = timedelta(seconds=30), 5, timedelta(seconds=60)
_BROKEN_OFF = 3
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "GOOGLE_BASE_URL")
_BREAK = "the connection broke off"
_memory: list[Any] = []


class Objects:
    """The objects under a URL, by key.

    Parameters
    ----------
    url : the prefix of all keys, as `urls.url_of` returns it.
    """

    def __init__(self, url: str) -> None:
        self.name, self._pid = url, os.getpid()
        self.bucket, self.prefix = _connect(url)
        """obstore's own store, and what precedes a key in it."""

    def get(self, key: str) -> bytes | None:
        """Get an object's bytes; None where there is none."""
        import obstore

        def ask() -> bytes | None:
            try:
                return bytes(obstore.get(self.bucket, self.prefix + key).bytes())
            except (obstore.exceptions.NotFoundError, FileNotFoundError) as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None

        with self._asking("read", key):
            return _insisting(ask)

    def put(self, key: str, content: bytes | memoryview, *, new: bool = False) -> bool:
        """Put an object whole; with `new`, False where there is another one already."""
        import obstore

        mode = "create" if new else "overwrite"

        def ask() -> bool:
            try:
                obstore.put(self.bucket, self.prefix + key, content, mode=mode, use_multipart=False)
            except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
                return self.get(key) == content  # it may be ours: the answer to a put can be lost
            return True

        with self._asking("write", key):
            return _insisting(ask)

    def fetch(self, key: str, file: BinaryIO) -> bool:
        """Write an object's bytes to a file, some at a time; False where there is none."""
        import obstore

        def ask() -> bool:
            file.seek(0)
            file.truncate()
            try:
                for some in obstore.get(self.bucket, self.prefix + key).stream(min_chunk_size=PART):
                    _keep(file, some)
            except (obstore.exceptions.NotFoundError, FileNotFoundError) as error:
                if "NoSuchBucket" in str(error):
                    raise
                return False
            return True

        with self._asking("read", key):
            return _insisting(ask)

    def upload(self, key: str, file: BinaryIO, *, new: bool = False) -> bool:
        """Put a file whole, a large one in parts that become an object at once; with `new`, False where there is one.

        Only a put can be conditional: where a large one is `new`, it is asked for just before.
        """
        import obstore

        def ask() -> None:
            file.seek(0)
            path, parts = self.prefix + key, {"use_multipart": True, "chunk_size": PART, "max_concurrency": 4}
            obstore.put(self.bucket, path, file, **parts)

        if file.seek(0, os.SEEK_END) < WHOLE:
            file.seek(0)
            return self.put(key, file.read(), new=new)
        if new and self.size(key) is not None:
            return False
        with self._asking("write", key):
            _insisting(ask)
        return True

    def try_upload(self, key: str) -> None:
        """Begin an upload in parts and call it off, which takes the same rights as a put and leaves no object.

        A second part waits for the first one to be sent: Azure is asked for nothing before.
        """
        import obstore

        class CalledOff(Exception):  # noqa: N818 - not an error
            pass

        def parts() -> Iterator[bytes]:
            yield b"."
            yield b"."
            raise CalledOff

        with self._asking("write", key), suppress(CalledOff):
            path, one = self.prefix + key, {"chunk_size": 1, "max_concurrency": 1}
            obstore.put(self.bucket, path, parts(), use_multipart=True, **one)

    def size(self, key: str) -> int | None:
        """Ask for an object's bytes; None where there is none."""
        import obstore

        def ask() -> int | None:
            try:
                return int(obstore.head(self.bucket, self.prefix + key)["size"])
            except (obstore.exceptions.NotFoundError, FileNotFoundError):
                return None

        with self._asking("read", key):
            return _insisting(ask)

    def shows(self, key: str) -> bool:
        """Tell whether there is an object that may be read; AWS denies a missing one where listing is not allowed."""
        import obstore

        def ask() -> bool:
            try:
                obstore.head(self.bucket, self.prefix + key)
            except (obstore.exceptions.NotFoundError, FileNotFoundError, *_denials()):
                return False
            return True

        with self._asking("read", key):
            return _insisting(ask)

    @property
    def reads_only(self) -> bool:
        """Whether this is a plain web server, which neither lists nor writes."""
        return type(self.bucket).__name__ == "HTTPStore"

    def has_under(self, prefix: str) -> bool:
        """Tell whether any key begins so; False where that is not told: of a plain web server, or without the right."""
        import obstore

        if self.reads_only:
            return False
        with self._asking("list", prefix):
            try:
                return any(page for page in obstore.list(self.bucket, self.prefix + prefix, chunk_size=1))
            except _denials():
                return False

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; a missing one is not an error."""
        import obstore

        with self._asking("delete", keys[0] if keys else ""):
            try:
                obstore.delete(self.bucket, [self.prefix + key for key in keys])
            except (obstore.exceptions.NotFoundError, FileNotFoundError):
                for key in keys if len(keys) > 1 else ():
                    self.delete([key])

    def listing(self, under: str = "") -> list[str]:
        """List keys by prefix."""
        import obstore

        with self._asking("list", under):
            pages = obstore.list(self.bucket, (self.prefix + under) or None)
            return [item["path"].removeprefix(self.prefix) for page in pages for item in page]

    def names(self) -> list[str]:
        """List the objects that lie directly under the URL, not those of its folders."""
        import obstore

        with self._asking("list", ""):
            found = obstore.list_with_delimiter(self.bucket, self.prefix.rstrip("/") or None)["objects"]
            return sorted(item["path"].removeprefix(self.prefix) for item in found)

    @contextmanager
    def _asking(self, verb: str, key: str) -> Iterator[None]:
        """Turn obstore's errors into ours. Their text is never repeated: it may hold hosts, tokens and signed URLs."""
        import obstore

        if os.getpid() != self._pid:
            item, fix = f"opened in process {self._pid}, used in {os.getpid()}", "open it in the process that uses it"
            what = "cannot use a URL after a fork"
            raise UsageError("remote-fork", what, item=f"{self.name}: {item}", fix=fix)
        try:
            yield
        except EnskError:
            raise
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            fix = "check the URL, the endpoint, the credentials and the network, then run again; what is there is kept"
            what, item = f"cannot {verb} an object", f"{self.name}/{key}".rstrip("/") + f": {_reason(error)}"
            raise ResourceError("remote", what, item=item, fix=fix) from None


def _keep(file: BinaryIO, content: Any) -> None:
    """Write to the file of this machine that an object is copied to, whose errors are not the server's."""
    try:
        file.write(content)
    except OSError as error:
        what, item = "cannot copy an object to this machine", f"{tempfile.gettempdir()}: {error.strerror or error}"
        fix = "free space there, or set TMPDIR to a folder with more, then run again"
        raise ResourceError("write-failed", what, item=item, fix=fix) from None


def _insisting(ask: Callable[[], T]) -> T:
    """Ask again where the connection broke off: obstore retries neither every broken body nor a conditional put."""
    import obstore

    for _ in range(_BROKEN_OFF - 1):
        try:
            return ask()
        except obstore.exceptions.GenericError as error:
            if _reason(error) != _BREAK:
                raise
    return ask()


def _denials() -> tuple[type[Exception], ...]:
    import obstore

    return obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError


def _reason(error: Exception) -> str:
    """Say in words of our own what an error of obstore's is about."""
    text = str(error).replace("retry_timeout", "")
    status = re.search(r"status(?: code)?: (\d{3})", text)
    tries = re.search(r"after (\d+) retries", text)
    after = f", after {tries[1]} retries" if tries and tries[1] != "0" else ""
    denied = isinstance(error, _denials())
    if "NoSuchBucket" in text or "ContainerNotFound" in text:
        return "there is no such bucket"
    if denied or (status and status[1] in {"401", "403"}):
        return "the credentials are refused (401 or 403)"
    if status:
        return f"the server answers {status[1]}{after}"
    for pattern, words in (
        (r"(?i)timed? ?out|kind: Timeout", f"no answer within {TIMEOUT.seconds} s{after}"),
        (r"(?i)dns error|failed to lookup|name or service", "the host's name is not known"),
        (r"169\.254\.169\.254|(?i:credential)", "no credentials were found"),
        (r"kind: Connect\b|(?i:refused)", f"no connection to the host{after}"),
        (r"(?i)decod|body|reset|incomplete|ContentRange|end of file", _BREAK),
    ):
        if re.search(pattern, text):
            return words
    return f"it fails ({type(error).__name__})"


def _connect(url: str) -> tuple[Any, str]:
    """Open the object store of a URL; return it and the prefix of the store's keys in it."""
    try:
        import obstore  # noqa: F401 - whether it is there
        from obstore.store import MemoryStore, from_url
    except ImportError:
        fix = "pip install 'ensemble_kit[remote]'"
        raise UsageError("remote-missing", "cannot open a URL without obstore", item=url, fix=fix) from None
    scheme, host, path = urlsplit(url)[:3]
    prefix = path.strip("/")
    if scheme == "memory":
        if not _memory:
            _memory.append(MemoryStore())  # one for the process: what one opens, another finds
        return _memory[0], f"{host}/{prefix}/" if prefix else f"{host}/"
    options: dict[str, Any] = {"timeout": TIMEOUT}
    endpoints = (os.environ.get(k, "") for k in _ENDPOINTS)
    if scheme == "http" or any(endpoint.startswith("http://") for endpoint in endpoints):
        options["allow_http"] = True  # whoever names an endpoint by http:// has said so
    retry = {"max_retries": RETRIES, "retry_timeout": RETRY_FOR}
    try:
        store = from_url(f"{scheme}://{host}", client_options=options, retry_config=retry)
    except Exception:  # noqa: BLE001 - obstore's configuration errors repeat what they were given
        raise invalid(url, "its configuration is refused") from None
    return store, f"{prefix}/" if prefix else ""
