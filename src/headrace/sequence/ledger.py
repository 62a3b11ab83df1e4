"""The ledger: where every token of a stage came from and went, per source, checked against the rows."""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest
from typing import Any

import numpy as np

from headrace.flow.artifact import ConservationError
from headrace.flow.task import TaskContext
from headrace.sequence.epochs import ResolvedSource
from headrace.sequence.grouping import join
from headrace.sequence.parameters import SequenceParameters
from headrace.sequence.windows import JOINED, KINDS, PADDING


def balance(sequence: SequenceParameters, ctx: TaskContext) -> tuple[dict[str, Any], dict[str, Any]]:
    """Add up the counts of the phases.

    For each source: ``tokens_in`` (in the store) + ``added`` (by fill-in-the-middle of documents, by templates, and to
    join files) + ``ends`` (end-of-document tokens) = ``tokens_placed`` - ``rearranged`` (added by fill-in-the-middle of
    rows, minus what it cut off) - ``overlap`` (tokens shared by two rows) + ``tail`` (less than a row, at the end) +
    ``beyond_limit``. ``refused``, if any, counts the conversations that the template does not render, ``groups`` what
    became of files in groups, ``by_length`` what was taken of documents of each length.

    Returns:
        The manifest's counts and its ledger.

    Raises:
        ConservationError: tokens were lost or created on the way.
    """
    names: list[str] = ctx.input("tokens").manifest.extra["sources"]
    chosen = _chosen(ctx)
    packed = {
        field: _sum(ctx, "pack", field, len(names), whole) for field, whole in
        (("placed", None), ("overlap", None), ("ends", None), ("tail", True), ("beyond_limit", False))
    }  # fmt: skip
    written = {field: _sum(ctx, "shuffle", field, len(names)) for field in ("before", "placed", "loss")}
    shuffled = ctx.results("shuffle")
    by_document = sequence.section.fim_level == "document"
    encoded = ctx.results("encode") if sequence.chat_sources else []
    joined = dict(zip(names, join.totals(ctx.results("join")), strict=False)) if sequence.groups else {}
    refused = sum((Counter(result.get("refused", {})) for result in encoded), Counter[str]())
    sources: dict[str, Any] = {}
    for name, takes in _by_source(sequence, ctx).items():
        i, parts = names.index(name), [chosen.get(take.key, _nothing(take.copies)) for take in takes]
        held = _together(parts)
        copies = sum(held["copies_by_epoch"])
        entry = {
            "slice": list(takes[0].slice),
            "epochs": _epochs(takes[0], parts[0]) if len(takes) == 1 else copies / max(1, held["slice"]),
            "documents": held["documents"],
            "copies": copies,
            "copies_by_epoch": held["copies_by_epoch"],
            "wanted": None if takes[0].wanted is None else sum(take.wanted or 0 for take in takes),
            "reached": held["laid"] + copies,
            "tokens_in": held["tokens"],
            "added": held["laid"] - held["tokens"] + joined.get(name, {}).get("added", 0),
            "ends": int(packed["ends"][i]),
            "rearranged": int(written["placed"][i] - written["before"][i]),
            "overlap": int(packed["overlap"][i]),
            "tail": int(packed["tail"][i]),
            "beyond_limit": int(packed["beyond_limit"][i]),
            "tokens_placed": int(written["placed"][i]),
            "loss_tokens": int(written["loss"][i]),
            # Documents or, with fim_level: context, the pieces of rows.
            "fim_psm": held["fim_psm"] if by_document else _kind(shuffled, "fim-psm", i),
            "fim_spm": held["fim_spm"] if by_document else _kind(shuffled, "fim-spm", i),
            "chat": held["chat"],
        }
        if takes[0].lengths is not None:
            entry["by_length"] = [_of_length(take, part) for take, part in zip(takes, parts, strict=True)]
        if name in refused:
            entry["refused"] = refused[name]
        if name in sequence.groups and name in joined:
            entry["groups"] = {field: value for field, value in joined[name].items() if field != "added"}
        came = entry["tokens_in"] + entry["added"] + entry["ends"]
        went = int(written["before"][i]) - entry["overlap"] + entry["tail"] + entry["beyond_limit"]
        if came != went or int(written["before"][i]) != int(packed["placed"][i]):
            raise ConservationError(
                f"sequence {sequence.stage}: of source {name!r} {came} tokens came and {went} went: {entry}"
            )
        sources[name] = entry
    rows = sum(result["rows"] for result in shuffled)
    padding = sum(result["padding"] for result in shuffled)
    placed = int(written["placed"].sum())
    if rows * (sequence.seq_len + 1) != placed + padding:
        raise ConservationError(f"sequence {sequence.stage}: {rows} rows hold {placed} tokens and {padding} of padding")
    known = [name for kind, name in KINDS.items() if sequence.groups or kind < JOINED or kind == PADDING]
    kinds = {name: sum(sum(result["segments"][name]) for result in shuffled) for name in known}
    ledger = {"sources": sources, "rows": rows, "tokens_placed": placed, "padding": padding, "segments": kinds}
    counts = {
        name: {field: entry[field] for field in ("documents", "copies", "tokens_in", "tokens_placed")}
        for name, entry in sources.items()
    }
    return counts, ledger


