"""Content ids: a document is named by the hash of its text."""

from __future__ import annotations

import xxhash


def content_id(data: bytes) -> str:
    """The id of a document: XXH3-128 of its normalized text in UTF-8, as 32 hexadecimal digits.

    Equal texts have equal ids, wherever they come from. XXH3 is not cryptographic; by the birthday bound, the
    probability of a chance collision among 10**10 documents is below 2e-19.
    """
    return xxhash.xxh3_128_hexdigest(data)
