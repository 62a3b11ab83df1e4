"""The step that builds a stage's sequence, in four phases: metadata first, tokens once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.recipe.schema import Recipe
from headrace.recipe.stages import Stage
from headrace.sequence import arrange, choose, encode, order, scatter, weigh
from headrace.sequence.corpus import counts_of
from headrace.sequence.epochs import ResolvedStage, resolve
from headrace.sequence.layout import Blocks, Shards
from headrace.sequence.ledger import balance
from headrace.sequence.taking import changes
from headrace.tokens.engine import Engine
from headrace.tokens.load import open_engine

# What of a stage's section decides the rows; the rest is training's.
_DECIDING = ("sequence_length", "sources", "tokens", "chat", "fim_level", "pack")


@dataclass(frozen=True)
class Sequence(Step):
    """A stage's rows in training order, or the rows of held-out documents.

    Attributes:
        config: the stage's section of the recipe.
        seed: the recipe's seed.
        tokens: the step of the token store.
        documents: the step of the documents.
        tokenizer: the step of the tokenizer.
        chat_sources: sources made of conversations.
        split: which documents: ``train``, ``validation`` or ``test``.
        stage: the stage's name, and what the artifact is called after.
        limit: tokens after which the rows of a stream end (of each source, where sources do not share rows).
    """

    config: Stage
    seed: int
    tokens: Step
    documents: Step
    tokenizer: Step
    chat_sources: tuple[str, ...] = ()
    split: str = "train"
    stage: str = ""
    limit: int | None = None

    kind: ClassVar[str] = "sequence"
    VERSION: ClassVar[int] = 3

    @staticmethod
    def of(recipe: Recipe, stage: Stage, documents: Step, tokenizer: Step, tokens: Step) -> Sequence:
        """The sequence that a stage trains on."""
        chat = tuple(name for name in stage.sources if recipe.sources[name].is_chat)
        return Sequence(stage, recipe.seed, tokens, documents, tokenizer, chat, stage=stage.name)

    @staticmethod
    def held_out(recipe: Recipe, name: str, limit: int, documents: Step, tokenizer: Step, tokens: Step) -> Sequence:
        """The sequence on which held-out loss is measured: the validation split without FIM, one source a row.

        Conversations are held in the first template that a stage uses, with loss on the answers. Rows are as long as
        the shortest stage's, so that every stage's model can read them, and shuffled, so that the first of them are a
        fair sample.

        Args:
            recipe: the recipe.
            name: what to call it.
            limit: tokens of each source at most, to the next whole row.
            documents: the step of the documents.
            tokenizer: the step of the tokenizer.
            tokens: the step of the token store.
        """
        chat = tuple(source for source in recipe.sources if recipe.sources[source].is_chat)
        config = Stage.model_validate(
            {
                "name": name,
                "chat": next((stage.chat for stage in recipe.stages if stage.chat), None),
                "sequence_length": min(stage.sequence_length for stage in recipe.stages),
                "sources": {source: {} for source in recipe.sources},
                "pack": {"mix_sources": False},
            }
        )
        chat = chat if config.chat else ()
        return Sequence(config, recipe.seed, tokens, documents, tokenizer, chat, "validation", stage=name, limit=limit)

    @property
    def seq_len(self) -> int:
        """Targets of a row."""
        return self.config.sequence_length

    def params(self) -> dict[str, Any]:
        """What decides the rows beside the tokens."""
        stage = self.config.model_dump(mode="json", include=set(_DECIDING))
        return {
            "stage": self.stage,
            "seed": self.seed,
            "split": self.split,
            "limit": self.limit,
            "chat_sources": list(self.chat_sources),
            **stage,
        }

    def inputs(self) -> dict[str, Step]:
        """Tokens, documents, tokenizer."""
        return {"tokens": self.tokens, "documents": self.documents, "tokenizer": self.tokenizer}

    def phases(self) -> list[Phase]:
        """By shard of the token store, but for arrange, which goes by block, and order, by partition of the rows."""
        first = []
        if any(take.weight is not None for take in self.config.sources.values()):
            first.append(Phase("weigh", partial(weigh.plan, self), partial(weigh.work, self)))
        if any(changes(self, name) for name in self.config.sources):
            first.append(Phase("encode", partial(encode.plan, self), partial(encode.work, self), encode.memory))
        return [
            *first,
            Phase("choose", partial(choose.plan, self), partial(choose.work, self)),
            Phase("arrange", partial(arrange.plan, self), partial(arrange.work, self)),
            Phase("scatter", partial(scatter.plan, self), partial(scatter.work, self)),
            Phase("order", partial(order.plan, self), partial(order.work, self), order.memory),
        ]

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """The ledger, checked against the rows, and what a reader must know."""
        tokens, tokenizer = ctx.input("tokens").manifest.extra, ctx.input("tokenizer").manifest.extra
        counts, ledger = balance(self, ctx)
        special = self.special(ctx)
        return {
            "counts": counts,
            "seq_len": self.seq_len,
            "dtype": tokens["dtype"],
            "vocab_size": tokenizer["vocab_size"],
            "eod": special["eod"],
            "pad": special["pad"],
            "tokenizer": tokenizer["fingerprint"],
            "sources": tokens["sources"],
            "seeds": {"recipe": self.seed},
            "ledger": ledger,
        }

    # What phases share. All of it follows from the inputs, so any process works it out for itself.

    def resolved(self, ctx: TaskContext) -> ResolvedStage:
        """What is taken of each source; held-out sources without documents are left out."""
        counts = counts_of(ctx.input("tokens"), self.split)
        config = self.config
        if self.split != "train":
            held = {name: take for name, take in config.sources.items() if counts[name].tokens}
            if not held:
                return ResolvedStage(config.name, self.seq_len, ())
            config = config.model_copy(update={"sources": held})
        return resolve(config, counts)

    def blocks(self, ctx: TaskContext) -> Blocks:
        """The partitions of the document order."""
        names = ctx.input("tokens").manifest.extra["sources"]
        expected = {names.index(source.name): source.documents for source in self.resolved(ctx).sources}
        return Blocks.of(expected, self.config.pack.mix_sources)

    def shards(self, ctx: TaskContext) -> Shards:
        """The partitions of the row order."""
        size = np.dtype(ctx.input("tokens").manifest.extra["dtype"]).itemsize
        return Shards.of(arrange.total_rows(ctx.results("arrange")), (self.seq_len + 1) * size)

    def special(self, ctx: TaskContext) -> dict[str, int]:
        """Role -> id of the tokenizer's tokens with a duty."""
        return dict(ctx.input("tokenizer").manifest.extra["special"])

    def engine(self, ctx: TaskContext) -> Engine:
        """The tokenizer."""
        return open_engine(ctx.input("tokenizer"), ctx.threads)
