"""A real S3 server on loopback (moto's), and a proxy before it that fails on purpose."""

from __future__ import annotations

import logging
import os
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "not-a-key", "AWS_SECRET_ACCESS_KEY": "secret-for-tests", "AWS_REGION": "us-east-1"}
ERROR = b"<Error><Code>Fault</Code><Message>on purpose</Message></Error>"
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Asked(NamedTuple):
    """A request: its method, path with query, and headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]


Fault = str | int | None
"""What becomes of a request: None lets it pass; ``drop`` closes the connection before it, ``lose`` after it was carried
out, without an answer; ``truncate`` sends half the body, ``spoil`` changes a byte of it; a number is an HTTP status."""


class Server:
    """A moto server in this process, with the buckets asked for."""

    def __init__(self) -> None:
        server = pytest.importorskip("moto.server", reason="moto is not installed")
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.host, self.port = self._server.get_host_and_port()
        self.url = f"http://{self.host}:{self.port}"

    def bucket(self, name: str) -> str:
        """Make a bucket; returns its name."""
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")
        with urllib.request.urlopen(request):
            return name

    def close(self) -> None:
        """Stop it."""
        self._server.stop()


class Proxy:
    """Stands before a server: counts requests, and does with each what ``fault`` says.

    Args:
        host, port: the server.
        fault: what becomes of a request.

    Attributes:
        url: its endpoint.
        asked: the requests so far.
        fault: may be changed at any time.
        without: headers in lower case that the server is not told.
    """

    def __init__(self, host: str, port: int, fault: Callable[[Asked], Fault] = lambda asked: None) -> None:
        self.fault, self.asked, self.without = fault, list[Asked](), set[str]()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def handle_any(self) -> None:
                asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
                body = self._body()
                proxy.asked.append(asked)
                wanted = proxy.fault(asked)
                if wanted == "drop":
                    self._hang_up()
                    return
                if isinstance(wanted, int):
                    self._answer(wanted, {}, ERROR)
                    return
                headers = {k: v for k, v in self.headers.items() if k.lower() not in proxy.without}
                answer, data = forward(host, port, self.command, self.path, headers, body)
                if wanted == "lose":
                    self._hang_up()
                    return
                headers = {k: v for k, v in answer.getheaders() if k.lower() not in HOP}
                length = answer.getheader("Content-Length") if self.command == "HEAD" else None
                if wanted == "spoil" and data:
                    data = bytes([data[0] ^ 1]) + data[1:]
                if wanted == "truncate" and data:
                    self._answer(answer.status, headers, data[: len(data) // 2], str(len(data)))
                    self._hang_up()
                    return
                self._answer(answer.status, headers, data, length)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815 - the names of the library

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                    parts = []
                    while size := int(self.rfile.readline().split(b";")[0], 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    return b"".join(parts)
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def _answer(self, status: int, headers: dict[str, str], data: bytes, length: str | None = None) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", length or str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                self.wfile.flush()

            def _hang_up(self) -> None:
                self.close_connection = True
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()


def forward(
    host: str, port: int, method: str, path: str, headers: dict[str, str], body: bytes
) -> tuple[HTTPResponse, bytes]:
    """Pass a request on; its answer and the answer's body."""
    connection = HTTPConnection(host, port, timeout=60)
    kept = {k: v for k, v in headers.items() if k.lower() not in HOP}
    connection.request(method, path, body, {**kept, "Content-Length": str(len(body))})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer, data


@contextmanager
def serving() -> Iterator[Server]:
    """A server with the bucket ``bucket``, for tests that skip where there is no client."""
    pytest.importorskip("obstore")
    server = Server()
    try:
        server.bucket("bucket")
        yield server
    finally:
        server.close()


@contextmanager
def environment(endpoint: str, **more: str) -> Iterator[None]:
    """The environment in which an endpoint is used, here and in processes that are started."""
    told = {**KEYS, "AWS_ENDPOINT_URL": endpoint, **more}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
