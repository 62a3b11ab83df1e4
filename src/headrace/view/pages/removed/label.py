"""Save what a person says of a removed document, and go on to the next."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import parse_qsl

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from headrace.documents.store import fetch
from headrace.errors import UserError
from headrace.flow.storage import explaining_os_errors
from headrace.view.address import address
from headrace.view.labels import Label, add_label, can_label
from headrace.view.limits import in_force
from headrace.view.pages.document.load import opened
from headrace.view.pages.removed.load import Removed
from headrace.view.target import Missing, Target


class Judged(Removed):
    """The form: where the person is, which document it is, and what is said of it."""

    reason: Annotated[str, Field(max_length=200)]
    row: Annotated[int, Field(ge=0, lt=1 << 53)]
    label: Literal["right", "wrong", "undo"]


async def label(target: Target, request: Request, body: bytes) -> Response:
    """Save a label; the answer leads to the next document, or to the one whose label was taken back."""
    form = Judged.model_validate(dict(parse_qsl(body.decode("utf-8", "replace"))))
    await run_in_threadpool(_save, target, form)
    at = form.at if form.label == "undo" else form.at + 1
    fields = form.changed(at=at or None)
    href = address("removed", **{name: value for name, value in fields.items() if name not in ("row", "label")})
    return RedirectResponse(href, 303)


def _save(target: Target, form: Judged) -> None:
    documents, verdicts = opened(target, form.row), target.artifact("verdicts")
    if verdicts is None:
        raise Missing("Nothing has been judged yet.", str(target.path), "")
    about = fetch(documents, [form.row], ["id", "source"]).to_pylist()[0]
    reason = fetch(verdicts, [form.row], ["reason"]).column(0)[0].as_py()
    if reason != (None if form.order == "kept" else form.reason):
        raise Missing(
            f"Document {form.row:,} was not removed for {form.reason!r}.", str(target.path), "Reload the page."
        )
    if not can_label(target.path):
        raise UserError("The run folder cannot be written.", str(target.path), "Labels are off.")
    said = Label(
        about["id"],
        about["source"],
        form.reason,
        in_force(target.recipe, form.reason, about["source"]),
        None if form.label == "undo" else form.label,
        form.order,
        form.source,
        form.seed,
    )
    with explaining_os_errors(target.path):
        add_label(target.path, said)
