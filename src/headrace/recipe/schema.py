"""The recipe: one file that names the sources, how to clean them, the stages and the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from headrace.recipe.base import Count, Name, Section, Size, suggest, wrong
from headrace.recipe.cleaning import (
    Benchmark,
    CodeFilter,
    Decontaminate,
    Deduplicate,
    Filters,
    Near,
    Shapes,
    ShortFilter,
    ShortOverride,
    Split,
    Withdrawn,
)
from headrace.recipe.columns import DOCUMENT, MEASURES
from headrace.recipe.expected import Expect, Expected, Rates
from headrace.recipe.expressions import Mistake, Node, columns, parse
from headrace.recipe.functions import FunctionSection, Map, Measure, MeasureName, Reader, Rule
from headrace.recipe.grouping import Group
from headrace.recipe.licences import Licenses, OptOut
from headrace.recipe.model import ModelConfig, ModelSection, Rotary
from headrace.recipe.overlay import merge
from headrace.recipe.quality import Best, Keep, Language, Quality, Trained
from headrace.recipe.scale import scaled
from headrace.recipe.sources import CHAT_FORMATS, MAX_DOCUMENT, DocumentsConfig, Fields, FileSet, Source
from headrace.recipe.stages import (
    Fim,
    Pack,
    Rows,
    SequenceRows,
    SpecialTokens,
    Stage,
    StageSource,
    TokenizerConfig,
    TokenizerTrain,
    check_weights,
)
from headrace.recipe.synthetic import FINDINGS, Synthetic
from headrace.recipe.training import TrainSection

__all__ = [
    "CHAT_FORMATS",
    "MAX_DOCUMENT",
    "Benchmark",
    "CodeFilter",
    "Count",
    "Decontaminate",
    "Deduplicate",
    "DocumentsConfig",
    "Expect",
    "Expected",
    "Fields",
    "FileSet",
    "Filters",
    "Fim",
    "FunctionSection",
    "Group",
    "Licenses",
    "Map",
    "Measure",
    "ModelConfig",
    "ModelSection",
    "Name",
    "Near",
    "OptOut",
    "Pack",
    "Quality",
    "Reader",
    "Recipe",
    "Rule",
    "Section",
    "Shapes",
    "ShortFilter",
    "ShortOverride",
    "Size",
    "Source",
    "SpecialTokens",
    "Split",
    "Stage",
    "StageSource",
    "Synthetic",
    "TokenizerConfig",
    "TokenizerTrain",
    "TrainSection",
    "ValidationError",
    "Withdrawn",
]


HELD_OUT = "heldout"  # the sequence for measuring held-out loss; also the name of its stage
RESERVED = ("scratch", HELD_OUT)  # no stage has these names; `start: scratch` starts with new weights


class Recipe(Section):
    """Everything that decides what a model is trained on, and how."""

    inner: ClassVar = {"defaults": Stage}

    name: Name = Field(description="The recipe's name.")
    scale: float = Field(
        default=1,
        gt=0,
        description="Multiplies the amounts stated in the recipe: the `limit` of sources, the `count` of "
        "synthetic ones, the `tokens` and `train.steps` of stages, and schedules in steps. What is stated as a "
        "share or in epochs follows by itself.",
    )
    seed: int = Field(
        default=1, ge=0, lt=2**63, description="Seed of every keyed choice: splits, slices, FIM, order, weights."
    )
    sources: dict[Name, Source] = Field(
        default={}, description="The corpora, by name; none if all stages train on sequences that are there already."
    )
    synthetic: dict[Name, Synthetic] = Field(
        default={}, description="Sources whose documents a language model writes, by name; used like any other source."
    )
    documents: DocumentsConfig = Field(default=DocumentsConfig(), description="How raw text becomes documents.")
    measures: dict[MeasureName, Measure] = Field(
        default={}, description="Your own measures, by name, for use in rules."
    )
    filters: Filters = Field(default=Filters(), description="Filters that look at one document at a time.")
    deduplicate: Deduplicate | None = Field(
        default=None, description="Remove duplicates; `{}` uses the defaults, null keeps duplicates."
    )
    decontaminate: Decontaminate | None = Field(
        default=None, description="Remove documents that contain benchmark items."
    )
    quality: Quality = Field(default=Quality(), description="Annotators, and which documents to keep by their scores.")
    withdrawn: Withdrawn = Field(default=Withdrawn(), description="Documents to remove by id, repository or license.")
    opt_out: OptOut = Field(default=OptOut(), description="Lists of repositories, paths, URLs and ids to leave out.")
    split: Split = Field(default=Split(), description="Which documents to hold out.")
    tokenizer: TokenizerConfig | None = Field(default=None, description="The tokenizer; required if there are stages.")
    defaults: dict[str, Any] = Field(
        default={}, description="Stage keys that apply to every stage that does not set them itself."
    )
    stages: tuple[Stage, ...] = Field(
        default=(), description="The stages, in training order; without stages the run stops at clean documents."
    )
    held_out: Rows = Field(
        default=(),
        description="A sequence that is there already, to measure held-out loss on instead of the validation split.",
    )
    model: ModelSection | None = Field(
        default=None, description="The model; null stops the run at the stages' sequences."
    )
    expect: Expected = Field(default=Expected(), description="Rates to compare the run with.")

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def folder(self) -> Path:
        """The folder of its file, or the working folder when it was built in code."""
        return self._folder

    def __eq__(self, other: object) -> bool:
        """Whether both describe the same, wherever their files lie."""
        return isinstance(other, Recipe) and self.__dict__ == other.__dict__

    def __init__(self, /, **sections: Any) -> None:
        """A recipe built in code: its sections by name, as in a file (``extends`` included).

        Paths are relative to the working folder. A function may be given wherever a file would name one; a function
        from a script or notebook is saved along with what it uses.

        Raises:
            UserError: as for :func:`headrace.load_recipe`.
        """
        from headrace.recipe.load import from_code

        from_code(sections, super().__init__)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined] # what is validated elsewhere does not come here

    @model_validator(mode="before")
    @classmethod
    def _prepare(cls, data: Any) -> Any:
        data = cls._name_synthetic(cls._give_defaults(data))
        return scaled(data) if isinstance(data, dict) and "scale" in data else data

    @classmethod
    def _name_synthetic(cls, data: Any) -> Any:
        """Make each synthetic source a source, which may have been given keys of its own."""
        if not isinstance(data, dict) or not isinstance(data.get("synthetic"), dict):
            return data
        sources = data.get("sources", {})
        if not isinstance(sources, dict):
            return data
        made = {}
        for name, section in data["synthetic"].items():
            chat = section.get("chat") if isinstance(section, dict) else getattr(section, "chat", False)
            own = sources.get(name, {})
            if isinstance(own, dict):
                made[name] = {**own, "synthetic": "chat" if chat is True else "text"}
        return {**data, "sources": {**sources, **made}}

    @classmethod
    def _give_defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("defaults"), dict):
            return data
        for key in data["defaults"]:
            if key not in Stage.model_fields or key in ("name", "sources", "sequence"):
                allowed = ", ".join(name for name in Stage.model_fields if name not in ("name", "sources", "sequence"))
                raise wrong(f"{key!r} is not a key that stages share", f"use one of {allowed}", f"defaults.{key}")
        stages = data.get("stages")
        if isinstance(stages, list | tuple):
            merged = [merge(data["defaults"], stage, Stage) if isinstance(stage, dict) else stage for stage in stages]
            # Stages now hold all defaults themselves, so that a recipe that was written out reads back equal.
            data = {key: value for key, value in data.items() if key != "defaults"} | {"stages": merged}
        return data

    @model_validator(mode="after")
    def _has_input(self) -> Recipe:
        if not self.sources and not (self.stages and all(stage.sequence for stage in self.stages)):
            raise wrong("the recipe has no sources", "add `sources: {NAME: {files: ...}}`", "sources")
        if not self.sources and self.tokenizer is not None and self.tokenizer.train is not None:
            raise wrong("there is no text to train a tokenizer on", "give the sequences' `file`", "tokenizer.train")
        if self.tokenizer is not None and self.tokenizer.ids is not None:
            if self.sources:
                raise wrong("the text of sources needs a tokenizer", "give its `file`, or train one", "tokenizer.ids")
            for i, stage in enumerate(self.stages):
                if stage.train.samples.prompts or stage.train.samples.infills:
                    raise wrong(
                        "a prompt needs a tokenizer",
                        "give its `file`, or remove the prompts",
                        f"stages.{i}.train.samples",
                    )
        if self.held_out and not self.stages:
            raise wrong("there is no stage whose loss to measure", "remove it, or add stages", "held_out")
        check_weights(self.held_out, "held_out")
        return self

    @model_validator(mode="after")
    def _synthetic_agrees(self) -> Recipe:
        read = self.read_from_files
        for name, source in self.sources.items():
            if source.synthetic is not None and name not in self.synthetic:
                raise wrong("nothing makes this source", "remove it, or add a section `synthetic`", f"sources.{name}")
        for name, section in self.synthetic.items():
            place = f"synthetic.{name}.seeds"
            if not read:
                raise wrong("there are no documents to be inspired by", "add a source with files", "sources")
            for i, seeds in enumerate(section.seeds.sources or ()):
                if seeds not in read:
                    raise wrong(
                        f"no source {seeds!r} is read from files",
                        suggest(seeds, read) or f"they are {', '.join(read)}",
                        f"{place}.sources.{i}",
                    )
            if section.seeds.quality is not None:
                known = self.without_synthetic().quality
                try:
                    known.named(section.seeds.quality.annotator)
                except ValueError:
                    names = ", ".join(known.annotators)
                    raise wrong(
                        "no such annotator can choose the seeds",
                        f"those that learn from no synthetic documents are {names}"
                        if names
                        else "add one to quality.annotators that learns from no synthetic documents",
                        f"{place}.quality.annotator",
                    ) from None
            try:
                self.condition(section)
            except Mistake as mistake:
                raise wrong(mistake.what, mistake.fix, f"{place}.where") from None
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> Recipe:
        named = (
            [(f"deduplicate.priority.{i}", name) for i, name in enumerate(self.deduplicate.priority)]
            if (self.deduplicate)
            else []
        )
        if self.filters.short:
            named += [(f"filters.short.sources.{name}", name) for name in self.filters.short.sources]
        if self.filters.code and self.filters.code.sources:
            named += [(f"filters.code.sources.{i}", name) for i, name in enumerate(self.filters.code.sources)]
        for i, change in enumerate(self.documents.map):
            named += [(f"documents.map.{i}.sources.{j}", name) for j, name in enumerate(change.sources or ())]
        for name, annotator in self.quality.annotators.items():
            if isinstance(annotator, Trained):
                where = f"quality.annotators.{name}"
                named += [(f"{where}.positives.sources.{i}", n) for i, n in enumerate(annotator.positives.sources)]
                named += [(f"{where}.negatives.{i}", n) for i, n in enumerate(annotator.negatives or ())]
        for i, stage in enumerate(self.stages):
            named += [(f"stages.{i}.sources.{name}", name) for name in stage.sources]
        for place, name in named:
            if name not in self.sources:
                raise wrong(f"there is no source {name!r}", f"the sources are {', '.join(self.sources)}", place)
            if place.startswith("documents.map") and self.sources[name].is_chat:
                raise wrong(f"maps cannot change the conversations of {name!r}", "remove it here", place)
        return self

    @model_validator(mode="after")
    def _annotators_exist(self) -> Recipe:
        keep = self.quality.keep
        asked: list[tuple[str, Keep | Best]] = [("quality.keep", keep)] if keep is not None else []
        asked += [
            (f"stages.{i}.sources.{name}.quality", take.quality)
            for i, stage in enumerate(self.stages)
            for name, take in stage.sources.items()
            if take.quality is not None
        ]
        for place, section in asked:
            try:
                self.quality.named(section.annotator)
            except ValueError:
                names = ", ".join(self.quality.annotators)
                what = "no annotator is named" if section.annotator is None else "there is no such annotator"
                fix = f"the annotators are {names}" if names else "add one to quality.annotators"
                raise wrong(what, fix, f"{place}.annotator") from None
        identify = [name for name, one in self.quality.annotators.items() if isinstance(one, Language)]
        if keep is not None and keep.by not in (None, "language", "source", *identify):
            known = ", ".join(["language", "source", *identify])
            raise wrong(f"documents have no {keep.by!r} to rank within", f"use one of {known}", "quality.keep.by")
        if keep is not None and keep.tokens is not None and (self.tokenizer is None or self.tokenizer.file is None):
            raise wrong(
                "tokens of documents are only known before their selection with a tokenizer from a file",
                "set `tokenizer.file`, or keep a `share`; a stage's `quality.tokens` works with any tokenizer",
                "quality.keep.tokens",
            )
        for name, annotator in self.quality.annotators.items():
            if isinstance(annotator, Trained) and set(self.sources) <= set(annotator.positives.sources):
                what = "all sources are positives, so there is nothing to tell them from"
                raise wrong(what, "add a source", f"quality.annotators.{name}.positives.sources")
        return self

    @model_validator(mode="after")
    def _reasons_exist(self) -> Recipe:
        rules = [key for key in CodeFilter.model_fields if key != "sources"] + [
            rule.name for rule in self.filters.rules
        ]
        known = [
            "all",
            "withdrawn",
            "opt_out",
            "license",
            *(f"synthetic:{finding}" for finding in FINDINGS if self.synthetic),
            "empty",
            "short",
            *(f"filter:{name}" for name in rules),
            *(f"failed:{name}" for name in self.measures),
        ]
        known += ["contaminated", "reference", "duplicate", "holdout", "quality"]
        sections: list[tuple[str, Rates]] = [("expect", self.expect)]
        sections += [(f"sources.{name}.expect", s.expect) for name, s in self.sources.items() if s.expect is not None]
        for place, section in sections:
            for reason in section.removed:
                if reason not in known:
                    fix = suggest(reason, known) or f"the reasons are {', '.join(known)}"
                    raise wrong(f"documents are never removed as {reason!r}", fix, f"{place}.removed.{reason}")
            for part in section.cleaned if isinstance(section, Expect) else ():
                if part not in (parts := ["kept", *known]):
                    fix = suggest(part, parts) or f"the parts are {', '.join(parts)}"
                    raise wrong(f"cleaning has no part {part!r}", fix, f"{place}.cleaned.{part}")
        return self

    @model_validator(mode="after")
    def _stages_agree(self) -> Recipe:
        if self.stages and self.tokenizer is None:
            raise wrong("stages need a tokenizer", "add `tokenizer: {train: {vocab_size: 32000}}`", "tokenizer")
        seen: list[str] = []
        for i, stage in enumerate(self.stages):
            if stage.name in seen or stage.name in RESERVED:
                twice = f"two stages are called {stage.name!r}"
                what = twice if stage.name in seen else f"a stage cannot be called {stage.name!r}, a reserved name"
                raise wrong(what, "give every stage its own name", f"stages.{i}.name")
            outside = stage.start_path is not None
            if stage.resume and not outside:
                raise wrong("there is no checkpoint to go on from", "name one as `start: PATH`", f"stages.{i}.resume")
            if stage.resume and stage.first_row:
                raise wrong(
                    "the checkpoint that the stage goes on from says with which row",
                    "remove it",
                    f"stages.{i}.first_row",
                )
            if stage.start is not None and not outside and stage.start not in (*seen, "scratch"):
                raise wrong(
                    f"stage {stage.name!r} starts from {stage.start!r}, which is not an earlier stage",
                    f"use one of {', '.join([*seen, 'scratch'])}",
                    f"stages.{i}.start",
                )
            before = self.begins_from(stage)
            if stage.rotary is not None:
                self._check_rotary(stage, before, f"stages.{i}.rotary")
            if stage.train.carry_optimizer and before is not None:
                kind = self.stage(before).train.optimizer.kind
                if kind != stage.train.optimizer.kind:
                    raise wrong(
                        f"stage {before!r} is trained by {kind}, whose state {stage.train.optimizer.kind} cannot take",
                        "remove it, or train both by the same",
                        f"stages.{i}.train.carry_optimizer",
                    )
            seen.append(stage.name)
            for name, take in stage.sources.items():
                if not self.sources[name].is_chat:
                    continue
                if take.fim is not None:
                    raise wrong(
                        f"source {name!r} contains conversations, which fill-in-the-middle would tear apart",
                        "remove `fim` for it",
                        f"stages.{i}.sources.{name}.fim",
                    )
                if take.by_length:
                    key = "epochs" if take.weight is None else "weight"
                    raise wrong(
                        f"source {name!r} contains conversations, whose length only the chat template decides",
                        f"give one number for all lengths, such as `{key}: 1`",
                        f"stages.{i}.sources.{name}.{key}",
                    )
                if stage.chat is None:
                    raise wrong(
                        f"source {name!r} contains conversations, but the stage has no chat template",
                        "add `chat: chatml`, `crystalchat`, `llama3` or a file with a template to the stage",
                        f"stages.{i}.chat",
                    )
        return self

    @model_validator(mode="after")
    def _rules_speak_of_what_there_is(self) -> Recipe:
        for name in self.measures:
            if name in (*DOCUMENT, *MEASURES, "text", "meta", "error", "limit"):
                raise wrong(f"the name {name!r} is already taken", "rename the measure", f"measures.{name}")
        for i, rule in enumerate(self.filters.rules):
            try:
                self.expression(rule)
            except Mistake as mistake:
                raise wrong(mistake.what, mistake.fix, f"filters.rules.{i}.keep") from None
        return self

    def groups(self, stage: Stage) -> dict[str, Group]:
        """The sources of a stage whose files are grouped, and how."""
        found = {name: stage.group or self.sources[name].group for name in stage.sources}
        return {name: group for name, group in found.items() if group is not None and not self.sources[name].is_chat}

    def first_grouped(self, stage: Stage) -> str | None:
        """The name of the first stage that makes the same groups as a stage; None if that makes none."""
        rules = [{name: group.rule for name, group in self.groups(one).items()} for one in self.stages]
        mine = {name: group.rule for name, group in self.groups(stage).items()}
        return self.stages[rules.index(mine)].name if mine else None

    @model_validator(mode="after")
    def _groups_agree(self) -> Recipe:
        added = self.tokenizer.special.add if self.tokenizer is not None and self.tokenizer.train is not None else None
        for i, stage in enumerate(self.stages):
            groups = self.groups(stage)
            for name, group in groups.items():
                where = f"stages.{i}.group" if stage.group is not None else f"sources.{name}.group"
                if stage.fim_level == "context" and any(take.fim is not None for take in stage.sources.values()):
                    raise wrong(
                        f"stage {stage.name!r} has `fim_level: context`, which would cut across the files of a group",
                        "use `fim_level: document`, which rearranges the files of a group each by itself",
                        f"stages.{i}.fim_level",
                    )
                missing = [text for text in group.tokens if added is not None and text not in added]
                if missing:
                    raise wrong(
                        f"the tokenizer that is trained has no {' and '.join(missing)}",
                        f"add `special: {{add: [{', '.join(map(repr, missing))}]}}` to `tokenizer`",
                        f"{where}.format",
                    )
            if stage.group is not None and not groups:
                raise wrong(
                    f"stage {stage.name!r} has only conversations, which are not grouped",
                    "remove it",
                    f"stages.{i}.group",
                )
        return self

    def expression(self, rule: Rule) -> Node:
        """The condition of a rule, as a tree.

        Raises:
            Mistake: it is not a valid expression, or uses an unknown name.
        """
        return self._parsed(rule.keep)

    def condition(self, section: Synthetic) -> Node | None:
        """The condition on a synthetic source's seeds, as a tree; None if there is none.

        Raises:
            Mistake: as for :meth:`expression`.
        """
        return None if section.seeds.where is None else self._parsed(section.seeds.where)

    def _parsed(self, text: str) -> Node:
        own = {name: str(measure.type) for name, measure in self.measures.items()}
        return parse(text, {**own, **MEASURES, **DOCUMENT})

    @property
    def read_from_files(self) -> dict[str, Source]:
        """The sources that are not synthetic."""
        return {name: source for name, source in self.sources.items() if source.synthetic is None}

    def without_synthetic(self) -> Recipe:
        """The recipe for the documents that synthetic sources are inspired by: without annotators that learn from
        synthetic documents, which do not exist yet.
        """
        quality = self.quality.without(frozenset(self.synthetic))
        return self.model_copy(update={"sources": self.read_from_files, "synthetic": {}, "quality": quality})

    def idle(self, stage: str) -> set[str]:
        """The synthetic sources that a stage and those it starts from do without: none of these samples them, no
        annotator learns from them, and no document of another source is removed because they hold a copy.
        """
        used: set[str] = set()
        at: str | None = stage
        while at is not None:
            used |= set(self.stage(at).sources)
            at = self.begins_from(self.stage(at))
        for one in self.quality.annotators.values():
            if isinstance(one, Trained):
                used |= {*one.positives.sources, *(one.negatives or ())}
        idle = set(self.synthetic) - used
        if self.deduplicate is None:
            return idle
        if self.deduplicate.keep == "none":
            return set()
        first = self.deduplicate.priority
        order = [*first, *(name for name in self.sources if name not in first)]
        others = [order.index(name) for name in self.sources if name not in idle]
        return {name for name in idle if order.index(name) > max(others)}

    def rule_columns(self) -> list[str]:
        """The measures and columns that the rules use, sorted."""
        return sorted({name for rule in self.filters.rules for name in columns(self.expression(rule))})

    @property
    def uses_measures(self) -> bool:
        """Whether filters or rules use any of headrace's own measures."""
        return bool(self.filters.short or self.filters.code) or not set(MEASURES).isdisjoint(self.rule_columns())

    @property
    def against(self) -> tuple[Source, ...]:
        """The entries that name reference documents."""
        return self.deduplicate.against if self.deduplicate is not None else ()

    def begins_from(self, stage: Stage) -> str | None:
        """The name of the stage whose model a stage starts from; None for the first and for `scratch`."""
        if stage.start is not None:
            return None if stage.start == "scratch" or stage.start_path is not None else stage.start
        at = [other.name for other in self.stages].index(stage.name)
        return self.stages[at - 1].name if at else None

    def rotary(self, stage: Stage) -> Rotary | None:
        """The rotary frequencies of a stage's model where they are not the recipe's, with all lengths."""
        before = self.begins_from(stage)
        inherited = None if before is None else self.rotary(self.stage(before))
        given = stage.rotary
        if given is None:
            return inherited
        base, scaling = given.base, given.scaling
        if inherited is not None:
            base, scaling = base or inherited.base, scaling or inherited.scaling
        if given.scaling is not None:
            original = given.scaling.original_length
            if original is None and inherited is not None and inherited.scaling is not None:
                original = inherited.scaling.original_length
            if original is None and before is not None:
                original = self.stage(before).sequence_length
            assert original is not None  # checked
            factor = given.scaling.factor or max(1.0, stage.sequence_length / original)
            scaling = given.scaling.model_copy(update={"original_length": original, "factor": factor})
        return Rotary(base=base, scaling=scaling)

    def _check_rotary(self, stage: Stage, before: str | None, place: str) -> None:
        assert stage.rotary is not None
        scaling = stage.rotary.scaling
        if self.model is None:
            raise wrong("there is no model to change", "add a `model:` section, or remove it", place)
        if scaling is not None and scaling.original_length is None and before is None:
            raise wrong(
                "no stage before tells the row length that the model was trained on",
                "write it, such as `{kind: yarn, original_length: 8192}`",
                f"{place}.scaling.original_length",
            )

    @property
    def starts(self) -> dict[str, str]:
        """The checkpoints of other runs by the name of the stage that starts from them."""
        return {} if self.model is None else {s.name: s.start_path for s in self.stages if s.start_path is not None}

    def functions(self) -> list[tuple[str, FunctionSection]]:
        """All user-defined functions with their purpose, in the order of the flow."""
        found: list[tuple[str, FunctionSection]] = []
        for name, source in self.sources.items():
            found += [(f"sources.{name}.format", reader) for reader in source.readers.values()]
        for i, reference in enumerate(self.against):
            found += [(f"deduplicate.against.{i}.format", reader) for reader in reference.readers.values()]
        found += [(f"synthetic.{n}.parser", s.parser) for n, s in self.synthetic.items() if s.parser is not None]
        found += [(f"documents.map.{i}", change) for i, change in enumerate(self.documents.map)]
        return found + [(f"measures.{name}", measure) for name, measure in self.measures.items()]

    @property
    def sequences(self) -> dict[str, tuple[tuple[SequenceRows, ...], int]]:
        """The sequences in other files by the name of their stage, with the targets of a row."""
        found = {stage.name: (stage.sequence, stage.sequence_length) for stage in self.stages if stage.sequence}
        if self.held_out:
            found[HELD_OUT] = self.held_out, min(stage.sequence_length for stage in self.stages)
        return found

    def stage(self, name: str) -> Stage:
        """The stage with a name.

        Raises:
            KeyError: there is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)
