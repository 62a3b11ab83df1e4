"""The recipe's third part: the tokenizer and the stages' sequences."""

from __future__ import annotations

import re
from datetime import date as Date  # noqa: N812 - a field has this name
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from headrace.recipe.base import Count, Name, Section, Size, listed, suggest, wrong
from headrace.recipe.grouping import Group
from headrace.recipe.lengths import Bucket, ByLength, buckets
from headrace.recipe.model import Rotary
from headrace.recipe.quality import Best
from headrace.recipe.training import TrainSection


class SpecialTokens(Section):
    """The special tokens. Where a key is null, a tokenizer from a file keeps its own token, and the run reports it.

    A tokenizer's own tokens come from `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json` or
    `config.json` next to it, the SentencePiece model or the template; from the only known end-of-document token; from
    the fill-in-the-middle tokens of StarCoder, SantaCoder, CodeLlama, DeepSeek, Qwen, CodeGemma, Granite, Codestral,
    CodeGeeX or Seed-Coder; and from the markers of chat templates. A required token that is missing is an error: only
    `add` adds tokens. A tokenizer trained here gets `<|endoftext|>`, `<|fim_prefix|>` and so on, and the markers.
    """

    eod: str | None = Field(default=None, min_length=1, description="Ends every document.")
    pad: str | None = Field(
        default=None,
        min_length=1,
        description="Fills rows that best-fit packing leaves short; defaults to `eod` if the tokenizer has none.",
    )
    bos: str | Literal[False] | None = Field(
        default=None,
        description="Begins a conversation in templates that use one; false omits it, as does null if the tokenizer "
        "has none.",
    )
    fim_prefix: str | None = Field(default=None, min_length=1, description="Precedes the prefix.")
    fim_middle: str | None = Field(default=None, min_length=1, description="Precedes the middle.")
    fim_suffix: str | None = Field(default=None, min_length=1, description="Precedes the suffix.")
    fim_pad: str | None = Field(
        default=None, min_length=1, description="Fills windows that context-level FIM leaves short."
    )
    add: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(listed)] = Field(
        default=(),
        description="Tokens to add after the last id if the tokenizer lacks them, and never to split; the vocabulary "
        "grows accordingly.",
    )


class TokenizerTrain(Section):
    """Train a byte-level BPE tokenizer on the kept documents of the training split."""

    vocab_size: Count = Field(default=32_000, ge=300, description="Vocabulary size, including special tokens.")
    min_frequency: int = Field(default=2, ge=1, description="Minimum occurrences of a pair to merge it.")
    sample: Size | None = Field(
        default=None, description="Train on at most this much text, chosen by keyed hash; null uses all of it."
    )


class TokenizerConfig(Section):
    """Where the tokenizer comes from: exactly one of `train`, `file` and `ids`.

    A tokenizer from a file gives the same tokens as its own library (`tokenizers` for a .json, SentencePiece for a
    .model), without special tokens, truncation or padding. A file for which this does not hold, or whose tokens do not
    reproduce every text, is refused with the reason. SentencePiece models treat U+2581 as a space.

    headrace's own engine runs byte-level BPE that splits text digit by digit or by regular expressions (possibly
    nested) that look ahead at most one character: GPT-2 to gpt-oss, Llama 3 and 4, Qwen, Mistral's Tekken,
    DeepSeek-V3, StarCoder, OLMo, BLOOM. NFC normalization and added tokens that are not special are supported, unless
    the tokens depend on the text around them (`lstrip`, `rstrip`, `single_word`). It also runs SentencePiece BPE with
    byte fallback (LLaMA, Mistral, Gemma). Other tokenizers run on the tokenizers library: the same ids, about 20 times
    slower, and the run says so once.
    """

    alternatives: ClassVar = {"train": ("file", "ids"), "file": ("train", "ids"), "ids": ("train", "file")}

    train: TokenizerTrain | None = Field(default=None, description="Train a tokenizer on the corpus.")
    file: str | None = Field(
        default=None, description="Use this tokenizer.json (Hugging Face tokenizers) or SentencePiece model."
    )
    ids: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="No tokenizer, only how many ids there are, for stages that train on sequences in other files: no "
        "text is read, and none is shown (no samples, no bits per byte).",
    )
    loses: Annotated[tuple[str, ...], BeforeValidator(listed)] = Field(
        default=(),
        description="Ways in which a tokenizer from a file may lose text, by the names of its parts, such as "
        "`[Lowercase]`. A tokenizer that loses text in any other way is refused.",
    )
    special: SpecialTokens = Field(default=SpecialTokens(), description="The special tokens.")

    @model_validator(mode="after")
    def _one_of(self) -> TokenizerConfig:
        if sum(one is not None for one in (self.train, self.file, self.ids)) != 1:
            raise wrong(
                "a tokenizer is either trained or read from a file",
                "set one of `train: {vocab_size: 32000}` and `file: tokenizer.json`",
            )
        if self.train is not None and self.loses:
            raise wrong("a tokenizer trained here loses nothing", "remove `loses`", "loses")
        if self.ids is not None and self.model_fields_set & {"loses", "special"}:
            raise wrong("`ids` is no tokenizer that could lose text or have special tokens", "keep `ids` alone", "ids")
        return self


