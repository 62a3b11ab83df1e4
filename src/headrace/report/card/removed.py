"""The card's part about cleaning: what was removed and why, duplicates, and benchmarks found."""

from __future__ import annotations

from headrace.recipe.schema import Recipe
from headrace.report.card.facts import CardFacts
from headrace.report.card.markdown import code, table, text
from headrace.report.cleaning import cleaned
from headrace.report.facts import Pairs, RunFacts
from headrace.report.numbers import counted, percent, size, whole


def removed(facts: CardFacts) -> list[str]:
    """The sections."""
    return [
        "## What was removed, and why",
        "",
        *_table(facts.run),
        *_reasons(facts),
        *_cleaned(facts.run),
        *_duplicates(facts),
        *_contamination(facts),
    ]


def _table(run: RunFacts) -> list[str]:
    reasons = list(run.removed)
    rows = [
        (
            text(s.name),
            whole(s.documents),
            whole(s.kept or 0),
            percent(s.kept or 0, s.documents),
            *(whole(s.removed.get(reason, 0)) for reason in reasons),
        )
        for s in run.sources
    ]
    kept = run.kept or 0
    rows.append(
        (
            "**all**",
            whole(run.documents),
            whole(kept),
            percent(kept, run.documents),
            *(whole(n) for n in run.removed.values()),
        )
    )
    return [*table(["source", "documents", "kept", "share", *map(text, reasons)], rows), _ONE_REASON, ""]


_ONE_REASON = "A removed document has one reason, the first that applies. `headrace why` shows the evidence for each."


def _reasons(facts: CardFacts) -> list[str]:
    told = [f"- `{text(reason)}`: {_meaning(reason, facts.recipe)}" for reason in facts.run.removed]
    return [*told, ""] if told else ["Nothing was removed.", ""]


_MADE = {
    "truncated": "the model's answer was cut off",
    "parse": "the model's answer does not have the form asked for",
    "unsuitable": "the task is too short, too long, or of a kind that the recipe rules out",
    "tests": "the program that the model wrote fails its tests, or has none that can be run",
    "repeats": "the model's answer ends in a loop",
    "copied": "it repeats too much of the document that inspired it",
    "duplicate": "it equals an earlier answer of the model",
    "similar": "it is too similar to an earlier answer of the model",
}


def _meaning(reason: str, recipe: Recipe) -> str:
    """A reason in words, with the limit that the recipe set."""
    kind, _, name = reason.partition(":")
    if kind == "filter":
        rules = {rule.name: rule.keep for rule in recipe.filters.rules}
        limit = None if recipe.filters.code is None or name in rules else getattr(recipe.filters.code, name, None)
        if name in rules:
            return f"the rule {code(name)} keeps only documents where {code(rules[name])}."
        return f"the filter {code(name)} for source code, with the limit {code(limit)}."
    if kind == "synthetic":
        return f"{_MADE[name]}."
    if kind == "failed":
        return f"the measure {code(name)} failed on it."
    near = recipe.deduplicate.near if recipe.deduplicate is not None else None
    none = recipe.deduplicate is not None and recipe.deduplicate.keep == "none"
    alike = f"{'a' if near is not None and near.verify else 'an estimated'} Jaccard similarity"
    least = None if recipe.filters.short is None else recipe.filters.short.min_characters
    decontaminate = recipe.decontaminate
    meanings = {
        "withdrawn": "withdrawn at the request of its author or owner.",
        "opt_out": "on a list of those who opted out.",
        "license": "its license is not one that the recipe permits.",
        "empty": "no text is left after normalization.",
        "short": f"fewer than {least} characters after cleaning, or the source's own limit.",
        "contaminated": "contains an item of a benchmark, whole or "
        + (f"{percent(decontaminate.overlap, 1)} of its n-grams or more." if decontaminate else "in part."),
        "reference": "a copy of a reference document.",
        "duplicate": (
            "a copy of another document, of which none is kept" if none else "a copy of a document that is kept"
        )
        + (f", exact or with {alike} of {near.threshold:g} or more." if near else "."),
        "holdout": "a copy of a held-out document.",
        "quality": _chosen(recipe),
    }
    return meanings.get(reason, "see the recipe.")


