from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.flow.keys import keyed, parse_ids, salt, unit

MASK = (1 << 64) - 1
words = st.integers(0, MASK)


def mix(x: int) -> int:
    """The finaliser in plain Python."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


@given(words, st.lists(st.tuples(words, words), max_size=20))
def test_keys_of_ids_equal_the_reference(s, ids):
    got = keyed(s, np.array(ids, dtype=np.uint64).reshape(-1, 2))
    want = [mix((mix(hi ^ s) + 0x9E3779B97F4A7C15 + lo) & MASK) for hi, lo in ids]
    assert got.tolist() == want


@given(words, st.lists(words, max_size=20))
def test_keys_of_numbers_equal_the_reference(s, ids):
    got = keyed(s, np.array(ids, dtype=np.uint64))
    assert got.tolist() == [mix((mix(i ^ s) + 0x9E3779B97F4A7C15) & MASK) for i in ids]


def test_purposes_are_told_apart():
    salts = {salt(1), salt(2), salt(1, "a"), salt(1, "b"), salt(1, "a", "b"), salt(1, "ab"), salt(1, 1), salt(1, "1")}
    assert len(salts) == 8
    assert salt(1, "holdout") == salt(1, "holdout")


def test_keys_are_uniform_and_independent_between_purposes():
    n = 200_000
    a = unit(keyed(salt(1, "a"), np.arange(n, dtype=np.uint64)))
    b = unit(keyed(salt(1, "b"), np.arange(n, dtype=np.uint64)))
    for u in (a, b):
        assert u.min() >= 0
        assert u.max() < 1
        counts = np.bincount((u * 100).astype(int), minlength=100)
        chi2 = ((counts - n / 100) ** 2 / (n / 100)).sum()
        assert chi2 < 99 + 5 * np.sqrt(2 * 99)  # five standard deviations
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(n)
    assert abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 5 / np.sqrt(n)


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=10))
def test_ids_parse_to_their_halves(raw):
    want = [[int.from_bytes(r[:8], "big"), int.from_bytes(r[8:], "big")] for r in raw]
    assert parse_ids([r.hex() for r in raw]).tolist() == want
    for text in (pa.string(), pa.large_string()):
        ids = pa.array([r.hex() for r in raw], type=text)
        assert parse_ids(ids).tolist() == want
        assert parse_ids(ids[1:4]).tolist() == want[1:4]
        assert parse_ids(pa.chunked_array([ids[:2], ids[3:]])).tolist() == want[:2] + want[3:]


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=20), st.integers(0, 3), st.booleans())
def test_ids_of_any_kind_of_array(raw: list[bytes], skip: int, upper: bool) -> None:
    texts = [one.hex().upper() if upper else one.hex() for one in raw]
    want = [[int(text[:16], 16), int(text[16:], 16)] for text in texts[skip:]]
    assert parse_ids(texts[skip:]).tolist() == want
    for kind in (pa.string(), pa.large_string()):
        assert parse_ids(pa.array(texts, kind).slice(skip)).tolist() == want
    assert parse_ids(pa.chunked_array([texts[:skip], texts[skip:]], pa.string())).tolist()[skip:] == want


@pytest.mark.parametrize("wrong", ["g" * 32, "0" * 31, "0" * 33, "0" * 31 + "/", "0" * 31 + ":", "@" + "0" * 31, ""])
def test_what_is_no_id_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="32 hexadecimal"):
        parse_ids([wrong])
    with pytest.raises(ValueError, match="32 hexadecimal"):
        parse_ids(pa.array(["0" * 32, wrong]))
