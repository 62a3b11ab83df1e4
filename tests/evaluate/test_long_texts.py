"""Loss by position and needles: against plain computations, resumed, and with wrong input."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch

from headrace import long_evaluation
from headrace.errors import UserError
from headrace.evaluate import needle, positions
from headrace.evaluate.generation import Cached
from headrace.evaluate.language import HuggingFace, Own
from headrace.evaluate.long_texts import LongTexts, choose, texts_of_files
from headrace.model.config import ModelConfig
from headrace.model.transformer import Transformer
from headrace.tokens.load import engine_from


class Bytes:
    """A language whose tokens are bytes after a start."""

    stop, longest = frozenset({256}), None

    def __init__(self, model):
        self.model = model

    def encode(self, text):
        return [256, *text.encode()]

    def decode(self, prompt, tokens):
        return bytes(token for token in tokens if token < 256).decode(errors="replace")

    def decoding(self):
        return Cached(self.model)

    logits, losses = Own.logits, Own.losses


@pytest.fixture(scope="module")
def language():
    torch.set_num_threads(1)
    model = Transformer(ModelConfig(vocab_size=264, layers=2, width=32, heads=4, kv_heads=2, ffn=40))
    model.initialise(1)
    with torch.no_grad():
        model.embedding.weight.mul_(20)
    return Bytes(model)


def plain(model, tokens):
    """Each token's loss from whole logits."""
    with torch.no_grad():
        told = model(tokens[None, :-1])
    logits = getattr(told, "logits", told)[0].double()
    return -logits.log_softmax(-1)[torch.arange(len(tokens) - 1), tokens[1:]]


def test_losses_of_our_model_are_those_of_whole_logits(language):
    tokens = torch.randint(0, 264, (600,), generator=torch.Generator().manual_seed(3))
    found = language.losses(tokens)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), plain(language.model, tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["Llama", "Mistral"])
