"""Who may ask, and what a browser may do with the answers: hosts, the token, methods, and headers.

Documents are hostile, and so are other pages in the same browser: they may ask this server for anything (and rebind
their own name to this machine to read the answer), so requests for other hosts are refused, and nothing but a page of
this server can change anything.
"""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
COOKIE = "headrace"


class Guard:
    """ASGI middleware that lets through only what may be answered.

    Args:
        app: the application behind it.
        token: what a browser must show once (``?token=``) and then sends as a cookie; None on loopback, where only
            requests for this machine's own names are answered.
    """

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                more = {"cache-control": "no-store", **HEADERS}
                message["headers"] = [
                    *message["headers"],
                    *((k.encode(), v.encode()) for k, v in more.items() if k.encode() not in own),
                ]
            await send(message)

        refused = self._refused(scope, Headers(scope=scope))
        await (refused or self.app)(scope, receive, with_headers)

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        host = _hostname(headers.get("host", ""))
        if self.token is None and host not in LOOPBACK:
            return PlainTextResponse("This server answers only requests for localhost.\n", 421)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("Only GET, HEAD and POST are answered.\n", 405, {"allow": "GET, HEAD, POST"})
        if self.token is not None and (answer := self._without_token(scope, headers, self.token)) is not None:
            return answer
        if scope["method"] == "POST" and not _same_origin(headers):
            return PlainTextResponse("Only pages of this server may change anything.\n", 403)
        if _embedded_elsewhere(headers):
            return PlainTextResponse("Pages of other sites may lead here, not embed what is here.\n", 403)
        return None

    def _without_token(self, scope: Scope, headers: Headers, token: str) -> Response | None:
        if secrets.compare_digest(_cookie(headers).encode(), token.encode()):
            return None
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in pairs if name == "token"), "")
        if not secrets.compare_digest(given.encode("utf-8", "replace"), token.encode()):
            return PlainTextResponse("Open the address that `headrace view` printed: it holds the token.\n", 401)
        left = [(name, value) for name, value in pairs if name != "token"]
        # Only a path of this server: one that began with two slashes would lead elsewhere.
        path = "/" + scope.get("raw_path", b"/").decode("latin-1").lstrip("/")
        answer = RedirectResponse(f"{path}?{urlencode(left)}" if left else path, 303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return answer


def _hostname(host: str) -> str:
    """The name in a Host header, without its port; '' if it makes no sense. Any port: a tunnel may have another."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _same_origin(headers: Headers) -> bool:
    """Whether a page of this server sent the request, as the browser says; old ones send an origin only."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    try:
        return urlsplit(headers.get("origin", "")).netloc == headers.get("host", "") != ""
    except ValueError:
        return False


def _embedded_elsewhere(headers: Headers) -> bool:
    """Whether another site's page asks without being left: it could not read the answer, but make this machine work."""
    site, wanted = headers.get("sec-fetch-site"), headers.get("sec-fetch-dest")
    return site in ("cross-site", "same-site") and wanted != "document"


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""
