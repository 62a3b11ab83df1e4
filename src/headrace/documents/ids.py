"""Content ids: a document is named by the hash of its text."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import xxhash

DIGITS = 32


def content_id(data: bytes) -> str:
    """The id of a document: XXH3-128 of its normalized text in UTF-8, as 32 hexadecimal digits.

    Equal texts have equal ids, wherever they come from. XXH3 is not cryptographic; by the birthday bound, the
    probability of a chance collision among 10**10 documents is below 2e-19.
    """
    return xxhash.xxh3_128_hexdigest(data)


def content_ids(data: np.ndarray, offsets: np.ndarray) -> pa.Array:
    """The :func:`content_id` of each of many texts: string[n].

    Args:
        data: uint8[n_bytes], the texts in UTF-8.
        offsets: int64[n + 1] into it.
    """
    from headrace.flow.xxh3 import xxh3_128

    digits = xxh3_128(data, offsets).astype(">u8").tobytes().hex().encode()
    ends = np.arange(0, len(digits) + 1, DIGITS, dtype=np.int32)
    return pa.StringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), pa.py_buffer(digits))
