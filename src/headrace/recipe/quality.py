"""The recipe's section about quality: annotators, which score documents, and which documents their scores keep."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from headrace.recipe.base import Count, Name, Section, listed, wrong
from headrace.recipe.cleaning import Benchmark
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


AnyAnnotator = Linear
"""One annotator's section. A further kind is an :class:`Annotation` with a literal ``kind``, a :class:`Trained` one if
it is trained here; its scorer stands in :data:`headrace.select.quality.scorer.SCORERS`."""


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
    by: Literal["language", "source"] | None = Field(
        default="language",
        description="What to rank within. Each language, or source, keeps its share of the corpus; null ranks all "
        "documents together.",
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Keep:
        if sum(one is not None for one in (self.share, self.tokens, self.above)) != 1:
            raise wrong("nothing, or too much, says how many documents to keep", "set one of share, tokens and above")
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

    @property
    def positives(self) -> dict[str, tuple[Any, ...]]:
        """The documents in other files that annotators are trained on, by annotator."""
        trained = {name: one for name, one in self.annotators.items() if isinstance(one, Trained)}
        return {name: one.positives.files for name, one in trained.items() if one.positives.files}
