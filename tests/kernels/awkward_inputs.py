"""Small inputs on which kernels tend to go wrong, given to the functions of each room that call them.

Empty buffers, single elements, sizes just below and above every block, texts that end with the buffer, and buffers that
are exactly as large as what they hold: a read past a text is a read past the array.
"""

from __future__ import annotations

import random
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Made = Iterator[tuple[str, Any]]

WIDE = "\xe9\u6f22\U0001f600"  # two, three and four bytes
SNIPPETS = [
    "The wheel turns", "<p class=x>&amp;&#8212;</p>", "<!-- c -->", "<script>var a</script>", "<style>b", "<scrip",
    "41 42,43 , 0x44 \\x45\\x46 ", "\\u00e9\\u00ea", "QUJD/+=\n", "it's", "12345", "\r\n\t\x85\u2028 ",
    "\u0130\u03a3\u03c2", "return a[i] + b_1;", "!?'\"", *WIDE,
]  # fmt: skip


def texts() -> list[str]:
    """Texts around the sizes at which kernels change their ways, each ending in what asks for more."""
    rng = random.Random(5)
    out = ["", "a", " ", "\n", *WIDE, "<", "&", "\\", "\\u", "0x", "'", "</script", "<!--", "&#", "\u0130"]
    for size in (7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129):
        out += ["x" * size, "a b" * (size // 3) + WIDE[size % 3], "x" * (size - 1) + WIDE[size % 3]]
    for _ in range(12):
        out.append("".join(rng.choice(SNIPPETS) for _ in range(rng.randrange(1, 14))))
    out += ["\\u0041" * 9, "\\x41" * 9, "41," * 9 + "4", "QUJD" * 17, "&" + "a" * 40, "<" * 20 + "<script></script "]
    return out


def buffer(documents: list[str], lead: bytes = b"") -> tuple[np.ndarray, np.ndarray]:
    """Documents one after another in a buffer that ends with the last, and where each begins and ends."""
    parts = [text.encode() for text in documents]
    offsets = np.cumsum([len(lead), *map(len, parts)], dtype=np.int64)
    return np.frombuffer(lead + b"".join(parts), dtype=np.uint8).copy(), offsets


def buffers() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """No document, one empty one, all texts with bytes of another before them, and each kind of ending last."""
    yield buffer([])
    yield buffer([""])
    yield buffer(texts(), lead="\u6f22".encode())
    for last in ("\xe9", "ab \u6f22", "\U0001f600", "<p", "&am", "\\u00", "0x4", "4", "it'", "\u0130"):
        yield buffer([last])


def flow() -> Made:
    """Keys, the radix sort and the exchange's gather."""
    from headrace.flow.keys import keyed, salt
    from headrace.flow.radix import sort_words
    from headrace.flow.slices import gather

    rng = np.random.default_rng(1)
    for n in (0, 1, 2, 16, 17, 70, 700):
        for bits in (1, 12, 64):
            words = rng.integers(0, 1 << bits, (n, 3), dtype=np.uint64)
            yield f"sort {n} {bits}", [sort_words(words[:, :w].copy(), (1, 0)) for w in (2, 3)]
    equal = np.full((40, 2), 7, dtype=np.uint64)
    equal[-1, 1] = 3
    yield "sort by the second key", sort_words(equal, (0, 1))
    ids = rng.integers(0, 1 << 64, (5, 2), dtype=np.uint64)
    yield "keyed", [keyed(salt(1, "x"), some) for some in (ids, ids[:0], ids[:, 0], ids[:0, 0])]
    lengths = np.array([0, 3, 0, 2], dtype=np.int64)
    yield "gather", gather(np.arange(5, dtype=np.uint8), np.array([5, 2, 0, 0]), lengths)


def documents() -> Made:
    """The scanner of big JSON texts, block by block."""
    from headrace.documents.readers.json_scan import separators

    for text, array in ((b'[{"a": "]\\"},"}, [1, 2], "\\\\"]', True), (b'{"a": {}}\n{"b": "}"}{}', False), (b"", True)):
        for size in (1, 2, 7, 64):
            state, found = np.zeros(3, dtype=np.int64), []
            for at in range(0, len(text), size):
                block = np.frombuffer(text[at : at + size], dtype=np.uint8)
                out = np.empty(len(block), dtype=np.int64)
                found.append(out[: separators(block, state, array, out)])
            yield f"json {size}", [*found, state]


def measures() -> Made:
    """Counts, encoded data and what is visible of HTML."""
    from headrace.select.code_points import count_characters
    from headrace.select.measures.encoded_data import encoded_characters
    from headrace.select.measures.text_statistics import statistics
    from headrace.select.measures.visible_text import visible_characters

    for data, offsets in buffers():
        some = np.arange(len(offsets) - 1)
        yield "statistics", statistics(data, offsets)
        yield "encoded", encoded_characters(data, offsets)
        yield "visible", visible_characters(data, offsets, some)
        yield "characters", count_characters(data, offsets[0], len(data))


def signatures() -> Made:
    """Cleaning and both signatures, with the whole of what verification does."""
    from headrace.select.clean import clean
    from headrace.select.duplicates import minhash, permuted_minhash
    from headrace.select.duplicates.jaccard import pair_jaccard
    from headrace.select.duplicates.jaccard_bound import jaccard_at_most, sketch
    from headrace.select.duplicates.shingles import BLOCK

    for data, offsets in buffers():
        points, starts, lengths = clean(data, offsets)
        cleaned = [points[s : s + n].copy() for s, n in zip(starts, lengths, strict=True)]
        yield "clean", cleaned
        # As clean gives them, and one after the other in a buffer without room to spare.
        tight = np.concatenate([np.empty(0, dtype=np.uint32), *cleaned])
        places = np.cumsum(lengths) - lengths
        for ngram, words in ((13, False), (1, False), (2, True)):
            first = minhash.band_fingerprints(tight, places, lengths, ngram, words, 4, 2, 2)
            assert np.array_equal(first, minhash.band_fingerprints(points, starts, lengths, ngram, words, 4, 2, 2))
            yield f"fast {ngram}", [first, minhash.signatures(tight, places, lengths, ngram, words, 5)]
        for ngram, words in ((13, False), (3, True), (14, False)):
            bands = permuted_minhash.band_fingerprints(tight, places, lengths, ngram, words, 4, 2, 2)
            yield f"datasketch {ngram}", [bands, permuted_minhash.signatures(tight, places, lengths, ngram, words, 3)]
        for counted in (1 << 20, 0):
            sketches = sketch(tight, places, lengths, 5, False, counted)
            yield "sketch", [sketches.bits, sketches.least, sketches.most]
        facts = [*zip(sketches.bit_starts, sketches.bit_words, sketches.least, sketches.most, strict=True)]
        chosen = [0, 1, len(facts) // 2, len(facts) - 1] if len(facts) > 3 else range(len(facts))
        pairs = [(a, b) for a in chosen for b in chosen]
        yield "bound", [jaccard_at_most(sketches.bits, *facts[a], sketches.bits, *facts[b]) for a, b in pairs]
        yield (
            "jaccard",
            [pair_jaccard(cleaned[a], cleaned[b], 3, words, 8) for a, b in pairs for words in (False, True)],
        )
    # Around the end of a block of windows, in letters and in words; the table of few shingles that is too small for it.
    rng = np.random.default_rng(2)
    for size in (BLOCK + 2 * 5 - 1, BLOCK + 2 * 5, BLOCK + 2 * 5 + 1):
        points = rng.integers(97, 123, size, dtype=np.uint32)
        yield f"block {size}", minhash.signatures(points, np.zeros(1, np.int64), np.array([size]), 5, False, 3)
        points[1::2] = 32
        points[-1] = 97
        yield f"words {size}", minhash.signatures(points, np.zeros(1, np.int64), np.array([size]), 5, True, 3)


def components() -> Made:
    """Union-find, stars and the contraction on disk."""
    from headrace.select.duplicates.components import flatten, star_edges, union
    from headrace.select.duplicates.contraction import large_star, small_star

    rng = np.random.default_rng(3)
    for rows in (1, 2, 40):
        for dtype in ("<u4", "<u8"):
            parent, sizes = np.arange(rows, dtype=dtype), np.zeros(rows, dtype=dtype)
            pairs = rng.integers(0, rows, (rows - 1, 2), dtype=np.uint64)
            yield f"union {rows}", [union(parent, pairs), flatten(parent, sizes), parent, sizes]
    for n in (0, 1, 50):
        keys = np.sort(rng.integers(0, 1 + n // 3, n, dtype=np.uint64))
        state, edges = np.zeros(4, dtype=np.uint64), np.zeros((n, 2), dtype=np.uint64)
        yield (
            f"stars {n}",
            [star_edges(keys, keys, np.arange(n, dtype=np.uint64), np.uint64(n), state, edges), state, edges],
        )
        pairs = np.unique(rng.integers(0, 1 + n, (n, 2), dtype=np.uint64), axis=0)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        pairs = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
        pairs[pairs[:, 0] == pairs[:1, 0].sum(), 1] |= np.uint64(1 << 63)  # the first row is a star of its own
        state, out, whole = np.zeros(5, np.uint64), np.zeros_like(pairs), np.zeros_like(pairs)
        count, aside, changes = large_star(pairs, state, out, whole)
        yield f"large star {n}", [count, aside, changes, out, whole]
        found, state = out[:count][np.lexsort(out[:count].T[::-1])], np.zeros(5, np.uint64)
        yield f"small star {n}", [*small_star(found, state, out), out]


def contamination() -> Made:
    """N-grams in words and code, and whole fields, with items that begin or end a document."""
    from headrace.select.contamination.benchmarks import Item
    from headrace.select.contamination.index import build
    from headrace.select.contamination.matching import match

    exam = "Write a function that returns the sum \u0130 of all even numbers in a list \u6f22"
    fields = [exam, "return sum(x for x in items if x % 2 == 0) # " + "\U0001f600" * 20, "two words", ""]
    items = [Item(f"exam/{i}", {"question": text, "answer": fields[i - 1]}) for i, text in enumerate(fields)]
    documents = [
        *texts(),
        exam,
        exam.upper() + exam,
        "x " + exam + "x",
        exam[:-1],
        fields[1],
        fields[1][1:],
        "two words",
    ]
    for n, code in ((1, False), (4, False), (3, True), (60, True)):
        index = build(items, n, code, substring=n > 1)
        for data, offsets in [buffer(documents), *buffers(), *(buffer([text]) for text in documents[-7:])]:
            yield f"contamination {n}", match(data, offsets, index)


PROGRAM = """\
def total(items: list, limit=0x1F) -> float:
    '''Sums; it's "here".'''
    result = [x.value * 2.5e-3 for x in items if x is not None and x.kind != "a\\\\"]
    return sum(result) / (len(result) or 1), rb"\\x00", f'{limit!r:>4}' # \u6f22
"""


def programs() -> Made:
    """Whole texts of any length and the shapes of programs: renamed, reflowed, cut off, within and around texts."""
    from headrace.select.contamination.shapes import find_shapes, shape_of, shape_table
    from headrace.select.contamination.verbatim import find_verbatim, verbatim_table

    renamed = PROGRAM.replace("items", "\u6f22s").replace("result", "r").replace("    ", "\t")
    documents = [
        *texts(),
        PROGRAM,
        renamed,
        PROGRAM[:-30] + "x",
        f"{PROGRAM}\n{renamed}",
        "'''",
        '"a',
        "r'",
        "1e",
        "0x",
    ]
    for n, least in ((1, 1), (4, 3), (8, 12)):
        table = shape_table([PROGRAM, renamed, "", "x", "a = b\n"], n, least)
        for data, offsets in [buffer(documents), *buffers(), *(buffer([text]) for text in documents[-9:])]:
            yield f"shapes {n}", find_shapes(data, offsets, table)
    yield "shape", shape_of(PROGRAM)
    for whole in ([], ["", "a"], [PROGRAM, PROGRAM[3:], "\u0130\u03a3 x", "x" * 65, "ab"]):
        found = verbatim_table(whole)
        for data, offsets in [buffer([*documents, PROGRAM.upper()]), *buffers(), buffer(["x" * 66]), buffer([PROGRAM])]:
            yield f"verbatim {len(whole)}", find_verbatim(data, offsets, found)


def copied() -> Made:
    """Stretches of a text in documents: at either end, of the least length, repeated, and none."""
    from headrace.view.search.stretches import LEAST, find_stretches, table_of

    line = "a line that stands in several documents, with \u6f22 in it"
    documents = [*texts(), line, line[:-1], f"x{line}", line * 3, "x" * LEAST, "x" * (LEAST - 1)]
    for wanted in ("", "short", line, f"{line}\n{line}", "x" * (LEAST + 2)):
        table = table_of(wanted.encode())
        for data, offsets in [buffer(documents), *buffers(), *(buffer([text]) for text in documents[-6:])]:
            yield f"copied {len(wanted)}", find_stretches(data, offsets, table)


class Examples:
    """Awkward texts as examples, every second one a positive."""

    def __init__(self) -> None:
        import pyarrow as pa

        documents = [*texts(), "ab, \u6f22 " * 7000]  # the last of several windows
        labels = pa.array([i % 2 for i in range(len(documents))], pa.uint8())
        self.batch = pa.record_batch([pa.array(documents, pa.large_string()), labels], names=["text", "label"])

    def training(self, share: float) -> list[Any]:
        return [self.batch]


def annotators() -> Made:
    """The linear annotator: what it learns from awkward texts, and their scores."""
    from headrace.recipe.quality import Linear
    from headrace.select.quality.linear import LinearScorer

    examples: Any = Examples()
    config = Linear.model_validate({"positives": "none", "passes": 1})
    scorer = LinearScorer.train(config, examples, 1.0)
    yield "weights", scorer.save()
    yield "scores", scorer.score(examples.batch)
    yield "none", scorer.score(examples.batch.slice(0, 0))


def fasttext_file(pruned: bool) -> bytes:
    """A classifier of fastText with n-grams of words and characters; pruned ones are quantized."""
    words, labels, dim, bucket = ["</s>", "a", "x" * 40, "wheel", "\u6f22"], ["__label__a", "__label__b"], 4, 50
    rng = np.random.default_rng(7)

    def matrix(rows: int) -> bytes:
        return struct.pack("<2q", rows, dim) + rng.normal(size=(rows, dim)).astype("<f4").tobytes()

    kept = np.array([[3, 0], [17, 1], [49, 2]], dtype="<i4") if pruned else np.empty((0, 2), dtype="<i4")
    out = struct.pack("<2i12id", 793712314, 12, dim, 5, 1, 1, 5, 3, 3, 3, bucket, 1, 4, 100, 1e-4)
    out += struct.pack("<3i2q", len(words) + len(labels), len(words), len(labels), 9, len(kept) if pruned else -1)
    for name in (*words, *labels):
        out += name.encode() + struct.pack("<xqb", 3, name in labels)
    out += kept.tobytes() + bytes([pruned])
    if pruned:
        rows = len(words) + len(kept)
        out += struct.pack("<?2qi", False, rows, dim, 2 * rows) + rng.integers(0, 256, 2 * rows, np.uint8).tobytes()
        out += struct.pack("<4i", dim, 2, 2, 2) + rng.normal(size=256 * dim).astype("<f4").tobytes()
    else:
        out += matrix(len(words) + bucket)
    return out + bytes([False]) + matrix(len(labels))


def scorers() -> Made:
    """Published classifiers of fastText, and the units of pooled encoders."""
    from headrace.select.quality.fasttext import Classifier
    from headrace.select.quality.units import units

    for text in texts():
        yield "units", units(text)
    for pruned in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.bin"
            path.write_bytes(fasttext_file(pruned))
            model = Classifier(path)
            for data, offsets in [buffer(["</s> a wheel", *texts(), "__label__a a"]), *buffers()]:
                yield f"fastText {pruned}", model.probabilities(data, offsets)


def groups() -> Made:
    """Files joined into training documents: alone, in groups, beyond a limit, in pieces of any size."""
    from headrace.sequence.grouping.join import COUNTED, Sizes, joined_chunks
    from headrace.sequence.layout import GROUPED

    rng = np.random.default_rng(8)
    for count, limit in ((0, 8), (1, 8), (40, 1), (40, 30), (40, 1 << 30)):
        records = np.zeros(count, dtype=GROUPED)
        records["key"], records["row"] = np.arange(count) // 3, np.arange(count)
        records["group"] = records["key"]
        records["length"], records["lead"] = rng.integers(2, 12, count), rng.integers(0, 3, count)
        records["kind"], records["source"] = rng.integers(0, 2, count), records["key"] % 2
        sizes = Sizes(*(np.array([value, value]) for value in (limit, 1, 2)))
        for piece in (1, 7, 64):
            tally = np.zeros((2, len(COUNTED)), dtype=np.int64)
            chunks = (records[i : i + piece] for i in range(0, count, piece))
            made = [joined.tobytes() for _, joined in joined_chunks(chunks, sizes, tally)]
            yield f"groups {piece}", [b"".join(made), tally]


def byte_level(whole: bool, *patterns: str) -> dict[str, Any]:
    """A tokenizer of bytes with a few merges, two tokens that no merges reach, and split patterns."""
    from headrace.tokens.definition import byte_level_definition
    from headrace.tokens.vocabulary import byte_alphabet

    merges = [["a", "b"], ["t", "h"], ["th", "e"], ["\u0120", "the"], ["i", "t"], ["1", "2"], ["x", "x"], ["xx", "xx"]]
    vocabulary = dict(byte_alphabet())
    for piece in ("".join(pair) for pair in merges):
        vocabulary.setdefault(piece, len(vocabulary))
    vocabulary |= {"abx": len(vocabulary), "x" * 40: len(vocabulary) + 1}
    definition = byte_level_definition(vocabulary, merges)
    definition["model"]["ignore_merges"] = whole
    kept = {"behavior": "Isolated", "invert": False}
    splits = [{"type": "Split", "pattern": {"Regex": pattern}, **kept} for pattern in patterns]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {**definition, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, level]}}


def with_changes() -> dict[str, Any]:
    """Single digits, NFC, and added tokens before it and after it, one of them special."""
    from headrace.tokens.split_patterns import GPT2_PATTERN

    definition = byte_level(False, GPT2_PATTERN)
    digits = {"type": "Digits", "individual_digits": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    contents = [
        ("<p", False),
        ("b \xe9", False),
        ("</script", True),
        ("  ", False),
        ("x" * 16, True),
        ("\u6f22", False),
    ]
    added = [
        {
            "id": len(definition["model"]["vocab"]) + i,
            "content": content,
            "normalized": i > 2,
            "special": special,
            **flags,
        }
        for i, (content, special) in enumerate(contents)
    ]
    splits = {"type": "Sequence", "pretokenizers": [digits, level]}
    return {**definition, "normalizer": {"type": "NFC"}, "pre_tokenizer": splits, "added_tokens": added}


def sentencepiece() -> dict[str, Any]:
    """A tokenizer of characters with a few merges, and of bytes where it has no character."""
    from headrace.tokens.definition import byte_level_definition

    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    merges = [["\u2581", "a"], ["a", "b"], ["\u2581", "\u2581"], ["a", "a"], ["x", "x"], ["xx", "xx"]]
    for piece in ["a", "b", "x", "\u2581", "\u6f22", *("".join(merge) for merge in merges)]:
        vocabulary.setdefault(piece, len(vocabulary))
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    model = {"type": "BPE", "byte_fallback": True, "fuse_unk": True, "vocab": vocabulary, "merges": merges}
    sections = {"normalizer": replace, "pre_tokenizer": None, "decoder": None, "model": model}
    return {**byte_level_definition({}, []), **sections}


def tokens() -> Made:
    """The fast engine with every pattern, with and without whole words, in stretches of several sizes, and back."""
    from headrace.tokens.engine import Texts
    from headrace.tokens.fast import FastEngine
    from headrace.tokens.split_patterns import GPT2_PATTERN, LLAMA3_PATTERN

    rng = random.Random(7)
    odd = ["".join(rng.choices("aA'sS \n(1\xe9\u6f22\u3000\U0001f600\u2581", k=40)) for _ in range(10)]
    # Words and blanks longer than a stretch, and longer than a window of the merges, which repeat until they join.
    odd += [
        "\u0663" * 7 + "9\U0001d7d9" * 3,
        " " * 70 + "ab" * 40,
        "\xe9" * 60 + "'S'\u017f",
        "x" * 4099,
        "ab" * 1030 + "\u6f22" * 700,
        "\n" * 30 + "9 a" * 300,
        "e\u0301" * 40 + "\U0001d160\u0323" + "a\u0301\u0323b" + "\u1100\u1161",
        *("x" * n + "\u0301" for n in (62, 63, 64, 65)),
        "x" * 63 + "\xe9" * 70,
    ]
    given = [*buffers(), buffer(odd)]
    # One that knows every character; one that leaves some between, within the pieces of another that does.
    patterns = [(GPT2_PATTERN,), (LLAMA3_PATTERN,), (r"\s?\p{L}+", r"[^ab\s]+(?!x)|'\S")]
    patterned = [byte_level(whole, *some) for some in patterns for whole in (False, True)]
    for definition in [*patterned, with_changes(), sentencepiece()]:
        engine = FastEngine(definition, {})
        for stretch in (9, 4096):
            scanner = engine._tables.scanner._replace(stretch=stretch)
            engine._tables = engine._tables._replace(scanner=scanner)
            for data, offsets in given:
                encoded = engine.encode(Texts(data, offsets))
                yield f"tokens {stretch}", [encoded.tokens, encoded.offsets, engine.decode_batch(encoded).data]
                yield f"spans {stretch}", engine.spans(encoded, True, Texts(data, offsets))


def sequence() -> Made:
    """Cuts, packing, moving and the loader's description of rows."""
    from headrace.flow.slices import copy
    from headrace.sequence.cuts import character_cuts
    from headrace.sequence.packing import best_fit, concatenate, rows_of
    from headrace.sequence.place import collect
    from headrace.sequence.windows import PADDING, describe, unpack_targets

    rng = np.random.default_rng(4)
    for data, offsets in buffers():
        for draws in (np.zeros((len(offsets) - 1, 2)), np.full((len(offsets) - 1, 2), np.nextafter(1, 0))):
            yield "cuts", character_cuts(data, offsets, draws)
    for lengths in ([], [1], [8], [9], [7, 9, 17, 1, 8, 33], [*rng.integers(1, 40, 30)]):
        totals = np.array(lengths, dtype=np.int64)
        for first in (0, 5, 8):
            yield "concatenate", concatenate(totals, first, 8, rows_of(first + int(totals.sum()), 8))
        for least in (0, 5):
            yield "best fit", best_fit(totals, 8, least)
    stored, ends = np.arange(7, dtype=np.uint16), np.zeros(8, dtype=np.uint16)
    starts, sizes = np.array([0, 3, 7, 3], np.int64), np.array([3, 4, 0, 4], np.int64)
    offsets, counts = np.array([1, 0, 0, 4], np.int32), np.array([2, 4, 1, 1], np.int32)
    tails, tail = np.array([99, 98], np.uint16), np.array([0, 1, 1, 0], np.int64)
    collect(stored, starts, sizes, offsets, counts, tails, tail, ends, np.array([6, 2, 1, 0], np.int64))
    moved = np.zeros(4, dtype=np.uint8)
    copy(np.arange(4, dtype=np.uint8), np.array([3, 4, 0]), np.array([1, 0, 3]), moved, np.array([0, 4, 1]))
    yield "moved", [ends, moved]
    for restart in (False, True):
        ids, positions = np.zeros((2, 8), np.int32), np.zeros((2, 8), np.int32)
        bits, loss = np.packbits(rng.integers(0, 2, 18), bitorder="little"), np.zeros((2, 8), bool)
        unpack_targets(bits, 0, np.array([True, False]), loss)
        unpack_targets(bits[1:], 1, np.array([True]), loss[1:])
        kinds = np.array([0, PADDING, PADDING], np.uint8)
        bounds, start, length = (
            np.array([0, 2, 3], np.int32),
            np.array([0, 5, 0], np.int32),
            np.array([5, 4, 9], np.int32),
        )
        describe(bounds, start, length, kinds, restart, ids, positions, loss)
        yield "rows", [ids, positions, loss]


ROOMS: dict[str, Callable[[], Made]] = {
    room.__name__: room
    for room in (
        flow,
        documents,
        measures,
        signatures,
        components,
        contamination,
        copied,
        annotators,
        programs,
        scorers,
        groups,
        tokens,
        sequence,
    )
}
