"""Documents as Megatron's sequences: what its own reader gives is what the token store holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from exporting import kill_until_done
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import UserError
from headrace.export import request, requested, write
from headrace.flow.artifact import Artifact
from headrace.formats import tokenized
from headrace.formats.format import Exported
from headrace.formats.megatron import Index
from headrace.formats.opening import open_files
from headrace.formats.options import Options
from headrace.formats.tokenized import TokenCorpus, TokenExport, closed
from headrace.tokens.kept import SPLITS
from headrace.tokens.store import TokenShard, open_shard


@pytest.fixture(scope="session")
def corpus(sequences: tuple[Exported, ...]) -> TokenCorpus:
    """The token store that the sequences were made from."""
    [store] = Path(sequences[0].path).parent.glob("tokens-*")
    return TokenCorpus(str(store), Artifact.open(store).manifest.identity, 300)


def expected(corpus: TokenCorpus) -> dict[tuple[str, str], list[list[int]]]:
    """The documents of each source and split, with their end."""
    store, found = corpus.open(), {}
    for index in range(len(store.shards)):
        shard = open_shard(store, index)
        for i in range(len(shard.rows)):
            name = (store.manifest.extra["sources"][shard.source[i]], SPLITS[shard.split[i]])
            tokens = shard.tokens[shard.offsets[i] : shard.offsets[i + 1]].tolist()
            found.setdefault(name, []).append([*tokens, corpus.eod])
    return found


@pytest.mark.filterwarnings("ignore")
def test_megatron_reads_the_documents(corpus, tmp_path):
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    out = write(TokenExport("megatron", corpus, Options()), tmp_path / "out", workers=0)
    groups = expected(corpus)
    assert len(groups) > 3
    for (source, split), documents in groups.items():
        theirs = indexed.IndexedDataset(str(out / source / split))
        assert [document.tolist() for document in theirs[0 : len(theirs)]] == documents
        assert theirs.document_indices.tolist() == list(range(len(documents) + 1))
        index = Index(out / source / f"{split}.bin")
        assert index.joined
        assert index.tokens == sum(map(len, documents))
    assert sorted(path.suffix for path in out.rglob("*.*")) == sorted([".bin", ".idx"] * len(groups) + [".json"])
    counts = Artifact.open(out).manifest.counts
    assert counts == {
        f"{source}/{split}": {"documents": len(documents), "tokens": sum(map(len, documents))}
        for (source, split), documents in groups.items()
    }


def test_splits_and_sources_are_chosen(corpus, tmp_path):
    some = TokenCorpus(corpus.tokens, corpus.identity, corpus.eod, ("validation",), ("b",))
    out = write(TokenExport("megatron", some, Options()), tmp_path / "out", workers=0)
    assert [str(path.relative_to(out)) for path in sorted(out.rglob("*.bin"))] == ["b/validation.bin"]


def test_bytes_do_not_depend_on_workers_kills_or_blocks(corpus, tmp_path, monkeypatch):
    step = TokenExport("megatron", corpus, Options())
    asked = tmp_path / "request.json"
    asked.write_text(json.dumps(request(step)))
    assert requested(json.loads(asked.read_text())) == step
    assert kill_until_done(asked, tmp_path / "killed", 3, 8)
    monkeypatch.setattr(tokenized, "BLOCK_TOKENS", 100)
    alone = write(step, tmp_path / "alone", workers=0)
    for path in alone.rglob("*.*"):
        assert (tmp_path / "killed" / path.relative_to(alone)).read_bytes() == path.read_bytes()


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=30),
    keep=st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_documents_are_closed_whatever_their_lengths(lengths, keep):
    offsets = np.append(0, np.cumsum(lengths))
    tokens = np.arange(offsets[-1]).astype(np.uint16)
    nothing = np.zeros(len(lengths))
    shard = TokenShard(nothing, nothing, nothing, nothing, offsets, tokens)
    mine = np.flatnonzero(keep[: len(lengths)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenized, "BLOCK_TOKENS", 10)
        blocks = list(closed(shard, mine, np.diff(offsets)[mine] + 1, 9999))
    expected = [token for i in mine for token in [*tokens[offsets[i] : offsets[i + 1]].tolist(), 9999]]
    assert [token for block in blocks for token in block.tolist()] == expected


def test_a_store_that_has_changed_is_refused(corpus, tmp_path):
    other = TokenCorpus(corpus.tokens, "0" * 32, corpus.eod)
    with pytest.raises(UserError, match="changed since the export began"):
        write(TokenExport("megatron", other, Options()), tmp_path / "out", workers=0)


def test_documents_open_as_a_sequence_when_a_length_is_given(corpus, tmp_path):
    out = write(TokenExport("megatron", corpus, Options()), tmp_path / "out", workers=0)
    with pytest.raises(UserError, match="documents, no sequence"):
        open_files(out)
    line = np.concatenate(expected(corpus)["a", "train"])
    sequence = open_files(out / "a" / "train", seq_len=100)
    assert len(sequence) == (len(line) - 1) // 100
    assert sequence.rows(1, 2)[0].tolist() == line[100:201].tolist()
