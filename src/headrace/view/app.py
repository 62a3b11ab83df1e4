"""The application: routes from pages, answers as HTML or JSON, errors in words."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from functools import cache
from importlib import resources
from typing import Any

import orjson
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from headrace.errors import UserError
from headrace.flow.storage import cannot_read
from headrace.view import layout
from headrace.view.address import SITE
from headrace.view.damaged import telling_damage
from headrace.view.guard import Guard
from headrace.view.page import Query
from headrace.view.registry import ACTIONS, PAGES, Action, Listed
from headrace.view.target import Missing, Target, Wrong

AT_ONCE = 8  # pages that are made at the same time, of a few MB each; further ones wait
LARGEST_FORM = 4 << 20  # bytes of a request's body: a pasted text, or labels of some thousand documents
CONTENT_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
Answerer = Callable[[Request], Awaitable[Response]]


def application(target: Target, token: str | None = None) -> Guard:
    """The ASGI application that shows a target.

    Args:
        target: what is shown.
        token: see :class:`Guard`.
    """
    routes: list[BaseRoute] = [Route("/static/{name}", static)]
    # Where two pages have one address, such as the first, that of this target comes first.
    pages = sorted(PAGES, key=lambda page: not _serves(page, target))
    limiter = CapacityLimiter(AT_ONCE)
    routes += [Route(SITE[page.name], _page(target, page, limiter), methods=["GET"]) for page in pages]
    routes += [Route(action.path, _action(target, action), methods=list(action.methods)) for action in ACTIONS]

    async def refused(request: Request, error: Exception) -> Response:
        return _refusal(target, request, error)

    handlers: Any = dict.fromkeys((HTTPException, UserError, ValidationError, OSError), refused)
    made = Starlette(routes=routes, exception_handlers=handlers)
    made.router.redirect_slashes = False  # it would lead to whatever host the request names
    return Guard(made, token)


def _page(target: Target, listed: Listed, limiter: CapacityLimiter) -> Answerer:
    async def answer(request: Request) -> Response:
        def make() -> Response:
            page = listed.page
            query = page.query.model_validate(_fields(request, page.query))
            shown = loaded(target, listed, query)
            if wants_json(request):
                return json(shown)
            heading, body = page.heading(query, shown), page.draw(query, shown)
            return HTMLResponse(
                layout.frame(target.name, heading, body, menu(target), listed.name, page.styles, page.scripts)
            )

        try:
            return await run_sync(make, limiter=limiter)
        finally:
            target.let_go()

    return answer


def loaded(target: Target, listed: Listed, query: Query) -> Any:
    """What a page shows of a target.

    Raises:
        UserError: it has nothing to show.
    """
    if not listed.serves(target):
        raise Missing(f"There is no page {listed.title!r} here.", str(target.path), _served(target))
    with telling_damage(target):
        return listed.page.load(target, query)


def _action(target: Target, action: Action) -> Answerer:
    async def answer(request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > LARGEST_FORM:
                raise HTTPException(413, f"A request may have {LARGEST_FORM:,} bytes.")
        with telling_damage(target):
            return await action.do(target, request, body)

    return answer


def _fields(request: Request, model: type[Any]) -> dict[str, Any]:
    """What an address says: fields that may repeat are lists, and of others the last counts, as in a form."""
    pairs = request.query_params.multi_items()
    found: dict[str, Any] = {}
    for name, value in pairs:
        field = model.model_fields.get(name)
        if field is not None and _repeats(field.annotation):
            found.setdefault(name, []).append(value)
        elif value or field is None:  # a field of a form that is left empty asks for its default
            found[name] = value
    found.pop("format", None)
    return {**found, **request.path_params}


def _repeats(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) in (list, tuple)


def menu(target: Target) -> list[tuple[str, str]]:
    """The pages that the menu of a target leads to."""
    return [(page.name, page.title) for page in PAGES if page.menu and _serves(page, target)]


def _serves(page: Listed, target: Target) -> bool:
    try:
        return page.serves(target)
    except UserError:  # damaged: the page itself says how
        return True


def _served(target: Target) -> str:
    return f"Pages here: {', '.join(title for _, title in menu(target))}."


def wants_json(request: Request) -> bool:
    """Whether a program asks: by ``?format=json``, or by a header that names JSON and not HTML."""
    accept = request.headers.get("accept", "")
    return request.query_params.get("format") == "json" or ("json" in accept and "html" not in accept)


def json(value: Any, status: int = 200) -> Response:
    """A JSON answer. Numbers that are not finite become null, lone surrogates are shown by name."""
    return Response(encoded(value), status, media_type="application/json")


def encoded(value: Any) -> bytes:
    """A value as JSON: dataclasses, NumPy values, and keys that are no strings included."""
    from headrace.visible import json_line

    option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    try:
        return orjson.dumps(value, default=_plain, option=option)
    except TypeError:
        from dataclasses import asdict, is_dataclass

        return json_line(asdict(value) if is_dataclass(value) and not isinstance(value, type) else value)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    if hasattr(value, "to_json"):
        return value.to_json()
    return str(value)


def _refusal(target: Target, request: Request, error: Exception) -> Response:
    status, told = explained(error)
    if wants_json(request):
        value = {"error": told.what, "where": told.where, "fix": told.fix, "found": told.found}
        return json(value, status)
    body = layout.error(told.what, told.where, told.fix, told.found)
    heading = "Not found" if status == 404 else "This cannot be shown"
    return HTMLResponse(layout.frame(target.name, heading, body, menu(target), ""), status)


def explained(error: Exception) -> tuple[int, UserError]:
    """The status of an answer, and what it says."""
    if isinstance(error, ValidationError):
        found = tuple(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False))
        return 400, UserError("The address is not understood.", "", "Mend it, or begin at the menu.", found)
    if isinstance(error, HTTPException):
        what = "There is no such page." if error.status_code == 404 else str(error.detail)
        return error.status_code, UserError(what, "", "The menu leads to all pages.")
    if isinstance(error, OSError):
        return 409, cannot_read("A file", str(error.filename or ""), error)
    assert isinstance(error, UserError)
    return (404 if isinstance(error, Missing) else 400 if isinstance(error, Wrong) else 409), error


async def static(request: Request) -> Response:
    """A file that comes with the viewer."""
    files = static_files()
    name = request.path_params["name"]
    if name not in files:
        raise HTTPException(404)
    data, tag = files[name]
    headers = {"cache-control": "no-cache", "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=CONTENT_TYPES[name.rsplit(".", 1)[1]], headers=headers)


@cache
def static_files() -> dict[str, tuple[bytes, str]]:
    """The viewer's own files: name -> (content, tag). Nothing else is ever served."""
    folder = resources.files("headrace.view") / "static"
    found = {one.name: one.read_bytes() for one in folder.iterdir() if one.name.rsplit(".", 1)[-1] in CONTENT_TYPES}
    found["headrace.css"] = layout.sheet().encode()
    return {name: (data, f'"{hashlib.sha256(data).hexdigest()[:16]}"') for name, data in found.items()}
