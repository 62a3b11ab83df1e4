"""The data card: Markdown with the front matter that hubs read.

It has no times, paths of the machine or texts of documents, so it is the same for equal runs, and can be published.
"""

from __future__ import annotations

from typing import Any

import yaml

from headrace import __version__
from headrace.documents.readers.base import lost
from headrace.recipe.load import dump
from headrace.recipe.schema import Recipe
from headrace.report.card.facts import CardFacts
from headrace.report.card.licences import hub_licences, licences, not_claimed
from headrace.report.card.markdown import code, fenced, table, text
from headrace.report.card.removed import removed
from headrace.report.charts.split import split_chart
from headrace.report.numbers import counted, passes, percent, short, size, whole
from headrace.report.sections.stages import token_split

CHART = "token_split.svg"
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
         (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B"),
         (10**12, "100B<n<1T"))  # fmt: skip


def front(facts: CardFacts) -> dict[str, Any]:
    """The front matter: licenses, name, size, what it is for."""
    kept = facts.run.kept or 0
    return {
        "license": hub_licences(facts) or ["unknown"],
        "pretty_name": facts.run.name,
        "size_categories": [next((name for most, name in SIZES if kept < most), "n>1T")],
        "task_categories": ["text-generation"],
        "tags": ["headrace"],
    }


def card(facts: CardFacts, data: str = "", chart: str | None = CHART, head: dict[str, Any] | None = None) -> str:
    """The whole card.

    Args:
        facts: about the run.
        data: Markdown about the files that the card lies beside, if there are any.
        chart: the name of the chart's file beside the card, None if there is none.
        head: what else the front matter has.
    """
    said = yaml.safe_dump({**front(facts), **(head or {})}, sort_keys=False, allow_unicode=True)
    lines = [
        f"# {text(facts.run.name)}",
        "",
        _lead(facts),
        "",
        *([data.strip("\n"), ""] if data else []),
        *_went_in(facts),
        *removed(facts),
        *stages(facts, chart),
        *licences(facts),
        *not_claimed(facts),
        *digests(facts),
        *again(facts),
    ]
    return f"---\n{said}---\n\n" + "\n".join(lines).rstrip("\n") + "\n"


def chart(facts: CardFacts) -> str | None:
    """The split chart as an SVG file; None without stages."""
    return split_chart(token_split(facts.run), facts.run.names).file("split") if facts.run.stages else None


def _lead(facts: CardFacts) -> str:
    run = facts.run
    sources = counted(len(run.sources), "source")
    parts = [f"{counted(run.kept or 0, 'document')} kept of {whole(run.documents)} from {sources}"]
    if run.stages:
        parts.append(f"{short(sum(s.tokens for s in run.stages))} tokens in {counted(len(run.stages), 'stage')}")
    return "; ".join(parts) + ". Every figure was counted in the run."


def _went_in(facts: CardFacts) -> list[str]:
    run, rows = facts.run, []
    for s in run.sources:
        section = facts.recipe.sources[s.name]
        files = ", ".join(code(one.glob) for one in section.files[:5])
        files += f" and {len(section.files) - 5} more" if len(section.files) > 5 else ""
        if (made := facts.recipe.synthetic.get(s.name)) is not None:
            files = f"written by {code(made.server.model)} ({code(made.method)})"
        rows.append(
            (
                text(s.name),
                files,
                text(section.language or "by document"),
                text(section.license) if section.license else "by document",
                whole(s.documents),
                size(s.bytes),
                whole(s.quarantined),
                whole(s.skipped),
                lost(s.lost_rows, s.lost_bytes),
            )
        )
    columns = ["source", "files", "language", "license declared", "documents", "text", "quarantined", "empty", "lost"]
    note = (
        "Quarantined: records that could not be read. Empty: records without text. Lost: what damaged files promised "
    )
    note += "but did not deliver. None of these are in the data."
    return ["## What went in", "", *table(columns, rows, 4), note, ""]


