"""Content ids: the name of a document is a hash of what it says."""

from __future__ import annotations

import xxhash


def content_id(data: bytes) -> str:
    """The id of a document: XXH3-128 of its normalised text in UTF-8, as 32 hexadecimal digits.

    Equal text has equal ids, wherever it comes from. XXH3 is not cryptographic: by the birthday bound, 10**10
    documents collide by chance with probability below 2e-19.
    """
    return xxhash.xxh3_128_hexdigest(data)
