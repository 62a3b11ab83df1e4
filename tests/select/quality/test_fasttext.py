"""Published fastText models: the library's labels and probabilities, and files that are not what they say."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import MemoryShareError, UserError
from headrace.select.quality.fasttext import Classifier, best
from quick import examples

fasttext = pytest.importorskip("fasttext", reason="the library to compare with: pip install fasttext-numpy2-wheel")
if not hasattr(fasttext, "train_supervised"):
    pytest.skip("this fasttext can only predict", allow_module_level=True)

WORDS = [
    *["def", "class", "return", "import", "the", "of", "and", "naïve", "größe", "変数", "данные", "résumé", "x", "y"],
    *["0", "1", "{", "}", "(", ")", ";", "==", "->", "lambda", "café", "<s>", "a"],
]
KINDS = {
    "words": {},
    "pairs": {"wordNgrams": 2, "bucket": 500},
    "characters": {"minn": 2, "maxn": 4, "bucket": 300},
    "single characters": {"minn": 1, "maxn": 3, "bucket": 77, "wordNgrams": 3},
    "hierarchical": {"loss": "hs", "wordNgrams": 2, "bucket": 200},
    "one versus all": {"loss": "ova", "minn": 3, "maxn": 3, "bucket": 50},
    "negative sampling": {"loss": "ns"},
    "one label": {"loss": "hs", "labels": 1},
    "many labels": {"loss": "hs", "labels": 40},
}


def corpus(path: Path, labels: int, seed: int = 1) -> Path:
    """Lines whose words lean on their label, some of them new to each line."""
    draw = random.Random(seed)
    with open(path, "w", encoding="utf-8") as f:
        for _ in range(2500):
            label = min(int(draw.expovariate(0.7 if labels < 100 else 0.01)), labels - 1)
            words = [
                draw.choice([*WORDS[label % 7 :: 2], f"w{draw.randrange(300)}"]) for _ in range(draw.randrange(20))
            ]
            f.write(f"__label__{label} {' '.join(words)}\n")
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Models of all kinds by name, with their files."""
    folder = tmp_path_factory.mktemp("fasttext")
    made = {}
    for name, kind in KINDS.items():
        options = {"labels": 4, "dim": 9, "epoch": 3, "lr": 0.3, "thread": 1, "verbose": 0, "minCount": 2, **kind}
        text = corpus(folder / "corpus.txt", options.pop("labels"))
        model = fasttext.train_supervised(str(text), **options)
        path = folder / f"{name}.bin"
        model.save_model(str(path))
        made[name] = model, path
    for name, options in {
        "quantized": {},
        "norms": {"qnorm": True},
        "pruned": {"cutoff": 260, "retrain": False},
        "pruned, norms and outputs": {"cutoff": 300, "qnorm": True, "qout": True},
        "whole parts": {"dsub": 3},
    }.items():
        options = {"dsub": 2, **options}
        text = corpus(folder / "corpus.txt", 300 if options.get("qout") else 4)
        kind = {"minn": 2, "maxn": 3, "bucket": 400, "wordNgrams": 2}
        model = fasttext.train_supervised(str(text), dim=9, epoch=3, lr=0.3, thread=1, verbose=0, **kind)
        model.quantize(input=str(text), thread=1, verbose=0, **options)
        path = folder / f"{name}.ftz"
        model.save_model(str(path))
        made[name] = fasttext.load_model(str(path)), path
    return made