def stages(facts: CardFacts, chart: str | None) -> list[str]:
    """The ledger: tokens by stage and source, by language, by license."""
    run = facts.run
    if not run.stages:
        return []
    out = ["## Tokens by stage", ""]
    if chart:
        out += [f"![Tokens by stage and source]({chart})", ""]
    rows: list[tuple[object, ...]] = []
    for stage in run.stages:
        total = sum(s.tokens for s in stage.sources)
        for i, s in enumerate(stage.sources):
            rows.append(
                (
                    text(stage.name) if not i else "",
                    text(s.name),
                    whole(s.tokens),
                    percent(s.tokens, total),
                    passes(s.epochs, s.slice),
                    whole(s.documents),
                    percent(s.fim, 1) if s.fim else None,
                    whole(s.loss_tokens),
                )
            )
    columns = ["stage", "source", "tokens", "share", "passes", "documents", "rearranged for infilling", "with loss"]
    out += table(columns, rows, 2)
    about = [
        (text(s.name), whole(s.rows), whole(s.sequence_length), whole(s.tokens), whole(s.padding)) for s in run.stages
    ]
    out += table(["stage", "rows", "targets in a row", "targets", "padding"], about)
    for name, of in (("language", "Language"), ("license", "License")):
        out += _uses(facts, name, of)
    return out


def _uses(facts: CardFacts, column: str, title: str) -> list[str]:
    """Tokens in each stage by a column, whatever the source."""
    stages = [stage.name for stage in facts.run.stages]
    totals: dict[str, tuple[int, dict[str, int]]] = {}
    for use in facts.uses:
        name = getattr(use, column)
        documents, tokens = totals.get(name, (0, {}))
        added = {stage: tokens.get(stage, 0) + use.tokens.get(stage, 0) for stage in stages}
        totals[name] = documents + use.documents, added
    ordered = sorted(totals.items(), key=lambda item: (-sum(item[1][1].values()), item[0]))
    rows = [
        (text(name) if name else "not known", whole(documents), *(whole(tokens[stage]) for stage in stages))
        for name, (documents, tokens) in ordered[:100]
    ]
    if left := [totals for _, totals in ordered[100:]]:
        sums = (whole(sum(tokens[stage] for _, tokens in left)) for stage in stages)
        rows.append((f"{whole(len(left))} more", whole(sum(n for n, _ in left)), *sums))
    heads = [title.casefold(), "documents", *(f"tokens in {text(stage)}" for stage in stages)]
    return [f"### By {title.casefold()}", "", *table(heads, rows)] if rows else []


def digests(facts: CardFacts) -> list[str]:
    """The digests of what the data was made from and into."""
    rows = [(code(name), code(digest)) for name, digest in facts.digests.items()]
    about = "An artifact's digest covers its manifest, which holds the digest (XXH3, 128 bits) of each of its files. "
    about += "`headrace digest RUN` prints these, and `headrace verify RUN` checks every file against them."
    return ["## Digests", "", *table(["artifact", "digest"], rows, 2), about, ""]


def again(facts: CardFacts) -> list[str]:
    """How to make it again, with the recipe."""
    versions = sorted({e.versions["headrace"] for e in facts.run.environments if "headrace" in e.versions})
    install = versions[-1] if versions else __version__
    made = f"Made with headrace {' and '.join(versions) or __version__}. "
    made += "Save the recipe below as `recipe.yaml`, with the paths of its files as they are on your machine, and run:"
    commands = f"pip install headrace=={install}\nheadrace run recipe.yaml --out RUN\nheadrace digest RUN\n"
    same = "The same files and recipe give the same digests, on any machine and with any number of workers."
    more = [f"It also needs {lists}."] if (lists := _lists(facts.recipe)) else []
    return [
        "## How to make it again",
        "",
        made,
        "",
        *fenced(commands, "sh"),
        " ".join([same, *more]),
        "",
        "<details><summary>Recipe</summary>",
        "",
        *fenced(dump(facts.recipe), "yaml"),
        "</details>",
        "",
    ]


def _lists(recipe: Recipe) -> str:
    """What the recipe reads besides the sources."""
    needed = ["the lists of those who opted out"] if recipe.opt_out else []
    if recipe.decontaminate is not None:
        needed.append("the benchmarks' files")
    if recipe.against:
        needed.append("the reference documents")
    if recipe.tokenizer is not None and recipe.tokenizer.file is not None:
        needed.append("the tokenizer's file")
    return ", ".join(needed)