class Fim(Section):
    """Fill-in-the-middle (Bavarian et al. 2022, 2207.14255)."""

    rate: float = Field(description="Share of documents (or pieces) to rearrange.")
    spm: float = Field(
        default=0.5, description="Share of those in suffix-prefix-middle order; the rest use prefix-suffix-middle."
    )

    @model_validator(mode="after")
    def _shares(self) -> Fim:
        for key in ("rate", "spm"):
            value = getattr(self, key)
            if not 0 <= value <= 1:
                raise wrong(f"{value:g} is not a share", "write a number from 0 to 1", key)
        return self


class StageSource(Section):
    """How much of a source a stage takes, and how to transform it."""

    alternatives: ClassVar = {"epochs": ("weight",), "weight": ("epochs",)}

    slice: tuple[float, float] = Field(
        default=(0.0, 1.0),
        description="Part of the source, by keyed hash of its documents: [0, 0.5] and [0.5, 1] never overlap.",
    )
    epochs: ByLength | None = Field(
        default=None,
        description="Passes over the slice, fractions allowed. Defaults to 1 without `weight`. By length: "
        "`{0: 0.5, 32k: 4}` takes half of the documents with fewer than 32,000 tokens and the others four times; those "
        "shorter than the first length are left out. The length is that of the document, or of the group that its "
        "files are joined into, as tokenized.",
    )
    weight: ByLength | None = Field(
        default=None,
        description="Share of the stage's `tokens`, relative to the other weights; replaces `epochs`. Takes whole "
        "passes, then documents in keyed order until the share is reached, exact to a document. By length as `epochs`.",
    )
    quality: Best | None = Field(
        default=None, description="Only the best documents of the source, by an annotator's scores; null takes all."
    )
    fim: Fim | None = Field(default=None, description="Fill-in-the-middle; null leaves documents unchanged.")

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """What to take by length, from the shortest documents on: one for all lengths unless they differ."""
        return buckets(self.epochs, self.weight)

    @property
    def by_length(self) -> bool:
        """Whether documents of some lengths are taken more than others."""
        return self.buckets[0].lengths is not None

    @model_validator(mode="after")
    def _sensible(self) -> StageSource:
        low, high = self.slice
        if not 0 <= low <= 1 or not 0 <= high <= 1:
            raise wrong(f"the slice [{low:g}, {high:g}] goes beyond 0 and 1", "write two numbers from 0 to 1", "slice")
        if low >= high:
            raise wrong(
                f"the slice [{low:g}, {high:g}] is {'empty' if low == high else 'reversed'}",
                "write [from, to] with from below to, such as [0, 0.5]",
                "slice",
            )
        if self.epochs is not None and self.weight is not None:
            raise wrong("epochs and weight both say how much to take", "keep one of them", "weight")
        for key in ("epochs", "weight"):
            value = getattr(self, key)
            if isinstance(value, float) and value <= 0:
                raise wrong(
                    f"{key} is {value:g} but must be above 0", "to take nothing, remove the source from the stage", key
                )
        most = max((bucket.epochs or 0 for bucket in self.buckets), default=0)
        if most > 65_535:
            # Segments store the epoch as uint16.
            raise wrong(f"{most:g} epochs is more than 65,535", "write fewer epochs", "epochs")
        return self


def _parts(value: Any) -> Any:
    """One part as a list of parts."""
    one = isinstance(value, list | tuple) and all(isinstance(cut, int | float) for cut in value)
    return [value] if one else value


