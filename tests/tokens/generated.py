"""Tokenizer definitions at random: every part that the tokenizers library has, put together as no one would."""

from __future__ import annotations

import random
from typing import Any

from headrace.tokens.definition import byte_level_definition
from headrace.tokens.vocabulary import byte_alphabet, byte_pieces

WORDS = ["ab", "ba", "abab", "the", "he", "12", "\u00e9", "\n\n", "  ", "a ", " a", " the", "..", "def"]
TEXTS = [
    *("", "a", " a", "  a", "a ", "\n a\n", "def f(x):\n    return 12345\n", "the ab  abab", "It's 2024, isn't it?"),
    *("\u00e9e\u0301 \u00c9 stra\u00dfe", "\u2581a\u2581 b", "\u6f22\u5b57 \u304b\u306a, \U0001f600!", " \u2581 "),
    *("\x00\x01\x7f\x85\xa0\u3000", "<x> ab<x>the <y>", "\ufb01\u00b2 \u2460\uff21", "a\tb\r\nc  \n\n\n d"),
    *("...,;:!?--__", "THE the The", "\U000e0101\ufffd\uffff\u200b\ufeff", "12 ab12ab 1", "  ", " ", "\u0301a"),
    *("the<y>  <y>a", " the the", "  \n\n  def"),
]


def _pick(rng: random.Random, *choices: Any) -> Any:
    return rng.choice(choices)


def _pieces(byte_level: bool) -> tuple[dict[str, int], list[list[str]]]:
    """A small vocabulary with merges."""
    if byte_level:
        spelled = {byte: char for char, byte in byte_alphabet().items()}
        words = ["".join(spelled[byte] for byte in word.encode()) for word in WORDS]
        vocab = dict(byte_alphabet())
    else:
        words = [word.replace(" ", "\u2581") for word in WORDS]
        vocab = {"<unk>": 0, **{piece: 1 + i for i, piece in enumerate(byte_pieces())}}
        for char in "\u2581abcdefhnortux12.,'\n\u00e9\u6f22":
            vocab.setdefault(char, len(vocab))
    merges = []
    for word in sorted(words, key=len):
        if len(word) > 1 and word[:-1] in vocab and word[-1] in vocab and word not in vocab:
            merges.append([word[:-1], word[-1]])
            vocab[word] = len(vocab)
        elif len(word) > 1 and word[0] in vocab and word[1:] in vocab and word not in vocab:
            merges.append([word[0], word[1:]])
            vocab[word] = len(vocab)
    return vocab, merges


def _normalizer(rng: random.Random, meta: bool) -> list[dict[str, Any]]:
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    others = [
        {"type": "NFC"}, {"type": "NFD"}, {"type": "NFKC"}, {"type": "NFKD"}, {"type": "Lowercase"}, {"type": "Nmt"},
        {"type": "Strip", "strip_left": True, "strip_right": rng.random() < 0.5}, {"type": "StripAccents"},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}, {"type": "ByteLevel"},
        {"type": "Replace", "pattern": {"String": "''"}, "content": '"'}, {"type": "Prepend", "prepend": "x"},
        {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
         "lowercase": rng.random() < 0.5},
    ]  # fmt: skip
    chosen = [rng.choice(others) for _ in range(_pick(rng, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2))]
    if rng.random() < 0.2:
        chosen.append({"type": "NFC"})
    if meta and rng.random() < 0.7:
        chosen.append(replace)
    if rng.random() < (0.4 if meta else 0.1):
        chosen.insert(
            rng.randrange(len(chosen) + 1), {"type": "Prepend", "prepend": _pick(rng, "\u2581", "\u2581", " ")}
        )
    return chosen


