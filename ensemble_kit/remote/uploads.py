"""Files that are written behind a URL: an object appears whole, or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from ensemble_kit.errors import EnskError, ResourceError, UsageError
from ensemble_kit.remote.objects import Objects
from ensemble_kit.remote.urls import split

_WHAT = "cannot write"


@contextmanager
def uploading(url: str, force: bool = True) -> Iterator[BinaryIO]:
    """Give an unnamed file of this machine that is put at the URL when the block ends, and dropped when it fails.

    Raises
    ------
    UsageError
        As `check_object`; or another writer has put an object there meanwhile, and `force` is false.
    ResourceError
        The disk of this machine is full, or the server refuses or fails.
    """
    check_object(url, force)
    prefix, key = split(url)
    with _blamed(url), tempfile.TemporaryFile() as file:
        out = cast("BinaryIO", file)
        yield out
        out.flush()
        if not Objects(prefix).upload(key, out, new=not force):
            raise _exists(url)


def check_object(url: str, force: bool) -> None:
    """Refuse a URL where no file can be written, before any work is done for it.

    Raises
    ------
    UsageError
        It is read only, there is a folder of objects, or an object and `force` is false.
    """
    prefix, key = split(url)
    objects = Objects(prefix)
    if objects.reads_only:
        item, fix = f"{url}: a web server is read only", "pass a path, or a URL of object storage (s3://, gs://, az://)"
        raise UsageError("url-read-only", _WHAT, item=item, fix=fix)
    if objects.has_under(f"{key}/"):
        item = f"{url} is a folder of objects, and a file is to be written"
        raise UsageError("output-kind", _WHAT, item=item, fix="pass another path")
    if not force and objects.size(key) is not None:
        raise _exists(url)


def try_upload(url: str) -> None:
    """Begin an upload and call it off: what the server refuses is refused before any work, and nothing is left there.

    Raises
    ------
    ResourceError
        The bucket does not exist, or may not be written to.
    """
    prefix, key = split(url)
    Objects(prefix).try_upload(key)


def folder_refused(url: str) -> UsageError:
    """Make the error of a folder of files that is to be written behind a URL, where it could not appear at once."""
    item = f"{url} is a URL, and a folder of files is to be written"
    fix = "pass a folder of this machine and copy it there; or write one file, such as .csv, .npz or .json"
    return UsageError("url-unfit", _WHAT, item=item, fix=fix)


def _exists(url: str) -> UsageError:
    fix = "pass --force (force=True) to replace it, or another path"
    return UsageError("output-exists", _WHAT, item=f"{url} exists", fix=fix)


@contextmanager
def _blamed(url: str) -> Iterator[None]:
    try:
        yield
    except EnskError:
        raise
    except OSError as error:
        item = f"{url}, by way of {tempfile.gettempdir()}: {error.strerror or error}"
        fix = "free space there, or set TMPDIR to a folder with more, then run again"
        raise ResourceError("write-failed", _WHAT, item=item, fix=fix) from error
