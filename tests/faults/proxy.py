"""A proxy before the S3 server that answers as a bad day does: refused, cut, silent, late, lost, another's."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from ensemble_kit.remote import objects
from s3 import SECRET, environment

RETRIES = 2


@dataclass
class Proxy:
    """Hands requests on to the server, but the first `left` of a method whose path holds `part`: those meet `fault`."""

    target: str
    url: str = ""
    method: str = ""
    part: str = ""
    fault: str | Callable[[], str | None] = ""
    left: int = 0
    after: int = 0
    """Requests that are spared first."""
    met: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def bad(
        self, method: str, part: str, fault: str | Callable[[], str | None], left: int = 999, after: int = 0
    ) -> None:
        self.method, self.part, self.fault, self.left, self.after, self.met = method, part, fault, left, after, 0

    def meets(self, method: str, path: str) -> str | Callable[[], str | None]:
        """Return the fault that this request meets; "" for none."""
        with self.lock:
            if method != self.method or self.part not in path:
                return ""
            if self.after:
                self.after -= 1
                return ""
            if self.left == 0:
                return ""
            self.left -= 1
            self.met += 1
            return self.fault


class Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.meets(self.command, self.path)
        if callable(fault):
            fault = fault() or ""
        if fault == "hang":
            self.proxy.released.wait(30)
            return self._hang_up()
        elif fault == "reset":
            return self._hang_up()
        elif fault.isdigit():
            return self._answer(int(fault), {}, f"<Error><Code>X</Code><Message>{SECRET}</Message></Error>".encode())
        if fault == "half sent":
            return self._half_sent(sent)
        status, headers, body = self._handed_on(sent)
        if fault == "lost":  # done, and nobody hears of it
            return self._hang_up()
        if fault == "portal":
            return self._answer(200, {}, b"<html>sign in</html>")
        if fault == "empty":
            return self._answer(200, headers, b"")
        if fault == "half":
            return self._answer(status, {**headers, "Content-Range": f"bytes 0-{len(body) // 2 - 1}/{len(body) // 2}"},
                                body[: len(body) // 2])  # fmt: skip
        if fault == "stale list":
            body = re.sub(rb"<Contents>.*</Contents>", b"", body, flags=re.DOTALL)
        self._answer(status, headers, body, upto=len(body) // 2 if fault == "cut" else None)
        return None

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _any  # noqa: N815

    def _connected(self, sent: bytes) -> http.client.HTTPConnection:
        """Send a request's head as it came, and these bytes of its body."""
        to = urlsplit(self.proxy.target)
        connection = http.client.HTTPConnection(to.hostname or "", to.port, timeout=30)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():  # the host too, which the client has signed
            connection.putheader(name, value)
        connection.endheaders(sent)
        return connection

    def _half_sent(self, sent: bytes) -> None:
        """Break off in the middle of a body, as a client does that is killed."""
        self._connected(sent[: len(sent) // 2]).close()
        self._hang_up()

    def _handed_on(self, sent: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = self._connected(sent)
        try:
            answer = connection.getresponse()
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in {"content-length", "transfer-encoding",
                                                                            "connection", "date", "server"}}  # fmt: skip
            return answer.status, kept, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes, upto: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204 and not (self.command == "HEAD" and "Content-Length" in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:upto])
        if upto is not None:
            self._hang_up()

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass  # a connection that was closed on purpose


@contextmanager
def proxied(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Point this process to a proxy of the server, with short waits."""
    told = Proxy(server)
    with Server(("127.0.0.1", 0), type("Bound", (Handler,), {"proxy": told})) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        told.url = f"http://127.0.0.1:{running.server_address[1]}"
        environment(monkeypatch, told.url)
        monkeypatch.setattr(objects, "RETRIES", RETRIES)
        monkeypatch.setattr(objects, "TIMEOUT", timedelta(seconds=1))
        yield told
        told.released.set()
        running.shutdown()
