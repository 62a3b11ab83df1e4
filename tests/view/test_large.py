"""Large texts are read a block at a time, as they are stored, and only when there is room."""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.documents.sink import COMPRESSION_LEVEL
from headrace.view import large
from headrace.view.texts import piece_in
from quick import examples

TEXT = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=2000),
    st.builds(lambda some, times: some * times, st.text(min_size=1, max_size=9), st.integers(1, 200_000)),
).filter(lambda text: text.isprintable() or "\ud800" not in text)


def written(path, texts):
    """A row group of texts, as documents have them."""
    table = pa.table({"id": ["x"] * len(texts), "text": pa.array(texts, pa.large_string())})
    schema = pa.schema([pa.field("id", pa.string()), pa.field("text", pa.large_string(), nullable=False)])
    about = {"compression": "zstd", "compression_level": COMPRESSION_LEVEL, "use_dictionary": ["id"]}
    pq.write_table(table.cast(schema), path, **about, write_statistics=["id"], row_group_size=len(texts))
    return pq.ParquetFile(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=examples(60))
@given(TEXT, st.integers(0, 300_000), st.integers(1, 50_000))
def test_blocks_of_a_text_are_the_text(tmp_path, text, start, most):
    """Whatever it is, and any piece of it."""
    text = text.encode("utf-8", "ignore").decode()
    path = tmp_path / "one.parquet"
    with pytest.MonkeyPatch.context() as patched, written(path, [text]) as file:
        patched.setattr(large, "LARGE", 1)
        found = large.blocks(file, path, 0)
        assert found is not None
        blocks = list(found)
        assert b"".join(one.tobytes() for one in blocks) == text.encode()
        assert max(map(len, blocks), default=0) <= large.EXPANDED
        assert piece_in(blocks, start, most).text == text[start : start + most]
        with large.texts_of(file, path, 0) as texts:
            assert texts.to_pylist() == [text]


def test_small_texts_and_several_are_read_as_others_are(tmp_path):
    for texts in (["small"], ["a" * large.LARGE, "b"]):
        path = tmp_path / f"{len(texts)}.parquet"
        with written(path, texts) as file:
            assert large.blocks(file, path, 0) is None
            with large.texts_of(file, path, 0) as found:
                assert found.to_pylist() == texts


def test_a_file_that_ends_within_a_page_is_said(tmp_path):
    path = tmp_path / "one.parquet"
    rng = np.random.default_rng(1)
    with written(path, [rng.integers(97, 123, 2 * large.LARGE, dtype=np.uint8).tobytes().decode()]) as file:
        found = large.blocks(file, path, 0)
        assert found is not None
        with open(path, "r+b") as cut:
            cut.truncate(large.LARGE // 2)
        with pytest.raises((OSError, EOFError)):
            list(found)


def test_what_is_larger_than_the_room_is_there_alone():
    """And what fits is not held up by more than the room."""
    room, seen, most = large._Room(10), [], []

    def use(size):
        with room.taken(size):
            seen.append(size)
            most.append(sum(seen))
            threading.Event().wait(0.005)
            seen.remove(size)

    threads = [threading.Thread(target=use, args=(size,)) for size in [3, 4, 30, 5, 2, 50, 9] * 6]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(most) == len(threads)
    assert all(total <= 10 or total in (30, 50) for total in most)
