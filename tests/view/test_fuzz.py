"""Addresses that nobody would write: each has an answer in words, and none is an error of the server."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_from_bytes

import orjson
import pytest
from asked import Answer, asked
from pages import Page

from headrace.view.address import SITE
from headrace.view.app import application
from headrace.view.guard import HEADERS
from headrace.view.registry import ACTIONS, PAGES, Listed
from headrace.view.target import Target

SAME = {"sec-fetch-site": "same-origin"}
NUMBERS = [
    "0", "1", "2", "3", "-1", "-0", "1.5", "1e3", "1e400", "NaN", "inf", "-Infinity", "0x10", "١٢", "٣", "1_000",
    " 1", "1 ", "+1", "00", "2147483648", "9007199254740991", "9007199254740992", "9223372036854775807",
    "9223372036854775808", "18446744073709551616", "1" * 40, "1" * 5000, "-" + "9" * 20,
]  # fmt: skip
TEXTS = [
    "", "\0", "a\0b", "\r\nset-cookie: a=b", "\u202egnp.exe", "\ufeff", "é", "e\u0301", "𝕏", "\x1b[31m",
    "../../etc/passwd", "..", ".", "/", "//evil.example", "\\\\evil\\share", "C:\\boot.ini", "file:///etc/passwd",
    "%00", "%2e%2e%2f", "%zz", "%", "+", "&", "=", "#", "?", ";", "'", '"', "`", "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>", "javascript:alert(1)", "{stage}", "{0}", "%s%n", "${HOME}", "$(id)", "null",
    "None", "true", "[]", "{}", "a" * 9000, "ab " * 2000, "(" * 400, "(a+)+$", "[", "\\", "(?P<x>", "*", ".*",
    "\\p{L}", "(?i)", "SELECT 1", "SELECT 1; SELECT 2", "DROP TABLE documents",
    "SELECT * FROM read_text('/etc/passwd')", "SELECT", "COPY corpus TO '/tmp/x'", "SELECT 'a'::INT", "bytes:1:",
    "bytes::", "bytes:nan:1", "bytes:9:1", "nothing:1:2", "bytes:1e400:", ":::", "bytes:-1:inf",
]  # fmt: skip
LIMITS = ["filters.short.min_characters", "filters.code.max_line", "deduplicate.near.threshold"]
ODD = [b"%ff%fe", b"%c0%af", b"%ed%a0%80", b"\xff", b"%", b"%u0041", b"%f4%90%80%80"]


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    address: bytes
    headers: dict[str, str]
    body: bytes = b""


class Fuzzer:
    """Requests for every page and action, from a seed.

    Args:
        target: the run; the names in it are among the values.
        seed: of the choices.
    """

    def __init__(self, target: Target, seed: int) -> None:
        self.rng = random.Random(seed)
        verdicts = target.artifact("verdicts")
        counts = {} if verdicts is None else verdicts.manifest.counts
        reasons = {reason for one in counts.values() for reason in one["removed"]}
        self.right = {"stage": target.sequences, "source": target.sources, "reason": sorted(reasons), "limit": LIMITS}
        self.known = [
            *target.sources,
            *target.sequences,
            *sorted(reasons),
            "yes",
            "no",
            "text",
            "tokens",
            "ids",
            "regex",
            "sample",
        ]
        self.known += ["nearest", "kept", "phrase", "name", "json", "html", "mean", "source", "right", "wrong", "undo"]

    def requests(self, n: int) -> Iterator[Asked]:
        """Some of them."""
        for _ in range(n):
            yield self._action() if self.rng.random() < 0.15 else self._page()

    def value(self, annotation: Any = None, name: str = "") -> bytes:
        """A value of a field, quoted or not; more often one that it may have, so that it gets far."""
        rng = self.rng
        kind = rng.random()
        right = self.right.get(name) or re.findall(r"'(\w+)'", str(annotation))
        if right and kind < 0.8:
            return quote(rng.choice(right)).encode()
        if "int" in str(annotation) and kind < 0.9:
            return quote(rng.choice(NUMBERS[:4] if kind < 0.7 else NUMBERS)).encode()
        if kind < 0.5:
            return quote(rng.choice(self.known)).encode()
        if kind < 0.55:
            return quote(rng.choice(NUMBERS)).encode()
        if kind < 0.85:
            return quote(rng.choice(TEXTS), safe=rng.choice(["", "/:%'"])).encode()
        if kind < 0.92:
            return rng.choice(ODD)
        made = "".join(
            chr(rng.choice((rng.randrange(128), rng.randrange(0x3000), rng.randrange(0x110000))))
            for _ in range(rng.randrange(12))
        )
        return quote_from_bytes(made.encode("utf-8", "surrogatepass")).encode()

    def _pairs(self, page: Listed, *more: str) -> bytes:
        rng, fields = self.rng, page.page.query.model_fields
        names = [(info.alias or name, info.annotation) for name, info in fields.items()]
        names += [(name, str) for name in more]
        if not names:
            return rng.choice((b"", b"", b"", b"q=1", b"&", b"="))
        count = rng.choice((0, 1, 1, 1, 2, 2, 3, 8, 40))
        pairs = []
        for _ in range(count):
            name, kind = (
                rng.choice(names)
                if rng.random() < 0.92
                else (rng.choice(["format", "token", "zz", "", "__class__", "model_config"]), str)
            )
            pairs.append(quote(name).encode() + rng.choice((b"=", b"=", b"=", b"", b"==")) + self.value(kind, name))
        return rng.choice((b"&", b"&", b"&", b"&&", b";")).join(pairs)

    def _page(self) -> Asked:
        rng = self.rng
        page: Listed = rng.choice(PAGES)
        path = SITE[page.name].encode()
        for name in re.findall(r"{(\w+)}", SITE[page.name]):
            value = self.value(page.page.query.model_fields[name].annotation, name)
            path = path.replace(b"{%s}" % name.encode(), value.replace(b"?", b"%3f"))
        if rng.random() < 0.08:
            path += rng.choice(
                (b"/", b"//", b"/..", b"/%2e%2e/", b"/\x00", b"?", b"/" + self.value(), b"%2f", b";a=b", b".json")
            )
        if rng.random() < 0.04:
            path = (
                b"/"
                + rng.choice((b"", b"static/", b"static/../", b"static/%2e%2e%2f", b"stages/", b"/", b"documents/"))
                + self.value()
            )
        query = self._pairs(page)
        accept = rng.choice(
            ({}, {}, {"accept": "application/json"}, {"accept": "text/html,*/*"}, {"accept": self._word()})
        )
        return Asked(rng.choice(("GET",) * 12 + ("HEAD", "POST")), path + b"?" + query, {**SAME, **accept})

    def _word(self) -> str:
        return self.rng.choice(TEXTS).replace("\0", "").replace("\r\n", " ")

    def _action(self) -> Asked:
        rng = self.rng
        action = rng.choice(ACTIONS)
        page = next(
            (one for one in PAGES if action.path.startswith(SITE[one.name]) and one.name != "overview"), PAGES[0]
        )
        if "POST" in action.methods:
            kind = rng.choice(
                ("application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=x", "")
            )
            return Asked(
                "POST",
                action.path.encode(),
                {**SAME, "content-type": kind},
                self._pairs(page, "row", "label", "q", "reason"),
            )
        return Asked(rng.choice(("GET", "GET", "GET", "POST")), action.path.encode() + b"?" + self._pairs(page), SAME)


def check(request: Asked, answer: Answer) -> None:
    """Every answer is safe, and every refusal has words."""
    said = f"{request} -> {answer.status_code}"
    assert answer.status_code < 500, said
    assert HEADERS.items() <= answer.headers.items(), said
    assert "location" not in answer.headers or re.match(r"/([^/\\]|$)", answer.headers["location"]), said
    assert "set-cookie" not in answer.headers, said
    kind = answer.headers.get("content-type", "")
    if request.method == "HEAD" or answer.status_code in (303, 304, 307):
        return
    if kind.startswith("application/json"):
        told = orjson.loads(answer.content)
        assert answer.status_code == 200 or (len(told["error"]) > 10 and "found" in told), said
    elif kind.startswith("text/html"):
        page = Page()
        page.feed(answer.text)
        page.close()
        assert not page._open, said
        assert len(answer.content) < 1_000_000, said
        if answer.status_code != 200:
            assert len(page.text("div", class_="error")) > 10, said
    else:
        assert kind.startswith(("text/", "image/svg+xml")), said
        assert len(answer.text) > 10 or answer.status_code == 200, said


def fuzz(run, seed: int, n: int) -> dict[int, int]:
    """Ask; returns how often each status was answered."""
    target = Target(run)
    app, counts = application(target), {}

    async def all_() -> None:
        for request in Fuzzer(target, seed).requests(n):
            answer = await asyncio.wait_for(
                asked(app, request.method, request.address, request.headers, request.body), 60
            )
            check(request, answer)
            counts[answer.status_code] = counts.get(answer.status_code, 0) + 1

    asyncio.run(all_())
    return counts


@pytest.fixture(scope="module")
def labelled(viewed, tmp_path_factory):
    """A copy of the run, which labels may be written to."""
    return shutil.copytree(viewed, tmp_path_factory.mktemp("fuzzed") / "run")


def test_fuzzed_addresses_are_answered(labelled):
    counts = fuzz(labelled, 1, 600)
    assert counts[200] > 40
    assert counts[400] > 50
    assert counts[404] > 20


def test_other_targets_answer_fuzzed_addresses(viewed, viewed_corpus):
    """A sequence, and files of documents, some of which cannot be read."""
    for path in (next((viewed / "artifacts").glob("sequence-*")), viewed_corpus / "code" / "1.jsonl"):
        assert fuzz(path, 5, 200)[200] > 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_fuzzed_addresses_are_answered(labelled):
    assert sum(fuzz(labelled, 2, 10_000).values()) == 10_000
