"""Verdicts: which documents are kept, why the others are not, and each document's split.

    filter       map     what removes a document on its own (:mod:`headrace.select.verdicts.document_filters`);
                         documents that have duplicates, and reference documents that share a component with the
                         corpus, are sent to the partition of their component, with text if candidates are verified
    deduplicate  reduce  of those that the filters leave, one document is kept per group or, if candidates are verified,
                         those that the greedy rule keeps (:mod:`headrace.select.verdicts.greedy`); then training
                         documents are checked against held-out ones (:mod:`headrace.select.verdicts.deduplication`)
    rank, cut    map, fold  if documents are kept by quality, which of those that are left
                         (:mod:`headrace.select.verdicts.quality`)
    publish      map     the sidecar, aligned with the documents (:mod:`headrace.select.verdicts.publication`)

A document has one reason, the first in :meth:`Verdicts.precedence`. To add a verdict, add its filter to
:mod:`headrace.select.verdicts.document_filters`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.recipe.columns import DOCUMENT
from headrace.recipe.expressions import columns as names_in
from headrace.recipe.synthetic import FINDINGS
from headrace.select import sidecar
from headrace.select.duplicates.step import files_of
from headrace.select.verdicts.partitions import MEMBER_BYTES, destinations_of, partition_sizes, partitions_for, spread
from headrace.select.verdicts.quality import REASON

if TYPE_CHECKING:
    from headrace.flow.exchange import Spill
    from headrace.recipe.expressions import Node
    from headrace.recipe.licences import Licenses
    from headrace.recipe.schema import Decontaminate, Filters, Near, Recipe, Rule, Split, Withdrawn
    from headrace.select.duplicates.reference import Reference
    from headrace.select.duplicates.step import Duplicates
    from headrace.select.verdicts.deduplication import Policy
    from headrace.select.verdicts.opt_out import ListFile, Lists
    from headrace.select.verdicts.quality import Selection

# What a deduplication task needs besides members, and for texts if it cannot have more.
LEAST_BYTES = 48 << 20
# The share of a task's budget for a block of texts; spilled decisions and a run's slice take 0.2 each.
BLOCK_SHARE = 0.25
# Documents filtered at a time, by the size of the columns read.
BATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class Verdicts(Step):
    """The sidecar of verdicts.

    Attributes:
        documents: the Documents step.
        measures: their measures, if there are filters.
        duplicates: their duplicates, if copies are removed or held-out documents checked; it knows the references.
        contamination: their contamination, if there are benchmarks.
        own: user-defined measures, by name.
        filters: the recipe's section.
        code_in: the sources that the code filter applies to.
        expressions: the recipe's rules, with their conditions.
        decontaminate: the recipe's section.
        remove: keep one document per component, or per content id; None keeps copies.
        near: how candidates are verified, if they are.
        priority: all sources in order of preference.
        sources: all sources in recipe order.
        split: the recipe's section.
        seed: the recipe's.
        withdrawn: the recipe's section.
        keeps_one: whether one document of a group of copies is kept.
        licences: their licenses, if any are refused.
        licence_rules: which licenses each source may have; only sources with rules.
        opt_out: the lists of those who opted out.
        selection: which documents are kept by quality, if not all.
        synthetic: the synthetic sources.
    """

    documents: Step
    measures: Step | None
    duplicates: Duplicates | None
    contamination: Step | None
    own: dict[str, Step]
    filters: Filters
    code_in: frozenset[str]
    expressions: tuple[tuple[Rule, Node], ...]
    decontaminate: Decontaminate | None
    remove: Literal["component", "exact"] | None
    near: Near | None
    priority: tuple[str, ...]
    sources: tuple[str, ...]
    split: Split
    seed: int
    withdrawn: Withdrawn
    keeps_one: bool = True
    licences: Step | None = None
    licence_rules: tuple[tuple[str, Licenses], ...] = ()
    opt_out: tuple[ListFile, ...] = ()
    selection: Selection | None = None
    synthetic: tuple[str, ...] = ()

    kind: ClassVar[str] = "verdicts"
    VERSION: ClassVar[int] = 5

    @staticmethod
    def of(
        recipe: Recipe,
        documents: Step,
        measures: Step | None = None,
        duplicates: Duplicates | None = None,
        contamination: Step | None = None,
        own: dict[str, Step] | None = None,
        licences: Step | None = None,
        opt_out: tuple[ListFile, ...] | None = None,
        selection: Selection | None = None,
    ) -> Verdicts:
        """Create the step for a recipe, given the sidecars it asks for, the lists of ``opt_out`` as the run found them,
        and what is kept by quality.
        """
        from headrace.select.verdicts.filters import applied, code_sources
        from headrace.select.verdicts.opt_out import list_lists

        rules = ((name, source.licenses) for name, source in recipe.sources.items())
        restricted = tuple((name, rule) for name, rule in rules if rule is not None and rule.restricts)
        wanted = recipe.deduplicate
        remove: Literal["component", "exact"] | None = None
        if wanted is not None and wanted.near is not None:
            remove = "component"
        elif wanted is not None and wanted.exact:
            remove = "exact"
        first = wanted.priority if wanted is not None else ()
        return Verdicts(
            documents,
            measures,
            duplicates,
            contamination,
            own or {},
            applied(recipe),
            code_sources(recipe),
            tuple((rule, recipe.expression(rule)) for rule in recipe.filters.rules),
            recipe.decontaminate,
            remove,
            wanted.near if wanted is not None and wanted.near is not None and wanted.near.verify else None,
            (*first, *(source for source in recipe.sources if source not in first)),
            tuple(recipe.sources),
            recipe.split,
            recipe.seed,
            recipe.withdrawn,
            wanted is None or wanted.keep == "one",
            licences if restricted else None,
            restricted,
            list_lists(recipe.opt_out) if opt_out is None else opt_out,
            selection,
            tuple(recipe.synthetic),
        )

    def params(self) -> dict[str, Any]:
        """The rules that apply, and the seed that keys splits and the choice among equals."""
        verify = None
        if self.near is not None:
            verify = {"threshold": self.near.threshold, "unit": self.near.unit, "ngram": self.near.ngram}
        rules = [[rule.name, rule.keep] for rule, _ in self.expressions]
        return {
            "filters": self.filters.model_dump(mode="json", exclude={"rules"}) if self.measures else None,
            **({"rules": rules} if rules else {}),
            "code_in": sorted(self.code_in) if self.measures else None,
            "contaminated": self.decontaminate.limits if self.decontaminate and self.contamination else None,
            "remove": self.remove,
            **({} if self.keeps_one else {"keep": "none"}),
            "verify": verify,
            "priority": list(self.priority),
            "sources": list(self.sources),
            "split": self.split.model_dump(mode="json"),
            "seed": self.seed,
            **(
                {"withdrawn": self.withdrawn.combined_with(self.withdrawn).model_dump(mode="json")}
                if self.withdrawn
                else {}
            ),
            **({"licenses": {n: _rule(rule) for n, rule in self.licence_rules}} if self.licence_rules else {}),
            **(
                {"opt_out": [[one.kind, one.file.name, one.file.digest] for one in self.opt_out]}
                if self.opt_out
                else {}
            ),
            **({"quality": self.selection.params()} if self.selection else {}),
            **({"synthetic": sorted(self.synthetic)} if self.synthetic else {}),
        }

    def inputs(self) -> dict[str, Step]:
        """The documents and the sidecars that the recipe asks for."""
        sidecars = {"measures": self.measures, "duplicates": self.duplicates, "contamination": self.contamination}
        sidecars["licences"] = self.licences
        sidecars |= {f"measure-{name}": step for name, step in self.own.items()}
        beside = {role: step for role, step in sidecars.items() if step is not None}
        chosen = self.selection.inputs() if self.selection else {}
        return {"documents": self.documents, **beside, **chosen, **files_of(self.references)}

    def phases(self) -> list[Phase]:
        """Filter, deduplicate, select by quality, publish."""
        selected = [Phase("rank", sidecar.plan, self._rank), Phase("cut", lambda ctx: [{}], self._cut)]
        return [
            Phase("filter", self._plan_filter, self._filter, self._filter_memory),
            Phase("deduplicate", self._plan_deduplicate, self._deduplicate, lambda spec: int(spec["least"])),
            *(selected if self.selection else []),
            Phase("publish", sidecar.plan, self._publish),
        ]

    @property
    def references(self) -> tuple[Reference, ...]:
        """Sets of reference documents whose copies are removed."""
        return self.duplicates.references if self.duplicates is not None else ()

    @property
    def against(self) -> tuple[int, ...]:
        """For each reference source, numbered after the recipe's, the number of its set of references."""
        return tuple(k for k, step in enumerate(self.references) for _ in step.sources)

    @property
    def all_sources(self) -> tuple[str, ...]:
        """The source names of all documents that may be kept."""
        return (*self.sources, *(name for step in self.references for name in step.sources))

    def policy(self, firsts: tuple[int, ...] = ()) -> Policy:
        """How copies are removed, given the number of the first document of each set of references."""
        from headrace.select.verdicts.deduplication import Policy

        return Policy(self.remove, self.near, self.split.check, self.sources, self.keeps_one, self.against, firsts)

    def precedence(self) -> list[str]:
        """All reasons in order of precedence."""
        from headrace.select.verdicts.filters import reasons

        own = [*(f"failed:{name}" for name in self.own), *(f"filter:{rule.name}" for rule, _ in self.expressions)]
        return [
            "withdrawn",
            "opt_out",
            "license",
            *(f"synthetic:{finding}" for finding in FINDINGS),
            "empty",
            *reasons(),
            *own,
            "contaminated",
            "reference",
            "duplicate",
            "holdout",
            REASON,
        ]

    @cached_property
    def lists(self) -> Lists | None:
        """The lists of those who opted out, read once per process.

        Raises:
            UserError: a list is invalid, or has changed.
        """
        from headrace.select.verdicts.opt_out import Lists

        return Lists(self.opt_out) if self.opt_out else None

    # Phase "filter".

    def _filter_memory(self, spec: dict[str, Any]) -> int:
        return (48 << 20) + (3 * int(spec["bytes"]) if self.policy().compares_texts else 0)

    def _plan_filter(self, ctx: TaskContext) -> list[dict[str, Any]]:
        """One task per shard of documents, then per shard of reference documents."""
        specs = [
            {**spec, "reference": k}
            for k, step in enumerate(self.references)
            for spec in step.groups(ctx, f"reference-documents-{k}")
        ]
        return [*sidecar.plan(ctx), *specs]

    def _partitions(self, ctx: TaskContext) -> int:
        """The number of member partitions, from content only; 0 if no document can have copies."""
        if self.duplicates is None or (self.remove is None and self.split.check is None):
            return 0
        return partitions_for(ctx.input("duplicates").manifest.counts, self.policy().compares_texts)

    def _filter(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        import pyarrow.parquet as pq

        from headrace.flow.exchange import Spill
        from headrace.flow.keys import parse_ids
        from headrace.select.verdicts.document_filters import FILTERED, DocumentFilters
        from headrace.select.verdicts.representatives import MEMBER
        from headrace.select.verdicts.verification import TEXT

        if "reference" in spec:
            return self._send_references(ctx, spec["reference"], spec["shard"])
        filters = DocumentFilters(
            self.filters,
            self.code_in,
            tuple(self.own),
            self.expressions,
            self.decontaminate,
            self.sources,
            self.split,
            self.seed,
            self.withdrawn,
            dict(self.licence_rules),
            self.lists,
            self.synthetic,
        )
        partitions = self._partitions(ctx)
        others = {"documents", *(self.selection.inputs() if self.selection else ())}
        roles = [role for role in self.inputs() if role not in others and not role.startswith("reference-")]
        rows, longest, first = 0, 0, int(ctx.input("documents").row_offsets[spec["shard"]])
        with (
            Spill(ctx, "members", MEMBER, max(1, partitions), payload=True) as members,
            Spill(ctx, "texts", TEXT, max(1, partitions), payload=True) as texts,
            ctx.intermediate(f"filtered-{ctx.task:05d}.parquet") as out,
            pq.ParquetWriter(out.path, FILTERED) as writer,
        ):
            for batch, beside in sidecar.aligned_rows(ctx, roles, spec["shard"], self._columns(), BATCH_BYTES):
                ids = parse_ids(batch.column("id"))
                filtered = filters.apply(batch, ids, beside)
                writer.write_batch(filtered)
                if partitions:
                    sent = self._send((batch, ids), beside["duplicates"], filtered, first + rows, members, texts)
                    longest = max(longest, sent)
                rows += batch.num_rows
                ctx.progress(batch.num_rows)
        return {"documents": rows, "longest": longest}

    def _columns(self) -> list[str]:
        """The document columns used by filters and rules, or sent along."""
        columns = ["id", "source", "origin_file", "origin_row", *(["text"] if self.policy().compares_texts else [])]
        spoken_of = {name for _, node in self.expressions for name in names_in(node)} & set(DOCUMENT)
        spoken_of |= {"repo", "license"} if self.withdrawn else set()
        spoken_of |= {"repo", "path", "meta"} if self.opt_out else set()
        spoken_of |= {"meta"} if self.synthetic else set()
        return columns + sorted(spoken_of - set(columns))

    def _send(
        self,
        documents: tuple[pa.RecordBatch, npt.NDArray[np.uint64]],
        found: pa.Table,
        filtered: pa.RecordBatch,
        row: int,
        members: Spill,
        texts: Spill,
    ) -> int:
        """Send a batch's documents that have duplicates (given with ids) to the partition of their component.

        Returns:
            The bytes of the longest text among them.
        """
        from headrace.select.verdicts.representatives import describe

        rank = len(self.references) + np.array([self.priority.index(source) for source in self.sources])
        have, some = describe(*documents, found, filtered, row, rank, self.remove == "component", self.seed)
        free = np.flatnonzero(some.records["barred"] == 0)
        text = documents[0].column("text").take(pa.array(have[free])) if self.policy().compares_texts else None
        return spread(some, free, text, members, texts)

    def _send_references(self, ctx: TaskContext, reference: int, shard: int) -> dict[str, Any]:
        """Send a shard's reference documents that share a component with the corpus to its partition."""
        from headrace.select.duplicates.step import reference_file
        from headrace.select.verdicts.references import Place, send

        assert self.duplicates is not None
        step, partitions = self.references[reference], max(1, self._partitions(ctx))
        documents = step.opened(ctx, f"reference-documents-{reference}")
        found = ctx.input("duplicates").file_path(reference_file(reference, shard))
        first = self.duplicates.firsts(ctx)[reference + 1] + int(documents.row_offsets[shard])
        place = Place(first, len(self.sources) + self.against.index(reference), step.sources, reference)
        rules = (self.remove == "component", self.seed, self.policy().compares_texts)
        return {"documents": 0, "longest": send(ctx, found, documents.shard_path(shard), place, *rules, partitions)}

    # Phase "deduplicate".

    def _plan_deduplicate(self, ctx: TaskContext) -> list[dict[str, Any]]:
        from headrace.select.verdicts.greedy import HELD_PER_BYTE
        from headrace.select.verdicts.representatives import MEMBER
        from headrace.select.verdicts.verification import TEXT

        partitions = self._partitions(ctx)
        if not partitions or not ctx.input("documents").rows:
            return []

        size = partition_sizes(ctx, "members", MEMBER)
        if self.policy().compares_texts:
            # A member is held with its bucket numbers, and while they are sorted; texts up to a block's worth.
            longest = max(result["longest"] for result in ctx.results("filter"))
            most = max(LEAST_BYTES, 2 * HELD_PER_BYTE * longest)
            held = 4 * size + np.minimum(HELD_PER_BYTE * partition_sizes(ctx, "texts", TEXT), most)
        elif self.remove == "component":
            # Only representatives are held: at most half of the members, and one of a large component.
            components = ctx.input("duplicates").manifest.counts["components"]
            held = np.minimum(2 * size, 4 * (components // partitions + 4096) * MEMBER_BYTES)
        else:
            held = 4 * size
        return [{"partition": p, "least": int(held[p]) + LEAST_BYTES} for p in range(partitions)]

    def _deduplicate(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from headrace.flow.exchange import Spill, read_partition
        from headrace.select.verdicts.deduplication import deduplicate
        from headrace.select.verdicts.evidence import DECISION
        from headrace.select.verdicts.representatives import MEMBER, Chunks
        from headrace.select.verdicts.verification import TEXT, Texts

        offsets = ctx.input("documents").row_offsets
        partition = spec["partition"]

        def members() -> Chunks:
            return read_partition(ctx, "filter", "members", partition, MEMBER, payload=True)

        def texts() -> Texts:
            return read_partition(ctx, "filter", "texts", partition, TEXT, payload=True)

        destinations = destinations_of(len(offsets) - 1)
        with Spill(ctx, "decisions", DECISION, max(destinations, default=0) + 1, payload=True) as spill:

            def decide(records: npt.NDArray[np.void], evidence: npt.NDArray[np.uint8]) -> None:
                shard = np.searchsorted(offsets, records["row"].astype(np.int64), side="right") - 1
                spill.add(np.asarray(destinations)[shard], records, evidence)
                ctx.progress(len(records))

            firsts = () if self.duplicates is None else tuple(self.duplicates.firsts(ctx)[1:-1])
            return deduplicate(members, texts, self.policy(firsts), int(ctx.memory * BLOCK_SHARE), decide)

    # Phases "rank" and "cut".

    def _rank(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from headrace.select.verdicts.publication import left

        assert self.selection is not None
        return self.selection.rank(ctx, spec["shard"], left(ctx, spec["shard"]))

    def _cut(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        assert self.selection is not None
        return self.selection.cut(ctx)

    # Phase "publish".

    def _publish(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        from headrace.select.verdicts.publication import publish

        return publish(ctx, spec["shard"], self.sources, self.all_sources, self.against, self.selection)

    # Finish.

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Counts per source, checked: documents = kept + removed; and which copies were removed for which.

        Raises:
            ConservationError: the counts do not add up.
        """
        from headrace.select.verdicts.counts import add_up, pairs
        from headrace.select.verdicts.publication import SCHEMA

        documents = ctx.input("documents").manifest.counts
        counts = add_up(ctx.results("publish"), documents, self.sources, self.precedence())
        value: dict[str, Any] = {"counts": counts, "schema": {field.name: str(field.type) for field in SCHEMA}}
        removed = ctx.results("deduplicate")
        for reason, name, on in (
            ("duplicate", "duplicates", self.remove is not None),
            ("holdout", "holdout", self.split.check is not None),
        ):
            if on:
                value[name] = pairs([result[reason] for result in removed], reason, counts)
        if self.selection:
            value["quality"] = ctx.results("cut")[0]["groups"]
        if self.references:
            sets = range(len(self.references))
            value["references"] = pairs(
                [result["reference"] for result in removed], "reference", counts, sets, "against"
            )
        return value


def _rule(rule: Licenses) -> dict[str, Any]:
    """A rule without what does not matter to verdicts: the order of its entries, and how its default came about."""
    return {"allow": sorted(rule.allow), "deny": sorted(rule.deny), "remove_unknown": rule.removes_unknown}
