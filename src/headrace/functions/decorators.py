"""Decorators that declare what a user-defined function takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Marked = TypeVar("Marked", bound=Callable[..., Any])

_MARK = "__headrace_takes__"


def per_document(function: Marked) -> Marked:
    """Call the function with one :class:`headrace.Document` at a time, as for functions without a decorator."""
    setattr(function, _MARK, "document")
    return function


def per_batch(function: Marked) -> Marked:
    """Call the function with a batch of documents, a `pyarrow.RecordBatch`; it returns as many results, as an array or
    list.

    Batch boundaries are not guaranteed, so each result must depend on its own row only.
    """
    setattr(function, _MARK, "batch")
    return function


def takes_batches(function: Callable[..., Any]) -> bool:
    """Whether a function takes batches."""
    return getattr(function, _MARK, "document") == "batch"
