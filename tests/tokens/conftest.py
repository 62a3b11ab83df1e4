"""The engines that the room's tests run on."""

from __future__ import annotations

import pytest
from pipelines import PIPELINES, gemma

from headrace.recipe.stages import SpecialTokens, TokenizerTrain
from headrace.tokens.definition import read_definition
from headrace.tokens.fast import FastEngine
from headrace.tokens.library import LibraryEngine
from headrace.tokens.load import engine_from, open_file
from headrace.tokens.special import own_ids, trained_roles
from headrace.tokens.training import train

CORPUS = [
    "def add(a, b):\n    return a + b\n\n\nclass Wheel:\n    def turn(self):\n        return self.water * 2.5\n",
    "The headrace carries the water to the wheel, and the wheel turns the stone; it's 1850 and the mill is new.\n",
    "Grüße aus Köln: Straße, Öl, naïve, 漢字かな交じり文, Ελληνικά, русский текст, 😀😃\n",
] * 20


SENTENCEPIECE = SpecialTokens(eod="</s>", bos="<s>")


@pytest.fixture(scope="session")
def trained_definition():
    """A byte-level BPE trained here."""
    return train(CORPUS, TokenizerTrain(vocab_size=600), list(trained_roles(SpecialTokens()).values()), 1)


@pytest.fixture(scope="session")
def trained(trained_definition):
    return engine_from(trained_definition, own_ids(trained_definition))


@pytest.fixture(scope="session")
def gpt2(shared):
    return open_file(shared / "fixtures/tokenizers/gpt2-vocab.json")


@pytest.fixture(scope="session")
def llama(shared):
    return open_file(shared / "fixtures/tokenizers/llama.model", SENTENCEPIECE)


@pytest.fixture(scope="session")
def crystal(shared):
    return open_file(shared / "fixtures/tokenizers/crystalcoder.json", SENTENCEPIECE)


def definition_of(name, request):
    """The definition of a tokenizer by its fixture's name, and the spellings of its special tokens."""
    if name == "trained":
        return request.getfixturevalue("trained_definition"), SpecialTokens()
    if name in PIPELINES:
        return PIPELINES[name](request.getfixturevalue("trained_definition")), SpecialTokens()
    folder = request.getfixturevalue("shared") / "fixtures/tokenizers"
    if name == "gemma":
        return gemma(read_definition(folder / "llama.model")), SENTENCEPIECE
    files = {"gpt2": "gpt2-vocab.json", "llama": "llama.model", "crystal": "crystalcoder.json"}
    return read_definition(folder / files[name]), SpecialTokens() if name == "gpt2" else SENTENCEPIECE


@pytest.fixture(scope="session")
def on_library():
    """Gives a tokenizer on the library's engine, each made once."""
    made = {}

    def get(name, request):
        if name not in made:
            definition, special = definition_of(name, request)
            made[name] = LibraryEngine(definition, own_ids(definition, special))
        return made[name]

    return get


@pytest.fixture(scope="session")
def on_ours():
    """Gives a pipeline on the project's own engine, each made once."""
    made = {}

    def get(name, request):
        if name not in made:
            definition, special = definition_of(name, request)
            made[name] = FastEngine(definition, own_ids(definition, special))
        return made[name]

    return get


TOKENIZERS = ["trained", "gpt2", "llama", "crystal"]


@pytest.fixture(params=[*TOKENIZERS, *(f"{name} on the library" for name in TOKENIZERS)])
def engine(request, on_library):
    """Each tokenizer in turn, on the project's own engine and on the library."""
    name, _, library = request.param.partition(" ")
    return on_library(name, request) if library else request.getfixturevalue(name)


@pytest.fixture(params=[*TOKENIZERS, *PIPELINES, "gemma"])
def both(request, on_library, on_ours):
    """Each tokenizer and pipeline in turn, on both engines: ours, the library's."""
    known = request.param in TOKENIZERS
    ours = request.getfixturevalue(request.param) if known else on_ours(request.param, request)
    return ours, on_library(request.param, request)


@pytest.fixture(params=TOKENIZERS)
def chunked_engine(request, on_library):
    """Each tokenizer in turn on the library, which takes long texts in chunks."""
    return on_library(request.param, request)
