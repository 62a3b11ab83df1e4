"""The work of annotators: of training them, and of the scores of all documents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace.errors import UserError
from headrace.planning.corpus import Corpus, documents_of
from headrace.planning.counts import BYTES_PER_TOKEN, SourceCounts
from headrace.planning.rates import Work, figures, work
from headrace.recipe.quality import Encoder, Perplexity, Pretrained, Trained
from headrace.recipe.schema import Recipe

# Layers and width of the models that the rates are of; and of a model whose folder is not there: BERT-base's, as
# Arctic-SnowCoder's annotator has.
_TIMED, _TIMED_LANGUAGE, _ASSUMED = (6, 384), (12, 768), (12, 768)
_WINDOW = 512  # tokens of a window of transformers if the recipe does not say


def annotation(corpus: Corpus) -> list[Work]:
    """The work of a corpus' annotators."""
    out = []
    decided = corpus.decided
    for name, annotator in corpus.recipe.quality.annotators.items():
        if name in corpus.trained:
            assert isinstance(annotator, Trained)
            # As many negatives as positives, each as long as the corpus' documents. What is read once is read again in
            # each pass, and for the learning curve; a frozen encoder keeps what it has read.
            examples = 2 * min(annotator.examples, decided)
            again = 1 + sum(annotator.curve)
            passes = getattr(annotator, "passes", 1) * again
            if isinstance(annotator, Encoder):
                # Forward and backward take three times as long as forward alone.
                passes = 1 + (3 * annotator.fine_tune.passes * again if annotator.fine_tune else 0)
            out.append(_looking(f"annotator-{name}", "train", annotator, examples * passes, corpus.sources))
        out.append(_looking(f"quality-{name}", "score", annotator, corpus.documents, corpus.new))
    return out


def _looking(artifact: str, step: str, annotator: Any, documents: float, of: tuple[SourceCounts, ...]) -> Work:
    """The work of looking at so many documents, each as long as those of some sources are."""
    figure = f"{artifact.partition('-')[0]}-{annotator.kind}"
    length = sum(source.bytes for source in of) / max(1, documents_of(of))
    if figures()[figure].unit == "bytes/s":
        return work(artifact, step, figure, documents * length)
    looked = work(artifact, step, figure, documents)
    return replace(looked, rate=looked.rate / _times(annotator, length))


def _times(annotator: Any, length: float) -> float:
    """How many times as long a model takes for a document of so many bytes as the one whose rate is known."""
    if isinstance(annotator, Perplexity):
        timed, timed_tokens, window = _TIMED_LANGUAGE, 3 * 512, annotator.window
    else:
        assert isinstance(annotator, Pretrained)
        timed, window = _TIMED, annotator.window or _WINDOW
        timed_tokens = (3 if isinstance(annotator, Encoder) else 1) * 512
    layers, width = _shape(_folder(annotator)) or _ASSUMED
    tokens = min(length / BYTES_PER_TOKEN, window * len(annotator.windows))
    # The matrices of a layer hold 12 width² numbers; beside them, attention within a window is little.
    return max(tokens, 1.0) * layers * width**2 / (timed_tokens * timed[0] * timed[1] ** 2)


def notes(recipe: Recipe) -> list[str]:
    """What is assumed of models whose folders are not there, in sentences."""
    return [
        f"The model of annotator {name!r} is no folder of transformers that is there: {_folder(one)}. "
        f"Assuming BERT-base's size, {_ASSUMED[0]} layers of {_ASSUMED[1]}."
        for name, one in recipe.quality.annotators.items()
        if isinstance(one, Pretrained | Perplexity) and _shape(_folder(one)) is None
    ]


def _folder(annotator: Any) -> str:
    return str(annotator.model if isinstance(annotator, Perplexity) else annotator.folder)


def _shape(folder: str) -> tuple[int, int] | None:
    """Layers and width of a model of transformers; None if there is no such folder."""
    from headrace.flow.storage import read_json

    path = Path(folder) / "config.json"
    if not path.is_file():
        return None
    try:
        config: Any = read_json(path)
    except (UserError, OSError, ValueError):
        return None
    sizes = [config.get(name) for name in ("num_hidden_layers", "hidden_size")] if isinstance(config, dict) else []
    whole = [size for size in sizes if isinstance(size, int) and 0 < size < 1 << 20]
    return (whole[0], whole[1]) if len(whole) == 2 else None
