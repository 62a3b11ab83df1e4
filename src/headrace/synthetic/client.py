"""Ask a server with an OpenAI-compatible interface, and survive whatever it does.

Only a complete answer of the promised shape is an answer. Everything else is *trouble*: the attempt is counted, and
repeated after a while. When a request has had all its attempts, the server decides whose fault it is: if it answers a
trivial question now, or has since answered another request, this one is given up; otherwise the run stops, and goes on
where it was when it is started again.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections import Counter
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from headrace.errors import UserError
from headrace.flow.keys import salt
from headrace.recipe.synthetic import MOST, Server
from headrace.synthetic.answers import Answers
from headrace.synthetic.limits import Allowance, Concurrency
from headrace.synthetic.requests import Reply, Request, Rubbish, message_of, read_reply, request_of

MOST_BODY = 16 << 20  # bytes: an answer of a million tokens has less
MOST_BACKOFF = 60.0
PROBES = 3  # trivial questions before a server is taken to be gone
# The longest that a server may make us wait at its word; `Retry-After` may name a day.
MOST_PAUSE = 600.0
CONNECT_SECONDS = 20.0
CHARACTERS_PER_TOKEN = 3.5  # to reserve rate before the server has counted
# Statuses that say that the same request may be answered later (RFC 9110, RFC 6585); so do all from 500 on.
LATER = frozenset({408, 409, 425, 429})
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Trouble(Exception):  # noqa: N818 - what happened to an attempt
    """An attempt got no answer.

    Attributes:
        kind: in a word or two, to be counted.
        said: in a sentence.
        busy: whether it says that too much was asked.
        final: whether the same request will not be answered later.
        wait: seconds that the server asks to wait.
        fix: what to do if the server says so to every request.
    """

    def __init__(
        self, kind: str, said: str, busy: bool = False, final: bool = False, wait: float = 0.0, fix: str = ""
    ) -> None:
        super().__init__(said)
        self.kind, self.said, self.busy, self.final, self.wait, self.fix = kind, said, busy, final, wait, fix


class Client:
    """Asks one server; an async context manager.

    Args:
        server: the recipe's section.
        answers: keeps what is answered.
        where: the section's key, for messages.

    Attributes:
        asked: requests that were sent and answered.
        input, output: tokens, as the server counts.
        trouble: attempts that got no answer, by kind.
        given_up: requests that never will.
        concurrency: how many requests there are at once.
    """

    def __init__(self, server: Server, answers: Answers, where: str) -> None:
        self._server, self._answers, self._where = server, answers, where
        self.asked = self.input = self.output = self.given_up = 0
        self.trouble: Counter[str] = Counter()
        self.concurrency = Concurrency(server.concurrency)
        self._allowance = Allowance(server.rate)
        self._answered = -1.0  # when the server last answered
        self._probing = asyncio.Lock()
        self._key: str | None = None
        self._http: Any = None

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.aclose()

    def _open(self) -> None:
        """Get ready, when there is something to ask.

        Raises:
            UserError: httpx is not installed, or the key is not in the environment.
        """
        self._key = _secret(self._server, self._where)
        try:
            import httpx
        except ImportError:
            raise UserError(
                "Asking a server needs httpx, which is not installed.",
                self._where,
                "pip install 'headrace[synthetic]'",
            ) from None
        headers = {"accept-encoding": "identity"} | ({"authorization": f"Bearer {self._key}"} if self._key else {})
        host = urlsplit(str(self._server.url)).hostname
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(self._server.timeout, connect=min(CONNECT_SECONDS, self._server.timeout)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=self._server.concurrency),
            follow_redirects=False,  # the key is for this server
            trust_env=host not in LOOPBACK,
        )

    @property
    def cost(self) -> float:
        """Dollars so far, by the recipe's prices."""
        return (self.input * self._server.price.input + self.output * self._server.price.output) / 1e6

    async def ask(self, request: Request) -> Reply:
        """Ask until there is an answer, and keep it.

        Returns:
            The answer, or why there will be none.

        Raises:
            UserError: the server refuses us, or does not answer at all; or as for :meth:`_open`.
        """
        if self._http is None:
            self._open()
        began = time.monotonic()
        for attempt in range(self._server.retries + 1):
            try:
                return await self._attempt(request)
            except Trouble as trouble:
                last = trouble
            self.trouble[last.kind] += 1
            self._answers.add({"trouble": last.kind, "seconds": round(time.monotonic() - began, 3)})
            if last.final:
                break
            if attempt < self._server.retries:
                await asyncio.sleep(max(last.wait, self._backoff(request, attempt)))
        return await self._give_up(request, last, began)

    def _backoff(self, request: Request, attempt: int) -> float:
        """Seconds to wait: doubling, and up to half more or less, so that not all return together."""
        jitter = 0.5 + salt(0, "backoff", request.key, attempt) / 2**64
        return min(MOST_BACKOFF, self._server.backoff * 2.0**attempt) * jitter

    async def _give_up(self, request: Request, last: Trouble, began: float) -> Reply:
        """Find out whether it is the request or the server.

        Raises:
            UserError: it is the server.
        """
        # A refusal of this request alone is the word of a server that lives. Otherwise, what it has answered may have
        # been its last.
        since = began if last.final and not last.fix else time.monotonic()
        async with self._probing:
            if self._answered < since:
                await self._probe()
        self.given_up += 1
        self._answers.add({"key": request.key, "failed": last.said})
        return Reply("", failed=last.said)

    async def _probe(self) -> None:
        """Ask a trivial question.

        Raises:
            UserError: it has no answer either.
        """
        trivial = request_of(self._server, "", "Say: yes.", 0)
        for attempt in range(PROBES):
            try:
                await self._send(trivial)
            except Trouble as trouble:
                last = trouble
            else:
                self._answered = time.monotonic()
                return
            if last.final:
                break
            if attempt < PROBES - 1:
                await asyncio.sleep(max(last.wait, self._backoff(trivial, attempt)))
        raise self._gone(last)

    def _gone(self, last: Trouble) -> UserError:
        where = f"{self._where}.url: {self._server.url}"
        if last.fix:
            return UserError(f"The server refuses the request ({last.said}).", where, last.fix)
        return UserError(
            f"The server gives no answers: {last.said}.",
            where,
            "Start or mend it, and run again: what it has answered is kept and not asked again.",
        )

    async def _attempt(self, request: Request) -> Reply:
        """One attempt.

        Raises:
            Trouble: it got no answer.
        """
        most = max(request.body.get(name) or 0 for name in MOST)
        thought = int(request.characters / CHARACTERS_PER_TOKEN) + most
        began = await self.concurrency.enter()
        try:
            await self._allowance.take(thought)
            sent = time.monotonic()
            body, reply = await self._send(request)
            self.concurrency.answered(sent, reply.output)
        except Trouble as trouble:
            if trouble.busy:
                self.concurrency.refused(began)
            if trouble.wait:
                self.concurrency.pause(trouble.wait)
            raise
        finally:
            self.concurrency.leave()
        self._allowance.correct(reply.input + reply.output - thought)
        self._answered = time.monotonic()
        self.asked += 1
        self.input, self.output = self.input + reply.input, self.output + reply.output
        self._answers.add({"key": request.key, "body": body, "seconds": round(self._answered - sent, 3)})
        return reply

    async def _send(self, request: Request) -> tuple[str, Reply]:
        """Send a request and read the whole of what comes back.

        Raises:
            Trouble: that is no answer.
        """
        import httpx

        try:
            async with (
                asyncio.timeout(self._server.timeout),
                self._http.stream("POST", _below(str(self._server.url), request.path), json=request.body) as response,
            ):
                body = await _bounded(response)
                self._heed(response.headers)
                if response.status_code != 200:
                    raise self._refusal(response.status_code, response.headers, self._without_key(body))
        except TimeoutError:
            raise Trouble("timeout", f"no answer within {self._server.timeout:g} s", busy=True) from None
        except httpx.TimeoutException:
            raise Trouble("timeout", "the connection stalled", busy=True) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            said = str(error) or type(error).__name__
            raise Trouble("connection", self._without_key(f"the connection failed: {said}"), busy=True) from None
        body = self._without_key(body)
        try:
            return body, read_reply(body)
        except Rubbish as error:
            raise Trouble("rubbish", str(error)) from None

    def _refusal(self, status: int, headers: Any, body: str) -> Trouble:
        """What a status other than 200 means."""
        said = f"HTTP {status}: {_error_in(body)}"
        mends = {
            401: "Set the environment variable that `key` names to a valid key.",
            403: "Use a key with access to this model.",
            402: "Top up the account.",
            404: "Check the address, which ends in /v1 for most servers, and the model's name.",
        }
        if status in mends:  # or a firewall before the server dislikes this prompt
            return Trouble(str(status), said, final=True, fix=mends[status])
        if status in LATER or status >= 500:
            return Trouble(str(status), said, busy=True, wait=_retry_after(headers))
        if status < 300:
            return Trouble("rubbish", f"{said}: no answer")
        if status < 400:
            return Trouble(str(status), f"{said}: redirections are not followed", final=True)
        return Trouble(str(status), said, final=True)

    def _heed(self, headers: Any) -> None:
        """Pause when the server says that nothing is left of what may be sent."""
        for what in ("requests", "tokens"):
            left, reset = headers.get(f"x-ratelimit-remaining-{what}"), headers.get(f"x-ratelimit-reset-{what}")
            if left is not None and reset is not None and left.strip() == "0":
                self.concurrency.pause(min(MOST_PAUSE, _duration(reset)))

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "...") if self._key else text


