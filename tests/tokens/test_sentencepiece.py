"""Models of SentencePiece give its own library's ids, or are refused with the reason."""

from __future__ import annotations

import random

import pytest
import sentencepiece
from sentencepiece_models import CONTROL, NORMAL, UNUSED, USER_DEFINED, base, model, random_pieces

from headrace.errors import UserError
from headrace.tokens.definition import read_definition
from headrace.tokens.engine import Texts
from headrace.tokens.fast import FastEngine
from headrace.tokens.library import LibraryEngine
from headrace.tokens.load import open_file
from headrace.tokens.sentencepiece import definition_of_model

LETTERS = "ab \n\u2581\u00e9\0x"
TEXTS = [
    "",
    " ",
    "  ",
    "    four",
    "\u2581\u2581",
    "a\n\n\nb",
    "\tx  =  1\r\n",
    "\u6f22\U0001f600\x00\x7f",
    "<s>a</s><unk>",
]


def texts(rng, count=40):
    return [*TEXTS, *("".join(rng.choices(LETTERS, k=rng.randrange(1, 60))) for _ in range(count))]


def test_random_models_and_texts():
    ours = 0
    for seed in range(120):
        rng = random.Random(seed)
        data = model(random_pieces(rng, rng.choice([0, 1, 3, 6])), {}, {3: rng.randrange(2)})
        theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
        engine = FastEngine(definition_of_model(data, "x")[0], {})
        library = LibraryEngine(definition_of_model(data, "x")[0], {})
        batch = texts(rng)
        expected = [theirs.encode(text) for text in batch]
        for made in (engine, library):
            encoded = made.encode(batch)
            assert [encoded.of(i).tolist() for i in range(len(batch))] == expected, seed
        spans = engine.spans(encoded, True, batch)
        for i, text in enumerate(batch):
            own = spans[encoded.offsets[i] : encoded.offsets[i + 1]]
            assert b"".join(text.encode()[low:high] for low, high in own) == text.encode()
            back = engine.decode(encoded.of(i)).decode()
            assert back == text.replace("\u2581", " ")
        ours += 1
    assert ours == 120


def test_pieces_that_go_on_get_no_space_and_are_cut_all_the_same():
    pieces = [*base(), ("\u2581\u2581", 0.0, USER_DEFINED), ("\u2581", -1.0, NORMAL), ("a", -2.0, NORMAL)]
    data = model([*pieces, ("\u2581a", -3.0, NORMAL)], {}, {3: 1})
    engine = FastEngine(definition_of_model(data, "x")[0], {})
    ids = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    encoded = engine.encode(Texts.of([" a", " a", "", "a"]), [True, False, True, False])
    assert encoded.of(0).tolist() == [ids["\u2581\u2581"], ids["a"]]
    assert encoded.of(1).tolist() == [len(pieces)]
    assert encoded.of(2).tolist() == []
    assert encoded.of(3).tolist() == [ids["a"]]


def test_llama(shared, llama):
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(shared / "fixtures/tokenizers/llama.model"))
    rng = random.Random(5)
    batch = [
        *texts(rng, 300),
        *(" " * size + rng.choice(["", "x", "the", "\n"]) + " " * rng.randrange(40) for size in range(80)),
        *("a" * size for size in range(1, 60)),
        *(shared / "fixtures/text/wikitext2_a.txt").read_text()[:60_000].split("\n"),
    ]
    encoded = llama.encode(batch)
    assert [encoded.of(i).tolist() for i in range(len(batch))] == [theirs.encode(text) for text in batch]


def test_runs_of_spaces_that_are_user_defined(shared):
    path = shared / "cases/reports/gemma_like_model/tokenizer.model"
    if not path.exists():
        pytest.skip("needs the cases")
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    engine = open_file(path)
    assert isinstance(engine, FastEngine)
    assert engine.encode(["    "]).tokens.tolist() == theirs.encode("    ") == [4, 4]
    batch = [*texts(random.Random(1), 200), "def f(x):\n    return <user> x", "undefined  def", "<user>    <user>"]
    encoded = engine.encode(batch)
    assert [encoded.of(i).tolist() for i in range(len(batch))] == [theirs.encode(text) for text in batch]


SOUND = [*base(), ("\u2581", -1.0, NORMAL), ("a", -2.0, NORMAL), ("\u2581a", -3.0, NORMAL)]
WITHOUT_SPACE = [piece for piece in SOUND if piece[0] != "\u2581"]


@pytest.mark.parametrize(
    ("pieces", "trainer", "normalizer", "why"),
    [
        (SOUND, {3: 1}, {}, "type is unigram"),
        (SOUND, {3: 3}, {}, "type is word"),
        (SOUND, {3: 4}, {}, "type is char"),
        (SOUND, {35: 0}, {}, "no byte fallback"),
        (SOUND[:100] + SOUND[101:], {}, {}, "no byte fallback"),
        (SOUND, {24: 1}, {}, "treat_whitespace_as_suffix"),
        (SOUND, {}, {1: b"nmt_nfkc", 2: b"table"}, r"normalizes text \(nmt_nfkc\)"),
        (SOUND, {}, {4: 1}, "remove_extra_whitespaces"),
        (SOUND, {}, {5: 0}, "escape_whitespaces"),
        ([*SOUND, ("b", -4.0, UNUSED)], {}, {}, "UNUSED"),
        ([*SOUND, ("  ", -4.0, USER_DEFINED)], {}, {}, "contains a space"),
        ([*SOUND, ("a", -4.0, NORMAL)], {}, {}, "the same"),
        (WITHOUT_SPACE, {}, {}, "no piece for a space"),
        ([*WITHOUT_SPACE, ("\u2581", 0.0, CONTROL)], {}, {}, "no piece for a space"),
        ([*SOUND, ("aa", -3.0, NORMAL)], {}, {}, "same score"),
        ([*SOUND, ("aa", float("nan"), NORMAL), ("aaa", float("nan"), NORMAL)], {}, {}, "same score"),
    ],
)
def test_what_is_not_read_is_refused_with_the_reason(pieces, trainer, normalizer, why):
    definition_of_model(model(SOUND), "x")
    with pytest.raises(UserError, match=why):
        definition_of_model(model(pieces, trainer, normalizer), "x")


def test_damaged_models_are_told(tmp_path):
    data, rng = model(random_pieces(random.Random(1), 3)), random.Random(2)
    for _ in range(300):
        some = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            some[rng.randrange(len(some))] = rng.randrange(256)
        path = tmp_path / "tokenizer.model"
        path.write_bytes(some[: rng.choice([len(some), rng.randrange(len(some))])])
        try:
            read_definition(path)
        except UserError:
            continue
