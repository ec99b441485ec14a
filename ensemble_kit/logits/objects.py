"""Objects under a URL, over obstore (the extra `remote`): got, put, deleted and listed, with errors in our words."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ensemble_kit.errors import EnskError, ResourceError, UsageError
from ensemble_kit.logits.urls import invalid

T = TypeVar("T")

TIMEOUT, RETRIES, RETRY_FOR = timedelta(seconds=30), 5, timedelta(seconds=60)
_BROKEN_OFF = 3
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

    @contextmanager
    def _asking(self, verb: str, key: str) -> Iterator[None]:
        """Turn obstore's errors into ours. Their text is never repeated: it may hold hosts, tokens and signed URLs."""
        import obstore

        if os.getpid() != self._pid:
            item, fix = f"opened in process {self._pid}, used in {os.getpid()}", "open it in the process that uses it"
            what = "cannot use a store behind a URL after a fork"
            raise UsageError("remote-fork", what, item=f"{self.name}: {item}", fix=fix)
        try:
            yield
        except EnskError:
            raise
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            fix = "check the URL, the endpoint, the credentials and the network, then run again; committed data is kept"
            what, item = f"cannot {verb} an object of a store", f"{self.name}/{key}: {_reason(error)}"
            raise ResourceError("remote", what, item=item, fix=fix) from None


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


def _reason(error: Exception) -> str:
    """Say in words of our own what an error of obstore's is about."""
    import obstore

    text = str(error).replace("retry_timeout", "")
    status = re.search(r"status(?: code)?: (\d{3})", text)
    tries = re.search(r"after (\d+) retries", text)
    after = f", after {tries[1]} retries" if tries and tries[1] != "0" else ""
    denied = isinstance(error, obstore.exceptions.PermissionDeniedError | obstore.exceptions.UnauthenticatedError)
    if "NoSuchBucket" in text:
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
    endpoints = (os.environ.get(k, "") for k in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"))
    if scheme == "http" or any(endpoint.startswith("http://") for endpoint in endpoints):
        options["allow_http"] = True  # whoever names an endpoint by http:// has said so
    retry = {"max_retries": RETRIES, "retry_timeout": RETRY_FOR}
    try:
        store = from_url(f"{scheme}://{host}", client_options=options, retry_config=retry)
    except Exception:  # noqa: BLE001 - obstore's configuration errors repeat what they were given
        raise invalid(url, "its configuration is refused") from None
    return store, f"{prefix}/" if prefix else ""
