"""The work of a run, step by step: an amount of something, at a measured rate per core."""

from __future__ import annotations

from dataclasses import replace
from math import log2

from headrace.planning.annotators import annotation
from headrace.planning.benchmarks import BenchmarkCounts
from headrace.planning.corpus import Corpus
from headrace.planning.counts import BYTES_PER_TOKEN, SourceCounts
from headrace.planning.rates import Work, work
from headrace.planning.stages import StagePlan
from headrace.planning.synthetic import asked
from headrace.recipe.schema import Group, Near, Recipe, Stage

# Formats whose files are parsed as Python.
PARSED = frozenset({"docstrings", "docstring_chat", "pydoc_topics"})
# Bands, and their share of the work, in the runs of `bench.scale` that set the rate of candidates (17.8 of 26.4 s); and
# values of the signatures of datasketch in `bench steps`.
_TIMED_BANDS, _BANDED, _TIMED_VALUES = 9, 0.67, 128
# The search for benchmarks, over that for HumanEval alone, which set its rate: what is read takes half of it, and each
# doubling of the items' text beyond 50 kB three tenths (164 to 4,740 items on 30 MB of code and prose, within 15 %).
# Items that are lines of the corpus itself take twice as long.
_READ_ALONE, _DOUBLED, _UNNOTICED = 0.5, 0.3, 50_000
_SHAPES_TIMED = log2(1 + 5.5e6 / _UNNOTICED)  # of the 20 benchmarks that set the rate of shapes


def row_bytes(documents: int) -> int:
    """Bytes of a row number, as in ``components.row_dtype``, whose module would compile kernels."""
    return 4 if documents <= 1 << 32 else 8


_READING = {"documents": "read, write", "documents-ftfy": "read, fix with ftfy, write", "syntax": "parse Python"}


def _read(recipe: Recipe, sources: tuple[SourceCounts, ...]) -> dict[str, int]:
    """Rate name -> bytes of text to read at that rate."""
    plain = "documents-ftfy" if recipe.documents.normalise == "ftfy" else "documents"
    sizes: dict[str, int] = {}
    for source in sources:
        section = recipe.sources[source.name]
        parsed = any(section.format_of(files) in PARSED for files in section.files)
        figure = "syntax" if parsed else plain
        sizes[figure] = sizes.get(figure, 0) + source.bytes
    return sizes


def selection(corpus: Corpus) -> list[Work]:
    """The work from the sources to the verdicts."""
    recipe, text = corpus.recipe, corpus.text
    out = [work("documents", _READING[figure], figure, size) for figure, size in _read(recipe, corpus.new).items()]
    if recipe.uses_measures:
        out.append(work("measures", "measure", "measures", text))
    near = near_of(recipe)
    if near is not None:
        out.append(_signing("signatures", near, text))
    if corpus.is_first:
        out += _references(corpus, near)
    if recipe.deduplicate is not None or recipe.split.check is not None:
        out.append(_candidates(corpus, near))
        out.append(work("duplicates", "components", "components", corpus.compared, serial=True))
    out += _decontamination(recipe, text, corpus.benchmarks)
    out += annotation(corpus)
    out.append(work("verdicts", "filter", "verdicts", corpus.decided))
    if recipe.deduplicate is not None and recipe.deduplicate.near is not None and recipe.deduplicate.near.verify:
        # Upper bound: as if every document had a candidate.
        every = sum(source.bytes for source in corpus.sources)
        out.append(work("verdicts", "verify (upper bound)", "verify", every))
    return [replace(one, artifact=corpus.node(one.artifact)) for one in out]


def _signing(artifact: str, near: Near, text: int) -> Work:
    """The work of signatures. A hash of datasketch's takes its time for each value, the fast one for each shingle."""
    if near.signature == "fast":
        return work(artifact, "sign (fast)", "signatures", text)
    signed = work(artifact, "sign (datasketch)", "signatures-datasketch", text)
    return replace(signed, rate=signed.rate * _TIMED_VALUES / near.values)


def _references(corpus: Corpus, near: Near | None) -> list[Work]:
    """The work of reading and signing reference documents, once for all that is compared with them."""
    out, figure = [], "documents-ftfy" if corpus.recipe.documents.normalise == "ftfy" else "documents"
    for k, reference in enumerate(corpus.references):
        if not reference.run:
            out.append(work(f"reference-documents-{k}", _READING[figure], figure, reference.bytes))
        if near is not None and reference.signed:
            out.append(_signing(f"reference-signatures-{k}", near, reference.signed))
    return out


