"""Kept documents become tokens, in order, counted, mapped without a copy."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from toy_corpus import Doc, Documents, Verdicts, build

from headrace.flow.artifact import ConservationError
from headrace.recipe.stages import TokenizerConfig, TokenizerTrain
from headrace.tokens import step as step_module
from headrace.tokens.kept import kept_rows
from headrace.tokens.load import open_engine
from headrace.tokens.step import Tokens
from headrace.tokens.store import open_shard
from headrace.tokens.training import Tokenizer

SHARDS = (
    (
        Doc("the first document is about water " * 3),
        Doc("removed", keep=False),
        Doc("def f():\n    return 1\n" * 5, "code"),
        Doc("held out water", split="validation"),
        Doc("", "code"),
    ),
    (Doc("gone", keep=False), Doc("gone too", "code", keep=False)),
    (Doc("test words", "code", split="test"), Doc("Grüße 漢字 😀")),
)


def steps(shards=SHARDS, vocab_size=320):
    documents, verdicts = Documents(shards), Verdicts(shards)
    config = TokenizerConfig(train=TokenizerTrain(vocab_size=vocab_size))
    return Tokens(documents, verdicts, Tokenizer(config, ("eod",), 1, documents, verdicts), ("code", "docs"))


@pytest.fixture
def made(tmp_path):
    step = steps()
    return tmp_path, step, build(tmp_path, step)


def test_tokens_are_the_kept_documents_in_order(made):
    run, step, tokens = made
    documents = [doc for shard in SHARDS for doc in shard]
    from headrace.flow.artifact import Artifact

    engine = open_engine(Artifact.open(run / "artifacts" / step.tokenizer.name))
    seen = []
    for index in range(len(tokens.shards)):
        shard = open_shard(tokens, index)
        for i, row in enumerate(shard.rows.tolist()):
            doc = documents[row]
            assert engine.decode(shard.tokens[shard.offsets[i] : shard.offsets[i + 1]]).decode() == doc.text
            assert ("code", "docs")[shard.source[i]] == doc.source
            assert ("train", "validation", "test")[shard.split[i]] == doc.split
            seen.append(row)
    assert seen == [row for row, doc in enumerate(documents) if doc.keep]
    assert [s["rows"] for s in tokens.shards] == [4, 0, 2]


def test_the_manifest_counts_what_is_there(made):
    _, _step, tokens = made
    extra = tokens.manifest.extra
    assert extra["dtype"] == "uint16"
    assert extra["sources"] == ["code", "docs"]
    counts = tokens.manifest.counts
    assert set(counts["code"]) == {"train", "test"}
    assert counts["docs"]["train"]["documents"] == 2
    assert counts["docs"]["train"]["bytes"] == sum(len(SHARDS[i][j].text.encode()) for i, j in ((0, 0), (2, 1)))
    total = sum(split["tokens"] for source in counts.values() for split in source.values())
    assert total == sum(len(open_shard(tokens, i).tokens) for i in range(3))


def test_a_shard_is_one_batch_and_is_mapped(made):
    _, _, tokens = made
    with pa.OSFile(str(tokens.shard_path(0))) as f:
        reader = pa.ipc.open_file(f)
        assert reader.num_record_batches == 1
        assert reader.schema.field("tokens").type == pa.large_list(pa.field("item", pa.uint16(), nullable=False))
    before = pa.total_allocated_bytes()
    shard = open_shard(tokens, 0)
    assert pa.total_allocated_bytes() - before < shard.tokens.nbytes + 4096
    assert not shard.tokens.flags.owndata
    assert not shard.tokens.flags.writeable
    assert shard.tokens.dtype == np.uint16


def test_the_careful_way_gives_the_same_bytes(made, tmp_path_factory):
    _, step, tokens = made
    again = build(tmp_path_factory.mktemp("careful"), step, careful=True)
    assert [s["digest"] for s in again.shards] == [s["digest"] for s in tokens.shards]


def test_verdicts_of_other_documents_are_seen(tmp_path):
    documents = build(tmp_path / "a", Documents(SHARDS))
    verdicts = build(tmp_path / "b", Verdicts((SHARDS[1], SHARDS[0], SHARDS[2])))
    with pytest.raises(ConservationError):
        list(kept_rows(documents, verdicts, 0, ("text",)))


def test_identity_follows_what_determines_the_bytes():
    step = steps()
    assert step.identity == steps().identity
    assert step.identity != steps(vocab_size=321).identity
    assert json.dumps(step.params()) == '{"sources": ["code", "docs"]}'


def grown(shards) -> Tokens:
    """The steps of other shards with the tokenizer of the first ones, so that only documents and verdicts differ."""
    documents = Documents(shards)
    return Tokens(documents, Verdicts(shards), steps().tokenizer, ("docs", "code"))


@pytest.mark.parametrize(
    ("shards", "new"),
    [
        ((SHARDS[2], SHARDS[0]), 0),
        (((Doc("one more", "code"),), *SHARDS), 1),
        ((SHARDS[0], tuple(doc._replace(keep=True) for doc in SHARDS[1]), SHARDS[2]), 2),
        ((tuple(doc._replace(keep=False) for doc in SHARDS[0][:3]) + SHARDS[0][3:], *SHARDS[1:]), 0),
        ((tuple(doc._replace(keep=not doc.keep) for doc in SHARDS[0]), *SHARDS[1:]), 1),
        ((tuple(doc._replace(split="test") for doc in SHARDS[0]), *SHARDS[1:]), 0),
    ],
)
def test_lists_of_documents_that_stay_are_taken_over(made, tmp_path, monkeypatch, shards, new):
    run, _, _ = made
    encoded = []
    real = step_module.open_engine

    def counting(*arguments):
        engine = real(*arguments)

        class Counting:
            def encode(self, texts):
                encoded.append(texts.count)
                return engine.encode(texts)

        return Counting()

    anew = build(tmp_path / "other", grown(shards))
    monkeypatch.setattr(step_module, "open_engine", counting)
    tokens = build(run, grown(shards))
    assert sum(encoded) == new
    assert tokens.manifest == anew.manifest
    assert [tokens.shard_path(i).read_bytes() for i in range(len(shards))] == [
        anew.shard_path(i).read_bytes() for i in range(len(shards))
    ]


def test_the_names_of_sources_stand_in_the_file(made):
    _, _, tokens = made
    with pa.OSFile(str(tokens.shard_path(0))) as f:
        batch = pa.ipc.open_file(f).get_batch(0)
    assert batch.column("source").to_pylist() == ["docs", "code", "docs", "code"]
    assert batch.column("row").to_pylist() == [0, 2, 3, 4]
    assert batch.column("bytes").to_pylist() == [len(doc.text.encode()) for doc in SHARDS[0] if doc.keep]
