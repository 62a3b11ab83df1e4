"""Fill-in-the-middle of whole documents (Bavarian et al. 2022, 2207.14255).

A document is cut at two uniformly chosen characters into prefix P, middle M and suffix S, each encoded separately, and
arranged as ``<prefix> P <suffix> S <middle> M`` (PSM) or ``<prefix> <suffix> S <middle> P M`` (SPM, the paper's variant
2, which is PSM with an empty prefix, so that learning transfers between the two).

The pieces are encoded without extra spaces: with a dummy prefix, only the first nonempty piece of the text gets it. So
the bytes of the pieces in text order are those of the plain document.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.flow.keys import keyed, salt, unit
from headrace.flow.slices import gather
from headrace.sequence.cuts import character_cuts
from headrace.tokens.engine import Encoded, Engine, Texts, special_id

PLAIN, PSM, SPM = 0, 1, 2
"""Kinds of a document in a sequence's segments."""

SENTINELS = ("fim_prefix", "fim_suffix", "fim_middle")


class Transformed(NamedTuple):
    """Documents after fill-in-the-middle.

    Attributes:
        tokens: uint32[n_tokens], including sentinels; no end-of-document token (the sequence adds it).
        offsets: int64[n + 1].
        kind: uint8[n]: 0 plain, 1 PSM, 2 SPM.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    kind: np.ndarray


def draw(
    ids: np.ndarray, salt_key: int, rate: float | np.ndarray, spm: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw each document's kind and cuts.

    Args:
        ids: uint64[n, 2] document ids.
        salt_key: the salt of the purpose, including stage and epoch, so that each epoch has its own draws.
        rate: share of documents to transform, one value or float64[n].
        spm: share of these in SPM order, likewise.

    Returns:
        kind uint8[n] and cuts float64[n, 2] in [0, 1).
    """
    chosen = unit(keyed(salt(salt_key, "apply"), ids)) < rate
    order = unit(keyed(salt(salt_key, "spm"), ids)) < spm
    kind = np.where(chosen, np.where(order, SPM, PSM), PLAIN).astype(np.uint8)
    cuts = np.stack([unit(keyed(salt(salt_key, "cut", k), ids)) for k in (0, 1)], axis=1)
    return kind, cuts


def transform(texts: Texts, ids: np.ndarray, engine: Engine, salt_key: int, rate: float, spm: float) -> Transformed:
    """Encode documents, rearranging some. Each result depends only on the document's id and text.

    Args:
        texts: the documents' text.
        ids: uint64[n, 2] document ids.
        engine: the tokenizer.
        salt_key: ``keys.salt(seed, "fim", stage, epoch)``.
        rate: share of documents to transform; an empty document never is.
        spm: share of these in SPM order.

    Raises:
        UserError: the tokenizer lacks one of the sentinels.
    """
    kind, draws = draw(ids, salt_key, rate, spm)
    kind[np.diff(texts.offsets) == 0] = PLAIN
    return rearrange(texts, kind, draws, engine, first=True)


def rearrange(texts: Texts, kind: np.ndarray, draws: np.ndarray, engine: Engine, first: bool) -> Transformed:
    """Cut, encode and arrange documents whose kinds and cuts have been drawn.

    Args:
        texts: the documents' text.
        kind: uint8[n], see :class:`Transformed`.
        draws: float64[n, 2] in [0, 1): the two cuts, as shares of the code point boundaries.
        engine: the tokenizer.
        first: whether the texts begin documents (see :class:`~headrace.tokens.engine.Engine`).
    """
    cuts = character_cuts(texts.data, texts.offsets, draws)
    starts, ends = texts.offsets[:-1], texts.offsets[1:]
    # A document's pieces are consecutive in its text, so one list of offsets serves all pieces of all documents; an
    # untransformed one is all prefix.
    bounds = np.where((kind == PLAIN)[:, None], ends[:, None], cuts)
    offsets = np.concatenate([np.column_stack([starts, bounds]).ravel(), texts.offsets[-1:]])
    sizes = np.diff(offsets).reshape(-1, 3)
    lead = np.zeros(sizes.shape, dtype=bool)
    if len(sizes):
        lead[np.arange(len(sizes)), np.argmax(sizes > 0, axis=1)] = first
    pieces = engine.encode(Texts(texts.data, offsets), lead.ravel())
    return _lay_out(pieces, kind, engine)


def _lay_out(pieces: Encoded, kind: np.ndarray, engine: Engine) -> Transformed:
    """Put the encoded pieces (three per document: prefix, middle, suffix) and the sentinels in order."""
    n = len(kind)
    # Only transformed documents need sentinels, so rate 0 works with any tokenizer.
    ids = [special_id(engine, role) for role in SENTINELS] if (kind != PLAIN).any() else [0, 0, 0]
    source = np.concatenate([pieces.tokens, np.array(ids, dtype=np.uint32)])
    sentinel = np.full((n, 3), len(pieces.tokens), dtype=np.int64) + np.arange(3)
    start = pieces.offsets[:-1].reshape(n, 3)
    length = np.diff(pieces.offsets).reshape(n, 3)
    (pre, suf, mid), (p, m, s) = sentinel.T, start.T
    psm = np.stack([pre, p, suf, s, mid, m], axis=1)
    spm = np.stack([pre, suf, s, mid, p, m], axis=1)
    one = np.ones(n, dtype=np.int64)
    (lp, lm, ls) = length.T
    psm_length = np.stack([one, lp, one, ls, one, lm], axis=1)
    spm_length = np.stack([one, one, ls, one, lp, lm], axis=1)
    is_spm, plain = (kind == SPM)[:, None], kind == PLAIN
    starts, lengths = np.where(is_spm, spm, psm), np.where(is_spm, spm_length, psm_length)
    starts[plain] = p[plain, None]
    lengths[plain] = 0
    lengths[plain, 0] = lp[plain]
    offsets = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(lengths.sum(axis=1), out=offsets[1:])
    return Transformed(gather(source, starts.ravel(), lengths.ravel()), offsets, kind)


def reassemble(tokens: np.ndarray, engine: Engine) -> bytes:
    """The text of one document of a sequence, in its original order.

    Args:
        tokens: integers[k]: a whole document, transformed or not, with or without its end-of-document token.
        engine: the tokenizer that encoded it.

    Returns:
        The document's bytes.
    """
    tokens = np.asarray(tokens, dtype=np.uint32)
    if len(tokens) and tokens[-1] == engine.special.get("eod"):
        tokens = tokens[:-1]
    if len(tokens) and tokens[0] == engine.special.get("fim_prefix"):
        # Both orders are read the same way: what precedes the suffix sentinel starts the text, what follows the middle
        # sentinel continues it (in SPM the former is empty), and the suffix ends it.
        suffix = int(np.flatnonzero(tokens == special_id(engine, "fim_suffix"))[0])
        middle = int(np.flatnonzero(tokens == special_id(engine, "fim_middle"))[0])
        tokens = np.concatenate([tokens[1:suffix], tokens[middle + 1 :], tokens[suffix + 1 : middle]])
    return engine.decode(tokens, first=True)
