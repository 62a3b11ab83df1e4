"""Words end where the library's split patterns end them, wherever a text is cut into stretches."""

from __future__ import annotations

import itertools
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from odd_text import ODD, RUNS
from pipelines import PIPELINES, with_splits
from tokenizers import Regex, pre_tokenizers

from bench.published_patterns import CL100K_PATTERN
from headrace.tokens.regex import NotReadError
from headrace.tokens.split_patterns import GPT2_PATTERN, LLAMA3_PATTERN
from headrace.tokens.splitting import split_scanner
from headrace.tokens.vocabulary import parts
from headrace.tokens.words import Scanner, new_scratch, next_words
from quick import examples

STRETCHES = [1, 9, 64, 4096]
FUZZ = settings(max_examples=examples(300), suppress_health_check=list(HealthCheck))
PATTERNS = {"GPT-2": GPT2_PATTERN, "Llama 3": LLAMA3_PATTERN, "GPT-4": CL100K_PATTERN}
NAMES = [*PATTERNS, *PIPELINES]


@pytest.fixture(scope="module", params=NAMES)
def both(request, trained_definition):
    """The pre-tokenizers of a published tokenizer, ours and the library's; making them takes a tenth of a second."""
    named = PATTERNS.get(request.param)
    definition = with_splits(trained_definition, named) if named else PIPELINES[request.param](trained_definition)
    splits = parts(definition, "pre_tokenizer")
    return split_scanner(splits), of_library(splits)


def isolated(*patterns: str) -> list[dict]:
    """Pre-tokenizers of patterns, each within the pieces of the one before."""
    return parts(with_splits({}, *patterns), "pre_tokenizer")


def of_library(splits: list[dict]) -> pre_tokenizers.PreTokenizer:
    """The same pre-tokenizers of the library, but for the spelling of bytes."""
    made = []
    for split in splits:
        if split["type"] == "Digits":
            made.append(pre_tokenizers.Digits(split["individual_digits"]))
        elif split["type"] == "Split":
            made.append(pre_tokenizers.Split(Regex(split["pattern"]["Regex"]), split["behavior"].lower()))
        elif split["use_regex"]:
            made.append(pre_tokenizers.Split(Regex(GPT2_PATTERN), "isolated"))
    return pre_tokenizers.Sequence(made)


def expected(library: pre_tokenizers.PreTokenizer, text: str) -> list[str]:
    """The words of the library."""
    return [word for word, _ in library.pre_tokenize_str(text)] if text else []


def words(text: str, scanner: Scanner, stretch: int) -> list[str]:
    """The words of ours, with another text before and after this one in the buffer."""
    scanner = scanner._replace(stretch=stretch)
    before, raw = "(\n \n7 " * 3, text.encode()
    data = np.frombuffer(before.encode() + raw + b"\ns7\xcc\x81" + bytes(16), dtype=np.uint8)
    scratch, start = new_scratch(scanner), 0
    for end in (len(before), len(before) + len(raw)):
        found = []
        while start < end:
            count = next_words(data, start, end, scanner, scratch)
            bounds = start + scratch.starts[: count + 1].astype(np.int64)
            found += [data[low:high].tobytes().decode() for low, high in itertools.pairwise(bounds)]
            start = int(bounds[-1])
    return found


@FUZZ
@given(RUNS, st.sampled_from(STRETCHES))
def test_words_are_the_matches_of_the_pattern(both, text, stretch):
    scanner, library = both
    assert words(text, scanner, stretch) == expected(library, text)


def test_every_character_in_every_place(both):
    scanner, library = both
    points = [chr(point) for point in [*range(0x3400), *range(0xA000, 0xA900), *range(0xF900, 0x12000, 3)]]
    shown = [f"a{c}b {c}1{c}\n{c}'{c}s({c}{c} " for c in points if not 0xD800 <= ord(c) < 0xE000]
    text = "".join(shown)
    assert words(text, scanner, 4096) == expected(library, text)


def test_python_files_of_the_environment(both):
    scanner, library = both
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[::9]:
        text = path.read_text(encoding="utf-8", errors="replace")
        assert words(text, scanner, 4096) == expected(library, text), path


