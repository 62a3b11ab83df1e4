"""What a user may choose about the files of an export."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """What a user may choose about the files.

    Attributes:
        rows_per_file: of a sequence; None for what the format's users are used to.
        bytes_per_file: bytes of text in a file of documents; None as above.
    """

    rows_per_file: int | None = None
    bytes_per_file: int | None = None
