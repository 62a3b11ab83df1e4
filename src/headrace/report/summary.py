"""The summary printed at the end of a run: the same facts as on the page, for a terminal or a log."""

from __future__ import annotations

from dataclasses import asdict
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from headrace.documents.readers.base import lost
from headrace.report.cleaning import cleaned
from headrace.report.facts import RunFacts, SourceFacts, StageFacts, removed_by_reason
from headrace.report.found_counts import cells as count_cells
from headrace.report.numbers import counted, duration, passes, percent, short, size, whole
from headrace.report.samples import Generated
from headrace.visible import one_line, visible

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 100
# Lines of a sample's prompt and of the model's text: there is no room for more.
PROMPT_LINES, TEXT_LINES, SUFFIX_LINES = 2, 4, 1

Row = tuple[str, ...]


def summary_lines(facts: RunFacts, width: int = WIDTH) -> list[str]:
    """Plain lines of at most ``width`` characters."""
    lines = [*corpus_lines(facts.sources, width), *_cleaned(facts, width)]
    lines += [*_counts(facts, width), *departure_lines(facts.departures, width)]
    lines += [*_stages(facts, width), *_losses(facts, width)]
    return [_fit(one_line(line), width) for line in [*lines, *_samples(facts, width), *_end(facts)]]


def summary(facts: RunFacts, width: int = WIDTH) -> str:
    """The summary as plain text."""
    return "\n".join(summary_lines(facts, width))


def renderable(facts: RunFacts, width: int = WIDTH) -> RenderableType:
    """The summary for a rich console: headings in bold, the model's text in color."""
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ellipsis")
    for number, line in enumerate(summary_lines(facts, width)):
        heading = bool(line) and not line.startswith(" ")
        written = line.startswith("    > ")
        text.append(("\n" if number else "") + line, style="bold" if heading else "green" if written else "")
    return text


def to_json(facts: RunFacts) -> dict[str, Any]:
    """The summary as JSON values: totals, stages with ledgers and losses, the report's path."""
    return {
        "run": facts.run,
        "recipe": facts.name,
        "seconds": facts.making,
        "documents": {
            "read": sum(source.read for source in facts.sources),
            "quarantined": sum(source.quarantined for source in facts.sources),
            "empty": sum(source.skipped for source in facts.sources),
            "lost_rows": sum(source.lost_rows for source in facts.sources),
            "lost_bytes": sum(source.lost_bytes for source in facts.sources),
            "kept": facts.kept,
            "removed": facts.removed,
        },
        "sources": {
            s.name: {
                "read": s.read,
                "quarantined": s.quarantined,
                "empty": s.skipped,
                "documents": s.documents,
                "kept": s.kept,
                "removed": s.removed,
                "tokens": s.tokens,
            }
            for s in facts.sources
        },
        "cleaning": {row.name: {"documents": row.documents, "bytes": row.bytes} for row in cleaned(facts.sources)},
        "counts": [asdict(count) for count in facts.counts],
        "departures": facts.departures,
        "stages": {stage.name: _stage_json(stage) for stage in facts.stages},
        "report": facts.report,
    }


def _stage_json(stage: StageFacts) -> dict[str, Any]:
    value: dict[str, Any] = {
        "rows": stage.rows,
        "tokens": stage.tokens,
        "sources": {
            s.name: {"tokens": s.tokens, "slice": s.slice, "epochs": s.epochs, "fim": s.fim} for s in stage.sources
        },
    }
    trained = stage.training
    if trained is not None:
        value["training"] = {
            "steps": trained.steps,
            "tokens": trained.tokens,
            "loss": {"start": trained.first, "end": trained.last},
            "held_out": {
                name: {"start": points[0][1], "end": points[-1][1]}
                for name, points in trained.held_out.items()
                if points
            },
            "infilling": {kind: {"exact": n, "holes": of} for kind, (n, of) in trained.infilling.items()},
            "samples": [{"prompt": s.prompt, "suffix": s.suffix, "text": s.text} for s in trained.samples],
        }
    return value


