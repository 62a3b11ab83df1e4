"""A trained tokenizer depends on the texts alone; one from a file keeps its ids and gets what it lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_corpus import Doc, Documents, Verdicts, build

from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.recipe.schema import Recipe
from headrace.recipe.stages import SpecialTokens, TokenizerConfig, TokenizerTrain
from headrace.tokens.definition import fingerprint, read_definition
from headrace.tokens.load import open_engine
from headrace.tokens.special import CHAT_MARKERS, with_special
from headrace.tokens.training import Tokenizer, needed_roles, train

WORDS = [
    "water",
    "wheel",
    "stone",
    "mill",
    "head",
    "race",
    "corpus",
    "token",
    "gradient",
    "layer",
    "norm",
    "value",
    "return",
    "import",
    "class",
]


def text(number: int, size: int = 60) -> str:
    """Words by a fixed rule, with numbers and indentation."""
    return " ".join(f"{WORDS[(number * 7 + i * i) % len(WORDS)]}\n  {number * i % 99}" for i in range(size))


SHARDS = tuple(tuple(Doc(text(10 * s + i), keep=i != 3) for i in range(8)) for s in range(3))


def tokenizer(shards=SHARDS, **settings) -> Tokenizer:
    config = TokenizerConfig(train=TokenizerTrain(vocab_size=400, **settings))
    return Tokenizer(config, ("eod",), 1, Documents(shards), Verdicts(shards))


_DIGEST = """
import sys, hashlib, orjson
from headrace.recipe.stages import TokenizerTrain
from headrace.tokens.training import train
lines = sys.stdin.read().split("\\0")
made = train(lines, TokenizerTrain(vocab_size=500), ["<|endoftext|>"], int(sys.argv[1]))
print(hashlib.sha256(orjson.dumps(made)).hexdigest())
"""


def test_training_is_the_same_for_any_threads_and_order():
    texts = [text(i, 200) for i in range(60)]
    digests = set()
    for threads, order in ((1, texts), (2, texts), (5, texts), (2, texts[::-1])):
        command = [sys.executable, "-c", _DIGEST, str(threads)]
        done = subprocess.run(command, input="\0".join(order), capture_output=True, text=True, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_the_artifact_says_what_it_is(tmp_path):
    made = build(tmp_path, tokenizer())
    assert [f["name"] for f in made.manifest.files] == ["tokenizer.json"]
    extra = made.manifest.extra
    engine = open_engine(made)
    assert extra["fingerprint"] == fingerprint(read_definition(made.file_path("tokenizer.json")))
    assert extra["vocab_size"] == engine.vocab_size == 400
    assert set(extra["special"]) == {
        "eod", "pad", "fim_prefix", "fim_middle", "fim_suffix", "fim_pad", *CHAT_MARKERS
    }  # fmt: skip
    assert extra["special"]["pad"] == extra["special"]["eod"]
    assert made.manifest.counts == {"documents": 21, "bytes": sum(len(d.text) for s in SHARDS for d in s if d.keep)}


def test_every_byte_has_a_token_and_merges_were_learnt(tmp_path):
    engine = open_engine(build(tmp_path, tokenizer()))
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x3000 + 0xE000, 7), *range(0x10000, 0x110000, 997)]))
    assert engine.decode(engine.encode([everything]).tokens).decode() == everything
    assert len(engine.encode([" water wheel"]).tokens) < 6


def test_the_sample_keeps_to_its_cap_and_to_the_training_split(tmp_path):
    made = build(tmp_path / "capped", tokenizer(sample=4000))
    assert 0 < made.manifest.counts["bytes"] <= 4000
    held = tuple(tuple(doc._replace(split="validation") for doc in shard) for shard in SHARDS)
    with pytest.raises(UserError, match="no text to train"):
        build(tmp_path / "held", tokenizer(held))


def test_the_sample_does_not_depend_on_how_documents_are_sharded(tmp_path):
    flat = (tuple(doc for shard in SHARDS for doc in shard),)
    made = [build(tmp_path / name, tokenizer(shards)) for name, shards in (("a", SHARDS), ("b", flat))]
    assert made[0].manifest.files == made[1].manifest.files


def test_a_vocabulary_too_small_is_told():
    with pytest.raises(UserError, match="too small for 256 bytes and 100 special tokens"):
        train(["a"], TokenizerTrain(vocab_size=300), [f"<|{i}|>" for i in range(100)], 1)


def test_a_tokenizer_from_a_file_gets_what_the_recipe_adds_and_nothing_else(tmp_path, shared, gpt2):
    fim = [f"<|fim_{part}|>" for part in ("prefix", "middle", "suffix")]
    file = str(shared / "fixtures/tokenizers/gpt2-vocab.json")
    none, roles = Documents(()), ("eod", "fim_prefix", "fim_middle", "fim_suffix")
    with pytest.raises(UserError, match="for fill-in-the-middle") as error:
        build(tmp_path, Tokenizer(TokenizerConfig(file=file), roles, 1, none, none))
    assert f'special: {{add: ["{fim[0]}", "{fim[1]}", "{fim[2]}"]}}' in str(error.value)
    step = Tokenizer(TokenizerConfig(file=file, special=SpecialTokens(add=fim)), roles, 1, none, none)
    assert step.inputs() == {}
    made = build(tmp_path, step)
    engine = open_engine(made)
    assert engine.special["eod"] == 50256
    assert sorted(engine.special[role] for role in ("fim_prefix", "fim_middle", "fim_suffix")) == [50257, 50258, 50259]
    assert "fim_pad" not in engine.special
    assert engine.vocab_size == 50260
    words = ["some ordinary words, <|fim_prefix|> too"]
    assert (engine.encode(words).tokens == gpt2.encode(words).tokens).all()
    told = Artifact.open(made.path).manifest.extra["fingerprint"]
    assert told == fingerprint(read_definition(made.file_path("tokenizer.json")))
    without = Tokenizer(TokenizerConfig(file=file), ("eod",), 1, none, none)
    assert without.identity != step.identity


def test_crystalcoder_has_all_it_needs_and_stays_as_it_is(tmp_path, shared, crystal):
    config = TokenizerConfig(file=str(shared / "fixtures/tokenizers/crystalcoder.json"))
    roles = ("eod", "fim_prefix", "fim_middle", "fim_suffix", "fim_pad", *CHAT_MARKERS)
    made = build(tmp_path, Tokenizer(config, roles, 1, Documents(()), Documents(())))
    engine = open_engine(made)
    assert engine.vocab_size == 32022
    assert made.manifest.extra["fingerprint"] == fingerprint(read_definition(Path(config.file)))
    assert engine.special == crystal.special


def test_added_tokens_follow_the_last_id(trained, trained_definition):
    definition = with_special(trained_definition, ["<|new|>", "<|endoftext|>", "<|newer|>"])
    ids = {token["content"]: token["id"] for token in definition["added_tokens"]}
    assert ids["<|endoftext|>"] == trained.special["eod"]
    assert (ids["<|new|>"], ids["<|newer|>"]) == (trained.vocab_size, trained.vocab_size + 1)


def test_needed_roles_follow_the_stages():
    recipe = {
        "name": "x",
        "sources": {"a": {"files": "a.jsonl"}, "b": {"files": "b.jsonl", "format": "chat"}},
        "tokenizer": {"train": {"vocab_size": 300}},
        "stages": [{"name": "one", "sources": {"a": {"fim": {"rate": 0.5}}}}],
    }
    assert needed_roles(Recipe.model_validate(recipe)) == ("eod", "fim_middle", "fim_prefix", "fim_suffix")
    recipe["stages"] = [{"name": "one", "sources": {"a": {"fim": {"rate": 0.5}}}, "fim_level": "context"}]
    assert "fim_pad" in needed_roles(Recipe.model_validate(recipe))
    recipe["stages"] = [{"name": "one", "sources": {"b": {}}, "chat": "crystalchat", "pack": {"method": "best_fit"}}]
    assert needed_roles(Recipe.model_validate(recipe)) == ("eod", "im_end", "im_start", "pad", "sys_end", "sys_start")
