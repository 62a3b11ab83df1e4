"""The kind ``linear``: logistic regression on which words, pairs of words and runs of bytes a text contains.

As in fastText (Joulin et al. 2016, 1607.01759), features are hashed into a table and there is one linear layer; unlike
there, a text is the set of its features, not their average, and there is one weight per feature in place of a vector:
for two classes an embedding of averaged n-grams and a linear layer on it are one linear function too, and one weight is
one access to memory. A text's score is ``sigmoid(bias + sum of weights / sqrt(number of features))``, where a feature
counts once per window; windows of a longer text are averaged by length, so that long texts do not run full.

Weights are learned by AdaGrad (Duchi, Hazan and Singer 2011), one window after the other in keyed order, so that the
same examples give the same bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.flow.kernels import borrowing, inlined, kernel
from headrace.select.quality.scorer import TrainedScorer, buffers

if TYPE_CHECKING:
    from headrace.recipe.quality import Linear
    from headrace.select.quality.examples import Examples

BITS = 20
WINDOW = 1 << 15  # bytes
# Of 0.1, 0.2, 0.5 and 1: the best AUC for the least separable of five pairs of corpora (0.837 for 0.810 at 0.5), and
# within 0.0004 of the best for the others.
RATE = 0.1
FILE = "weights.npy"

_SHIFT = np.uint64(64 - BITS)
# 64-bit FNV-1a's basis and prime; the others are 2**64 over the golden ratio and Stafford's Mix13 multipliers.
_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_MIX, _PAIR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_RUN = np.uint64(0x94D049BB133111EB)
_RUN_MASK = np.uint64((1 << 40) - 1)  # runs of five bytes

_SPACE, _WORD, _SIGN = 0, 1, 2
_CLASS = np.full(256, _SIGN, dtype=np.uint8)
_CLASS[[ord(c) for c in " \t\n\r\v\f\0"]] = _SPACE
_CLASS[[*range(48, 58), *range(65, 91), *range(97, 123), ord("_"), *range(128, 256)]] = _WORD
_FOLDED = np.arange(256, dtype=np.uint64)
_FOLDED[65:91] += np.uint64(32)


@borrowing
def features(data: npt.NDArray[np.uint8], start: int, stop: int, out: npt.NDArray[np.uint32]) -> int:
    """Write the bucket of every feature of a window into ``out``, uint32[at least 3 * (stop - start) + 2]; returns how
    many there are. Features that occur again are written again."""
    n = np.uint64(0)
    run, word, before = np.uint64(0), _BASIS, _BASIS
    for i in range(np.uint64(start), np.uint64(stop)):
        c = data[i]
        run = ((run << np.uint64(8)) | np.uint64(c)) & _RUN_MASK
        out[n] = (run * _RUN) >> _SHIFT
        n += np.uint64(1)
        kind = _CLASS[c]
        if kind == _WORD:
            word = (word ^ _FOLDED[c]) * _PRIME
            continue
        if word != _BASIS:
            n = _token(word, before, out, n)
            before, word = word, _BASIS
        if kind == _SIGN:
            sign = (_BASIS ^ np.uint64(c)) * _PRIME
            n = _token(sign, before, out, n)
            before = sign
    if word != _BASIS:
        n = _token(word, before, out, n)
    return int(n)


@inlined
def _token(token: np.uint64, before: np.uint64, out: npt.NDArray[np.uint32], n: np.uint64) -> np.uint64:
    """A word or sign, and its pair with the one before."""
    out[n] = (token * _MIX) >> _SHIFT
    out[n + np.uint64(1)] = ((token + before * _PAIR) * _MIX) >> _SHIFT
    return n + np.uint64(2)


@borrowing
def _sum(
    found: npt.NDArray[np.uint32],
    n: int,
    weights: npt.NDArray[np.float32],
    seen: npt.NDArray[np.uint32],
    mark: np.uint32,
) -> tuple[float, int]:
    """The sum of the weights of distinct features, and how many these are; ``seen`` holds the last mark of each."""
    total, count = 0.0, 0
    for k in range(np.uint64(n)):
        f = np.uint64(found[k])
        new = seen[f] != mark
        seen[f] = mark
        total += np.float64(weights[f]) * new
        count += new
    return total, count


@kernel
def _score(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
    bias: float,
    seen: npt.NDArray[np.uint32],
    mark: np.uint32,
    found: npt.NDArray[np.uint32],
    out: npt.NDArray[np.float64],
) -> np.uint32:
    """The log-odds of each text; returns the last mark used."""
    for i in range(len(out)):
        start, stop = offsets[i], offsets[i + 1]
        total = 0.0
        while start < stop:
            end = min(start + WINDOW, stop)
            n = features(data, start, end, found)
            mark += np.uint32(1)
            sum_, count = _sum(found, n, weights, seen, mark)
            total += (end - start) * (sum_ / math.sqrt(count))
            start = end
        out[i] = bias + (total / (stop - offsets[i]) if stop > offsets[i] else 0.0)
    return mark


@kernel
def _learn(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    labels: npt.NDArray[np.uint8],
    weights: npt.NDArray[np.float32],
    squares: npt.NDArray[np.float32],
    state: npt.NDArray[np.float64],
    seen: npt.NDArray[np.uint32],
    mark: np.uint32,
    found: npt.NDArray[np.uint32],
    rate: float,
) -> np.uint32:
    """One pass over some examples, a step for each window. ``state`` is the bias and the sum of its squared gradients;
    ``squares`` those of the weights."""
    for i in range(len(labels)):
        start, stop = offsets[i], offsets[i + 1]
        while start < stop:
            end = min(start + WINDOW, stop)
            n = features(data, start, end, found)
            mark += np.uint32(1)
            total, count = 0.0, 0
            for k in range(n):
                f = found[k]
                if seen[f] != mark:
                    seen[f] = mark
                    found[count] = f
                    count += 1
                    total += np.float64(weights[f])
            norm = 1 / math.sqrt(count)
            error = 1 / (1 + math.exp(-(state[0] + total * norm))) - labels[i]
            error *= (end - start) / (stop - offsets[i])
            step = error * norm
            for k in range(count):
                f = found[k]
                square = np.float64(squares[f]) + step * step
                squares[f] = square
                weights[f] = np.float64(weights[f]) - rate * step / math.sqrt(square + 1e-12)
            state[1] += error * error
            state[0] -= rate * error / math.sqrt(state[1] + 1e-12)
            start = end
    return mark


class LinearScorer(TrainedScorer):
    """The scorer: a table of weights.

    Args:
        weights: float32[2**20].
        bias: added to every sum.
    """

    VERSION: ClassVar[int] = 2

    def __init__(self, weights: npt.NDArray[np.float32], bias: float) -> None:
        self.weights, self.bias = weights, bias
        self._seen, self._mark = np.zeros(len(weights), dtype=np.uint32), np.uint32(0)
        self._found = np.empty(3 * WINDOW + 2, dtype=np.uint32)

    @classmethod
    def open(cls, config: Linear, file: Callable[[str], Path], memory: int) -> LinearScorer:
        """Open what :meth:`save` wrote."""
        held = np.load(file(FILE), allow_pickle=False)
        return cls(held[:-1], float(held[-1]))

    def save(self) -> dict[str, bytes]:
        """The weights, and the bias after them: float32[2**20 + 1]."""
        out = io.BytesIO()
        np.save(out, np.append(self.weights, np.float32(self.bias)))
        return {FILE: out.getvalue()}

    @classmethod
    def train(cls, config: Linear, examples: Examples, share: float) -> LinearScorer:
        """Train one."""
        made = cls(np.zeros(1 << BITS, dtype=np.float32), 0.0)
        squares, state = np.zeros(1 << BITS, dtype=np.float32), np.zeros(2)
        for _ in range(config.passes):
            for batch in examples.training(share):
                data, offsets = buffers(batch)
                labels = batch.column("label").to_numpy()
                made._mark = _learn(
                    data,
                    offsets,
                    labels,
                    made.weights,
                    squares,
                    state,
                    made._seen,
                    made._room(offsets),
                    made._found,
                    RATE,
                )
        made.bias = float(np.float32(state[0]))
        return made

    def score(self, batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
        """Probabilities of being a positive."""
        data, offsets = buffers(batch)
        out = np.empty(batch.num_rows)
        self._mark = _score(data, offsets, self.weights, self.bias, self._seen, self._room(offsets), self._found, out)
        return (1 / (1 + np.exp(-out))).astype(np.float32)

    def _room(self, offsets: npt.NDArray[np.int64]) -> np.uint32:
        """The mark to go on from; all are forgotten before they run out."""
        windows = int(offsets[-1]) // WINDOW + len(offsets)
        if int(self._mark) + windows >= 1 << 32:
            self._seen[:] = 0
            self._mark = np.uint32(0)
        return self._mark
