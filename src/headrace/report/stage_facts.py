"""Facts about stages: ledgers from the manifests, FIM shares and sample rows from the rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.flow.artifact import Artifact
from headrace.report.facts import StageFacts, StageSourceFacts
from headrace.report.samples import Piece, SampleRow

if TYPE_CHECKING:
    from headrace.tokens.table_engine import Decoder

# How many rows from the start of the sequence to search for sample rows, how many to take, and how much to show.
LOOK_AT, SAMPLES, SHOW_PIECES, SHOW_CHARACTERS = 64, 2, 12, 4000


def ledger_facts(sequence: Artifact, batch: int | None) -> StageFacts:
    """What a stage's sequence holds, as its manifest counts it; no row is read.

    Args:
        sequence: the stage's sequence.
        batch: rows per step, from the recipe.
    """
    extra = sequence.manifest.extra
    ledger = extra["ledger"]
    sources = [
        StageSourceFacts(
            name=name,
            documents=entry["documents"],
            copies=entry["copies"],
            slice=(entry["slice"][0], entry["slice"][1]),
            epochs=entry["epochs"],
            tokens=entry["tokens_placed"] - entry["overlap"],
            loss_tokens=entry["loss_tokens"],
            fim_psm=entry["fim_psm"],
            fim_spm=entry["fim_spm"],
            groups=entry.get("groups"),
            by_length=tuple(entry.get("by_length", ())),
        )
        for name, entry in ledger["sources"].items()
    ]
    return StageFacts(
        name=sequence.manifest.stage or "",
        rows=sequence.rows,
        sequence_length=extra["seq_len"],
        tokens=sequence.rows * extra["seq_len"],
        padding=ledger["padding"],
        left_over=sum(entry["tail"] + entry["beyond_limit"] for entry in ledger["sources"].values()),
        sources=sources,
        batch=batch,
    )


def stage_facts(
    sequence: Artifact, batch: int | None, tokenizer: Artifact | None, documents: Artifact | None
) -> StageFacts:
    """What a stage's sequence holds, with what its rows say.

    Args:
        sequence: the stage's sequence.
        batch: rows per step, from the recipe.
        tokenizer: to decode sample rows; None leaves them out.
        documents: to say where the segments of sample rows come from; None leaves them out.
    """
    facts, fim = ledger_facts(sequence, batch), fim_shares(sequence)
    return replace(
        facts,
        sources=[replace(source, fim=fim.get(source.name, 0.0)) for source in facts.sources],
        samples=[] if tokenizer is None or documents is None else list(sample_rows(sequence, tokenizer, documents)),
    )


def fim_shares(sequence: Artifact) -> dict[str, float]:
    """The share of each source's positions that lie in rearranged segments, counted from the rows."""
    from headrace.sequence.store import open_sequence
    from headrace.sequence.windows import KINDS, PADDING

    rearranged = [kind for kind, name in KINDS.items() if "fim" in name]
    reader = open_sequence(sequence.path)
    n = len(reader.sources)
    total, fim = np.zeros(n), np.zeros(n)
    for shard in reader.all_shards():
        segments = shard.segments
        source, length, kind = segments["source"], segments["length"], segments["kind"]
        for counts, mine in ((total, kind != PADDING), (fim, np.isin(kind, rearranged))):
            counts += np.bincount(source[mine], weights=length[mine], minlength=n)
    return {name: float(fim[i] / total[i]) for i, name in enumerate(reader.sources) if fim[i]}


def sample_rows(sequence: Artifact, tokenizer: Artifact, documents: Artifact) -> Iterator[SampleRow]:
    """Of the first rows, the one that shows most, and the one that shows most of what the first lacks."""
    from headrace.sequence.store import open_sequence

    reader = open_sequence(sequence.path)
    left = [(row, _sights(reader.segments(row))) for row in range(min(LOOK_AT, len(reader)))]
    seen: set[tuple[int, ...]] = set()
    for _ in range(SAMPLES):
        row, sights = max(left, key=lambda pair: (len(pair[1] - seen), -pair[0]), default=(0, set()))
        if not sights - seen:
            return
        seen |= sights
        yield _sample(reader, row, tokenizer, documents)


def _sights(segments: np.ndarray) -> set[tuple[int, ...]]:
    """What a row has to show: kinds of segments by source, and starts of documents."""
    found: set[tuple[int, ...]] = set()
    for segment in segments:
        kind, source = int(segment["kind"]), int(segment["source"])
        found |= {(kind, source), (kind, source, int(segment["offset"] == 0))}
    return found


def _sample(reader: Any, row: int, tokenizer: Artifact, documents: Artifact) -> SampleRow:
    from headrace.documents.store import fetch
    from headrace.sequence.reader import ELSEWHERE
    from headrace.sequence.windows import KINDS, PADDING
    from headrace.tokens.load import open_decoder

    decoder = open_decoder(tokenizer)
    tokens, loss = reader.rows(row, row + 1)[0], reader.loss(row, row + 1)[0]
    segments = reader.segments(row)
    shown = segments[:SHOW_PIECES]
    wanted = shown["row"][(shown["kind"] != PADDING) & (shown["row"] != ELSEWHERE)].astype(np.int64)
    places = dict(
        zip(wanted.tolist(), fetch(documents, wanted, ["id", "origin_file", "origin_row"]).to_pylist(), strict=True)
    )
    pieces: list[Piece] = []
    left = SHOW_CHARACTERS
    for segment in shown:
        kind = int(segment["kind"])
        if kind == PADDING:
            pieces.append(Piece("", KINDS[kind], 0, "", "", 0, []))
            continue
        part = slice(int(segment["start"]), int(segment["start"] + segment["length"]))
        runs = _runs(decoder, tokens[part], loss[part], int(segment["offset"]) == 0, left)
        left -= sum(len(text) for text, _, _ in runs)
        place = places.get(int(segment["row"]))
        pieces.append(
            Piece(
                source=reader.sources[int(segment["source"])],
                kind=KINDS[kind],
                epoch=int(segment["epoch"]),
                id=place["id"] if place else "",
                origin=f"{place['origin_file']}:{place['origin_row']}" if place else "",
                offset=int(segment["offset"]),
                runs=runs,
            )
        )
        if left <= 0:
            break
    return SampleRow(row, len(segments), pieces, len(pieces) < len(segments) or left <= 0)


def _runs(
    decoder: Decoder, tokens: np.ndarray, loss: np.ndarray, first: bool, most: int
) -> list[tuple[str, bool, bool]]:
    """Decode a segment into runs of equal loss and specialness; about ``most`` characters of it."""
    special = np.isin(tokens, decoder.special_ids)
    change = np.flatnonzero((loss[1:] != loss[:-1]) | special[1:] | special[:-1]) + 1
    runs: list[tuple[str, bool, bool]] = []
    for a, b in zip([0, *change.tolist()], [*change.tolist(), len(tokens)], strict=True):
        if most <= 0:
            break
        # No token is longer than its bytes, so this many tokens are more than enough to show.
        text = decoder.decode(tokens[a : min(b, a + most)], first and a == 0).decode("utf-8", "replace")
        cut = text[:most] + ("…" if len(text) > most else "")
        runs.append((cut, bool(loss[a]), bool(special[a])))
        most -= len(text)
    return runs