def _secret(server: Server, where: str) -> str | None:
    """The API key.

    Raises:
        UserError: it is not in the environment.
    """
    if server.key is None:
        return None
    key = os.environ.get(server.key, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise UserError(
            f"The environment variable {server.key} holds no API key.", f"{where}.key", f"export {server.key}=..."
        )
    return key


async def _bounded(response: Any) -> str:
    """The body of a response as text.

    Raises:
        Trouble: it is too large.
    """
    pieces, size = [], 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > MOST_BODY:
            raise Trouble("too large", f"the body is larger than {MOST_BODY >> 20} MiB")
        pieces.append(piece)
    return b"".join(pieces).decode("utf-8", "replace")


def _below(url: str, path: str) -> str:
    """The address of an endpoint; a query stays at the end."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))


def _error_in(body: str) -> str:
    try:
        value = json.loads(body)
        return message_of(value.get("error", value) if isinstance(value, dict) else value)
    except (ValueError, RecursionError):
        return body.strip()[:200] or "no reason given"


def _retry_after(headers: Any) -> float:
    """Seconds that the server asks to wait: a number or a date (RFC 9110, 10.2.3); 0 if it does not say."""
    value = headers.get("retry-after")
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(MOST_PAUSE, max(0.0, seconds)) if seconds == seconds else 0.0


def _duration(text: str) -> float:
    """Seconds in a duration such as ``6m0s``, ``20ms`` or ``1.5``; 0 if it is none."""
    units = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd]?)", text.strip())
    return sum(float(number) * units[unit] for number, unit in parts)