# Patterns of all that is read, over few characters, so that alternatives compete.
CLASSES = [
    "a", "b", "A", "s", " ", "1", "'", r"\n", r"\s", r"\S", r"\p{L}", r"\p{N}", r"\p{Lu}", r"\P{L}", r"\p{^M}", "[ab]",
    "[^a]", r"[^\s\p{L}]", r"[a-z&&[^b]]", r"[\r\n]", r"[a[1 ]]", r"\u0061", r"\x{e9}", "\u6f22", r"[\p{Han}\-]",
    "(?i:s)", "(?i:[a-c])",
]  # fmt: skip
AROUND = [r"(?!\S)", r"(?=a)", r"(?![ab])", "$", r"(?=[^\s])"]
REPEATS = ["", "", "?", "*", "+", "??", "*?", "+?", "?+", "*+", "++", "{2}", "{1,3}", "{0,2}", "{2,}"]
PIECES = st.tuples(st.sampled_from(CLASSES), st.sampled_from(REPEATS)).map("".join) | st.sampled_from(AROUND)
REGEXES = st.recursive(
    st.lists(PIECES, min_size=1, max_size=3).map("".join),
    lambda inner: (
        st.lists(inner, min_size=2, max_size=3).map("|".join)
        | st.tuples(inner, st.sampled_from(["", "?", "*", "+", "{1,2}"])).map(lambda pair: f"(?:{pair[0]}){pair[1]}")
        | st.tuples(inner, inner).map("".join)
    ),
    max_leaves=5,
)
FEW = st.lists(st.sampled_from([*"aaabbABssS  11'\n\r-", "\xe9", "\u6f22", "\u0301", "\u017f", *ODD[:8]]), max_size=24)


@settings(max_examples=examples(200), suppress_health_check=list(HealthCheck))
@given(st.lists(REGEXES, min_size=1, max_size=3), st.lists(FEW.map("".join), min_size=1, max_size=4))
def test_any_patterns_that_are_read_split_as_the_library_splits(patterns, texts):
    try:
        scanner = split_scanner(isolated(*patterns))
    except NotReadError as reason:
        event(str(reason)[:40])
        assume(False)
    library = of_library(isolated(*patterns))
    for text in texts:
        assert words(text, scanner, 5) == words(text, scanner, 64) == expected(library, text)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"a|\b", r"'\\b'"),
        (r"\w+", r"'\\w'"),
        (r"(a)\1", r"'\\1'"),
        (r"(?<=a)b", "group of the kind"),
        (r"(?>a)b", "group of the kind"),
        (r"^a", "where a character is expected"),
        (r"a.b", "where a character is expected"),
        (r"(?=ab)c", "more than one character"),
        (r"(?:ab)++", "possessive"),
        (r"(?:a?)*b", "repetition of something that may be empty"),
        (r"a{1,3}+", "repetition of a repetition"),
        (r"a{,3}", "brace"),
        (r"a{1000}", "repetition of 1000"),
        (r"(?i:\xe9)", "without a character"),
        (r"(?i:\u00e9)", "non-ASCII"),
        (r"(?i:fi)", "ligatures"),
        (r"[[:alpha:]]", "POSIX"),
        (r"\p{Klingon}", "Klingon"),
        (r"a*", "empty string"),
        (r"(?=a)", "empty string"),
        (r"a+b", "repeatedly read far ahead"),
        (r"a|[ab]+c", "repeatedly read far ahead"),
        ("(a", "unclosed group"),
        ("(?:(?:(?:[ab]{64}){64}){64}){64}", "too many nested repetitions"),
        pytest.param(
            "".join(f"|{chr(c)}{{40}}" for c in range(0x3041, 0x3090))[1:], "too many states", marks=pytest.mark.slow
        ),
    ],
)
def test_what_is_not_read_is_said(pattern, why):
    with pytest.raises(NotReadError, match=why):
        split_scanner(isolated(pattern))


def test_a_kind_of_split_that_is_not_read_is_said():
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    with pytest.raises(NotReadError, match="MergedWithPrevious"):
        split_scanner([split, *isolated("a")])
    with pytest.raises(NotReadError, match="Removed, inverted"):  # it would lose white space
        split_scanner([{**split, "pattern": {"Regex": r"\S+"}, "behavior": "Removed", "invert": True}, *isolated("a")])
    with pytest.raises(NotReadError, match="Punctuation"):
        split_scanner([{"type": "Punctuation", "behavior": "Isolated"}, *isolated("a")])
    with pytest.raises(NotReadError, match="no pattern"):
        split_scanner(isolated())
    text = isolated("\\.")
    text[0]["pattern"] = {"String": "."}
    assert words("a.b..c", split_scanner(text), 9) == ["a", ".", "b", ".", ".", "c"]


@pytest.mark.parametrize("digits", [True, False])
def test_digits_before_a_pattern(digits):
    splits = [{"type": "Digits", "individual_digits": digits}, *isolated(r"\S+")]
    text = "a12b  345 \U0001d7d9\u0663 6\n"
    assert words(text, split_scanner(splits), 9) == expected(of_library(splits), text)
