"""The step that takes a stage's rows from other files: one sequence after the other, or mixed by weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from headrace.flow.artifact import ConservationError
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.formats.format import Exported
from headrace.sequence.context import PlacedRows
from headrace.sequence.layout import MOST_SHARDS
from headrace.sequence.reader import ELSEWHERE, SEGMENT, SequenceReader, require_known
from headrace.sequence.shuffle import targets_with_loss, write_shard
from headrace.sequence.windows import KINDS, PADDING
from headrace.tokens.engine import token_dtype

# Tokens of a shard; a task holds them with their masks and segments.
SHARD_BYTES = 16 << 20
TASK_MEMORY = 10 * SHARD_BYTES
ORDER = "order.u16"  # whose row comes where
LEAST_SHARE = 0.05  # a sequence with more is read whole


@dataclass(frozen=True)
class Taken:
    """Rows of a sequence that lies elsewhere.

    Attributes:
        sequence: the sequence.
        start, stop: its rows.
        weight: its share of a mixture; None if its rows follow those before, and share their weight.
    """

    sequence: Exported
    start: int
    stop: int
    weight: float | None = None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.stop - self.start


def groups(taken: Sequence[Taken]) -> list[list[Taken]]:
    """The parts whose rows follow one another: all, or those that share a weight."""
    out: list[list[Taken]] = []
    for one in taken:
        if one.weight is not None or not out:
            out.append([])
        out[-1].append(one)
    return out


def shares(groups: Sequence[Sequence[Taken]]) -> list[int]:
    """How many rows of an epoch come from each group."""
    rows = [sum(one.rows for one in group) for group in groups]
    if groups[0][0].weight is None:
        return rows
    weights = [group[0].weight or 0.0 for group in groups]
    weights = [weight / sum(weights) for weight in weights]
    total = max(n / weight for n, weight in zip(rows, weights, strict=True) if weight > LEAST_SHARE)
    return [int(total * weight) for weight in weights]


@dataclass(frozen=True)
class ImportedSequence(Step):
    """A stage's rows, copied from other files in their order.

    With weights, the order is that of the Cerebras Model Zoo's ``Mixture`` (``h5_map_dataset/readers.py``), which
    CrystalCoder was trained with: enough rows that each sequence with more than 5 % is read once; a shuffle says whose
    row comes where; the rows of each come in their order, and again from the first. Every epoch has the same order.

    Attributes:
        stage: the stage's name.
        taken: where the rows come from, in order.
        seq_len: targets of a row.
        seed: of the shuffle of a mixture.
        tokenizer: the Tokenizer step.
        epochs: how often all of it is read.
    """

    stage: str = field()  # the base class has None, which would make it optional
    taken: tuple[Taken, ...]
    seq_len: int
    seed: int
    tokenizer: Step
    epochs: int = 1

    kind: ClassVar[str] = "sequence"
    VERSION: ClassVar[int] = 1

    def params(self) -> dict[str, Any]:
        """What the files hold, and which rows of them are taken."""
        rows = [[one.sequence.identity, one.sequence.name, one.start, one.stop, one.weight] for one in self.taken]
        more = {"seed": self.seed} if self.is_mixed else {}
        more |= {"epochs": self.epochs} if self.epochs > 1 else {}
        return {"imported": rows, "sequence_length": self.seq_len, "stage": self.stage, **more}

    def inputs(self) -> dict[str, Step]:
        """The tokenizer."""
        return {"tokenizer": self.tokenizer}

    def phases(self) -> list[Phase]:
        """The order of a mixture first; then a task a shard."""
        # A row's number and whose it is; a row is a thousand times as large.
        order = Phase("order", lambda ctx: [{}], self._order, lambda spec: 16 * sum(self.shares))
        copy = Phase("copy", self._plan, self._copy, lambda spec: TASK_MEMORY)
        return [order, copy] if self.is_mixed else [copy]

    @property
    def is_mixed(self) -> bool:
        """Whether rows are mixed by weight."""
        return self.taken[0].weight is not None

    @property
    def groups(self) -> list[list[Taken]]:
        """The parts whose rows follow one another: all, or those that share a weight."""
        return groups(self.taken)

    @property
    def shares(self) -> list[int]:
        """How many rows of an epoch come from each group."""
        return shares(self.groups)

    def _size(self, ctx: TaskContext) -> int:
        """Rows of a shard."""
        width = self._dtype(ctx).itemsize * (self.seq_len + 1)
        return max(1, SHARD_BYTES // width, -(-sum(self.shares) * self.epochs // MOST_SHARDS))

    def _order(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        """Write whose row comes where, and count each one's rows before each shard."""
        ends = np.cumsum(self.shares)
        numbers = np.arange(ends[-1])
        np.random.default_rng(self.seed).shuffle(numbers)
        whose = np.searchsorted(ends, numbers, side="right").astype(np.uint16)
        with ctx.intermediate(ORDER) as out:
            whose.tofile(out.path)
        size = self._size(ctx)
        each = [np.bincount(whose[at : at + size], minlength=len(ends)) for at in range(0, len(whose), size)]
        return {"before": (np.cumsum(each, axis=0) - each).tolist()}

    def _plan(self, ctx: TaskContext) -> list[dict[str, Any]]:
        rows, size = sum(self.shares), self._size(ctx)
        shards = [{"start": start, "stop": min(start + size, rows)} for start in range(0, rows, size)]
        if self.is_mixed:
            [made] = ctx.results("order")
            shards = [{**shard, "before": before} for shard, before in zip(shards, made["before"], strict=True)]
        return shards * self.epochs

    @staticmethod
    def _dtype(ctx: TaskContext) -> np.dtype:
        return token_dtype(ctx.input("tokenizer").manifest.extra["vocab_size"])

    def _pieces(self, ctx: TaskContext, spec: dict[str, Any]) -> Iterator[tuple[np.ndarray, Taken, int, int]]:
        """The sequences that hold a shard's rows: where their rows go, and which these are."""
        start, stop = spec["start"], spec["stop"]
        if not self.is_mixed:
            yield from _following(self.groups[0], start, np.arange(stop - start))
            return
        path = ctx.scratch("order", ORDER)
        whose = np.fromfile(path, dtype=np.uint16, count=stop - start, offset=2 * start)
        for index, (group, done) in enumerate(zip(self.groups, spec["before"], strict=True)):
            yield from _following(group, done, np.flatnonzero(whose == index))

    def _sources(self) -> list[str]:
        """The names of the sources: those that a sequence knows, or else its own."""
        return list(dict.fromkeys(name for one in self.taken for name in _names(one.sequence, one.sequence.open())))

    def _epochs(self) -> dict[str, float]:
        """How often the rows that each source is in are read."""
        taken: dict[str, float] = {}
        held: dict[str, int] = {}
        for group, share in zip(self.groups, self.shares, strict=True):
            rows = sum(one.rows for one in group)
            for one in group:
                for name in _names(one.sequence, one.sequence.open()):
                    taken[name] = taken.get(name, 0.0) + self.epochs * share * one.rows / rows
                    held[name] = held.get(name, 0) + one.rows
        return {name: taken[name] / held[name] for name in taken}

    def _copy(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        n, L = spec["stop"] - spec["start"], self.seq_len
        tokens = np.empty((n, L + 1), dtype=self._dtype(ctx))
        loss = np.ones((n, L + 1), dtype=bool)
        names, vocab = self._sources(), int(ctx.input("tokenizer").manifest.extra["vocab_size"])
        segments, rows = [], []
        for at, one, start, stop in self._pieces(ctx, spec):
            sequence = one.sequence.open()
            tokens[at] = _known_ids(sequence, start, stop, vocab)
            loss[at, 1:] = sequence.targets(start, stop)
            found, of = _segments(one.sequence, sequence, start, stop, names)
            segments.append(found)
            rows.append(at[of])
        order = np.argsort(np.concatenate(rows), kind="stable")
        made, rows_of = np.concatenate(segments)[order], np.concatenate(rows)[order]
        whole = loss if not loss.all() else None
        masked = np.asarray(~loss.all(axis=1))
        done = PlacedRows(np.arange(n, dtype=np.uint64), tokens, whole, masked, made, rows_of)
        with ctx.shard(".arrow") as out:
            write_shard(out.path, done)
            out.rows = n
        ctx.progress(rows=n, bytes=tokens.nbytes)
        placed = made[made["kind"] != PADDING]
        sums = np.bincount(placed["source"], weights=placed["length"], minlength=len(names))
        kinds = {
            name: np.bincount(made["source"][made["kind"] == kind], minlength=len(names)).tolist()
            for kind, name in KINDS.items()
        }
        return {
            "rows": n,
            "placed": sums.astype(np.int64).tolist(),
            "loss": targets_with_loss(done, len(names)).tolist(),
            "padding": int(made["length"][made["kind"] == PADDING].sum()),
            "segments": kinds,
        }

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """The ledger, checked against the rows, and what readers need to know."""
        tokenizer, results = ctx.input("tokenizer").manifest.extra, ctx.results("copy")
        names = self._sources()
        rows, padding = sum(r["rows"] for r in results), sum(r["padding"] for r in results)
        placed, carried = (np.sum([r[key] for r in results], axis=0).tolist() for key in ("placed", "loss"))
        if rows * (self.seq_len + 1) != sum(placed) + padding:
            raise ConservationError(f"sequence {self.stage}: {rows} rows, {sum(placed)} tokens, {padding} of padding")
        kinds = {kind: np.sum([r["segments"][kind] for r in results], axis=0).tolist() for kind in KINDS.values()}
        epochs = self._epochs()
        sources = {
            name: {
                "slice": [0.0, 1.0],
                "epochs": epochs[name],
                "documents": 0,  # nobody knows which documents these are
                "copies": 0,
                "overlap": 0,
                "tail": 0,
                "beyond_limit": 0,
                "tokens_placed": placed[i],
                "loss_tokens": carried[i],
                "fim_psm": kinds["fim-psm"][i] + kinds["joined-fim-psm"][i],
                "fim_spm": kinds["fim-spm"][i] + kinds["joined-fim-spm"][i],
                "chat": kinds["chat"][i],
            }
            for i, name in enumerate(names)
        }
        counts = {name: {"documents": 0, "copies": 0, "tokens_placed": placed[i]} for i, name in enumerate(names)}
        segments = {kind: sum(of) for kind, of in kinds.items() if sum(of) or not kind.startswith("joined")}
        ledger = {
            "sources": sources,
            "rows": rows,
            "tokens_placed": sum(placed),
            "padding": padding,
            "segments": segments,
        }
        special = tokenizer["special"]
        return {
            "counts": counts,
            "seq_len": self.seq_len,
            "dtype": str(self._dtype(ctx)),
            "vocab_size": tokenizer["vocab_size"],
            "eod": special.get("eod"),
            "pad": special.get("pad", special.get("eod")),
            "tokenizer": tokenizer["fingerprint"],
            "sources": names,
            "seeds": {"recipe": self.seed},
            "ledger": ledger,
        }


def _following(group: list[Taken], done: int, at: np.ndarray) -> Iterator[tuple[np.ndarray, Taken, int, int]]:
    """The next rows of sequences that follow one another, and again from the first.

    Args:
        group: the sequences.
        done: how many of their rows came before.
        at: where the next ones go.
    """
    ends = np.cumsum([one.rows for one in group])
    while len(at):
        first = done % int(ends[-1])
        k = int(ends.searchsorted(first, side="right"))
        one, within = group[k], first - int(ends[k]) + group[k].rows
        count = min(len(at), one.rows - within)
        yield at[:count], one, one.start + within, one.start + within + count
        at, done = at[count:], done + count


def _names(one: Exported, sequence: SequenceReader) -> list[str]:
    return sequence.sources or [one.name]


def _known_ids(sequence: SequenceReader, start: int, stop: int, vocab: int) -> np.ndarray:
    """uint32[stop - start, L + 1]: the tokens of rows.

    Raises:
        UserError: the tokenizer does not know an id.
    """
    ids = np.empty((stop - start, sequence.seq_len + 1), dtype=np.uint32)
    sequence.copy(start, stop, ids)
    require_known(ids, vocab, sequence.path, start)
    return ids


def _segments(
    one: Exported, sequence: SequenceReader, start: int, stop: int, names: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The segments of rows, without their documents, and int64 the row of each; whole rows where nobody knows."""
    found, mine = sequence.segments_in(start, stop), [names.index(name) for name in _names(one, sequence)]
    n = stop - start
    if found is None:
        out = np.zeros(n, dtype=SEGMENT)
        out["length"], out["row"], out["source"] = sequence.seq_len + 1, ELSEWHERE, mine[0]
        return out, np.arange(n)
    low, high = int(found.bounds[0]), int(found.bounds[-1])
    out = np.zeros(high - low, dtype=SEGMENT)
    for name in {"start", "length", "kind", "offset", "epoch"} & set(found.columns):
        out[name] = found.columns[name][low:high]
    real = out["kind"] != PADDING
    out["row"][real] = ELSEWHERE
    source = found.columns["source"][low:high][real] if "source" in found.columns else np.zeros(real.sum(), np.int64)
    out["source"][real] = np.array(mine, dtype=np.uint16)[source]
    return out, np.repeat(np.arange(n), np.diff(found.bounds))
