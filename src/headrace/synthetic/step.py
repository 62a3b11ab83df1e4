"""The step that makes a synthetic source: ranks the documents that may inspire, then asks and judges.

    score     map     the candidates of each shard, best first, if only the best may inspire
    cut       single  where the best end
    rank      map     the first candidates of each shard, by key
    generate  single  asks for what has no answer yet, judges all of it, and writes it

Asking is not a function of anything, so answers are kept outside the artifact, in ``RUN/answers/NAME.jsonl``
(:mod:`headrace.synthetic.answers`); given the answers, the artifact's bytes are determined. Everything made is in it,
also what is not kept, with its finding; requests that got no answer are listed in ``failed.jsonl``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from headrace.documents.sources import InputFile
from headrace.errors import UserError
from headrace.flow.artifact import ConservationError
from headrace.flow.notices import Notice
from headrace.flow.step import Phase, Step
from headrace.flow.task import Out, TaskContext
from headrace.recipe.columns import DOCUMENT
from headrace.recipe.expressions import Node
from headrace.recipe.expressions import columns as names_in
from headrace.recipe.synthetic import Synthetic
from headrace.select import sidecar
from headrace.select.quality.ranking import Budget, Cut, best_first, cuts, open_tables, write
from headrace.synthetic.answers import FOLDER, Answers
from headrace.synthetic.client import Client
from headrace.synthetic.generate import Generation, Totals
from headrace.synthetic.items import Item, Made
from headrace.synthetic.methods import Method, method_of
from headrace.synthetic.seeds import RANKED, items, picks, rank, smallest

SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("item", pa.int64()),
        ("text", pa.large_string()),
        ("turns", pa.string()),
        ("language", pa.string()),
        ("license", pa.string()),
        ("finding", pa.string()),
        ("evidence", pa.string()),
        ("about", pa.string()),
        ("requests", pa.list_(pa.string())),
        ("seeds", pa.list_(pa.string())),
    ]
)
"""One row for each document made. ``turns`` is ``[[role, content], ...]``, ``evidence`` and ``about`` are JSON."""

SHARD_BYTES, GROUP_BYTES = 32 << 20, 4 << 20


class Candidates(NamedTuple):
    """A batch of documents that may inspire.

    Attributes:
        batch: the documents.
        row: the first one's number.
        wanted: bool[n], which of them may, whatever their quality.
        scores: float32[n], if their quality matters.
    """

    batch: pa.RecordBatch
    row: int
    wanted: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class SyntheticDocuments(Step):
    """The documents of a synthetic source.

    Attributes:
        config: the recipe's section.
        seed: the recipe's seed.
        documents, verdicts: of the sources that are read from files.
        sources: the sources that may inspire.
        stage: the source's name.
        where: the condition on seeds, if there is one.
        beside: the sidecars that it speaks of, by role as rules know them.
        recorded: the files of ``answers``, with fingerprints.
    """

    config: Synthetic
    seed: int
    documents: Step
    verdicts: Step
    sources: tuple[str, ...]
    stage: str = ""
    where: Node | None = None
    beside: dict[str, Step] = field(default_factory=dict)
    recorded: tuple[InputFile, ...] = ()

    kind: ClassVar[str] = "synthetic"
    VERSION: ClassVar[int] = 2

    def params(self) -> dict[str, Any]:
        """What is asked, of which seeds, and what is taken from the answers."""
        return {
            **self.config.identity(),
            "prompts": list(method_of(self.config).prompts),
            "sources": sorted(self.sources),
            "seed": self.seed,
            **({"answers": [file.digest for file in self.recorded]} if self.recorded else {}),
        }

    def inputs(self) -> dict[str, Step]:
        """The documents that inspire, and what is known of them."""
        return {"documents": self.documents, "verdicts": self.verdicts, **self.beside}

    def phases(self) -> list[Phase]:
        """Find the best, if that is asked; rank; generate."""
        best = [
            Phase("score", sidecar.plan, self._score, sidecar.memory),
            Phase("cut", lambda ctx: [{}], self._cut),
        ]
        return [
            *(best if self.config.seeds.quality is not None else []),
            Phase("rank", sidecar.plan, self._rank, sidecar.memory),
            Phase("generate", lambda ctx: [{}], self._generate),
        ]

    # Phases "score" and "cut": which candidates are good enough, if that is asked.

    def _wanted(self, ctx: TaskContext, spec: dict[str, Any]) -> Iterator[Candidates]:
        """The documents of a shard, and which of them may inspire, whatever their quality."""
        from headrace.select.verdicts.document_filters import column
        from headrace.select.verdicts.rules import kept

        names = names_in(self.where) if self.where is not None else []
        needed = ["id", "source", "language", "bytes", *(name for name in names if name in DOCUMENT)]
        row, chosen = int(ctx.input("documents").row_offsets[spec["shard"]]), pa.array(self.sources, pa.string())
        roles, columns = ["verdicts", *self.beside], list(dict.fromkeys(needed))
        for batch, beside in sidecar.aligned_rows(ctx, roles, spec["shard"], columns, sidecar.BATCH_BYTES):
            wanted = np.asarray(beside["verdicts"].column("keep"), dtype=bool)
            wanted &= np.asarray(pc.is_in(batch.column("source").cast(pa.string()), chosen))
            if self.where is not None:
                table = {name: column(name, batch, beside) for name in names}
                wanted &= kept(self.where, table, batch.num_rows)
            scores = beside["quality"].column("score").to_numpy() if "quality" in beside else None
            yield Candidates(batch, row, wanted, scores)
            row += batch.num_rows
            ctx.progress(batch.num_rows)

    def _score(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        keys, rows, sizes, groups = [], [], [], []
        for batch, row, wanted, scores in self._wanted(ctx, spec):
            assert scores is not None
            at = np.flatnonzero(wanted)
            keys.append(best_first(scores[at]))
            rows.append((at + row).astype(np.uint64))
            sizes.append(batch.column("bytes").to_numpy()[at])
            groups.append(self._groups(batch).take(pa.array(at)))
        with ctx.intermediate(f"{ctx.task:05d}.npy") as out, open(out.path, "wb") as file:
            told = write(
                file,
                np.concatenate([np.empty(0, np.uint64), *keys]),
                np.concatenate([np.empty(0, np.uint64), *rows]),
                np.concatenate([np.empty(0, np.int64), *sizes]),
                pa.concat_arrays([pa.array([], pa.string()), *groups]),
            )
        return {"groups": told}

    def _groups(self, batch: pa.RecordBatch) -> pa.Array:
        """What each document is ranked within."""
        best = self.config.seeds.quality
        ranked = best is not None and best.by is not None
        return batch.column("language").cast(pa.string()) if ranked else pa.nulls(batch.num_rows, pa.string())

    def _cut(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        best = self.config.seeds.quality
        assert best is not None
        told = [result["groups"] for result in ctx.results("score")]
        tables = open_tables([ctx.scratch("score", f"{task:05d}.npy") for task in range(len(told))], told)
        ended = cuts(tables, Budget(best.top, None, best.above))
        return {"cuts": [{"group": group, "score": one.score, **asdict(one)} for group, one in ended.items()]}

    def _good(self, ctx: TaskContext, some: Candidates) -> npt.NDArray[np.bool_]:
        """Which documents are good enough, as far as that is asked."""
        if some.scores is None:
            return some.wanted
        keys, rows = best_first(some.scores), (some.row + np.arange(len(some.wanted))).astype(np.uint64)
        groups, good = self._groups(some.batch), np.zeros(len(some.wanted), dtype=bool)
        for one in ctx.results("cut")[0]["cuts"]:
            mine = groups.is_null() if one["group"] is None else pc.equal(groups, one["group"]).fill_null(False)
            end = Cut(**{part.name: one[part.name] for part in fields(Cut)})
            good |= np.asarray(mine) & end.takes(keys, rows)
        return some.wanted & good

    # Phase "rank".

    def _rank(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        import pyarrow.parquet as pq

        found, candidates = 0, [RANKED.empty_table()]
        for some in self._wanted(ctx, spec):
            good = self._good(ctx, some)
            found += int(good.sum())
            candidates.append(rank(some.batch, some.row, good, self.seed))
        best = self._smallest(pa.concat_tables(candidates))
        with ctx.intermediate(f"{ctx.task:05d}.parquet") as out:
            pq.write_table(best, out.path)
        return {"candidates": found}

    def _smallest(self, table: pa.Table) -> pa.Table:
        each = method_of(self.config).seeds
        return smallest(table, self.config.most_items * each, list(self.config.seeds.languages))

    # Phase "generate".

    def _generate(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from headrace.documents.store import read_columns

        method = self._method(ctx.run)
        tasks = range(ctx.tasks("rank"))
        ranked = [read_columns(ctx.scratch("rank", f"{task:05d}.parquet")) for task in tasks]
        table = self._smallest(pa.concat_tables([RANKED.empty_table(), *ranked]))
        total = sum(result["candidates"] for result in ctx.results("rank"))
        if not total:
            raise UserError(
                "No document can inspire: none that is kept is of these sources and meets the condition.",
                f"synthetic.{self.stage}.seeds",
                "Name other sources, or relax `where`.",
            )
        config = self.config
        picked = picks(table, config.seeds, total, method.seeds, self.seed)
        asked = items(ctx.input("documents"), table, picked, config.seeds, self.seed)
        limited = (item for item, _ in zip(asked, range(config.most_items), strict=False))
        journal, files = ctx.run / FOLDER / f"{self.stage}.jsonl", [Path(file.url) for file in self.recorded]
        with Answers(journal, files) as answers, Writer(ctx, config) as writer:
            generation = Generation(
                config, self.stage, method, limited, answers, writer.add, Teller(ctx, config).tell, ctx.threads
            )
            totals = generation.run()
            self._notice(totals, generation)
        return {
            "items": totals.items,
            "kept": totals.kept,
            "findings": dict(sorted(totals.findings.items())),
            "written": writer.rows,
            "tokens": {"input": totals.input, "output": totals.output},
            "candidates": total,
        }

    def _method(self, run: Path) -> Method:
        from headrace.synthetic.methods.own import Own

        method = method_of(self.config)
        if isinstance(method, Own) and self.config.parser is not None:
            method.parser = self.config.parser.load(run)
        return method

    def _notice(self, totals: Totals, generation: Generation) -> None:
        """Say what came of it, and what the server did."""
        client, wanted = generation.client, self.config.count
        made = totals.kept + totals.findings.total()
        said = f"{self.stage}: {totals.kept:,} documents kept of {made:,} made"
        if totals.kept < wanted:
            said += f", where the recipe asks for {wanted:,}; raise `synthetic.{self.stage}.most` to ask for more"
        if client is not None and client.asked:
            cost = f", {client.cost:,.2f} dollars" if client.cost else ""
            said += f"; {client.asked:,} requests answered ({client.input:,} + {client.output:,} tokens{cost})"
        if client is not None and client.trouble:
            kinds = ", ".join(f"{kind} {n:,} times" for kind, n in client.trouble.most_common())
            said += f"; trouble with the server: {kinds}"
            said += f"; {client.given_up:,} requests given up" if client.given_up else ""
        warnings.warn(said, Notice, stacklevel=2)

    # Finish.

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Check that everything made is written or listed as failed.

        Raises:
            ConservationError: something is not.
        """
        [result] = ctx.results("generate")
        findings = result["findings"]
        made = result["kept"] + sum(findings.values())
        if made != result["written"] + findings.get("failed", 0):
            raise ConservationError(f"{self.name}: {made} documents made, but {result['written']} written")
        counts = {name: result[name] for name in ("items", "kept", "findings", "written", "candidates")}
        prompts = [*method_of(self.config).prompts, self.config.system]
        about = {
            "generator": self.config.server.model,
            "method": self.config.method,
            "prompt": xxhash.xxh3_128_hexdigest(orjson.dumps(prompts)),
            "tokens": result["tokens"],
        }
        return {"counts": counts, **about, "schema": {one.name: str(one.type) for one in SCHEMA}}


