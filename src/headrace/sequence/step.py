"""The step that builds a stage's sequence: metadata first, each token only once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.recipe.schema import Recipe
from headrace.recipe.stages import Stage
from headrace.sequence import best, encode, group_lengths, lengths, pack, repartition, sample, shuffle, weigh
from headrace.sequence.chat_template import ChatTemplate
from headrace.sequence.grouping import join
from headrace.sequence.grouping.step import Groups
from headrace.sequence.ledger import balance
from headrace.sequence.parameters import SequenceParameters
from headrace.sequence.sampling import changes

Templates = Mapping[str, ChatTemplate]


@dataclass(frozen=True)
class Sequence(Step):
    """A stage's rows in training order, or rows of held-out documents.

    Attributes:
        parameters: what determines the rows.
        tokens: the Tokens step.
        documents: the Documents step.
        tokenizer: the Tokenizer step.
        quality: the scores of documents, by source, for sources of which only the best are taken.
        groups: the Groups step, if the stage groups files.
    """

    parameters: SequenceParameters
    tokens: Step
    documents: Step
    tokenizer: Step
    quality: Mapping[str, Step] = field(default_factory=dict)
    groups: Step | None = None

    kind: ClassVar[str] = "sequence"
    VERSION: ClassVar[int] = 3

    @staticmethod
    def of(
        recipe: Recipe,
        stage: Stage,
        templates: Templates,
        documents: Step,
        tokenizer: Step,
        tokens: Step,
        scores: Mapping[str, Step] = MappingProxyType({}),
    ) -> Sequence:
        """The sequence that a stage trains on; ``scores`` are those of each annotator."""
        chat = tuple(name for name in stage.sources if recipe.sources[name].is_chat)
        found, groups = templates.get(stage.name), recipe.groups(stage)
        parameters = SequenceParameters(stage.name, stage, recipe.seed, chat, found=found, groups=groups)
        of = {name: scores[recipe.quality.named(one.annotator)] for name, one in parameters.selected.items()}
        first, rules = recipe.first_grouped(stage), {name: group.rule for name, group in groups.items()}
        step = Groups(documents, rules, first) if first is not None else None
        return Sequence(parameters, tokens, documents, tokenizer, of, step)

    @staticmethod
    def held_out(
        recipe: Recipe, name: str, limit: int, templates: Templates, documents: Step, tokenizer: Step, tokens: Step
    ) -> Sequence:
        """The sequence for measuring held-out loss: the validation split without FIM and groups, one source per row.

        Conversations use the first template of any stage, with loss on the answers. Rows are as long as the shortest
        stage's, so that every stage's model can read them, and shuffled, so that the first ones are a fair sample.

        Args:
            recipe: the recipe.
            name: the sequence's name.
            limit: maximum tokens per source, rounded up to a whole row.
            templates: stage -> its chat template, where that is in a file, as the run found it.
            documents: the Documents step.
            tokenizer: the Tokenizer step.
            tokens: the Tokens step.
        """
        chat = tuple(source for source in recipe.sources if recipe.sources[source].is_chat)
        first = next((stage for stage in recipe.stages if stage.chat), None)
        section = Stage.model_validate(
            {
                "name": name,
                "chat": first and first.chat,
                "sequence_length": min(stage.sequence_length for stage in recipe.stages),
                "sources": {source: {} for source in recipe.sources},
                "pack": {"mix_sources": False},
            }
        )
        chat = chat if section.chat else ()
        found = templates.get(first.name) if first else None
        parameters = SequenceParameters(name, section, recipe.seed, chat, "validation", limit, found)
        return Sequence(parameters, tokens, documents, tokenizer)

    @property
    def stage(self) -> str:  # type: ignore[override]
        """The stage's name."""
        return self.parameters.stage

    def params(self) -> dict[str, Any]:
        """What determines the rows, besides the tokens."""
        return self.parameters.to_json()

    def inputs(self) -> dict[str, Step]:
        """Tokens, documents, tokenizer, scores, and groups if there are any."""
        needs = {"tokens": self.tokens, "documents": self.documents, "tokenizer": self.tokenizer}
        needs |= {best.role(source): step for source, step in self.quality.items()}
        return needs if self.groups is None else {**needs, "groups": self.groups}

    def phases(self) -> list[Phase]:
        """One task per shard of the token store, except whole (per partition of groups), join and pack (per block), and
        shuffle (per partition of rows)."""
        of, first = self.parameters, []
        if of.selected:
            first += [
                Phase("rank", best.plan, partial(best.work, of)),
                Phase("best", lambda ctx: [{}], lambda ctx, spec: best.cut(of, ctx)),
            ]
        if of.by_length:
            first.append(Phase("measure", lengths.plan, partial(lengths.measure, of)))
            if of.groups:
                first.append(Phase("whole", group_lengths.plan, partial(lengths.whole, of)))
        if any(take.weight is not None for take in of.section.sources.values()):
            first.append(Phase("weigh", partial(weigh.plan, of), partial(weigh.work, of)))
        if any(changes(of, name) for name in of.section.sources):
            first.append(Phase("encode", partial(encode.plan, of), partial(encode.work, of), encode.memory))
        return [
            *first,
            Phase("sample", partial(sample.plan, of), partial(sample.work, of)),
            *([Phase("join", partial(join.plan, of), partial(join.work, of))] if of.groups else []),
            Phase("pack", partial(pack.plan, of), partial(pack.work, of)),
            Phase("repartition", partial(repartition.plan, of), partial(repartition.work, of)),
            Phase("shuffle", partial(shuffle.plan, of), partial(shuffle.work, of), shuffle.memory),
        ]

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """The ledger, checked against the rows, and what readers need to know."""
        tokens, tokenizer = ctx.input("tokens").manifest.extra, ctx.input("tokenizer").manifest.extra
        counts, ledger = balance(self.parameters, ctx)
        special = self.parameters.special(ctx)
        return {
            "counts": counts,
            "seq_len": self.parameters.seq_len,
            "dtype": tokens["dtype"],
            "vocab_size": tokenizer["vocab_size"],
            "eod": special["eod"],
            "pad": special["pad"],
            "tokenizer": tokenizer["fingerprint"],
            "sources": tokens["sources"],
            "seeds": {"recipe": self.parameters.seed, **self.parameters.own_seed},
            **({"quality": ctx.results("best")[0]["sources"]} if self.parameters.selected else {}),
            "ledger": ledger,
        }