def _chosen(recipe: Recipe) -> str:
    """What is kept by quality."""
    keep = recipe.quality.keep
    if keep is None:
        return "not among the best."
    name = code(recipe.quality.named(keep.annotator))
    if keep.above is not None:
        return f"the annotator {name} gives it a score below {keep.above:g}."
    much = percent(keep.share, 1) + " of the text" if keep.share is not None else f"{whole(keep.tokens or 0)} tokens"
    within = f" within each {keep.by}" if keep.by else ""
    return f"not among the best {much}{within} by the annotator {name}."


def _cleaned(run: RunFacts) -> list[str]:
    rows = cleaned(run.sources)
    if not rows:
        return []
    parts = list(rows[0].documents)
    columns = ["source", *(f"documents {part}" for part in parts), *(f"bytes {part}" for part in parts)]
    cells = []
    for row in rows:
        name = "**all**" if row.name == "all" and row is rows[-1] and len(rows) > 1 else text(row.name)
        counts = (whole(row.documents[part]) for part in parts)
        bytes_ = (
            f"{size(row.bytes[part])}" + ("" if part == "read" else f" ({percent(row.bytes[part], row.bytes['read'])})")
            for part in parts
        )
        cells.append((name, *counts, *bytes_))
    return ["### By source, in documents and bytes of text", "", *table(columns, cells)]


def _duplicates(facts: CardFacts) -> list[str]:
    run = facts.run
    if run.duplicates is None:
        return ["### Duplicates", "", "Duplicates were not searched for.", ""]
    within = sum(n for (a, b), n in run.duplicates.items() if a == b)
    between = sum(n for (a, b), n in run.duplicates.items() if a != b)
    out = [
        "### Duplicates",
        "",
        f"{counted(within, 'document')} removed as copies of one in the same source, {whole(between)} as copies of one "
        "in another source.",
        "",
    ]
    names = [s.name for s in run.sources]
    if within or between:
        out += _matrix(run.duplicates, names, names, "removed from ↓, kept in →")
    if run.holdout:
        out += [
            "Copies of held-out documents:",
            "",
            *_matrix(run.holdout, names, names, "removed from ↓, held out in →"),
        ]
    if run.references:
        others = list(dict.fromkeys(other for _, other in run.references))
        out += ["Copies of reference documents:", "", *_matrix(run.references, names, others, "removed from ↓, like →")]
    return out


def _matrix(pairs: Pairs, rows: list[str], columns: list[str], corner: str) -> list[str]:
    cells = [(text(row), *(whole(pairs.get((row, column), 0)) for column in columns)) for row in rows]
    return table([corner, *map(text, columns)], cells)


def _contamination(facts: CardFacts) -> list[str]:
    config, found = facts.recipe.decontaminate, facts.run.contamination
    if config is None or found is None:
        said = "No benchmark was searched for, so nothing is said about test sets in this data."
        return ["### Benchmarks", "", said, ""]
    names = [s.name for s in facts.run.sources]
    cells = []
    for name in config.benchmarks:
        counts = [found.get((name, source), 0) for source in names]
        fields = ", ".join(code(field) for field in config.parts_of(name))
        cells.append((text(name), fields, *(whole(n) for n in counts), whole(sum(counts))))
    units = "words" if config.unit == "words" else "tokens of code"
    about = (
        f"Documents that contain {percent(config.overlap, 1)} or more of an item's n-grams of {config.ngram} {units}"
    )
    about += ", or a field whole" if config.substring else ""
    if config.shapes is not None:
        about += f", or {percent(config.shapes.overlap, 1)} or more of a program under other names"
    about += ", are removed:"
    heads = ["benchmark", "fields searched", *map(text, names), "removed in all"]
    note = "Documents removed for an earlier reason are not counted here."
    return ["### Benchmarks", "", about, "", *table(heads, cells, 2), note, ""]
