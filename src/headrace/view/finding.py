"""From a document's name to its page: an id or the beginning of one, ``source:file:row``, or a row."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from headrace.errors import UserError
from headrace.select.why.locate import locate
from headrace.select.why.unread import find_unread
from headrace.view.address import address
from headrace.view.quarantine import QUARANTINED, place_of
from headrace.view.target import Missing, Target


def plain(name: str) -> str:
    """A name as it was pasted, without what stands around it; digits of an id are small."""
    return name.strip() if ":" in name else name.strip().lower()


async def find(target: Target, request: Request, body: bytes) -> Response:
    """Lead to the page of the document that ``?name=`` names, the first of several with that text; of a row that could
    not be read, to its entry in the quarantine."""
    name = plain(request.query_params.get("name", ""))
    return RedirectResponse(await run_in_threadpool(_found, target, name), 303)


def _found(target: Target, name: str) -> str:
    documents = target.documents
    if documents is None:
        raise Missing("There are no documents here.", str(target.path), "")
    unread = find_unread(documents, name)
    if unread is not None:
        return address("removed", reason=QUARANTINED, source=unread["source"], at=place_of(target, unread))
    try:
        rows = locate(documents, name)
    except UserError as error:
        raise Missing(error.what, error.where, error.fix) from None
    return address("document", row=rows[0])