def _grid(rows: list[Row], width: int) -> list[str]:
    """Rows as aligned columns, the first left-aligned, the others right-aligned.

    Columns that do not fit go below, after the first column again.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    blocks: list[list[int]] = [[]]
    for column in range(1, len(widths)):
        taken = 2 + widths[0] + sum(2 + widths[i] for i in blocks[-1])
        if blocks[-1] and taken + 2 + widths[column] > width:
            blocks.append([])
        blocks[-1].append(column)
    return [
        "  ".join(["", row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in block)]).rstrip()
        for block in blocks
        for row in rows
    ]


def corpus_lines(sources: list[SourceFacts], width: int = WIDTH) -> list[str]:
    """What happened to the records that were read; the parts add up, in total and for each source."""
    read, documents = sum(s.read for s in sources), sum(s.documents for s in sources)
    quarantined, empty = sum(s.quarantined for s in sources), sum(s.skipped for s in sources)
    judged = all(s.kept is not None for s in sources)
    kept = sum(s.kept or 0 for s in sources)
    parts = [f"{whole(documents)} documents"]
    if judged:
        parts = [f"{whole(kept)} kept ({percent(kept, read)})", f"{whole(documents - kept)} removed"]
    parts += [f"{whole(quarantined)} quarantined"] if quarantined else []
    parts += [f"{whole(empty)} empty"] if empty else []
    head = f"Records: {whole(read)} read ({size(sum(s.bytes for s in sources))} of text): "
    lines = _wrapped(head, parts, width)
    if any(s.lost_rows or s.lost_bytes for s in sources):
        gone = lost(sum(s.lost_rows for s in sources), sum(s.lost_bytes for s in sources))
        lines.append(f"  plus {gone} lost in damaged files")
    columns: dict[str, list[int]] = {"read": [s.read for s in sources]}
    columns |= {"kept": [s.kept or 0 for s in sources]} if judged else {"documents": [s.documents for s in sources]}
    columns |= {"quarantined": [s.quarantined for s in sources]} if quarantined else {}
    columns |= {"empty": [s.skipped for s in sources]} if empty else {}
    reasons = list(removed_by_reason(sources)) if judged else []
    shown = reasons if len(reasons) <= 5 else reasons[:4]
    columns |= {reason: [s.removed.get(reason, 0) for s in sources] for reason in shown}
    if shown != reasons:
        columns["other"] = [sum(n for reason, n in s.removed.items() if reason not in shown) for s in sources]
    rows = [("source", *columns)]
    rows += [(s.name, *(whole(values[i]) for values in columns.values())) for i, s in enumerate(sources)]
    return [*lines, *_grid(rows, width)]


def _cleaned(facts: RunFacts, width: int) -> list[str]:
    """Bytes kept and removed of each source; the documents are in the table of records."""
    rows = cleaned(facts.sources)
    if not rows:
        return []
    parts = [part for part in rows[0].bytes if part in ("read", "kept") or any(row.bytes[part] for row in rows)]
    shares = [part for part in parts if part != "read"]
    cells = [("source", *parts, *(f"{part} %" for part in shares))]
    for row in rows:
        share = (percent(row.bytes[part], row.bytes["read"]).removesuffix(" %") for part in shares)
        cells.append((row.name, *(size(row.bytes[part]) for part in parts), *share))
    return ["Bytes of text", *_grid(cells, width)]


def _counts(facts: RunFacts, width: int) -> list[str]:
    """What the recipe expects of each source, and what was found."""
    if not facts.counts:
        return []
    rows = [(f"{source}  {what}".rstrip(), *numbers) for source, what, *numbers in count_cells(facts.counts)]
    return ["Counts that the recipe expects", *_grid(rows, width)]


def departure_lines(departures: list[str], width: int = WIDTH) -> list[str]:
    """Departures from what the recipe expects."""
    if not departures:
        return []
    lines = (wrap(text, width, initial_indent="  ", subsequent_indent="    ") for text in departures)
    return ["Departures from the recipe's expectations", *(line for some in lines for line in some)]


def _stages(facts: RunFacts, width: int) -> list[str]:
    if not facts.stages:
        return []
    rows: list[tuple[str, str, list[str]]] = []
    for stage in facts.stages:
        said: list[str] = []
        for s in stage.sources:
            fim = f", FIM {percent(s.fim, 1)}" if s.fim else ""
            joined = f", {s.groups['files']:,} files in {s.groups['documents']:,} groups" if s.groups else ""
            said.append(f"{s.name} {short(s.tokens)} ({passes(s.epochs, s.slice)}{fim}{joined})")
        rows.append((stage.name, short(stage.tokens), said))
    widths = [max(len(name) for name, _, _ in rows), max(len(tokens) for _, tokens, _ in rows)]
    lines = [f"Tokens: {short(sum(stage.tokens for stage in facts.stages))} in {counted(len(rows), 'stage')}"]
    for name, tokens, said in rows:
        lines += _wrapped(f"  {name.ljust(widths[0])}  {tokens.rjust(widths[1])}  ", said, width)
    return lines


def _wrapped(lead: str, parts: list[str], width: int) -> list[str]:
    """Parts after a heading, in as many lines as needed."""
    lines, line = [], lead
    for i, part in enumerate(parts):
        text = part + (", " if i + 1 < len(parts) else "")
        if len(line) + len(text.rstrip()) > width and line.strip() and len(line) > len(lead):
            lines.append(line.rstrip())
            line = " " * len(lead)
        line += text
    return [*lines, line.rstrip()]


def _losses(facts: RunFacts, width: int) -> list[str]:
    """One column per stage: there are fewer stages than sources."""
    trained = [(stage.name, stage.training) for stage in facts.stages if stage.training is not None]
    if not trained:
        return []
    names = [name for name in facts.names if any(name in t.held_out for _, t in trained)]
    columns: list[list[str]] = []
    for stage, t in trained:
        loss = "–" if t.first is None or t.last is None else f"{t.first:.2f} → {t.last:.2f}"
        held = (t.held_out.get(name, []) for name in names)
        cells = (f"{points[0][1]:.2f} → {points[-1][1]:.2f}" if points else "–" for points in held)
        columns.append([stage, whole(t.steps), loss, *cells])
    labels = ["", "steps", "training", *(f"held-out {name}" for name in names)]
    if any(t.infilling for _, t in trained):
        labels.append("infilled exactly")
        for column, (_, t) in zip(columns, trained, strict=True):
            counts = [sum(pair) for pair in zip(*t.infilling.values(), strict=True)]
            column.append(f"{counts[0]} of {counts[1]}" if counts else "–")
    rows = list(zip(labels, *columns, strict=True))
    return ["Loss in nats per token, start → end of each stage", *_grid(rows, width)]


def _samples(facts: RunFacts, width: int) -> list[str]:
    written = [stage.training.samples for stage in facts.stages if stage.training and stage.training.samples]
    if not written:
        return []
    # The last stage with such a sample represents the run.
    backwards = [sample for samples in reversed(written) for sample in samples]
    plain = next((s for s in backwards if s.suffix is None), None)
    infill = next((s for s in backwards if s.suffix is not None), None)
    lines = []
    for name, sample in (("Sample, continued by the model (>)", plain), ("Sample, infilled by the model (>)", infill)):
        if sample is not None:
            lines += [name, *_sample(sample, width)]
    return lines


def _sample(sample: Generated, width: int) -> list[str]:
    before = [line for line in _visible_lines(sample.prompt) if line.strip()][-PROMPT_LINES:]
    text = [line for line in _visible_lines(sample.text) if line.strip()]
    after = [line for line in _visible_lines(sample.suffix or "") if line.strip()][:SUFFIX_LINES]
    cut = ["    > …"] if len(text) > TEXT_LINES else []
    return [
        *(f"    | {_ending(line, width - 6)}" for line in before),
        *(f"    > {line}" for line in text[:TEXT_LINES] or ["(nothing)"]),
        *cut,
        *(f"    | {line}" for line in after),
    ]


def _ending(line: str, width: int) -> str:
    """The end of a line, where the model continues."""
    return line if len(line) <= width else "…" + line[len(line) - width + 1 :]


def _visible_lines(text: str) -> list[str]:
    """Lines without anything that a terminal would interpret."""
    return visible(text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")).split("\n")


def _end(facts: RunFacts) -> list[str]:
    said = []
    if facts.making is not None:
        said.append(f"Time: {duration(facts.making)} to build all artifacts")
    peak = max((work.peak or 0 for work in facts.work), default=0)
    if peak:
        said.append(f"peak memory per worker: {size(peak)}")
    lines = ["; ".join(said)] if said else []
    if facts.report is not None:
        lines.append(f"Report: {facts.report}")
    return lines


def _fit(line: str, width: int) -> str:
    # A path is worth a longer line: people copy it.
    return line if len(line) <= width or line.startswith("Report: ") else line[: width - 1] + "…"
