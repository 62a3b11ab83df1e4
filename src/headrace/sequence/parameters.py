"""What determines a stage's rows, and the quantities that its phases derive from that and the step's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from headrace.flow.task import TaskContext
from headrace.recipe.grouping import Group
from headrace.recipe.quality import Best
from headrace.recipe.stages import Stage
from headrace.sequence.chat_template import ChatTemplate, chat_template
from headrace.sequence.epochs import ResolvedStage, counts_of, resolve
from headrace.sequence.grouping.joiner import Joiner, deciding
from headrace.sequence.layout import Blocks, Shards, total_rows
from headrace.tokens.control import ControlTokens
from headrace.tokens.engine import Engine
from headrace.tokens.load import open_control, open_engine

# The keys of a stage's section that determine the rows; the others are about training.
_DECIDING = ("sequence_length", "sources", "tokens", "chat", "fim_level", "pack")


@dataclass(frozen=True)
class SequenceParameters:
    """What determines a stage's rows, besides the tokens.

    Attributes:
        stage: the stage's name, which also names the artifact.
        section: the stage's section of the recipe.
        seed: the recipe's seed.
        chat_sources: sources of conversations.
        split: the documents to use: ``train``, ``validation`` or ``test``.
        limit: tokens after which a stream's rows end (each source's, if sources do not share rows).
        found: the chat template as the run found it; read from its file without it.
        groups: the sources whose files are grouped, and how.
    """

    stage: str
    section: Stage
    seed: int
    chat_sources: tuple[str, ...] = ()
    split: str = "train"
    limit: int | None = None
    found: ChatTemplate | None = None
    groups: Mapping[str, Group] = field(default_factory=dict)

    @property
    def seq_len(self) -> int:
        """Targets per row."""
        return self.section.sequence_length

    @property
    def draws(self) -> int:
        """The seed of all choices but slices, which must be those of the stages that take the other slices."""
        return self.seed if self.section.seed is None else self.section.seed

    @property
    def own_seed(self) -> dict[str, int]:
        """The stage's own seed by its name in manifests, if it has one."""
        return {} if self.section.seed is None else {"stage_seed": self.section.seed}

    def to_json(self) -> dict[str, Any]:
        """The parameters of the step."""
        return {
            "stage": self.stage,
            "seed": self.seed,
            **self.own_seed,
            "split": self.split,
            "limit": self.limit,
            "chat_sources": list(self.chat_sources),
            **self._section(),
            "chat": self.template.identity() if self.template else None,
            **({"groups": {name: deciding(group) for name, group in self.groups.items()}} if self.groups else {}),
        }

    def _section(self) -> dict[str, Any]:
        """What the section says about rows; the names of annotators are not part of that."""
        dumped = self.section.model_dump(mode="json", include=set(_DECIDING))
        for take in dumped["sources"].values():
            take["quality"].pop("annotator") if take["quality"] else take.pop("quality")
        if dumped["pack"]["prefer"] is None:
            dumped["pack"].pop("prefer")
        return dumped

    @property
    def selected(self) -> dict[str, Best]:
        """The sources of which only the best documents are taken."""
        return {name: take.quality for name, take in self.section.sources.items() if take.quality is not None}

    @property
    def by_length(self) -> list[str]:
        """The sources of which documents of some lengths are taken more than others."""
        return [name for name, take in self.section.sources.items() if take.by_length]

    def limits(self, names: list[str]) -> np.ndarray:
        """int64[sources]: the most tokens of a group's training document, for each of the token store's sources."""
        limits = (self.groups[name].limit if name in self.groups else None for name in names)
        return np.array([np.iinfo(np.int64).max if limit is None else limit for limit in limits])

    def heads(self, source: str) -> bool:
        """Whether the files of a source's groups get a header."""
        joined = self.groups[source].joined if source in self.groups else None
        return joined is not None and bool(joined.start or joined.header)

    @cached_property
    def template(self) -> ChatTemplate | None:
        """The chat template.

        Raises:
            UserError: the file is missing or holds no template.
        """
        return self.found or (None if self.section.chat is None else chat_template(self.section.chat))

    def resolved(self, ctx: TaskContext) -> ResolvedStage:
        """What is taken from each source; held-out sources without documents are left out."""
        counts = counts_of(ctx.input("tokens"), self.split)
        if self.selected:
            from headrace.sequence.best import counts_of_best

            counts |= counts_of_best(ctx)
        if self.by_length:
            from headrace.sequence.lengths import counts_by_length

            counts |= counts_by_length(self, ctx)
        section = self.section
        if self.split != "train":
            held = {name: take for name, take in section.sources.items() if counts[name].tokens}
            if not held:
                return ResolvedStage(section.name, self.seq_len, ())
            section = section.model_copy(update={"sources": held})
        return resolve(section, counts)

    def blocks(self, ctx: TaskContext) -> Blocks:
        """The partitions of the document order."""
        names = ctx.input("tokens").manifest.extra["sources"]
        expected: dict[int, int] = {}
        for source in self.resolved(ctx).sources:
            i = names.index(source.name)
            expected[i] = expected.get(i, 0) + source.documents
        return Blocks.of(expected, self.section.pack.mix_sources)

    def shards(self, ctx: TaskContext) -> Shards:
        """The partitions of the row order."""
        size = np.dtype(ctx.input("tokens").manifest.extra["dtype"]).itemsize
        return Shards.of(total_rows(ctx.results("pack")), (self.seq_len + 1) * size)

    def special(self, ctx: TaskContext) -> dict[str, int]:
        """Role -> id of the tokenizer's special tokens."""
        return dict(ctx.input("tokenizer").manifest.extra["special"])

    def engine(self, ctx: TaskContext) -> Engine:
        """The tokenizer."""
        return open_engine(ctx.input("tokenizer"), ctx.threads)

    def control(self, ctx: TaskContext) -> ControlTokens | None:
        """The tokenizer's control tokens, if a Jinja template or groups need them."""
        needed = bool(self.groups) or (self.template is not None and self.template.source is not None)
        return open_control(ctx.input("tokenizer")) if needed else None

    def joiners(self, ctx: TaskContext) -> dict[str, Joiner]:
        """What joins the files of each source's groups."""
        control = self.control(ctx)
        return {
            name: Joiner.of(group, control, self.special(ctx)["eod"]) for name, group in self.groups.items() if control
        }
