"""The step that trains an annotator, and looks at it.

positives  map   the ids (and groups of near-duplicates) of positives, which are no negatives
sample     map   the chosen examples, to the partition of their key
train      map   one task for each point of the learning curve, and the one that counts: the annotator's files, and
                 its scores of held-out examples
measure    fold  the figures: how well it separates held-out positives from negatives, and what else could
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from headrace.documents.step import Documents
from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.exchange import Spill
from headrace.flow.keys import keyed, parse_ids, salt, unit
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.select import sidecar
from headrace.select.quality.examples import EXAMPLE, Examples, cut, partitions_for
from headrace.select.quality.figures import held_out_figures
from headrace.select.quality.scorer import Found, TrainedScorer, check_files, scorer_of

if TYPE_CHECKING:
    from headrace.recipe.quality import AnyTrained

FIGURES = "figures.json"
LEAST = 10  # examples of a class: fewer tell nothing
TRAINING_MEMORY = 256 << 20
TESTED = np.dtype([("score", "<f4"), ("label", "u1"), ("source", "<u2")])


@dataclass(frozen=True)
class PositiveDocuments(Documents):
    """Documents in other files that are only examples for an annotator.

    Attributes:
        stage: which: the annotator's name, and the number in its list.
    """

    stage: str = ""

    kind: ClassVar[str] = "positive-documents"

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """As of other documents, but errors tell which positives: all have one name, which is part of the bytes."""
        try:
            return super().finish(ctx)
        except UserError as error:
            name, _, number = self.stage.rpartition("-")
            told, place = self.sources[0].name, f"quality.annotators.{name}.positives.files.{number}"
            what, where = error.what.replace(repr(told), repr(place)), error.where.replace(told, place)
            raise UserError(what, where, error.fix, error.found) from None


@dataclass(frozen=True)
class Annotator(Step):
    """A trained annotator.

    Attributes:
        documents: the Documents step.
        positives: the steps that read positives from other files.
        duplicates: the Duplicates step, if positives are sources of the corpus and it looks for near-duplicates.
        config: its section of the recipe, a :class:`headrace.recipe.quality.Trained`.
        names: the recipe's sources.
        seed: the recipe's.
        found: the files that the section names.
        stage: the annotator's name.
    """

    documents: Step
    positives: tuple[Step, ...]
    duplicates: Step | None
    config: AnyTrained
    names: tuple[str, ...]
    seed: int
    found: Found
    stage: str = ""

    kind: ClassVar[str] = "annotator"
    VERSION: ClassVar[int] = 1

    def params(self) -> dict[str, Any]:
        """What it is trained on and how."""
        scorer = scorer_of(self.config)
        config = self.config.model_dump(mode="json", exclude={"positives", "negatives"})
        good, others = self.good, self.negatives
        version = scorer.VERSION
        return {
            "positives": sorted(good),
            "negatives": sorted(others),
            "seed": self.seed,
            "config": config | scorer.identity(self.config, self.found),
            "scorer": version,
        }

    def inputs(self) -> dict[str, Step]:
        """The corpus, positives in other files, and groups of near-duplicates."""
        more = {f"positives-{k}": step for k, step in enumerate(self.positives)}
        return {"documents": self.documents, **more, **({"duplicates": self.duplicates} if self.duplicates else {})}

    def phases(self) -> list[Phase]:
        """Positives, sample, train, measure."""
        more = scorer_of(self.config).memory(self.config)
        return [
            Phase("positives", self._plan_positives, self._positives),
            Phase("sample", self._plan_sample, self._sample, sidecar.memory),
            Phase("train", self._plan_train, self._train, lambda spec: TRAINING_MEMORY + more),
            Phase("measure", lambda ctx: [{}], self._measure),
        ]

    @property
    def good(self) -> frozenset[str]:
        """The sources whose documents are positives."""
        return frozenset(self.config.positives.sources)

    @property
    def negatives(self) -> frozenset[str]:
        """The sources that negatives are sampled from."""
        return frozenset(self.config.negatives or (name for name in self.names if name not in self.good))

    @property
    def sources(self) -> list[str]:
        """The names of all that examples come from: the recipe's sources, and other files as ``files.0``, ..."""
        return [*self.names, *(f"files.{k}" for k in range(len(self.positives)))]

    def _places(self, ctx: TaskContext) -> list[tuple[str, Artifact]]:
        """Role and artifact of everything that examples come from."""
        return [(role, ctx.input(role)) for role in self.inputs() if role != "duplicates"]

    # Phase "positives".

    def _plan_positives(self, ctx: TaskContext) -> list[dict[str, Any]]:
        """One task per shard that may hold positives."""
        return [
            {"role": role, **spec}
            for role, artifact in self._places(ctx)
            if role != "documents" or self.good
            for spec in sidecar.groups(artifact)
        ]

    def _positives(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from headrace.documents.store import read_columns

        artifact, shard = ctx.input(spec["role"]), spec["shard"]
        table = read_columns(artifact.shard_path(shard), ["id", "source", "bytes"])
        mine = self._are_good(table, spec["role"])
        keys = keyed(salt(self.seed, "examples"), parse_ids(table.column("id")))[mine]
        groups = np.empty(0, dtype=np.uint64)
        if self.duplicates is not None and spec["role"] == "documents":
            found = read_columns(ctx.input("duplicates").shard_path(shard), ["component"])
            groups = np.unique(found.column("component").filter(pa.array(mine)).drop_null().to_numpy())
        with ctx.intermediate(f"keys-{ctx.task:05d}.npy") as out, open(out.path, "wb") as f:
            np.save(f, np.unique(keys))
        with ctx.intermediate(f"groups-{ctx.task:05d}.npy") as out, open(out.path, "wb") as f:
            np.save(f, groups)
        return {"documents": int(mine.sum()), "bytes": int(table.column("bytes").to_numpy()[mine].sum())}

    def _are_good(self, table: pa.Table, role: str) -> npt.NDArray[np.bool_]:
        if role != "documents":
            return np.ones(table.num_rows, dtype=bool)
        return np.array([name in self.good for name in table.column("source").to_pylist()], dtype=bool)

    # Phase "sample".

    def _plan_sample(self, ctx: TaskContext) -> list[dict[str, Any]]:
        """One task per shard, with the share of each class to choose, and the partitions to send it to.

        Raises:
            UserError: there are too few documents of a class.
        """
        counts = ctx.input("documents").manifest.counts
        told = ctx.results("positives")
        there = sum(result["documents"] for result in told)
        others = sum(counts[name]["documents"] for name in self.negatives if name in counts)
        where = f"quality.annotators.{self.stage}"
        for many, what in ((there, "positives"), (others, "negatives")):
            if many < LEAST:
                raise UserError(
                    f"There are {many} {what} for the annotator {self.stage!r}, too few to learn from.",
                    f"{where}.{what}",
                    f"Name more; at least {LEAST} are needed, and hundreds are better.",
                )
        wanted = min(there, self.config.examples)
        rates = {"positives": wanted / there, "negatives": min(1.0, wanted / others)}
        size = rates["positives"] * sum(result["bytes"] for result in told)
        size += rates["negatives"] * sum(counts[name].get("bytes", 0) for name in self.negatives if name in counts)
        partitions = partitions_for(round(size))
        return [
            {"role": role, **spec, **rates, "partitions": partitions}
            for role, artifact in self._places(ctx)
            for spec in sidecar.groups(artifact)
        ]

    def _sample(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from headrace.documents.store import read_columns, read_rows, text_buffers

        role, shard = spec["role"], spec["shard"]
        artifact = ctx.input(role)
        path = artifact.shard_path(shard)
        table = read_columns(path, ["id", "source"])
        keys = keyed(salt(self.seed, "examples"), parse_ids(table.column("id")))
        good = self._are_good(table, role)
        names = table.column("source").to_pylist()
        others = np.array([name in self.negatives for name in names], dtype=bool) & ~good
        if role == "documents" and others.any():
            others &= ~np.isin(keys, self._all(ctx, "keys"))
            if self.duplicates is not None:
                found = read_columns(ctx.input("duplicates").shard_path(shard), ["component"]).column("component")
                # Null, a document without near-duplicates, becomes a row that no group begins with.
                groups = found.fill_null((1 << 64) - 1).to_numpy()
                others &= ~np.isin(groups, self._all(ctx, "groups"))
        chance = unit(keyed(salt(self.seed, "examples", "chosen"), keys))
        chosen = np.flatnonzero((good & (chance < spec["positives"])) | (others & (chance < spec["negatives"])))
        source = np.array([self._number(role, names[i]) for i in chosen.tolist()], dtype=np.uint16)
        draws = keyed(salt(self.seed, "examples", "held out"), keys)
        partition = (keys >> np.uint64(32)) * np.uint64(spec["partitions"]) >> np.uint64(32)
        at, count, trained = 0, np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64)
        with Spill(ctx, "examples", EXAMPLE, spec["partitions"], payload=True) as spill:
            for some in read_rows(path, chosen, ["text"]):
                rows = chosen[at : at + some.num_rows]
                ctx.at(f"{role}, rows {rows[0]} to {rows[-1]} of shard {shard}")
                data, offsets = text_buffers(some.column("text").combine_chunks())
                lengths = cut(data, offsets)
                records = np.zeros(len(rows), dtype=EXAMPLE)
                records["key"], records["draw"], records["length"] = keys[rows], draws[rows], lengths
                records["source"], records["label"] = source[at : at + len(rows)], good[rows]
                spill.add(partition[rows], records, _prefixes(data, offsets, lengths))
                count += np.bincount(records["label"], minlength=2)
                trained += np.bincount(records["label"][unit(records["draw"]) >= self.config.held_out], minlength=2)
                at += len(rows)
                ctx.progress(len(rows), len(data))
        return {"negatives": int(count[0]), "positives": int(count[1]), "trained": trained.tolist()}

    def _number(self, role: str, name: str) -> int:
        return self.names.index(name) if role == "documents" else len(self.names) + int(role.rpartition("-")[2])

    @staticmethod
    def _all(ctx: TaskContext, what: str) -> npt.NDArray[np.uint64]:
        """What the phase ``positives`` found in all shards."""
        paths = (ctx.scratch("positives", f"{what}-{task:05d}.npy") for task in range(ctx.tasks("positives")))
        return np.concatenate([np.empty(0, dtype=np.uint64), *map(np.load, paths)])

    # Phase "train".

    def _plan_train(self, ctx: TaskContext) -> list[dict[str, Any]]:
        """The one that counts first: it takes longest.

        Raises:
            UserError: nothing of a class was chosen, or all of it is held out.
        """
        count = {what: sum(r[what] for r in ctx.results("sample")) for what in ("positives", "negatives")}
        for what, many in count.items():
            if many < LEAST // 2:
                raise UserError(
                    f"Only {many} {what} are left for the annotator {self.stage!r}: other documents are copies of "
                    "positives."
                    if what == "negatives"
                    else f"Only {many} positives were chosen.",
                    f"quality.annotators.{self.stage}",
                    f"Name more {what}.",
                )
        for k, what in enumerate(("negatives", "positives")):
            if (many := sum(r["trained"][k] for r in ctx.results("sample"))) < LEAST // 2:
                raise UserError(
                    f"Of the {count[what]} {what} for the annotator {self.stage!r}, {many} are left to learn from; the "
                    "others are held out.",
                    f"quality.annotators.{self.stage}.held_out",
                    "Lower it, or name more examples.",
                )
        return [{"share": share, "size": share} for share in (1.0, *self.config.curve)]

    def examples(self, ctx: TaskContext) -> Examples:
        """The examples, for tasks after the phase ``sample``."""
        return Examples(ctx, ctx.specs("sample")[0]["partitions"], self.config.held_out)

    def _train(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        kind, examples = scorer_of(self.config), self.examples(ctx)
        assert issubclass(kind, TrainedScorer)
        check_files(self.config, self.found, f"quality.annotators.{self.stage}")
        scorer = kind.train(self.config, examples, spec["share"])
        tested = [np.empty(0, dtype=TESTED)]
        for batch in examples.testing():
            held = np.empty(batch.num_rows, dtype=TESTED)
            held["score"] = scorer.score(batch)
            held["label"], held["source"] = (batch.column(name).to_numpy() for name in ("label", "source"))
            tested.append(held)
        with ctx.intermediate(_tested(ctx.task)) as out, open(out.path, "wb") as f:
            np.save(f, np.concatenate(tested))
        if spec["share"] == 1.0:
            for name, content in scorer.save().items():
                with ctx.file(name) as out:
                    out.path.write_bytes(content)
        return {"trained": sum(batch.num_rows for batch in examples.training(spec["share"]))}

    # Phase "measure".

    def _measure(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        trained = [(b.column("label"), b.column("source")) for b in self.examples(ctx).training()]
        labels, sources = (np.concatenate([pair[k].to_numpy() for pair in trained]) for k in (0, 1))
        tested = []
        for task in range(ctx.tasks("train")):
            held = np.load(ctx.scratch("train", _tested(task)))
            tested.append((held["score"], held["label"], held["source"]))
        curve = [result["trained"] for result in ctx.results("train")]
        figures = held_out_figures(tested, curve, labels, sources, self.sources)
        with ctx.file(FIGURES) as out:
            out.path.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
        return {}

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """The number of examples of each class."""
        results = ctx.results("sample")
        return {"counts": {what: sum(r[what] for r in results) for what in ("positives", "negatives")}}


def _tested(task: int) -> str:
    return f"tested-{task:05d}.npy"


def _prefixes(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    from headrace.flow.slices import gather

    return gather(data, offsets[:-1], lengths)