class SequenceRows(Section):
    """Rows that a stage takes from a sequence in other files."""

    path: Annotated[tuple[str, ...], BeforeValidator(listed)] = Field(
        min_length=1,
        description="An export, a file, or a folder of files in a format that is read, such as Cerebras HDF5; or a "
        "list of them, whose rows follow one another. `${NAME}` comes from the environment.",
    )
    stage: str | None = Field(default=None, description="The stage's name there, if there are several.")
    slice: Annotated[tuple[tuple[float, float], ...], BeforeValidator(_parts)] = Field(
        default=((0.0, 1.0),), min_length=1, description="Part of the rows, from first to last; or a list of parts."
    )
    weight: float | None = Field(
        default=None,
        gt=0,
        description="Share of a mixture, relative to the other weights: rows are mixed as Cerebras' Model Zoo mixes "
        "them, until each sequence with more than 5 % is read once; smaller ones start again.",
    )

    @model_validator(mode="after")
    def _sensible(self) -> SequenceRows:
        before = 0.0
        for low, high in self.slice:
            if not 0 <= low < high <= 1:
                raise wrong(f"the slice [{low:g}, {high:g}] is none", "write [from, to] within 0 and 1", "slice")
            if low < before:
                raise wrong("the parts of the slice overlap or are not in order", "write them in order", "slice")
            before = high
        return self


def _rows(value: Any) -> Any:
    """Write a path out as a section, and a single one as a list."""
    items = listed(value)
    return [{"path": item} if isinstance(item, str) else item for item in items] if isinstance(items, list) else items


Rows = Annotated[tuple[SequenceRows, ...], BeforeValidator(_rows)]


def check_weights(rows: tuple[SequenceRows, ...], key: str) -> None:
    """Refuse weights that make no mixture; ``key`` is where they are."""
    shares = [one.weight for one in rows if one.weight is not None]
    if shares and len(shares) < len(rows):
        raise wrong("some sequences have a weight and some have none", "give all of them one, or none", key)
    if shares and max(shares) <= 0.05 * sum(shares):
        raise wrong("no sequence has more than 5 % of the weight", "name fewer sequences", key)


class Pack(Section):
    """How to pack documents into rows."""

    method: Literal["concatenate", "best_fit"] = Field(
        default="concatenate",
        description="`concatenate` joins documents and cuts windows; `best_fit` keeps documents whole if they fit in "
        "one row (Ding et al. 2024, 2404.10830) and pads.",
    )
    prefer: Literal["long"] | None = Field(
        default=None,
        description="`long`: rows of few long documents. With `best_fit`, each row begins with a piece of at least "
        "half a row; shorter ones only fill gaps, and what fits in none is left out. With `concatenate`, documents "
        "come longest first, so that short ones share rows with short ones, and nothing is left out.",
    )
    mix_sources: bool = Field(default=True, description="Whether documents from different sources may share a row.")


BUILT_IN = ("crystalchat", "chatml", "llama3")


def _templated(value: Any) -> Any:
    """A section that only names a template, for the name alone."""
    return {"template": value} if isinstance(value, str) else value


class Chat(Section):
    """How a stage renders conversations.

    A template from a file is Jinja, run in a sandbox as transformers runs it: the same text and ids as
    `apply_chat_template`, and loss where its `return_assistant_tokens_mask` has 1, inside `{% generation %}` marks.
    Without marks, loss covers what follows the header that `add_generation_prompt` writes, up to the last control token
    of the turn. Unlike there, text in a conversation that spells a control token stays text. Conversations that a
    template refuses or cannot render go to the sequence's `quarantine/`.
    """

    template: str = Field(
        description="`crystalchat`, `chatml`, `llama3`, or a file: a Jinja template, a `tokenizer_config.json` that "
        "contains one, or a folder with either. Special tokens come from the configuration in the same folder."
    )
    loss: Literal["assistant", "last"] = Field(
        default="assistant", description="Whether all turns of the assistant carry loss or only the last one."
    )
    truncate: Literal["split", "drop", "left", "right"] = Field(
        default="split",
        description="What to do with a conversation longer than a row: `split` it over rows, `drop` it, or remove "
        "turns from its beginning (`left`, after the system turn) or its end (`right`) until it fits.",
    )
    variables: dict[str, Any] = Field(
        default={}, description="Further variables of the template, such as `enable_thinking: false`."
    )
    date: str | None = Field(
        default=None,
        description="The date that `strftime_now` formats, such as `2024-07-26`; without one it is undefined.",
    )

    @model_validator(mode="after")
    def _sensible(self) -> Chat:
        if self.template not in BUILT_IN and not re.search(r"[/.]", self.template):
            fix = suggest(self.template, BUILT_IN) or f"use one of {', '.join(BUILT_IN)}, or a file"
            raise wrong(f"there is no chat template {self.template!r}", fix, "template")
        if self.date is not None:
            try:
                Date.fromisoformat(self.date)
            except ValueError:
                raise wrong(f"{self.date!r} is not a date", "write it like 2024-07-26", "date") from None
        if self.template in ("crystalchat", "chatml") and (self.variables or self.date):
            raise wrong(f"the template {self.template} has no variables", "remove `variables` and `date`")
        return self