def test_losses_of_a_model_of_transformers_are_those_of_whole_logits(family, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr("headrace.evaluate.language._LOGITS", 1)  # pieces of 64 tokens
    more = {"sliding_window": 40} if family == "Mistral" else {}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.5, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    language = HuggingFace.__new__(HuggingFace)
    language.model = model
    tokens = torch.randint(0, 100, (200,), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found = language.losses(tokens)
    torch.testing.assert_close(found.double(), plain(model, tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [2, 3, 16, 100, 2048, 5000])
def test_bins_cover_each_position_once(length):
    cuts = positions.edges(length)
    assert cuts[0] == 1
    assert cuts[-1] == length + 1
    assert all(a < b for a, b in itertools.pairwise(cuts))
    assert len(cuts) <= 2 * math.log2(length) + 3
    sizes = np.diff(cuts)
    assert len(sizes) < 3 or 2 * sizes[-1] >= sizes[-2]


def some_texts(count=40, longest=400):
    draws = np.random.default_rng(5)
    return ["".join(draws.choice(list("abc \nü"), size)) for size in draws.integers(1, longest, count)]


def test_documents_are_those_long_enough_in_any_order(language):
    texts = some_texts()
    expected = [text for text in texts if len(language.encode(text)) > 200]
    found = choose(texts, language, 200, 5, 1)
    assert (found.read, found.long_enough, tuple(found.tokens.shape)) == (40, len(expected), (5, 201))
    assert all(language.encode(text)[:201] in found.tokens.tolist() for text in expected) is (len(expected) == 5)
    again = choose(texts[::-1], language, 200, 5, 1)
    assert torch.equal(found.tokens, again.tokens)
    assert not torch.equal(found.tokens, choose(texts, language, 200, 5, 2).tokens)
    assert choose(texts, language, 5000, 5, 1).tokens.shape == (0, 5001)
    [whole] = choose([texts[0] * 50], language, 9, 5, 1).tokens.tolist()
    assert whole == language.encode(texts[0] * 50)[:10]


def test_loss_by_position_is_the_mean_over_documents_and_resumes(language, tmp_path):
    texts = choose(some_texts(60), language, 150, 6, 1)
    settings = positions.Settings("model", texts.digest, 150)
    told = positions.evaluate(language, texts, settings, tmp_path / "whole")
    losses = np.stack([plain(language.model, row).numpy() for row in texts.tokens])
    for one in told["positions"]:
        means = losses[:, one["first"] - 1 : one["last"]].mean(axis=1)
        assert one["loss"] == pytest.approx(means.mean(), rel=1e-5)
        assert one["error"] == pytest.approx(means.std(ddof=1) / math.sqrt(6), rel=1e-4)
    lines = (tmp_path / "whole" / "documents.jsonl").read_bytes()
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "documents.jsonl").write_bytes(lines[: len(lines) // 2])
    assert positions.evaluate(language, texts, settings, tmp_path / "part") == told
    assert (tmp_path / "part" / "documents.jsonl").read_bytes() == lines
    done = positions.evaluate(None, texts, settings, tmp_path / "whole")  # nothing is computed again
    assert done == told
    one = LongTexts(texts.tokens[:1], 1, 1)
    alone = positions.evaluate(language, one, positions.Settings("model", one.digest, 150), tmp_path / "one")
    assert {bin["error"] for bin in alone["positions"]} == {None}


@pytest.mark.parametrize("depth", needle.DEPTHS)
def test_a_needle_is_at_its_depth_and_the_prompt_as_long_as_asked(language, depth):
    tokens = language.encode("a line of text\n" * 100)
    whole = needle.hide(language, tokens, needle.Prompt(), "12345", 600, depth)
    told = needle.Prompt().needle.replace("{key}", "12345")
    assert whole.count(told) == 1
    assert 600 - 6 <= len(language.encode(f"{whole} 12345")) + 0 <= 600
    before, after = whole.removeprefix(needle.Prompt().before).split(told)
    after = after.removesuffix(needle.Prompt().question)
    assert len(before) / len(before + after) == pytest.approx(depth, abs=0.06)
    assert depth in (0, 1) or before.endswith("\n")
    without = needle.hide(language, tokens, needle.Prompt(), None, 600, depth)
    assert "12345" not in without
    assert len(without) == len(whole)
    with pytest.raises(UserError, match="do not hold"):
        needle.hide(language, tokens, needle.Prompt(), "12345", 100, depth)


def test_answers_are_those_of_whole_rows(language):
    written, losses = needle.answer(language, "what is the key? It is", ["12345", "977", "12399"])
    for candidate, loss in zip(("12345", "977", "12399"), losses, strict=True):
        row = torch.tensor(language.encode(f"what is the key? It is {candidate}"))
        assert loss == pytest.approx(float(plain(language.model, row)[-len(candidate) - 1 :].sum()), rel=1e-5)
    ids, new = language.encode("what is the key? It is"), []
    while len(new) < 8:
        with torch.no_grad():
            new.append(int(language.model(torch.tensor([ids + new]))[0, -1].argmax()))
        if new[-1] in language.stop:
            new.pop()
            break
    assert written == language.decode(ids, new)


class Finds(Bytes):
    """A language that has learned one thing: after the question comes the key, if there is a needle."""

    def decoding(self):
        return Looking()


class Looking:
    def read(self, tokens):
        self.rows = np.concatenate([self.rows, tokens], axis=1) if hasattr(self, "rows") else tokens
        logits = torch.zeros(len(self.rows), 264)
        for i, row in enumerate(self.rows):
            text = bytes(row[row < 256].tolist()).decode(errors="replace")
            at, asked = text.find("pass key is ") + 12, text.rfind("pass key is") + 11
            if text[at : at + 5].isdigit() and at < asked:
                answer = f" {text[at : at + 5]}\n"
                so_far = text[asked:]
                if answer.startswith(so_far) and len(so_far) < len(answer):
                    logits[i, ord(answer[len(so_far)])] = 9
        return logits

    def keep(self, rows):
        self.rows = self.rows[list(rows)]


def test_a_model_that_finds_needles_is_told_from_one_that_does_not(language, tmp_path):
    texts = choose(["def function(x):\n    return x + 1\n\n" * 40], language, 600, 1, 1)
    settings = needle.Settings("model", texts.digest, needle.Prompt(), (300, 600), 2, 1)
    finding = needle.evaluate(Finds(None), texts, settings, tmp_path / "finds")
    assert len(finding["cells"]) == 2 * len(needle.DEPTHS)
    for cell in finding["cells"]:
        assert (cell["exact"], cell["first"]) == (1, 1)
        assert cell["loss"] < 1 < 30 < cell["without"]
    blind = needle.evaluate(language, texts, settings, tmp_path / "blind")
    assert all(cell["exact"] == 0 for cell in blind["cells"])
    lines = (tmp_path / "blind" / "trials.jsonl").read_bytes()
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "trials.jsonl").write_bytes(lines[: len(lines) // 3])
    assert needle.evaluate(language, texts, settings, tmp_path / "part") == blind
    assert (tmp_path / "part" / "trials.jsonl").read_bytes() == lines
    keys = [json.loads(line)["key"] for line in lines.splitlines()]
    assert len(set(keys)) == len(keys)


def test_candidates_differ():
    for trial in range(200):
        keys, haystack = needle.draws(1, 100, 0.5, trial, 7)
        assert len(set(keys)) == needle.CANDIDATES
        assert all(len(key) == needle.DIGITS for key in keys)
        assert 0 <= haystack < 7


@pytest.mark.parametrize(
    ("written", "message"),
    [("needle: 3", "which are texts"), ("[a]", "which are texts"), ("haystack: a", "which are texts"),
     ("needle: nothing", "must stand in the needle"), ("question: '{key}'", "nowhere else"), ("a: [", "YAML")],
)  # fmt: skip
def test_wrong_prompts_are_told(tmp_path, written, message):
    (tmp_path / "prompt.yaml").write_text(written)
    with pytest.raises(UserError, match=message):
        needle.read_prompt(tmp_path / "prompt.yaml")
    (tmp_path / "prompt.yaml").write_text("needle: 'Key: {key}.'")
    assert needle.read_prompt(tmp_path / "prompt.yaml").needle == "Key: {key}."


def test_texts_come_from_files_of_any_format(tmp_path):
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "b.jsonl").write_text('{"text": "second"}\n\n{"text": "third"}\n')
    assert sorted(texts_of_files(str(tmp_path / "*"), "--tasks")) == ["first", "second", "third"]
    with pytest.raises(UserError, match="no"):
        list(texts_of_files(str(tmp_path / "absent.txt"), "--tasks"))


def test_tasks_are_told_apart():
    assert long_evaluation.split(["needle", "mbpp", "loss-by-position=a.txt"]) == (
        {"needle": None, "loss-by-position": "a.txt"},
        ["mbpp"],
    )
    for wrong in (["needle", "needle=a"], ["needle="]):
        with pytest.raises(UserError):
            long_evaluation.split(wrong)


def test_our_tokenizer_is_read_as_in_training():
    from tiny_training import definition

    model = Transformer(ModelConfig(vocab_size=264, layers=1, width=32, heads=2, ffn=40))
    model.initialise(1)
    language = Own(model, engine_from(definition(), {"eod": 256}))
    [tokens] = choose(["some text " * 9], language, 20, 1, 1).tokens.tolist()
    assert tokens == [256, *b"some text some text "]
