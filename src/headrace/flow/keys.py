"""The keyed hash behind every random choice: ``key = hash64(seed, purpose, ..., document id)``.

There is no random number generator with state in the data path. A draw depends only on what it is for: not on order,
the number of workers, or earlier draws.

The mixer is MurmurHash3's finalizer with Stafford's constants ("Mix13", as in SplitMix64: Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014): a bijection of 64 bits whose avalanche is within 1 % of ideal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from headrace.flow.kernels import inlined, kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, the increment of SplitMix64


@inlined
def mix64(x: np.uint64) -> np.uint64:
    """Mix 64 bits (Stafford's Mix13). A bijection on uint64."""
    x = np.uint64(x)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel
def _keyed_pairs(salt: np.uint64, ids: np.ndarray, out: np.ndarray) -> None:
    for i in range(ids.shape[0]):
        out[i] = mix64(mix64(ids[i, 0] ^ salt) + _GOLDEN + ids[i, 1])


@kernel
def _keyed_words(salt: np.uint64, ids: np.ndarray, out: np.ndarray) -> None:
    for i in range(ids.shape[0]):
        out[i] = mix64(mix64(ids[i] ^ salt) + _GOLDEN)


def salt(seed: int, *purpose: str | int) -> int:
    """The 64-bit salt for a purpose, such as ``salt(seed, "fim", "stage2", 1)``.

    The encoding is canonical JSON, so ``("a", "b")`` and ``("ab",)`` differ and so do ``1`` and ``"1"``.
    """
    return xxhash.xxh3_64_intdigest(orjson.dumps([seed, *purpose]))


def keyed(salt: int, ids: np.ndarray) -> np.ndarray:
    """Keys of ids under a salt.

    Args:
        salt: from :func:`salt`.
        ids: uint64[n, 2] (the two halves of a document id) or uint64[n] (row numbers and the like).

    Returns:
        uint64[n], uniform over 64 bits.
    """
    ids = np.ascontiguousarray(ids, dtype=np.uint64)
    out = np.empty(len(ids), dtype=np.uint64)
    if ids.ndim == 2:
        _keyed_pairs(np.uint64(salt), ids, out)
    else:
        _keyed_words(np.uint64(salt), ids, out)
    return out


def unit(keys: np.ndarray) -> np.ndarray:
    """Keys as numbers in [0, 1): float64[n], the upper 53 bits over 2**53."""
    return (np.asarray(keys, dtype=np.uint64) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def parse_ids(ids: pa.Array | pa.ChunkedArray | Sequence[str]) -> np.ndarray:
    """Document ids of 32 hexadecimal digits as uint64[n, 2], the high half first.

    Raises:
        ValueError: an id is anything else.
    """
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    digits = _digits(ids) if isinstance(ids, pa.Array) else np.frombuffer("".join(ids).encode(), dtype=np.uint8)
    out = np.empty((len(ids), 2), dtype=np.uint64)
    if len(digits) != 32 * len(ids) or not _all_hexadecimal(digits):
        raise ValueError("an id is not 32 hexadecimal digits")
    _parse(np.ascontiguousarray(digits).view(np.uint64), out.reshape(-1))
    return out


def _digits(ids: pa.Array) -> np.ndarray:
    """The digits of all ids, concatenated: uint8[...], taken from the array's buffer rather than string by string."""
    if not len(ids):
        return np.empty(0, dtype=np.uint8)
    wide = pa.types.is_large_string(ids.type)
    strings = ids if wide or pa.types.is_string(ids.type) else ids.cast(pa.string())
    _, ends, data = strings.buffers()
    bounds = np.frombuffer(ends, dtype=np.int64 if wide else np.int32)[strings.offset : strings.offset + len(ids) + 1]
    return np.frombuffer(data, dtype=np.uint8)[int(bounds[0]) : int(bounds[-1])]


@kernel
def _all_hexadecimal(digits: np.ndarray) -> bool:
    wrong = np.uint8(0)
    for i in range(len(digits)):
        decimal = np.uint8(digits[i] - np.uint8(48)) < 10
        letter = np.uint8((digits[i] | np.uint8(32)) - np.uint8(97)) < 6
        wrong |= np.uint8(not (decimal | letter))
    return wrong == 0


@kernel
def _parse(words: np.ndarray, out: np.ndarray) -> None:
    """Parse words of eight digits, two per number, all digits of a word at once."""
    for i in range(len(out)):
        value = np.uint64(0)
        for k in range(2):
            word = words[2 * i + k]
            # Turn each byte into its digit's value: the low four bits, plus 9 for a letter.
            letters = (word >> np.uint64(6)) & np.uint64(0x0101010101010101)
            word = (word & np.uint64(0x0F0F0F0F0F0F0F0F)) + np.uint64(9) * letters
            # Join neighbors, with the first digit as the higher: into bytes, halves, then 32 bits.
            word = ((word << np.uint64(4)) | (word >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
            word = ((word << np.uint64(8)) | (word >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
            word = ((word << np.uint64(16)) | (word >> np.uint64(32))) & np.uint64(0xFFFFFFFF)
            value = (value << np.uint64(32)) | word
        out[i] = value