def _candidates(corpus: Corpus, near: Near | None) -> Work:
    """The work of finding candidates: most of it is done for each band."""
    found = work("duplicates", "candidates", "candidates", corpus.compared)
    return replace(found, rate=found.rate / (1 - _BANDED + _BANDED * bands(near) / _TIMED_BANDS))


def bands(near: Near | None) -> int:
    """The bands of a signature; 0 if near-duplicates are not searched for."""
    if near is None:
        return 0
    from headrace.select.duplicates.fingerprints import bands_of

    return bands_of(near)[0]


def _decontamination(recipe: Recipe, text: int, benchmarks: BenchmarkCounts) -> list[Work]:
    """The work of the search for benchmarks: the more text they have, the less of it stays in the caches."""
    if recipe.decontaminate is None:
        return []
    doublings = log2(1 + benchmarks.bytes / _UNNOTICED)
    searched = work("contamination", "search", "contamination", text)
    # Each worker makes the index for itself.
    out = [
        work("contamination", "index the items", "contamination-index", benchmarks.bytes, serial=True),
        replace(searched, rate=searched.rate / (_READ_ALONE + _DOUBLED * doublings)),
    ]
    if recipe.decontaminate.shapes is None:
        return out
    shapes = work("contamination", "shapes", "contamination-shapes", text)
    return [*out, replace(shapes, rate=shapes.rate * _SHAPES_TIMED / max(1.0, doublings))]


def writing(recipe: Recipe) -> list[Work]:
    """The work of the servers that write synthetic sources: as many answers at once as the recipe allows."""
    out = []
    for name, config in recipe.synthetic.items():
        one, server = asked(config), config.server
        if server.url is None:
            continue
        at_once = min(server.concurrency, one.requests)
        made = work(f"synthetic-{name}", f"write ({at_once} at once)", "answers", one.output, serial=True)
        out.append(replace(made, rate=made.rate * at_once))
    return out


def near_of(recipe: Recipe) -> Near | None:
    """The near-duplicate settings for signatures; None if there are none."""
    near = recipe.deduplicate.near if recipe.deduplicate is not None else None
    return Near() if near is None and recipe.split.check == "near" else near


def tokenising(recipe: Recipe, sources: tuple[SourceCounts, ...]) -> list[Work]:
    """The work of the tokenizer and the tokens: what is kept, as far as its tokens are known."""
    assert recipe.tokenizer is not None  # the schema requires it if there are stages
    kept = sum(min(source.bytes, source.tokens * BYTES_PER_TOKEN) for source in sources)
    train, keep = recipe.tokenizer.train, recipe.quality.keep
    out = [work("tokenizer", "train", "tokenizer", min(kept, train.sample or kept))] if train is not None else []
    if keep is not None and keep.tokens is not None:
        out.append(work("lengths", "count tokens", "tokens", sum(source.bytes for source in sources)))
    return [*out, work("tokens", "encode", "tokens", kept)] if sources else out


def grouping(recipe: Recipe, sources: tuple[SourceCounts, ...]) -> list[Work]:
    """The work of putting the files of groups in order; of what groups alone take, nobody notices anything."""
    out = []
    for stage in recipe.stages:
        ordered = {name for name, group in recipe.groups(stage).items() if group.order == "dependencies"}
        text = sum(source.bytes for source in sources if source.name in ordered)
        if text and recipe.first_grouped(stage) == stage.name:
            out.append(work(f"groups-{stage.name}", "imports and order", "groups", text))
    return out


def sequence(stage: StagePlan, section: Stage, groups: dict[str, Group]) -> list[Work]:
    """The work of a stage's sequence: tokens are moved; what is rearranged, put in a template or given a header is
    encoded again."""
    name = f"sequence-{stage.name}"
    if section.sequence:
        # Upper bound: rows that are there already are only copied.
        return [work(name, "copy (upper bound)", "sequence", stage.tokens)]
    again = 0.0
    for share in stage.sources:
        fim = section.sources[share.source].fim
        headed = share.source in groups and any(groups[share.source].joined[:2])
        again += share.tokens * (1 if section.chat or headed else fim.rate if fim else 0)
    out = [work(name, "sample, pack, shuffle", "sequence", stage.tokens)]
    what = "chat" if section.chat else "headers, FIM" if groups else "FIM"
    return [*out, work(name, what, "rearranged", again)] if again else out
