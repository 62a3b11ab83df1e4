"""A server with OpenAI's interface on loopback: answers as a test says, and misbehaves when told to."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, dict[str, Any]], str]
"""Prompt and body of a request -> the text of the answer."""


@dataclass
class Plain:
    """A response in full: anything may be wrong with it.

    Attributes:
        status, body, headers: as sent.
        wait: seconds before it is sent.
        cut: bytes of the body after which the connection is closed, less than the announced length.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    cut: int | None = None


def completion(text: Any, finish: str | None = "stop", **more: Any) -> bytes:
    """The body of an answer."""
    usage = {"prompt_tokens": 10, "completion_tokens": 20}
    message = {"role": "assistant", "content": text}
    return json.dumps(
        {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage, **more}
    ).encode()


class ModelServer:
    """The server; a context manager.

    Args:
        answer: gives the text of an answer.
        fault: what to respond instead, given how often the same request has come before; None lets it be answered.

    Attributes:
        bodies: what was asked, in the order of arrival.
        most: the most requests at once.
    """

    def __init__(
        self, answer: Answer, fault: Callable[[dict[str, Any], int], Plain | None] | None = None, delay: float = 0.0
    ) -> None:
        self.answer, self.fault, self.delay = answer, fault, delay
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.seen: Counter[str] = Counter()
        self.running = self.most = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._respond(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: Any) -> None:  # a client that goes away is no error here
                pass

        self._server = Server(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> ModelServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _respond(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers["content-length"]))
        body = json.loads(raw)
        key = hashlib.sha256(raw).hexdigest()
        with self._lock:
            before, self.seen[key] = self.seen[key], self.seen[key] + 1
            self.bodies.append(body)
            self.headers.append(dict(handler.headers))
            self.paths.append(handler.path)
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            plain = self.fault(body, before) if self.fault is not None else None
            if plain is None:
                prompt = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
                plain = Plain(body=completion(self.answer(prompt, body)), wait=self.delay)
            time.sleep(plain.wait)
            handler.send_response(plain.status)
            for name, value in plain.headers.items():
                handler.send_header(name, value)
            handler.send_header("content-length", str(len(plain.body)))
            handler.end_headers()
            handler.wfile.write(plain.body if plain.cut is None else plain.body[: plain.cut])
            if plain.cut is not None:
                handler.close_connection = True
        finally:
            with self._lock:
                self.running -= 1


def number_of(body: dict[str, Any]) -> int:
    """A number of a request's own."""
    return int(hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12], 16)


def code_answer(prompt: str, body: dict[str, Any]) -> str:
    """A file of code that no other request gets."""
    number = number_of(body)
    words = " ".join(f"w{number * (k + 3) % 9973}" for k in range(60))
    return f"Here it is.\n\n```python\n# {words}\ndef f{number}(x):\n    return x * {number}\n```\n"