def buffers(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    parts = [text.encode() for text in texts]
    return np.frombuffer(b"".join(parts), np.uint8), np.cumsum([0, *map(len, parts)]).astype(np.int64)


def told(model, text: str) -> dict[str, float]:
    """What the library says: a document is one line."""
    labels, shares = model.predict(text.replace("\n", " "), k=-1, threshold=-1.0)
    return dict(zip((label.removeprefix("__label__") for label in labels), shares.tolist(), strict=True))


def check(model, ours: Classifier, texts: list[str], within: float) -> None:
    found = ours.probabilities(*buffers(texts))
    first = best(found)
    for row, text in enumerate(texts):
        library = told(model, text)
        if not library:
            assert np.isnan(found[row]).all()
            assert first[row] == -1
            continue
        mine = dict(zip(ours.labels, found[row].tolist(), strict=True))
        for label, share in library.items():  # the library leaves out what is below 1e-5
            assert mine[label] == pytest.approx(share, rel=2e-5, abs=within)
        top = model.predict(text.replace("\n", " "))[0][0].removeprefix("__label__")
        assert mine[top] == pytest.approx(max(mine.values()), abs=within)
        if sorted(library.values())[-2:][0] < library[top] - 1e-4 or len(library) == 1:
            assert ours.labels[first[row]] == top


ODD = ["", " ", "\n\n", "</s>", "a </s> b", "__label__0 x", "__label__9999 def", "a\x00b\x0bc\x0cd\re", "é" * 50,
       "x" * 5000, "\u200b\u3000 変数\u00a0данные", "<def> </s>s <", "\U0001f600 " * 30]  # fmt: skip


@pytest.mark.parametrize("name", [*KINDS, "quantized", "norms", "pruned", "pruned, norms and outputs", "whole parts"])
def test_labels_and_probabilities_are_those_of_the_library(models, name):
    model, path = models[name]
    draw = random.Random(7)
    texts = [
        " ".join(draw.choices([*WORDS, "w17", "w44", "new", "\n", "__label__", "__label__x"], k=draw.randrange(60)))
        for _ in range(150)
    ]
    # A table of sigmoids has steps of up to 1/128: a last bit decides which one is read.
    within = 8.1e-3 if KINDS.get(name, {}).get("loss") in ("ova", "ns") else 2e-6
    check(model, Classifier(path), [*texts, *ODD, " ".join(texts) * 20], within)


@settings(deadline=None, max_examples=examples(60))
@given(st.lists(st.text(max_size=80), min_size=1, max_size=5), st.sampled_from(["single characters", "pruned"]))
def test_any_text_is_read_as_the_library_reads_it(models, texts, name):
    model, path = models[name]
    check(model, Classifier(path), texts, 2e-6)


def test_a_text_is_scored_alike_wherever_it_stands_in_a_batch(models):
    ours = Classifier(models["single characters"][1])
    texts = [*ODD, "def f(x): return x", "the of and"]
    together = ours.probabilities(*buffers(texts))
    alone = np.concatenate([ours.probabilities(*buffers([text])) for text in texts])
    assert together.tobytes() == alone.tobytes()


def test_a_label_that_is_not_there_is_told_with_those_that_are(models):
    ours = Classifier(models["words"][1])
    assert ours.find("2", "here") == ours.find("__label__2", "here")
    with pytest.raises(UserError, match="no label 'nine'") as error:
        ours.find("nine", "quality.annotators.x.label")
    assert "Its labels are 0, " in str(error.value)


@pytest.mark.parametrize("name", ["characters", "hierarchical", "pruned, norms and outputs"])
def test_a_file_that_ends_early_is_refused(models, tmp_path, name):
    whole = models[name][1].read_bytes()
    path = tmp_path / "model.bin"
    ends = sorted({0, 1, 7, 8, 40, 60, 90, len(whole) - 1, *random.Random(3).sample(range(len(whole)), 60)})
    for end in ends:
        path.write_bytes(whole[:end])
        with pytest.raises(UserError):
            Classifier(path)


@settings(deadline=None, max_examples=examples(150))
@given(data=st.data(), name=st.sampled_from(["characters", "hierarchical", "pruned", "pruned, norms and outputs"]))
def test_a_damaged_file_is_refused_or_read_and_never_takes_what_is_not_there(models, tmp_path_factory, data, name):
    raw = bytearray(models[name][1].read_bytes())
    at = data.draw(st.one_of(st.integers(0, 120), st.integers(0, len(raw) - 8)))
    value = data.draw(st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31), 255, 10**6]))
    raw[at : at + 4] = struct.pack("<i", value)
    path = tmp_path_factory.mktemp("damaged") / "model.bin"
    path.write_bytes(raw)
    try:
        found = Classifier(path, most=1 << 24).probabilities(*buffers(["def f(x): return größe", "", "w17 変数"]))
    except UserError:
        return
    assert not np.isinf(found).any()


def test_words_without_a_classifier_are_refused(models, tmp_path):
    text = corpus(tmp_path / "corpus.txt", 3)
    path = tmp_path / "vectors.bin"
    fasttext.train_unsupervised(str(text), dim=4, epoch=1, thread=1, bucket=100, verbose=0).save_model(str(path))
    with pytest.raises(UserError, match="vectors of words"):
        Classifier(path)


def test_other_files_are_refused(tmp_path):
    for name, content in {"empty": b"", "text": b"hello " * 100, "pickle": b"\x80\x04\x95" + bytes(200)}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError):
            Classifier(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read"):
        Classifier(tmp_path / "nothing")


def test_a_model_larger_than_the_memory_is_refused_before_it_is_unpacked(models):
    with pytest.raises(MemoryShareError):
        Classifier(models["quantized"][1], most=1000)
