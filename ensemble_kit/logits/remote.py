"""A store behind a URL (`s3://`, `gs://`, `az://`, `https://`, `memory://`), over obstore (the extra `remote`).

    URL/zarr.json, URL/logits/zarr.json, URL/logits/c.ROW.0.0.0    the same bytes as in a folder
    URL/logits/manifest/ROW.jsonl                                  the commit of one sample, put last and only once
    URL/logits/manifest/all.jsonl                                  all of them, put when the last sample is there

Nothing can be appended to an object, so a commit is an object of its own. Its key follows from the row: what is
committed is asked for by key and never taken from a listing, which may lag behind. A put is whole or absent.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from ensemble_kit.errors import (
    DamagedError,
    EnskError,
    IncompleteError,
    LockedError,
    MismatchError,
    ResourceError,
    UsageError,
    some,
)
from ensemble_kit.logits import layout
from ensemble_kit.logits.chunks import Chunks
from ensemble_kit.logits.layout import ARRAY, MANIFEST, META, Layout, StoreSpec
from ensemble_kit.logits.manifest import HeldManifest, Manifest, Record, to_part
from ensemble_kit.logits.places import Body, HeldBody

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "http", "https", "memory")
ALL = "all.jsonl"
_PARTS = f"{ARRAY}/{MANIFEST}"
_AT_ONCE = 16
_TIMEOUT, _RETRIES, _RETRY_FOR = timedelta(seconds=30), 5, timedelta(seconds=60)
_BROKEN_OFF = 3
_BREAK = "the connection broke off"
_COLLAPSED = re.compile(rf"({'|'.join(SCHEMES)}):/+(.*)", re.DOTALL)
_memory: list[Any] = []


def url_of(path: str | os.PathLike[str]) -> str | None:
    """Return a path's URL if it is one; `Path("s3://bucket/a")`, which has lost a slash, is mended.

    Raises
    ------
    UsageError
        A scheme that is not known, or credentials in the URL, where logs and histories would keep them.
    """
    text = os.fspath(path)
    found = _COLLAPSED.fullmatch(text)
    if found is None:
        if "://" in text:
            raise _invalid(text.split("://")[0] + "://…", f"known are {', '.join(SCHEMES)}")
        return None
    if "://" not in text and Path(text).exists():
        return None
    parts = urlsplit(f"{found[1]}://{found[2]}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        host = parts.netloc.rpartition("@")[2]
        raise _invalid(f"{found[1]}://{host}{parts.path}", "it carries a user, a query or a fragment, not shown here")
    if not parts.netloc:
        raise _invalid(f"{found[1]}://", "it names no bucket or host")
    return f"{found[1]}://{parts.netloc}{parts.path}".rstrip("/")


def _invalid(shown: str, why: str) -> UsageError:
    return UsageError(
        "store-url",
        "cannot open a store by this URL",
        item=f"{shown}: {why}",
        fix="pass scheme://bucket/path, and credentials by the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
        "AWS_ENDPOINT_URL, …)",
    )


class Remote:
    """A store behind a URL."""

    folder = None

    def __init__(self, url: str) -> None:
        self.name, self._pid = url, os.getpid()
        self._objects, self._prefix = _connect(url)

    def describe(self) -> tuple[StoreSpec, Layout]:
        """Get the two `zarr.json` objects."""
        group = self.get(META)
        if group is None:
            raise IncompleteError(
                "store-missing",
                "cannot open a store: there is nothing",
                item=self.name,
                fix="check the URL and AWS_ENDPOINT_URL, or make the store with `ensk dump-logits`",
            )
        array = self.get(f"{ARRAY}/{META}")
        if array is None:
            raise DamagedError(
                "store-foreign",
                "cannot open what is no store of logits, or has lost its description",
                item=f"{self.name}: no {ARRAY}/{META}",
                fix="restore zarr.json from a copy, or make the store with `ensk dump-logits`",
            )
        return layout.parse(group, array, self.name)

    def manifest(self, spec: StoreSpec) -> Manifest:
        """Get what is committed: one object where the store is finished, else one a sample, asked for by key."""
        parts: dict[str, bytes] = {}
        whole = self.get(f"{_PARTS}/{ALL}")
        if whole is not None:
            parts[ALL] = whole
        else:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                names = [f"{row}.jsonl" for row in range(len(spec.samples))]
                found = zip(names, pool.map(lambda n: self.get(f"{_PARTS}/{n}"), names), strict=True)
                parts.update({name: content for name, content in found if content is not None})
        return HeldManifest(f"{self.name}/{_PARTS}", spec, parts)

    def open(self, key: str) -> Body:
        """Get an object."""
        content = self.get(key)
        if content is None:
            raise FileNotFoundError(2, "no such object", key)
        return HeldBody(np.frombuffer(content, np.uint8))

    def entries(self) -> Sequence[str]:
        """List what lies under the array's prefix; nothing where a plain web server cannot list."""
        if self.name.startswith("http"):
            return []
        return sorted({key.removeprefix(f"{ARRAY}/").split("/")[0] for key in self.listing(f"{ARRAY}/")})

    def mend(self, keys: Sequence[str]) -> str:
        """Say what to delete, and to dump again."""
        return (
            f"delete {', '.join(f'{self.name}/{key}' for key in keys[:20])}{' …' if len(keys) > 20 else ''} and "
            "run the same dump again; it dumps what is missing"
        )

    def zarr(self) -> Any:
        """Open the array with zarr's own reader."""
        import zarr
        from zarr.storage import ObjectStore

        return zarr.open_array(ObjectStore(self._objects, read_only=True), path=self._prefix + ARRAY, mode="r")

    def get(self, key: str) -> bytes | None:
        """Get an object's bytes; None where there is none."""
        import obstore

        with self._asking("read", key):
            tries = _BROKEN_OFF
            while True:
                tries -= 1
                try:
                    return bytes(obstore.get(self._objects, self._prefix + key).bytes())
                except (obstore.exceptions.NotFoundError, FileNotFoundError) as error:
                    if "NoSuchBucket" in str(error):
                        raise
                    return None
                except obstore.exceptions.GenericError as error:  # obstore tries requests again, not every broken body
                    if not tries or _reason(error) != _BREAK:
                        raise

    def put(self, key: str, content: bytes | memoryview, *, new: bool = False) -> bool:
        """Put an object whole; with `new`, False where there is another one already."""
        import obstore

        with self._asking("write", key):
            tries = _BROKEN_OFF
            while True:
                tries -= 1
                try:
                    mode = "create" if new else "overwrite"
                    obstore.put(self._objects, self._prefix + key, content, mode=mode, use_multipart=False)
                    return True
                except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
                    return self.get(key) == content  # it may be ours: the answer to a put can be lost
                except obstore.exceptions.GenericError as error:  # obstore tries no conditional put again
                    if not tries or _reason(error) != _BREAK:
                        raise

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there are no error."""
        import obstore

        with self._asking("delete", keys[0] if keys else ""):
            try:
                obstore.delete(self._objects, [self._prefix + key for key in keys])
            except (obstore.exceptions.NotFoundError, FileNotFoundError):
                for key in keys if len(keys) > 1 else ():
                    self.delete([key])

    def listing(self, under: str = "") -> list[str]:
        """List keys by prefix."""
        import obstore

        with self._asking("list", under):
            pages = obstore.list(self._objects, (self._prefix + under) or None)
            return [item["path"].removeprefix(self._prefix) for page in pages for item in page]

    @contextmanager
    def _asking(self, verb: str, key: str) -> Iterator[None]:
        """Turn obstore's errors into ours. Their text is never repeated: it may hold hosts, tokens and signed URLs."""
        import obstore

        if os.getpid() != self._pid:
            raise UsageError(
                "remote-fork",
                "cannot use a store behind a URL after a fork",
                item=f"{self.name}: opened in process {self._pid}, used in {os.getpid()}",
                fix="open it in the process that uses it",
            )
        try:
            yield
        except EnskError:
            raise
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            raise ResourceError(
                "remote",
                f"cannot {verb} an object of a store",
                item=f"{self.name}/{key}: {_reason(error)}",
                fix="check the URL, the endpoint, the credentials and the network, then run again; what is committed "
                "is kept",
            ) from None


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
        (r"(?i)timed? ?out|kind: Timeout", f"no answer within {_TIMEOUT.seconds} s{after}"),
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
        raise UsageError(
            "remote-missing",
            "cannot open a URL without obstore",
            item=url,
            fix="pip install 'ensemble_kit[remote]'",
        ) from None
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    if parts.scheme == "memory":
        if not _memory:
            _memory.append(MemoryStore())  # one for the process: what one opens, another finds
        return _memory[0], f"{parts.netloc}/{prefix}/" if prefix else f"{parts.netloc}/"
    retry = {"max_retries": _RETRIES, "retry_timeout": _RETRY_FOR}
    options: dict[str, Any] = {"timeout": _TIMEOUT}
    if any(
        os.environ.get(k, "").startswith("http://") for k in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")
    ):
        options["allow_http"] = True  # whoever names an endpoint by http:// has said so
    if parts.scheme == "http":
        options["allow_http"] = True
    try:
        store = from_url(f"{parts.scheme}://{parts.netloc}", client_options=options, retry_config=retry)
    except Exception:  # noqa: BLE001 - obstore's configuration errors repeat what they were given
        raise _invalid(url, "its configuration is refused") from None
    return store, f"{prefix}/" if prefix else ""


