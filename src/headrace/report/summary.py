"""The screenful that a run ends with: the same facts as the page's, for a terminal or a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.documents.readers.base import lost
from headrace.report.facts import Generated, RunFacts, StageFacts
from headrace.report.numbers import counted, duration, passes, percent, short, size, whole
from headrace.visible import one_line, visible

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 100
# Lines of a sample's prompt and of the model's text: the screenful has room for no more.
PROMPT_LINES, TEXT_LINES, SUFFIX_LINES = 2, 4, 1

Row = tuple[str, ...]


def summary_lines(facts: RunFacts) -> list[str]:
    """Plain lines of at most :data:`WIDTH` characters."""
    lines = [*_documents(facts), *_stages(facts), *_losses(facts), *_samples(facts), *_end(facts)]
    return [_fit(one_line(line)) for line in lines]


def summary(facts: RunFacts) -> str:
    """The screenful as plain text."""
    return "\n".join(summary_lines(facts))


def renderable(facts: RunFacts) -> RenderableType:
    """The screenful for a rich console: headings in bold, what the model wrote in colour."""
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ellipsis")
    for number, line in enumerate(summary_lines(facts)):
        heading = bool(line) and not line.startswith(" ")
        written = line.startswith("    > ")
        text.append(("\n" if number else "") + line, style="bold" if heading else "green" if written else "")
    return text


def to_json(facts: RunFacts) -> dict[str, Any]:
    """The screenful for programs: totals, stages with their ledgers and losses, the report's place."""
    return {
        "run": facts.run,
        "recipe": facts.name,
        "seconds": facts.making,
        "documents": {
            "read": facts.documents,
            "quarantined": sum(source.quarantined for source in facts.sources),
            "lost_rows": sum(source.lost_rows for source in facts.sources),
            "lost_bytes": sum(source.lost_bytes for source in facts.sources),
            "kept": facts.kept,
            "removed": facts.removed,
        },
        "sources": {
            s.name: {"documents": s.documents, "kept": s.kept, "removed": s.removed, "tokens": s.tokens}
            for s in facts.sources
        },
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
            "samples": [{"prompt": s.prompt, "suffix": s.suffix, "text": s.text} for s in trained.samples],
        }
    return value