def _by_source(sequence: SequenceParameters, ctx: TaskContext) -> dict[str, list[ResolvedSource]]:
    """What is taken of each source: one thing, or several by length."""
    takes: dict[str, list[ResolvedSource]] = {}
    for take in sequence.resolved(ctx).sources:
        takes.setdefault(take.name, []).append(take)
    return takes


def _epochs(take: ResolvedSource, held: dict[str, Any]) -> float:
    """Only now, when the rows' tokens are counted, is it known what a weight amounts to."""
    return take.epochs if take.wanted is None else sum(held["documents"]) / held["slice"]


def _together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts of a source over all lengths; a document is of one of them."""
    held = {field: sum(part[field] for part in parts) for field in parts[0] if field != "documents"}
    by_epoch = [sum(copies) for copies in zip_longest(*(part["documents"] for part in parts), fillvalue=0)]
    return {**held, "documents": sum(max(part["documents"]) for part in parts), "copies_by_epoch": by_epoch}


def _of_length(take: ResolvedSource, held: dict[str, Any]) -> dict[str, Any]:
    """What is taken of a source's documents of some lengths."""
    return {
        "lengths": take.lengths,
        "epochs": _epochs(take, held),
        "documents": max(held["documents"]),
        "copies": sum(held["documents"]),
        "wanted": take.wanted,
        "reached": held["laid"] + sum(held["documents"]),
        "tokens_in": held["tokens"],
    }


def _kind(shuffled: list[dict[str, Any]], kind: str, source: int) -> int:
    return sum(int(result["segments"][kind][source]) for result in shuffled)


def _nothing(copies: int) -> dict[str, Any]:
    return {"documents": [0] * copies, "slice": 0, "tokens": 0, "laid": 0, "fim_psm": 0, "fim_spm": 0, "chat": 0}


def _chosen(ctx: TaskContext) -> dict[str, dict[str, Any]]:
    totals: dict[str, dict[str, Any]] = {}
    for result in ctx.results("sample"):
        for name, tally in result["sources"].items():
            total = totals.setdefault(name, _nothing(len(tally["documents"])))
            for field, value in tally.items():
                if field == "documents":
                    total[field] = [a + b for a, b in zip(total[field], value, strict=True)]
                else:
                    total[field] += value
    return totals


def _sum(ctx: TaskContext, phase: str, field: str, sources: int, whole: bool | None = None) -> np.ndarray:
    """A field summed over tasks, int64[sources]; with ``whole``, tokens in no row of streams not cut short, or cut."""
    total = np.zeros(sources, dtype=np.int64)
    for result in ctx.results(phase):
        if whole is None:
            total += np.array(result[field], dtype=np.int64)
        elif result["whole"] == whole:
            total += np.array(result["left"], dtype=np.int64)
    return total