def _splits(rng: random.Random, byte_level: bool, meta: bool) -> list[dict[str, Any]]:
    behaviors = ("Isolated", "Isolated", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous", "Removed")
    pattern = _pick(
        rng, {"Regex": r"\p{N}{1,3}"}, {"Regex": r"\s+|\w+|[^\w\s]+"}, {"String": " "}, {"String": "ab"},
        {"Regex": "\n"},
        {"Regex": r"'s| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"},
    )  # fmt: skip
    others = [
        {"type": "Digits", "individual_digits": rng.random() < 0.5},
        {"type": "Punctuation", "behavior": rng.choice(behaviors)},
        {"type": "Digits", "individual_digits": True}, {"type": "FixedLength", "length": 2},
        {"type": "WhitespaceSplit"}, {"type": "Whitespace"}, {"type": "BertPreTokenizer"}, {"type": "UnicodeScripts"},
        {"type": "CharDelimiterSplit", "delimiter": "a"}, {"type": "FixedLength", "length": 3},
        *({"type": "Split", "pattern": pattern, "behavior": rng.choice(behaviors), "invert": rng.random() < 0.3},) * 4,
    ]  # fmt: skip
    chosen = [rng.choice(others) for _ in range(_pick(rng, 0, 0, 0, 1, 1, 2))]
    if byte_level and rng.random() < 0.95:
        prefix, regex = rng.random() < 0.2, rng.random() < 0.6
        level = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}
        chosen.insert(len(chosen) if rng.random() < 0.8 else rng.randrange(len(chosen) + 1), level)
    if meta and rng.random() < 0.5:
        scheme, whole = _pick(rng, "always", "first", "never"), rng.random() < 0.5
        written = "_" if rng.random() < 0.1 else "\u2581"
        part = {"type": "Metaspace", "replacement": written, "prepend_scheme": scheme, "split": whole}
        chosen.insert(rng.randrange(len(chosen) + 1), part)
    return chosen


def _added(rng: random.Random, meta: bool, last: int) -> list[dict[str, Any]]:
    spellings = ["<x>", "<y>", "ab", "  ", "\u2581\u2581" if meta else "'s", "\n\n", "\u00e9", " the"]
    tokens = []
    for content in rng.sample(spellings, _pick(rng, 0, 0, 0, 1, 2, 3)):
        flags = {flag: rng.random() < 0.1 for flag in ("single_word", "lstrip", "rstrip")}
        normal, special = rng.random() < 0.4, rng.random() < 0.4
        tokens.append({"content": content, **flags, "normalized": normal, "special": special})
    return [{"id": last + i + (rng.random() < 0.03), **token} for i, token in enumerate(tokens)]


def definition(seed: int) -> dict[str, Any]:
    """A definition; the same for the same seed."""
    rng = random.Random(seed)
    byte_level = rng.random() < 0.5
    meta = not byte_level and rng.random() < 0.95
    vocab, merges = _pieces(byte_level)
    made = byte_level_definition(vocab, merges)
    model = made["model"]
    if not byte_level:
        model |= {"byte_fallback": rng.random() < 0.9, "unk_token": "<unk>", "fuse_unk": rng.random() < 0.5}
    if rng.random() < 0.1:
        key = _pick(rng, "dropout", "ignore_merges", "continuing_subword_prefix", "end_of_word_suffix", "unk_token")
        model[key] = {"dropout": 0.3, "ignore_merges": True, "unk_token": next(iter(vocab))}.get(key, "##")
    if rng.random() < 0.1:  # a vocabulary with a hole
        gone = rng.choice([piece for piece in vocab if not any(piece in merge for merge in merges)])
        kept = [piece for piece in vocab if piece != gone and [gone] not in merges]
        made["model"]["vocab"] = vocab = {piece: i for i, piece in enumerate(kept)}
        model["merges"] = [merge for merge in merges if "".join(merge) in vocab]
    if rng.random() < 0.1:
        scores = [[piece, -1.0 - 0.01 * i] for i, piece in enumerate(vocab)]
        made["model"] = {"type": "Unigram", "unk_id": 0, "vocab": scores, "byte_fallback": not byte_level}
    elif rng.random() < 0.04:
        made["model"] = {"type": "WordLevel", "vocab": vocab, "unk_token": next(iter(vocab))}
    for section, chosen, inner in (
        ("normalizer", _normalizer(rng, meta), "normalizers"),
        ("pre_tokenizer", _splits(rng, byte_level, meta), "pretokenizers"),
    ):
        made[section] = None if not chosen else chosen[0] if len(chosen) == 1 else {"type": "Sequence", inner: chosen}
    made["added_tokens"] = _added(rng, meta, len(vocab))
    if rng.random() < 0.1:
        made["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    made["decoder"] = None
    return made