def _grid(rows: list[Row], left: int = 1) -> list[str]:
    """Rows as aligned columns: the first ``left`` to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _documents(facts: RunFacts) -> list[str]:
    quarantined = sum(source.quarantined for source in facts.sources)
    text = size(sum(source.bytes for source in facts.sources))
    head = f"Documents: {whole(facts.documents)} read ({text})"
    if quarantined:
        head += f", {whole(quarantined)} quarantined"
    if any(source.lost_rows or source.lost_bytes for source in facts.sources):
        gone = lost(sum(s.lost_rows for s in facts.sources), sum(s.lost_bytes for s in facts.sources))
        head += f", {gone} lost in damaged files"
    if facts.kept is None:
        return [head, *_grid([(s.name, whole(s.documents)) for s in facts.sources])]
    head += f", {whole(facts.kept)} kept ({percent(facts.kept, facts.documents)})"
    reasons = list(facts.removed)
    shown = reasons if len(reasons) <= 5 else reasons[:4]
    rows = [("source", "read", "kept", *shown, *(["other"] if shown != reasons else []))]
    for source in facts.sources:
        cells = [source.name, whole(source.documents), whole(source.kept or 0)]
        cells += [whole(source.removed.get(reason, 0)) for reason in shown]
        if shown != reasons:
            cells.append(whole(sum(n for reason, n in source.removed.items() if reason not in shown)))
        rows.append(tuple(cells))
    return [head, *_grid(rows)]


def _stages(facts: RunFacts) -> list[str]:
    if not facts.stages:
        return []
    rows: list[tuple[str, str, list[str]]] = []
    for stage in facts.stages:
        said: list[str] = []
        for s in stage.sources:
            fim = f", FIM {percent(s.fim, 1)}" if s.fim else ""
            said.append(f"{s.name} {short(s.tokens)} ({passes(s.epochs, s.slice)}{fim})")
        rows.append((stage.name, short(stage.tokens), said))
    widths = [max(len(name) for name, _, _ in rows), max(len(tokens) for _, tokens, _ in rows)]
    lines = [f"Tokens: {short(sum(stage.tokens for stage in facts.stages))} in {counted(len(rows), 'stage')}"]
    for name, tokens, said in rows:
        lines += _wrapped(f"  {name.ljust(widths[0])}  {tokens.rjust(widths[1])}  ", said)
    return lines


def _wrapped(lead: str, parts: list[str]) -> list[str]:
    """Parts after a lead, in as many lines as they need."""
    lines, line = [], lead
    for i, part in enumerate(parts):
        text = part + (", " if i + 1 < len(parts) else "")
        if len(line) + len(text.rstrip()) > WIDTH and line.strip() and len(line) > len(lead):
            lines.append(line.rstrip())
            line = " " * len(lead)
        line += text
    return [*lines, line.rstrip()]


def _losses(facts: RunFacts) -> list[str]:
    trained = [(stage.name, stage.training) for stage in facts.stages if stage.training is not None]
    if not trained:
        return []
    names = [s.name for s in facts.sources if any(s.name in t.held_out for _, t in trained)]
    rows: list[Row] = [("", "steps", "training", *names)]
    for stage, t in trained:
        loss = "–" if t.first is None or t.last is None else f"{t.first:.2f} → {t.last:.2f}"
        held = (t.held_out.get(name, []) for name in names)
        cells = (f"{points[0][1]:.2f} → {points[-1][1]:.2f}" if points else "–" for points in held)
        rows.append((stage, whole(t.steps), loss, *cells))
    head = "Loss at the start → end of each stage, nats per token" + (": training, held-out by source" if names else "")
    return [head, *_grid(rows)]


def _samples(facts: RunFacts) -> list[str]:
    written = [stage.training.samples for stage in facts.stages if stage.training and stage.training.samples]
    if not written:
        return []
    # The last stage that wrote such a sample speaks for the run.
    backwards = [sample for samples in reversed(written) for sample in samples]
    plain = next((s for s in backwards if s.suffix is None), None)
    infill = next((s for s in backwards if s.suffix is not None), None)
    lines = []
    for name, sample in (("Sample, continued by the model (>)", plain), ("Sample, infilled by the model (>)", infill)):
        if sample is not None:
            lines += [name, *_sample(sample)]
    return lines


def _sample(sample: Generated) -> list[str]:
    before = [line for line in _visible_lines(sample.prompt) if line.strip()][-PROMPT_LINES:]
    text = [line for line in _visible_lines(sample.text) if line.strip()]
    after = [line for line in _visible_lines(sample.suffix or "") if line.strip()][:SUFFIX_LINES]
    cut = ["    > …"] if len(text) > TEXT_LINES else []
    return [
        *(f"    | {_ending(line, WIDTH - 6)}" for line in before),
        *(f"    > {line}" for line in text[:TEXT_LINES] or ["(nothing)"]),
        *cut,
        *(f"    | {line}" for line in after),
    ]


def _ending(line: str, width: int) -> str:
    """The end of a line: it is where the model goes on."""
    return line if len(line) <= width else "…" + line[len(line) - width + 1 :]


def _visible_lines(text: str) -> list[str]:
    """Lines without anything that a terminal would obey."""
    return visible(text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")).split("\n")


def _end(facts: RunFacts) -> list[str]:
    said = []
    if facts.making is not None:
        said.append(f"Time: {duration(facts.making)} to make all artifacts")
    peak = max((work.peak or 0 for work in facts.work), default=0)
    if peak:
        said.append(f"peak memory of a worker: {size(peak)}")
    lines = ["; ".join(said)] if said else []
    if facts.report is not None:
        lines.append(f"Report: {facts.report}")
    return lines


def _fit(line: str) -> str:
    # A path is worth a longer line: it is there to be copied.
    return line if len(line) <= WIDTH or line.startswith("Report: ") else line[: WIDTH - 1] + "…"
