"""Join: the files of each group into training documents, still only as numbers.

One task per block of the document order. A file of a group gets its final length, with what joins it to the next.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from headrace.flow.exchange import partition_counts, sorted_partition
from headrace.flow.kernels import kernel
from headrace.flow.notices import Notice
from headrace.flow.task import TaskContext
from headrace.sequence.fim import PLAIN
from headrace.sequence.layout import BASE, GROUPED, INNER, MORE, SAMPLED
from headrace.sequence.parameters import SequenceParameters

# Best-fit packing holds the files of a document, and counts its tokens in 32 bits.
MOST_FILES, MOST_TOKENS = 1 << 16, 1 << 30
_ORDER = ("key", "epoch", "group", "rank", "row")
# What a source is counted in: files in groups, training documents made of them, those that begin in the middle of a
# group because of a limit, the largest numbers of files and tokens in one, documents that stand alone, tokens added.
COUNTED = ("files", "documents", "cut", "most_files", "most_tokens", "alone", "added")
LARGEST = ("most_files", "most_tokens")


class Sizes(NamedTuple):
    """What bounds the training documents of each source, by its index in the token store: int64[sources] each.

    Attributes:
        limit: tokens in one, its end included.
        plain: tokens between a file as it was and the next.
        rearranged: tokens between a file that FIM rearranged and the next.
    """

    limit: np.ndarray
    plain: np.ndarray
    rearranged: np.ndarray

    @staticmethod
    def of(sequence: SequenceParameters, ctx: TaskContext) -> Sizes:
        """Those of a stage."""
        names = ctx.input("tokens").manifest.extra["sources"]
        sizes = Sizes(np.full(len(names), MOST_TOKENS), *np.zeros((2, len(names)), dtype=np.int64))
        engine = sequence.engine(ctx)
        for name, joiner in sequence.joiners(ctx).items():
            i, limit = names.index(name), sequence.groups[name].limit
            plain, rearranged = joiner.between(engine)
            sizes.limit[i] = min(MOST_TOKENS, limit or MOST_TOKENS)
            sizes.plain[i], sizes.rearranged[i] = len(plain), len(rearranged)
        return sizes


def plan(sequence: SequenceParameters, ctx: TaskContext) -> list[dict[str, Any]]:
    """One task per nonempty block; a tokenizer without the format's control tokens is reported before."""
    sequence.joiners(ctx)
    _tell(sequence, ctx)
    counts = partition_counts(ctx, "sample", "sampled")
    return [{"block": int(block), "size": int(counts[block])} for block in np.flatnonzero(counts)]


def _tell(sequence: SequenceParameters, ctx: TaskContext) -> None:
    """Say of which sources nothing is grouped, and which groups could not be put in order."""
    groups = ctx.input("groups").manifest
    for name, group in sequence.groups.items():
        if not groups.counts[name]["grouped"] and groups.counts[name]["alone"]:
            what = "repository: name its field in `fields.repo`" if group.by == "repo" else "folder in its path"
            warnings.warn(f"No document of source {name!r} has a {what}. None is grouped.", Notice, stacklevel=2)
    if groups.extra["groups_as_read"]:
        warnings.warn(
            f"{groups.extra['as_read']:,} files keep the order in which they were read: their "
            f"{groups.extra['groups_as_read']:,} groups are too large to be put in another.",
            Notice,
            stacklevel=2,
        )


def file_name(block: int) -> str:
    """The intermediate file of a block: SAMPLED records in their final order."""
    return f"joined-{block:05d}.records"


