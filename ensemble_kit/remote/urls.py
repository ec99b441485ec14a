"""URLs of stores and files: `s3://`, `gs://`, `az://`, `https://`, `memory://`."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from ensemble_kit.errors import UsageError, check_path

SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "http", "https", "memory")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?:/+(.*))?", re.DOTALL)  # one letter is a drive of Windows


def url_of(path: str | os.PathLike[str]) -> str | None:
    """Return a path's URL if it is one; `Path("s3://bucket/a")`, which has lost a slash, is mended.

    Raises
    ------
    UsageError
        An unknown scheme; no bucket, or `..`; credentials, which logs and histories would keep.

    Examples
    --------
    >>> url_of(Path("s3://bucket/a.csv")), url_of("a.csv")
    ('s3://bucket/a.csv', None)
    """
    check_path(path)
    text = os.fspath(path)
    found = _URL.fullmatch(text)
    if "://" not in text and (found is None or _is_path(text, found[1])):
        return None
    if found is None or found[1] not in SCHEMES:
        scheme = text.partition(":")[0]
        raise invalid(f"{scheme}://…", f"known are {', '.join(SCHEMES)}; a path of this machine has no scheme")
    url = urlsplit(f"{found[1]}://{found[2] or ''}")
    if "@" in url.netloc or url.query or url.fragment:
        host = url.netloc.rpartition("@")[2]
        raise invalid(f"{found[1]}://{host}{url.path}", "it carries a user, a query or a fragment, not shown here")
    if not url.netloc:
        raise invalid(f"{found[1]}://", "it names no bucket or host")
    if ".." in url.path.split("/"):
        raise invalid(f"{found[1]}://{url.netloc}{url.path}", "'..' leads to no object")
    return f"{found[1]}://{url.netloc}{url.path}".rstrip("/")


def _is_path(text: str, scheme: str) -> bool:
    """Tell whether `scheme:` or `scheme:/…` is a path of this machine: it exists, or what it would be made in does."""
    if scheme in SCHEMES:
        return Path(text).exists()
    return text == f"{scheme}:" or Path(f"{scheme}:").is_dir()


def split(url: str) -> tuple[str, str]:
    """Split a file's URL into that of its folder and its name.

    Raises
    ------
    UsageError
        It names a bucket or a host only.
    """
    folder, _, name = url.rpartition("/")
    if not urlsplit(url).path or name in {".", ".."}:
        raise invalid(url, "it names no object")
    return folder, name


def folders_of(url: str) -> list[str]:
    """Return the URLs of all folders that a URL lies in, the nearest first.

    Examples
    --------
    >>> folders_of("s3://bucket/a/b.csv")
    ['s3://bucket/a', 's3://bucket']
    """
    scheme, host, path = urlsplit(url)[:3]
    names = path.split("/")
    return [f"{scheme}://{host}{'/'.join(names[:k])}" for k in range(len(names) - 1, 0, -1)]


def stem(url: str) -> str:
    """Name a member after its URL, as after a path."""
    return PurePosixPath(urlsplit(url).path or urlsplit(url).netloc).stem


def invalid(shown: str, why: str) -> UsageError:
    """Say why a URL cannot be used; `shown` is what may be repeated of it."""
    keys = "AWS_ACCESS_KEY_ID, …; AZURE_STORAGE_ACCOUNT_NAME, …; GOOGLE_SERVICE_ACCOUNT"
    fix = f"pass scheme://bucket/path, and credentials by the environment ({keys})"
    return UsageError("store-url", "cannot use a URL", item=f"{shown}: {why}", fix=fix)
