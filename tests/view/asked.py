"""Ask an application with the bytes of an address as they are, which clients of HTTP would mend."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.types import ASGIApp


@dataclass(frozen=True)
class Answer:
    """What the server sent."""

    status_code: int
    headers: dict[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """The content as text; it must be."""
        return self.content.decode("utf-8")


async def asked(
    app: ASGIApp, method: str, address: bytes, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Answer:
    """One request, as uvicorn hands it over; whatever the application raises is raised."""
    path, _, query = address.partition(b"?")
    names = {"host": "localhost", **(headers or {})}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "headers": [(k.encode("latin-1"), v.encode("latin-1", "replace")) for k, v in names.items()],
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 1),
    }
    sent: list[dict] = []
    pieces = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict:
        try:
            return next(pieces)
        except StopIteration:
            await asyncio.sleep(3600)
            return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        sent.append(message)

    await app(scope, receive, send)
    told = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in sent[0]["headers"]}
    return Answer(sent[0]["status"], told, b"".join(one.get("body", b"") for one in sent[1:]))
