"""The step that takes a stage's rows from other files: in their order, as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from headrace.errors import UserError
from headrace.flow.artifact import ConservationError
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.formats.format import Exported
from headrace.sequence.context import PlacedRows
from headrace.sequence.layout import MOST_SHARDS
from headrace.sequence.reader import ELSEWHERE, SEGMENT, SequenceReader
from headrace.sequence.shuffle import targets_with_loss, write_shard
from headrace.sequence.windows import KINDS, PADDING
from headrace.tokens.engine import token_dtype

# Tokens of a shard; a task holds them with their masks and segments.
SHARD_BYTES = 16 << 20
TASK_MEMORY = 6 * SHARD_BYTES


@dataclass(frozen=True)
class Taken:
    """Rows of a sequence that lies elsewhere.

    Attributes:
        sequence: the sequence.
        start, stop: its rows.
    """

    sequence: Exported
    start: int
    stop: int


@dataclass(frozen=True)
class ImportedSequence(Step):
    """A stage's rows, copied from other files in their order.

    Attributes:
        stage: the stage's name.
        taken: where the rows come from, in order.
        seq_len: targets of a row.
        tokenizer: the Tokenizer step.
    """

    stage: str = field()  # the base class has None, which would make it optional
    taken: tuple[Taken, ...]
    seq_len: int
    tokenizer: Step

    kind: ClassVar[str] = "sequence"
    VERSION: ClassVar[int] = 1

    def params(self) -> dict[str, Any]:
        """What the files hold, and which rows of them are taken."""
        rows = [[one.sequence.identity, one.sequence.name, one.start, one.stop] for one in self.taken]
        return {"imported": rows, "sequence_length": self.seq_len, "stage": self.stage}

    def inputs(self) -> dict[str, Step]:
        """The tokenizer."""
        return {"tokenizer": self.tokenizer}

    def phases(self) -> list[Phase]:
        """A task a shard."""
        return [Phase("copy", self._plan, self._copy, lambda spec: TASK_MEMORY)]

    def _plan(self, ctx: TaskContext) -> list[dict[str, Any]]:
        rows = sum(one.stop - one.start for one in self.taken)
        if rows == 0:
            raise UserError(f"The sequence of stage {self.stage!r} has no rows.", f"stages.{self.stage}.sequence", "")
        width = self._dtype(ctx).itemsize * (self.seq_len + 1)
        size = max(1, SHARD_BYTES // width, -(-rows // MOST_SHARDS))
        return [{"start": start, "stop": min(start + size, rows)} for start in range(0, rows, size)]

    @staticmethod
    def _dtype(ctx: TaskContext) -> np.dtype:
        return token_dtype(ctx.input("tokenizer").manifest.extra["vocab_size"])

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, Taken, int, int]]:
        """The sequences that hold rows: where their rows go, and which these are."""
        base = 0
        for one in self.taken:
            first, last = max(start, base), min(stop, base + one.stop - one.start)
            if first < last:
                yield first - start, one, first - base + one.start, last - base + one.start
            base += one.stop - one.start

    def _sources(self) -> list[str]:
        """The names of the sources: those that a sequence knows, or else its own."""
        return list(dict.fromkeys(name for one in self.taken for name in _names(one.sequence, one.sequence.open())))

    def _copy(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        n, L = spec["stop"] - spec["start"], self.seq_len
        tokens = np.empty((n, L + 1), dtype=self._dtype(ctx))
        loss = np.ones((n, L + 1), dtype=bool)
        names, vocab = self._sources(), int(ctx.input("tokenizer").manifest.extra["vocab_size"])
        segments, rows = [], []
        for at, one, start, stop in self._pieces(spec["start"], spec["stop"]):
            sequence = one.sequence.open()
            _copy_ids(sequence, start, stop, tokens[at : at + stop - start], vocab)
            loss[at : at + stop - start, 1:] = sequence.targets(start, stop)
            found, of = _segments(one.sequence, sequence, start, stop, names)
            segments.append(found)
            rows.append(of + at)
        made = np.concatenate(segments)
        whole = loss if not loss.all() else None
        done = PlacedRows(
            np.arange(n, dtype=np.uint64), tokens, whole, np.asarray(~loss.all(axis=1)), made, np.concatenate(rows)
        )
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
        sources = {
            name: {
                "slice": [0.0, 1.0],
                "epochs": 1.0,
                "documents": 0,  # nobody knows which documents these are
                "copies": 0,
                "overlap": 0,
                "tail": 0,
                "beyond_limit": 0,
                "tokens_placed": placed[i],
                "loss_tokens": carried[i],
                "fim_psm": kinds["fim-psm"][i],
                "fim_spm": kinds["fim-spm"][i],
                "chat": kinds["chat"][i],
            }
            for i, name in enumerate(names)
        }
        counts = {name: {"documents": 0, "copies": 0, "tokens_placed": placed[i]} for i, name in enumerate(names)}
        segments = {kind: sum(of) for kind, of in kinds.items()}
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
            "eod": special["eod"],
            "pad": special.get("pad", special["eod"]),
            "tokenizer": tokenizer["fingerprint"],
            "sources": names,
            "seeds": {},
            "ledger": ledger,
        }


def _names(one: Exported, sequence: SequenceReader) -> list[str]:
    return sequence.sources or [one.name]


def _copy_ids(sequence: SequenceReader, start: int, stop: int, out: np.ndarray, vocab: int) -> None:
    """Copy rows, all of whose ids the tokenizer must know.

    Raises:
        UserError: it does not.
    """
    ids = np.empty(out.shape, dtype=np.uint32)
    sequence.copy(start, stop, ids)
    beyond = ids >= vocab
    if beyond.any():
        row, at = np.argwhere(beyond)[0]
        raise UserError(
            f"Row {start + row} has token id {ids[row, at]:,}, and the tokenizer has {vocab:,} tokens.",
            str(sequence.path),
            "Give the tokenizer that the sequence was made with.",
        )
    out[:] = ids


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
