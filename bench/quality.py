"""The linear annotator: trained, told apart and timed beside fastText and a TF-IDF logistic model, on one split.

The two classes are Python files of the standard library and of the installed packages, which nothing but their style
and their subjects tells apart. A fifth of the files is held out.
"""

from __future__ import annotations

import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from bench.harness import Result, Setting, Side, compare, result
from headrace.recipe.quality import Linear
from headrace.select.quality.figures import auc
from headrace.select.quality.linear import LinearScorer

LONGEST = 100_000  # characters of a file
BATCH = 256
FASTER, LEAST_MB = 1.0, 40.0  # against peers; a core
Split = tuple[list[str], list[int]]


def python_files(mb: float) -> tuple[Split, Split]:
    """Texts and labels to train on, and to test with: as many million bytes of each class."""
    stdlib, packages = (Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib"))
    parts: tuple[Split, Split] = (([], []), ([], []))
    for label, root in enumerate((packages, stdlib)):
        size = 0.0
        for path in sorted(
            root.rglob("*.py"), key=lambda p: xxhash.xxh3_64_intdigest(str(p.relative_to(root)).encode())
        ):
            if label and (packages in path.parents or "test" in path.parts):
                continue
            text = path.read_text(encoding="utf-8", errors="ignore")[:LONGEST]
            if not text.strip():
                continue
            texts, labels = parts[xxhash.xxh3_64_intdigest(text.encode()) % 5 == 0]
            texts.append(text)
            labels.append(label)
            size += len(text)
            if size >= mb * 1e6 / 2:
                break
    return parts


def batches(texts: list[str], labels: list[int]) -> list[pa.RecordBatch]:
    """Examples as the annotator's step gives them, in an order that mixes the classes."""
    order = sorted(range(len(texts)), key=lambda i: xxhash.xxh3_64_intdigest(texts[i].encode()))
    columns = [pa.array([texts[i] for i in order], pa.large_string()), pa.array([labels[i] for i in order], pa.uint8())]
    batch = pa.record_batch(columns, names=["text", "label"])
    return [batch.slice(i, BATCH) for i in range(0, len(order), BATCH)]


class Examples:
    """Batches in memory."""

    def __init__(self, texts: list[str], labels: list[int]) -> None:
        self.batches = batches(texts, labels)

    def training(self, share: float) -> Iterator[pa.RecordBatch]:
        """All of them."""
        return iter(self.batches)


Score = Callable[[list[str]], np.ndarray]


def ours(train: Split) -> Score:
    """The scorer, on batches made beforehand as Documents holds them."""
    examples: Any = Examples(*train)
    scorer = LinearScorer.train(Linear.model_validate({"positives": "none"}), examples, 1.0)

    def score(texts: list[str]) -> np.ndarray:
        column = pa.array(texts, pa.large_string())
        batch = pa.record_batch([column], names=["text"])
        return np.concatenate([scorer.score(batch.slice(i, BATCH)) for i in range(0, len(texts), BATCH)])

    return score


def fasttext(train: Split) -> Score:
    """fastText as DCLM trains its classifier: pairs of words, the defaults otherwise but for its rate and passes."""
    import fasttext as library

    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        order = sorted(range(len(train[0])), key=lambda i: xxhash.xxh3_64_intdigest(train[0][i].encode()))
        file.writelines(f"__label__{train[1][i]} {' '.join(train[0][i].split())}\n" for i in order)
        file.flush()
        model = library.train_supervised(file.name, wordNgrams=2, lr=0.5, epoch=5, thread=1, verbose=0)

    def score(texts: list[str]) -> np.ndarray:
        labels, shares = model.predict([" ".join(text.split()) for text in texts], k=2)
        return np.array([s[list(names).index("__label__1")] for names, s in zip(labels, shares, strict=True)])

    return score


def tfidf(train: Split) -> Score:
    """Words, signs and pairs of these, sublinear, L2: the usual strong baseline."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    made = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, token_pattern=r"\w+|[^\w\s]")
    model = LogisticRegression(C=10, max_iter=200).fit(made.fit_transform(train[0]), train[1])
    return lambda texts: model.predict_proba(made.transform(texts))[:, 1]


PEERS: dict[str, Callable[[Split], Score]] = {"fasttext-community": fasttext, "scikit-learn TF-IDF": tfidf}


def run(setting: Setting) -> Iterator[Result]:
    """How well each tells the classes apart, and how fast it scores."""
    train, (texts, labels) = python_files(setting.mb)
    truth = np.array(labels, dtype=np.uint8)
    size = sum(len(text.encode()) for text in texts) / 1e6
    mine = ours(train)
    found = auc(mine(texts), truth) or 0.0
    yield compare(setting, "quality: score", None, "MB/s", Side(lambda: mine(texts), size), None, LEAST_MB, "ours")
    for name, make in PEERS.items():
        theirs = make(train)
        note = f"{len(texts)} held-out files"
        told = auc(theirs(texts), truth) or 0.0
        yield result(setting, "quality: ROC AUC", name, "AUC", [found], [told], 1.0, note=note)
        sides = Side(lambda: mine(texts), size), Side(lambda score=theirs: score(texts), size)  # type: ignore[misc]
        yield compare(setting, "quality: score", name, "MB/s", *sides, target=FASTER)
