"""Tokenizers that the room's tests run on."""

from __future__ import annotations

import pytest

from headrace.recipe.stages import SpecialTokens, TokenizerTrain
from headrace.tokens.definition import read_definition
from headrace.tokens.load import engine_from, open_file
from headrace.tokens.special import own_ids, trained_roles, with_special
from headrace.tokens.training import train


@pytest.fixture(scope="session")
def small():
    """A tokenizer trained here; needs no data from elsewhere."""
    texts = ["def add(a, b):\n    return a + b  # Grüße, 漢字\n", "the water turns the wheel\n"] * 20
    definition = train(texts, TokenizerTrain(vocab_size=400), list(trained_roles(SpecialTokens()).values()), 1)
    return engine_from(definition, own_ids(definition))


@pytest.fixture(scope="session")
def crystal(shared):
    return open_file(shared / "fixtures/tokenizers/crystalcoder.json", SpecialTokens(eod="</s>", bos="<s>"))


@pytest.fixture(scope="session")
def gpt2(shared):
    definition = with_special(
        read_definition(shared / "fixtures/tokenizers/gpt2-vocab.json"),
        [f"<|fim_{part}|>" for part in ("prefix", "middle", "suffix", "pad")],
    )
    return engine_from(definition, own_ids(definition))


@pytest.fixture(params=["small", "crystal", "gpt2"])
def engine(request):
    """Each kind of engine in turn."""
    return request.getfixturevalue(request.param)
