"""Decorators that say what a function of the user's own is called with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Marked = TypeVar("Marked", bound=Callable[..., Any])

_MARK = "__headrace_takes__"


def per_document(function: Marked) -> Marked:
    """Call the function with one :class:`headrace.Document` at a time. Functions without a decorator are called so."""
    setattr(function, _MARK, "document")
    return function


def per_batch(function: Marked) -> Marked:
    """Call the function with a batch of documents, a `pyarrow.RecordBatch`, for an array or list of as many results.

    Where one batch ends and the next begins is not promised, so each result must depend on its own row only.
    """
    setattr(function, _MARK, "batch")
    return function


def takes_batches(function: Callable[..., Any]) -> bool:
    """Whether a function is to be called with batches."""
    return getattr(function, _MARK, "document") == "batch"
