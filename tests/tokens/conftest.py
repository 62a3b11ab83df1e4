"""The engines that the room's tests run on."""

from __future__ import annotations

import pytest

from headrace.recipe.stages import SpecialTokens, TokenizerTrain
from headrace.tokens.load import engine_from, open_file, special_ids, spellings
from headrace.tokens.training import train

CORPUS = [
    "def add(a, b):\n    return a + b\n\n\nclass Wheel:\n    def turn(self):\n        return self.water * 2.5\n",
    "The headrace carries the water to the wheel, and the wheel turns the stone; it's 1850 and the mill is new.\n",
    "Grüße aus Köln: Straße, Öl, naïve, 漢字かな交じり文, Ελληνικά, русский текст, 😀😃\n",
] * 20


@pytest.fixture(scope="session")
def trained():
    """A byte-level BPE trained here."""
    definition = train(CORPUS, TokenizerTrain(vocab_size=600), list(spellings(SpecialTokens()).values()), 1)
    return engine_from(definition, special_ids(definition, SpecialTokens()))


@pytest.fixture(scope="session")
def gpt2(shared):
    return open_file(shared / "fixtures/tokenizers/gpt2-vocab.json")


@pytest.fixture(scope="session")
def llama(shared):
    return open_file(shared / "fixtures/tokenizers/llama.model", SpecialTokens(eod="</s>", bos="<s>"))


@pytest.fixture(scope="session")
def crystal(shared):
    return open_file(shared / "fixtures/tokenizers/crystalcoder.json", SpecialTokens(eod="</s>", bos="<s>"))


@pytest.fixture(params=["trained", "gpt2", "llama", "crystal"])
def engine(request):
    """Each kind of engine in turn."""
    return request.getfixturevalue(request.param)
