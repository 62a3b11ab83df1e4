"""Read pages as a browser does: elements by name and attributes, and their text."""

from __future__ import annotations

import time
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any, TypeVar

T = TypeVar("T")
VOID = {"br", "col", "hr", "img", "input", "link", "meta", "wbr"}
SVG = {"rect", "line", "path", "circle", "stop", "use"}


class Page(HTMLParser):
    """A parsed page; fails on elements that are not closed in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any(name == "style" or name.startswith("on") for name, _ in attrs), attrs
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open[-1]][0] == tag, f"</{tag}> closes <{self.elements[self._open[-1]][0]}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for at in self._open:
            self.elements[at][2].append(data)

    def all(self, tag: str, **attributes: str) -> list[str]:
        """The texts of elements."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            "".join(text)
            for name, own, text in self.elements
            if name == tag and all(own.get(k) == v for k, v in wanted.items())
        ]

    def text(self, tag: str, **attributes: str) -> str:
        """The text of the first such element."""
        return self.all(tag, **attributes)[0]

    def links(self, start: str = "") -> list[str]:
        """The addresses that links lead to."""
        found = [own.get("href") or "" for name, own, _ in self.elements if name == "a"]
        return [href for href in found if href.startswith(start)]


def parsed(answer: Any) -> Page:
    """A page, which must be one."""
    assert answer.status_code == 200, answer.text[:2000]
    assert len(answer.content) < 1_000_000
    page = Page()
    page.feed(answer.text)
    page.close()
    assert not page._open
    assert all(own.get("src", "").startswith("/static/") for name, own, _ in page.elements if name == "script")
    return page


def waiting(load: Callable[[], T], done: Callable[[T], bool], seconds: float = 60) -> T:
    """What is loaded once nothing in it is being counted any more."""
    end = time.monotonic() + seconds
    while not done(found := load()):
        assert time.monotonic() < end, "it is still being counted"
        time.sleep(0.02)
    return found