class Teller:
    """Reports progress.

    Args:
        ctx: the task.
        config: the recipe's section.
    """

    def __init__(self, ctx: TaskContext, config: Synthetic) -> None:
        self._ctx, self._config = ctx, config

    def tell(self, totals: Totals, client: Client | None) -> None:
        """Report how far it has come, what is under way, and what it has cost."""
        said = []
        if client is not None:
            said = [f"{client.concurrency.running} at once"]
            said += [f"{client.cost:,.2f} dollars"] if client.cost else []
            said += [f"{client.trouble.total():,} repeated"] if client.trouble else []
        self._ctx.progress(1, step=totals.kept, steps=self._config.count, note=", ".join(said))


class Writer:
    """Writes what is made as shards; a context manager.

    Attributes:
        rows: documents written.
    """

    def __init__(self, ctx: TaskContext, config: Synthetic) -> None:
        self._ctx, self._config = ctx, config
        self._stack, self._shard = ExitStack(), ExitStack()
        self._held: list[dict[str, Any]] = []
        self._bytes = self._shard_bytes = self._part = self.rows = 0
        self._writer: Any = None
        self._out: Out | None = None
        self._failed: Any = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is None:
            self._end_shard()
            self._stack.close()
        else:
            self._shard.__exit__(kind, error, trace)
            self._stack.__exit__(kind, error, trace)

    def add(self, item: Item, made: Made, number: int) -> None:
        """Take what is made, in order."""
        if made.finding == "failed":
            self._fail(item, made, number)
            return
        licenses = sorted({seed.license for seed in item.seeds if seed.license is not None})
        license = self._config.license or (" AND ".join(_alone(one, licenses) for one in licenses) or None)
        turns = None if made.turns is None else orjson.dumps(made.turns).decode()
        self._held.append(
            {
                "number": number,
                "item": item.number,
                "text": made.text,
                "turns": turns,
                "language": made.language,
                "license": license,
                "finding": made.finding,
                "evidence": orjson.dumps(made.evidence).decode() if made.finding else None,
                "about": orjson.dumps({**made.about, "licenses": licenses}).decode(),
                "requests": list(made.requests),
                "seeds": [seed.id for seed in item.seeds],
            }
        )
        self._bytes += len(made.text.encode())
        if self._bytes >= GROUP_BYTES:
            self._write_group()

    def _fail(self, item: Item, made: Made, number: int) -> None:
        if self._failed is None:
            out = self._stack.enter_context(self._ctx.file("failed.jsonl"))
            self._failed = self._stack.enter_context(out.path.open("wb"))
        told = {"number": number, "item": item.number, "requests": list(made.requests), **made.evidence}
        self._failed.write(orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE))

    def _write_group(self) -> None:
        import pyarrow.parquet as pq

        if self._writer is None:
            self._out = self._shard.enter_context(self._ctx.shard(part=self._part))
            self._writer = self._shard.enter_context(pq.ParquetWriter(self._out.path, SCHEMA, compression="zstd"))
        self._writer.write_table(pa.Table.from_pylist(self._held, schema=SCHEMA))
        assert self._out is not None
        self._out.rows += len(self._held)
        self.rows += len(self._held)
        self._shard_bytes += self._bytes
        self._held, self._bytes = [], 0
        if self._shard_bytes >= SHARD_BYTES:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._held:
            self._write_group()
        self._shard.close()  # the writer first, then the context that publishes its file
        self._writer, self._part, self._shard_bytes = None, self._part + 1, 0


def _alone(license: str, others: list[str]) -> str:
    """A license as a part of a conjunction."""
    return f"({license})" if len(others) > 1 and " OR " in license else license
