"""Generation: greedy, keyed draws, stops, and prompts from held-out rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headrace.evaluate.sampling import held_out_prompts, infilling, stated_prompts, write_samples
from headrace.model.config import ModelConfig
from headrace.model.transformer import Transformer
from headrace.recipe.training import SamplesSection
from headrace.sequence.store import SEGMENT
from headrace.tokens.definition import byte_level_definition
from headrace.tokens.load import engine_from

EOD, PREFIX, MIDDLE, SUFFIX = 256, 257, 258, 259


@pytest.fixture(scope="module")
def engine():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    alphabet = [chr(b) if b in plain else chr(256 + rest.index(b)) for b in range(256)]
    definition = byte_level_definition({c: i for i, c in enumerate(alphabet)}, [])
    special = {"eod": EOD, "fim_prefix": PREFIX, "fim_middle": MIDDLE, "fim_suffix": SUFFIX}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    definition["added_tokens"] = [{"id": i, "content": f"<|{name}|>", **flags} for name, i in special.items()]
    return engine_from(definition, special)


@pytest.fixture(scope="module")
def model():
    model = Transformer(ModelConfig(vocab_size=264, layers=2, width=32, heads=2, ffn=40))
    model.initialise(1)
    with torch.no_grad():
        model.embedding.weight.mul_(20)
    return model


class Rows:
    """Two held-out rows: a document cut at the front, then whole ones of two sources."""

    sources = ("prose", "code")
    text = np.frombuffer(b"the quick brown fox jumps over the lazy dog, and " * 9, dtype=np.uint8).astype(np.uint16)

    def __len__(self):
        return 2

    def segments(self, row):
        all_rows = ([(0, 20, 5, 7, 0, 0, 0), (20, 200, 6, 0, 0, 0, 0)], [(0, 220, 8, 0, 1, 0, 0)])
        return np.array(all_rows[row], dtype=SEGMENT)

    def rows(self, start, stop):
        return np.stack([np.roll(self.text, row)[:221] for row in range(start, stop)])


def test_stated_prompts_begin_after_the_end_of_a_document(engine):
    section = SamplesSection.model_validate({"prompts": ["ab"], "infills": [{"prefix": "x", "suffix": "yz"}]})
    plain, hole = stated_prompts(section, engine)
    assert plain.tokens.tolist() == [EOD, *b"ab"] == [EOD, 97, 98]
    assert hole.tokens.tolist() == [EOD, PREFIX, 120, SUFFIX, 121, 122, MIDDLE]
    assert (hole.prefix, hole.suffix) == ("x", "yz")
    assert infilling(np.array([], dtype=int), np.array([], dtype=int), engine).tolist() == [EOD, PREFIX, SUFFIX, MIDDLE]


def test_held_out_prompts_come_from_the_starts_of_whole_documents(engine):
    plain, hole = held_out_prompts(SamplesSection(), Rows(), engine, ["code"])
    text = bytes(Rows.text.astype(np.uint8)).decode()
    assert (plain.source, plain.row, plain.prefix) == ("prose", 6, text[20:52])
    assert (hole.source, hole.row) == ("code", 8)
    assert hole.prefix + hole.truth + hole.suffix in " " + text
    assert held_out_prompts(SamplesSection(prompts=(), infills=()), Rows(), engine, []) == []
    [_, other] = held_out_prompts(SamplesSection(), Rows(), engine, ["unknown"])
    assert other.source == "prose"


def test_samples_tell_what_was_asked_and_written(model, engine):
    section = SamplesSection.model_validate({"prompts": ["ab"], "infills": [], "tokens": 4, "temperature": 1.0})
    first = write_samples(model, engine, stated_prompts(section, engine), section, 7, "one")
    again = write_samples(model, engine, stated_prompts(section, engine), section, 7, "one")
    assert first == again
    assert first[0]["kind"] == "continuation"
    assert first[0]["prompt"] == "ab"
    assert first[0]["tokens"] <= 4
    assert isinstance(first[0]["text"], str)
