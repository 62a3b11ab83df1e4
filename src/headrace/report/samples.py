"""Samples shown in the report: rows as the model sees them, and texts it wrote."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """A segment of a sample row.

    Attributes:
        source: its source; '' for padding.
        kind: plain, fim-psm, fim-spm, chat or padding.
        epoch: the copy's number, from 0.
        id: the document.
        origin: file and row of the document.
        offset: its first token within the (transformed) document.
        runs: the decoded text in runs of (text, carries loss, is a special token).
    """

    source: str
    kind: str
    epoch: int
    id: str
    origin: str
    offset: int
    runs: list[tuple[str, bool, bool]]


@dataclass(frozen=True)
class SampleRow:
    """A row of a stage's sequence, decoded from its start; ``cut`` if it is not shown in full."""

    row: int
    segments: int
    pieces: list[Piece]
    cut: bool


@dataclass(frozen=True)
class Generated:
    """A text written by the model: after a prompt or, with a suffix, into a hole.

    ``truth`` is what the document, from ``source``, has there, if the prompt was taken from one.
    """

    prompt: str
    suffix: str | None
    text: str
    truth: str | None = None
    source: str | None = None
