"""The frame of every page: head, menu, heading and footer, in the report's design."""

from __future__ import annotations

from importlib import resources

from headrace import __version__
from headrace.report import palette
from headrace.report.markup import Markup, element, join
from headrace.report.style import style
from headrace.view.address import address

SCRIPTS = ("frame.js",)
STYLES = ("headrace.css",)


def frame(
    name: str,
    heading: str,
    body: Markup,
    menu: list[tuple[str, str]],
    here: str,
    styles: tuple[str, ...] = (),
    scripts: tuple[str, ...] = (),
) -> str:
    """A whole page.

    Args:
        name: of what is viewed.
        heading: of the page.
        body: its content.
        menu: pages as (name, title).
        here: the name of this one.
        styles, scripts: further files of ``static/``.
    """
    links = [
        element("a", title, href=address(page), aria_current="page" if page == here else None) for page, title in menu
    ]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{heading} · {name}" if heading != name else name),
        [element("link", rel="stylesheet", href=f"/static/{one}") for one in (*STYLES, *styles)],
        element("link", rel="icon", href="data:,"),
        [element("script", type="module", src=f"/static/{one}") for one in (*SCRIPTS, *scripts)],
    )
    top = element(
        "header",
        element("a", name, href="/", class_="brand"),
        element("nav", links, aria_label="Pages"),
        class_="top",
    )
    fills = element("svg", palette.textures(), class_="unseen", width=0, height=0, aria_hidden="true")
    page = element(
        "body",
        element("a", "Skip to content", href="#content", class_="skip"),
        fills,
        top,
        element("main", element("h1", heading), body, id="content"),
        element("footer", f"headrace {__version__}. Figures are measured unless they are called estimates."),
    )
    return f"<!doctype html>\n{element('html', head, page, lang='en')}\n"


def error(what: str, where: str, fix: str, found: tuple[str, ...] = ()) -> Markup:
    """What a page says that cannot be shown."""
    return element(
        "div",
        element("p", element("strong", what)),
        element("ul", [element("li", line) for line in found]) if found else None,
        element("p", "Where: ", element("code", where)) if where else None,
        element("p", fix) if fix else None,
        class_="error",
        role="alert",
    )


def empty(*said: object) -> Markup:
    """What a part of a page says that has nothing to show (yet)."""
    return element("p", join(list(said)), class_="empty")


def pending(what: str) -> Markup:
    """A figure that is still being counted. The page asks again until it is there (``static/frame.js``)."""
    return element("p", element("span", class_="spinner", aria_hidden="true"), what, class_="pending", role="status")


def sheet() -> str:
    """The style sheet of all pages: the report's, then the viewer's own."""
    own = (resources.files("headrace.view") / "static" / "view.css").read_text(encoding="utf-8")
    return f"{style()}\n{own}"
