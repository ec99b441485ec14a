"""A real server for Azure's blobs (Azurite, `npm install -g azurite`) on 127.0.0.1, with one container `probe`."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own, which its documentation names."""
COMMAND = shutil.which("azurite-blob")


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Start the server; give its URL."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [str(COMMAND), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder), "--silent"]
    with (folder / "log").open("wb") as out:
        process = subprocess.Popen([*command, "--disableTelemetry"], stdout=out, stderr=out)
    url, late = f"http://127.0.0.1:{port}", time.monotonic() + 60
    try:
        while not _answers(url):
            assert process.poll() is None and time.monotonic() < late, (folder / "log").read_text(errors="replace")
            time.sleep(0.2)
        yield url
    finally:
        process.kill()
        process.wait(20)


def _answers(url: str) -> bool:
    """Make the container by a signed PUT; tell whether the server is there yet."""
    date, version = dt.datetime.now(dt.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"), "2021-08-06"
    signed = (
        "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}/{ACCOUNT}/probe\nrestype:container"
    )
    key = base64.b64encode(hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()).decode()
    headers = {"x-ms-date": date, "x-ms-version": version, "Authorization": f"SharedKey {ACCOUNT}:{key}"}
    put = urllib.request.Request(f"{url}/{ACCOUNT}/probe?restype=container", method="PUT", headers=headers)
    put.add_header("Content-Length", "0")
    try:
        urllib.request.urlopen(put).close()
    except urllib.error.HTTPError:
        raise
    except OSError:
        return False
    return True


def environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Point obstore to an emulator, with its key."""
    for name, value in {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        "AZURE_STORAGE_USE_EMULATOR": "true",
        "AZURITE_BLOB_STORAGE_URL": endpoint,
    }.items():
        monkeypatch.setenv(name, value)