class Sink:
    """What `LogitWriter` writes to behind a URL: a sample's object, read back where it was there, then its commit."""

    def __init__(self, url: str, wanted: StoreSpec, overwrite: bool) -> None:
        self._remote = Remote(url)
        self.spec = self._join_or_create(wanted, overwrite)
        self._chunks = Chunks(self._remote, self.spec, self.spec.layout)
        manifest = self._remote.manifest(self.spec)
        assert isinstance(manifest, HeldManifest)
        self._manifest, self._lock = manifest, threading.Lock()
        self._manifest.refresh(self._chunks.whole)
        self._compact = ALL in self._manifest.parts
        self._present = {k.removeprefix(f"{ARRAY}/") for k in self._remote.listing(f"{ARRAY}/")}

    def missing(self) -> list[str]:
        """Samples that no one has committed, or whose object is gone."""
        done, key = self._manifest.records, self.spec.layout.key
        return [s for row, s in enumerate(self.spec.samples) if s not in done or key(row) not in self._present]

    def commit(self, record: Record, content: NDArray[np.uint8], checksum: int) -> None:
        """Put a sample and then its commit; nothing where both are there with these bytes."""
        with self._lock:
            there = self._manifest.records.get(record.sample)
            if there is not None and self._settled(there, record):
                return
            take = 1 if there is None else there.take + 1
            if self._compact:
                self._expand()
            name = self.spec.layout.key(record.row)
            key, body = f"{ARRAY}/{name}", content.tobytes() + checksum.to_bytes(4, "little")
            before = None
            if not self._remote.put(key, body, new=there is None):
                other = self._remote.get(f"{_PARTS}/{record.row}.jsonl")
                if other is not None:
                    self._join(record, other)
                    return
                before = self._remote.get(key)  # of a dead writer, or of one who is about to commit
                self._remote.put(key, body)
            self._put_commit(replace(record, take=take), new=there is None, before=before)
            self._present.add(name)

    def finish(self) -> None:
        """Put all commits into one object once nothing is missing, so that opening the store takes one request."""
        with self._lock:
            if not self._compact and not self.missing():
                records = [self._manifest.records[s] for s in self.spec.samples]
                others = self._remote.manifest(self.spec)
                others.refresh()
                if others.records == self._manifest.records:
                    self._remote.put(f"{_PARTS}/{ALL}", to_part(self.spec.store, records))
                    self._compact = True

    def _settled(self, there: Record, record: Record) -> bool:
        """Tell whether a committed sample needs nothing; refuse other content for one that is whole."""
        same = there.digest == record.digest and there.placement == record.placement
        if not self._chunks.whole(there):
            return False
        if not same:
            raise LockedError(
                "sample-committed",
                "cannot write a sample a second time with other content",
                item=f"{record.sample!r} in {self._remote.name}: digest {there.digest[:8]} there, "
                f"{record.digest[:8]} here",
                fix="write every sample once, in one process; replace the store with overwrite=True (--force) to "
                "dump it anew",
            )
        return True

    def _put_commit(self, record: Record, *, new: bool, before: bytes | None) -> None:
        key, content = f"{_PARTS}/{record.row}.jsonl", to_part(self.spec.store, [record])
        if self._remote.put(key, content, new=new):
            self._keep(record, content)
            return
        if before is not None:  # another was faster, and this writer's object stands in the place of that one's
            self._remote.put(f"{ARRAY}/{self.spec.layout.key(record.row)}", before)
        self._join(record, self._remote.get(key) or b"")

    def _join(self, record: Record, content: bytes) -> None:
        """Take in another writer's commit of a sample; refuse one of other content."""
        name = f"{record.row}.jsonl"
        held = HeldManifest(f"{self._remote.name}/{_PARTS}", self.spec, {name: content})
        held.refresh()
        there = held.records.get(record.sample)
        if there is None or not self._settled(there, record):
            raise DamagedError(
                "sample-damaged",
                "cannot commit a sample that another writer has committed and damaged",
                item=f"{record.sample!r}, {self._remote.name}/{_PARTS}/{name}",
                fix=self._remote.mend([f"{_PARTS}/{name}"]),
            )
        self._keep(record, content)

    def _keep(self, record: Record, content: bytes) -> None:
        self._manifest.parts[f"{record.row}.{record.take}.jsonl"] = content
        self._manifest.refresh()

    def _expand(self) -> None:
        """Put every commit as an object of its own again, before the one that holds them all goes."""
        for record in self._manifest.records.values():
            self._remote.put(f"{_PARTS}/{record.row}.jsonl", to_part(self.spec.store, [record]))
        self._remote.delete([f"{_PARTS}/{ALL}"])
        self._compact = False

    def _join_or_create(self, wanted: StoreSpec, overwrite: bool) -> StoreSpec:
        if overwrite:
            self._remove()
        if self._remote.get(META) is None:
            if not overwrite and (self._remote.listing(f"{_PARTS}/") or self._remote.get(f"{ARRAY}/{META}")):
                self._check_unfinished(wanted)
            self._remote.put(f"{ARRAY}/{META}", wanted.array_json(), new=True)
            self._remote.put(META, wanted.group_json(), new=True)  # last: it is what makes it a store
        spec, how = self._remote.describe()
        layout.check_same(spec, wanted, self._remote.name)
        if not how.ours:
            raise MismatchError(
                "store-layout",
                "cannot go on with a store of another layout",
                item=self._remote.name,
                fix="write to another path, or replace it with overwrite=True (--force)",
            )
        return spec

    def _check_unfinished(self, wanted: StoreSpec) -> None:
        """Go on where a writer was killed before the group's description; refuse what has lost it."""
        foreign = self._remote.listing(f"{_PARTS}/") or self._remote.get(f"{ARRAY}/{META}") != wanted.array_json()
        if foreign and self._remote.get(META) is None:  # asked once more: another writer may have put it meanwhile
            raise DamagedError(
                "store-foreign",
                "cannot open what is no store of logits, or has lost its description",
                item=f"{self._remote.name}: no {META}",
                fix="restore zarr.json from a copy, or replace the store with overwrite=True (--force)",
            )

    def _remove(self) -> None:
        """Delete a store of ours, its commits first; an object store knows no living writers."""
        keys = self._remote.listing()
        known = {META, f"{ARRAY}/{META}"}
        foreign = [k for k in keys if k not in known and not k.startswith((f"{ARRAY}/c.", f"{_PARTS}/"))]
        if foreign:
            raise UsageError(
                "store-foreign",
                "refuse to replace a prefix that holds more than a store of logits",
                item=f"{self._remote.name}: {some(foreign, 3)}",
                fix="pass another URL, or delete the objects yourself",
            )
        order: Callable[[str], tuple[bool, bool]] = lambda k: (k in known, not k.startswith(_PARTS))  # noqa: E731
        if keys:
            self._remote.delete(sorted(keys, key=order))


def stem(url: str) -> str:
    """Name a member after its URL, as after a path."""
    return PurePosixPath(urlsplit(url).path or urlsplit(url).netloc).stem