class Stage(Section):
    """A span of training with its own mixture, transformations and schedule."""

    alternatives: ClassVar = {"sources": ("sequence",), "sequence": ("sources",)}

    name: Name = Field(description="The stage's name.")
    sequence_length: int = Field(default=2048, description="Tokens each row trains on; a row holds one more.")
    sources: dict[Name, StageSource] = Field(default={}, description="What the stage takes, by source.")
    sequence: Rows = Field(
        default=(),
        description="Instead of sources: a sequence that is there already, or a list of them, one after the other or "
        "mixed by weight. The rows of each are trained on in their order.",
    )
    epochs: PositiveInt = Field(
        default=1, description="How often the rows of `sequence` are read, in the same order each time."
    )
    tokens: Count | None = Field(default=None, description="Tokens in the stage, divided by `weight`, such as `3B`.")
    chat: Annotated[Chat | None, BeforeValidator(_templated)] = Field(
        default=None,
        description="Chat template: its name or file, or a section that says more; required if a source contains "
        "conversations.",
    )
    fim_level: Literal["document", "context"] = Field(
        default="document",
        description="Rearrange whole documents before packing or, as CrystalCoder did, the pieces of packed windows.",
    )
    group: Group | None = Field(
        default=None,
        description="Join the files of a repository into one training document, for all sources of the stage but "
        "conversations; null groups the sources that have a `group` of their own.",
    )
    pack: Pack = Field(default=Pack(), description="How to pack documents into rows.")
    first_row: NonNegativeInt = Field(
        default=0, description="The row of the stage's sequence to begin training with; those before are passed over."
    )
    start: str | None = Field(
        default=None,
        description="Stage whose last checkpoint this one starts from, or `scratch`; or the path of a checkpoint, of a "
        "model's folder (headrace's own or Hugging Face's) or of a safetensors file; null means the previous stage.",
    )
    resume: bool = Field(
        default=False,
        description="Go on from the checkpoint that `start` names: from its step, with its optimizer, and the rows "
        "after those that it consumed.",
    )
    rotary: Rotary | None = Field(
        default=None,
        description="Other rotary frequencies for the model from this stage on, such as `{scaling: yarn}` where rows "
        "get longer; null leaves those of the stage it starts from.",
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        lt=2**63,
        description="Seed of this stage's fractional epochs, FIM and order; null means the recipe's, which "
        "also decides slices. With another, the same documents come in another order.",
    )
    train: TrainSection = Field(default=TrainSection(), description="Batch, optimizer and schedule of the stage.")

    @property
    def start_path(self) -> str | None:
        """The path in `start`; None if it names a stage."""
        return self.start if self.start is not None and re.search(r"[/.]", self.start) else None

    @model_validator(mode="after")
    def _mixture(self) -> Stage:
        if bool(self.sources) == bool(self.sequence):
            raise wrong(
                f"the stage has {'both' if self.sources else 'neither'} `sources` {'and' if self.sources else 'nor'} "
                "`sequence`",
                "say what it takes by source, or which sequence it trains on",
                "sources",
            )
        check_weights(self.sequence, "sequence")
        if self.sequence and self.group is not None:
            raise wrong("the rows of `sequence` are there already", "remove `group`", "group")
        if self.epochs > 1 and not self.sequence:
            raise wrong("`epochs` of a stage are those of its `sequence`", "give them by source", "epochs")
        if self.sequence_length < 2:
            raise wrong(
                f"a sequence length of {self.sequence_length} leaves no context to predict from",
                "write 2 or more, such as 2048",
                "sequence_length",
            )
        weighted = [name for name, take in self.sources.items() if take.weight is not None]
        if weighted and self.tokens is None:
            raise wrong(
                f"source {weighted[0]!r} has a weight but the stage has no token total",
                "add `tokens:` to the stage, such as `tokens: 3B`, or give epochs instead",
                "tokens",
            )
        if weighted and len(weighted) < len(self.sources):
            other = next(name for name in self.sources if name not in weighted)
            raise wrong(
                f"source {weighted[0]!r} has a weight but {other!r} has none",
                "give every source of the stage a weight, or give every one epochs",
                f"sources.{other}",
            )
        if self.tokens is not None and not weighted:
            raise wrong(
                "the stage has a token total but its sources have epochs",
                "give the sources weights, or remove `tokens`",
                "tokens",
            )
        if self.tokens is not None and self.tokens < self.sequence_length:
            raise wrong(f"{self.tokens} tokens do not fill one row", "raise `tokens`", "tokens")
        return self