def work(sequence: SequenceParameters, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
    """Join the files of one block."""
    sizes = Sizes.of(sequence, ctx)
    tally = np.zeros((len(sizes.limit), len(COUNTED)), dtype=np.int64)
    tokens = 0
    with ctx.intermediate(file_name(spec["block"])) as out, open(out.path, "wb") as file:
        chunks = sorted_partition(ctx, "sample", "sampled", spec["block"], GROUPED, _ORDER)
        for records, joined in joined_chunks(chunks, sizes, tally):
            joined.tofile(file)
            tokens += int(joined["length"].sum()) + int(((joined["kind"] & MORE) == 0).sum())
            ctx.progress(rows=len(records))
    counts = [dict(zip(COUNTED, values, strict=True)) for values in tally.tolist()]
    return {"block": spec["block"], "tokens": tokens, "sources": counts}


def joined_chunks(
    chunks: Iterator[np.ndarray], sizes: Sizes, tally: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Join sorted records.

    Args:
        chunks: GROUPED records in order, in any pieces.
        sizes: see there.
        tally: int64[sources, len(COUNTED)], added to.

    Yields:
        records as they came, and SAMPLED with their final lengths and kinds: of a file, ``length`` includes the tokens
        between it and the next.
    """
    state = np.zeros(3, dtype=np.int64)  # of the open document: tokens, files, tokens between its last file and a next
    largest = np.zeros((len(tally), 2), dtype=np.int64)
    held, begun = np.empty(0, dtype=GROUPED), np.empty(0, dtype=bool)
    for chunk in chunks:
        records, begins = np.concatenate([held, chunk]), np.append(begun, np.zeros(len(chunk), dtype=bool))
        source = records["source"].astype(np.int64)
        between = _between(records, sizes)
        same = np.zeros(len(records), dtype=bool)
        same[1:] = np.all([records[name][1:] == records[name][:-1] for name in ("key", "epoch", "group")], axis=0)
        lead = records["lead"].astype(np.int64)
        body = records["length"].astype(np.int64) - lead
        _begin(len(held), same, body, lead, between, sizes.limit[source], source, state, begins, largest)
        cut = len(held) + np.flatnonzero((begins & same)[len(held) :])
        np.add.at(tally[:, COUNTED.index("cut")], source[cut], 1)
        if len(records) > 1:
            yield _finished(records[:-1], begins, between[:-1], tally)
        # Only the next record tells whether this is the last file of its document.
        held, begun = records[-1:], begins[-1:]
    if len(held):
        yield _finished(held, np.append(begun, True), _between(held, sizes), tally)
    of = [COUNTED.index(name) for name in LARGEST]
    tally[:, of] = np.maximum(tally[:, of], largest)


def _between(records: np.ndarray, sizes: Sizes) -> np.ndarray:
    """int64[n]: the tokens between a file and the next."""
    source, rearranged = records["source"], (records["kind"] & BASE) != PLAIN
    return np.asarray(np.where(rearranged, sizes.rearranged[source], sizes.plain[source]))


@kernel
def _begin(
    first: int,
    same: np.ndarray,
    body: np.ndarray,
    lead: np.ndarray,
    between: np.ndarray,
    limit: np.ndarray,
    source: np.ndarray,
    state: np.ndarray,
    begins: np.ndarray,
    largest: np.ndarray,
) -> None:
    """Find where training documents begin: where a group does, or where a file would exceed a limit.

    Args:
        first: the first record to look at.
        same: bool[n], whether a record is of the same group as the one before.
        body: int64[n], its tokens.
        lead: int64[n], further tokens if it is a first file.
        between: int64[n], tokens between it and a next file.
        limit: int64[n], tokens in a document of its source.
        source: int64[n].
        state: int64[3], of the open document, updated.
        begins: bool[n], filled from ``first`` on.
        largest: int64[sources, 2], the most files and tokens, updated.
    """
    tokens, files, after = state[0], state[1], state[2]
    for i in range(first, len(body)):
        more = tokens + after + body[i]
        begins[i] = not (same[i] and files < MOST_FILES and more + 1 <= limit[i])
        tokens = lead[i] + body[i] if begins[i] else more
        files = 1 if begins[i] else files + 1
        after = between[i]
        largest[source[i], 0] = max(largest[source[i], 0], files)
        largest[source[i], 1] = max(largest[source[i], 1], tokens + 1)
    state[0], state[1], state[2] = tokens, files, after


def _finished(
    records: np.ndarray, begins: np.ndarray, between: np.ndarray, tally: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Records with their final lengths and kinds; ``begins`` has one entry more, for the record that follows."""
    first, more = begins[:-1], ~begins[1:]
    added = np.where(more, between, 0) - np.where(first, 0, records["lead"].astype(np.int64))
    joined = np.zeros(len(records), dtype=SAMPLED)
    for name in ("key", "row", "epoch", "source"):
        joined[name] = records[name]
    joined["length"] = records["length"] + added
    joined["kind"] = records["kind"] | np.where(first, 0, INNER) | np.where(more, MORE, 0)
    alone = records["group"] == records["row"]
    for name, values in (("files", ~alone), ("alone", alone), ("documents", ~alone & first), ("added", added)):
        np.add.at(tally[:, COUNTED.index(name)], records["source"], values.astype(np.int64))
    return records, joined


def totals(results: list[dict[str, Any]]) -> list[dict[str, int]]:
    """What all blocks count, by source."""
    out: list[dict[str, int]] = []
    for counts in zip(*(result["sources"] for result in results), strict=True):
        out.append({
            name: max(c[name] for c in counts) if name in LARGEST else sum(c[name] for c in counts) for name in COUNTED
        })  # fmt: skip
    return out
